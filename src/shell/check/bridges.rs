//! Bridges: whether the shards have room for what the remotes may send.

use super::Finding;
use crate::config::{BridgeSettings, Settings};
use crate::limits::{Limits, Size, TEXT_SIZE_CEILING};

/// A finding for each bridge whose remote may send more than an arena takes.
pub fn check(settings: &Settings) -> Vec<Finding> {
    settings.bridges.iter().filter_map(|bridge| judge(bridge, &settings.limits)).collect()
}

fn judge(bridge: &BridgeSettings, limits: &Limits) -> Option<Finding> {
    let (asked, room) = (bridge.packet_size_max, limits.bridge_packet_size_max());
    if asked <= room {
        return None;
    }
    let place = match bridge.file.as_str() {
        "" => String::new(),
        file => format!("{file}, line {}: ", bridge.line),
    };
    let what = format!(
        "{place}bridge {}: packet_size_max ({}) is more than arena_size ({}) has room for: the bridge announces {} to its \
         remote and refuses what is larger",
        bridge.name,
        Size(asked as u64),
        Size(limits.arena_size as u64),
        Size(room as u64)
    );
    let needed = Size((asked + TEXT_SIZE_CEILING).next_multiple_of(1 << 10) as u64);
    let remedy = format!(
        "raise arena_size to {needed}, or lower the bridge's packet_size_max to {}",
        Size(room as u64)
    );
    Some(Finding::warn("bridges", what, remedy))
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_bridge_that_may_bring_more_than_the_arena_takes_is_a_warning() {
        let limits = Limits::DEFAULT;
        let room = limits.bridge_packet_size_max();
        let bridge = |packet_size_max| BridgeSettings {
            packet_size_max,
            file: "here.toml".to_owned(),
            line: 7,
            ..BridgeSettings::new("north")
        };
        assert_eq!(judge(&bridge(room), &limits), None);
        let finding = judge(&bridge(room + 1), &limits).expect("a warning");
        assert_eq!(finding.level, Level::Warn);
        for words in ["here.toml, line 7", "bridge north", "packet_size_max", "arena_size (16MiB)"]
        {
            assert!(finding.what.contains(words), "{finding:?}");
        }
        let wider = Limits { arena_size: 17 << 20, ..limits };
        assert!(finding.remedy.contains("raise arena_size to 16385KiB"), "{finding:?}");
        assert_eq!(judge(&bridge(room + 1), &wider), None);
    }
}
