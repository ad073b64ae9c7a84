//! The last line of the log: what ended with the process.

use std::sync::Arc;

use tracing::{info, warn};

use crate::printable::{Quoted, counted};
use crate::shard::Remainder;
use crate::shell::watch::Report;

/// Says what no client and no remote has acknowledged; `bridges` counts what the bridges had in memory alone.
pub(super) fn tell(reports: &[Arc<Report>], bridges: u64) {
    let shards: Vec<Option<Remainder>> = reports.iter().map(|report| report.remainder()).collect();
    let (line, is_loss) = line(&shards, bridges);
    if is_loss {
        warn!("{line}");
    } else {
        info!("{line}");
    }
}

/// The line, and whether it speaks of messages that somebody who was connected did not get.
fn line(shards: &[Option<Remainder>], bridges: u64) -> (String, bool) {
    let mut sum = Remainder::default();
    for shard in shards.iter().flatten() {
        sum.unacknowledged += shard.unacknowledged;
        sum.clients += shard.clients;
        sum.names.extend(shard.names.iter().take(3usize.saturating_sub(sum.names.len())).cloned());
        sum.away += shard.away;
        sum.shared += shard.shared;
    }
    let mut line = format!("stopped; {}", counted(sum.unacknowledged, "messages"));
    line.push_str(" of QoS 1 and 2 not acknowledged by clients that were connected");
    if sum.clients > 0 {
        let names: Vec<String> = sum.names.iter().map(|name| Quoted(name).to_string()).collect();
        let more = if sum.clients as usize > names.len() { " and others" } else { "" };
        line.push_str(&format!(" ({}: {}{more})", sum.clients, names.join(", ")));
    }
    let others = [
        (sum.shared, "in shared subscriptions that no member was left of"),
        (bridges, "of bridges that no log has and no remote has acknowledged"),
        (sum.away, "for clients that were away"),
    ];
    for (count, what) in others.into_iter().filter(|(count, _)| *count > 0) {
        line.push_str(&format!(", {} {what}", counted(count, "messages")));
    }
    let silent_count = shards.iter().filter(|shard| shard.is_none()).count();
    if silent_count > 0 {
        line.push_str(&format!("; {silent_count} of {} shards did not say", shards.len()));
    }
    let is_loss = sum.unacknowledged + sum.shared + bridges > 0 || silent_count > 0;
    (line, is_loss)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts_what_ends_and_names_some_whom_it_concerns() {
        let none = Some(Remainder::default());
        let quiet =
            "stopped; 0 messages of QoS 1 and 2 not acknowledged by clients that were connected";
        assert_eq!(line(&[none.clone(), none.clone()], 0), (quiet.to_owned(), false));
        let names = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
        let one = Remainder {
            unacknowledged: 1,
            clients: 2,
            names: names(&["a\nb", "c"]),
            away: 5,
            ..Remainder::default()
        };
        let other =
            Remainder { unacknowledged: 2, clients: 2, names: names(&["d", "e"]), ..one.clone() };
        let (line, is_loss) = line(&[Some(one), Some(other), None], 1);
        assert!(is_loss);
        assert_eq!(
            line,
            "stopped; 3 messages of QoS 1 and 2 not acknowledged by clients that were connected (4: 'a\\nb', 'c', 'd' and \
             others), 1 message of bridges that no log has and no remote has acknowledged, 10 messages for clients that were \
             away; 1 of 3 shards did not say"
        );
    }
}
