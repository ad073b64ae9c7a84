//! `ringmq aside`: shows what a bridge has set aside, and marks it to be sent again.

use std::fmt::Write;
use std::fs::{self, File};
use std::io::{BufReader, ErrorKind};
use std::path::Path;

use super::{End, Entries, paths};
use crate::links::record::Record;
use crate::links::unix_ms;
use crate::printable::{Quoted, counted};

/// What there is to print of the file in a bridge's folder; an error is a sentence for the operator.
pub(crate) fn run(folder: &Path, is_to_send: bool) -> Result<String, String> {
    let (path, again) = paths(folder);
    let mut text = String::new();
    if again.exists() {
        let sentence = "Messages are on their way back already; a broker that runs takes them.";
        if is_to_send {
            return Err(format!("{sentence} Try again when {} is gone", again.display()));
        }
        text = format!("{sentence}\n");
    }
    let failed = |what: &str, error| format!("cannot {what} {}: {error}", path.display());
    let file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(text + "No message is set aside.\n");
        }
        file => file.map_err(|error| failed("open", error))?,
    };
    let entries = Entries::begin(BufReader::new(file)).map_err(|error| failed("read", error))?;
    let count = counted(list(entries, &mut text), "messages");
    if !is_to_send {
        let _ = writeln!(text, "{count} in {}; --send sends again.", path.display());
        return Ok(text);
    }
    fs::rename(&path, &again).map_err(|error| failed("rename", error))?;
    let _ = writeln!(text, "{count} to be sent again, behind what waits in the bridge's log.");
    Ok(text)
}

fn list(mut entries: Entries<BufReader<File>>, text: &mut String) -> u64 {
    let mut count = 0;
    for entry in entries.by_ref() {
        count += 1;
        let Some(record) = Record::decode(&entry.record) else { continue };
        let minutes = unix_ms().saturating_sub(entry.time_ms) / 60_000;
        let (qos, size, topic) = (record.qos as u8, record.payload.len(), Quoted(record.topic));
        let why = entry.why;
        let _ = writeln!(text, "{minutes} min ago, QoS {qos}, {size} bytes to {topic}: {why}");
    }
    if entries.skipped > 0 {
        let _ = writeln!(text, "{} cannot be read.", counted(entries.skipped, "messages"));
    }
    if entries.end == End::Damaged {
        let _ = writeln!(text, "From byte {} on the file is damaged.", entries.good_offset);
    }
    count
}
