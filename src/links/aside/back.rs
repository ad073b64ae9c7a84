//! How messages that were set aside go back: into the logs, behind what waits there, each once whenever the process dies.
//!
//! A message that goes back is noted in the file with the sequence that it will have before the log has it. So a
//! message is in one place whenever the process dies.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tracing::{info, warn};

use super::{Aside, Entry, IN_LOG, Place};
use crate::bridge::connection_of;
use crate::config::bridge::BridgeSettings;
use crate::disk::{Spool, State};
use crate::executor::sleep;
use crate::links::line::Line;
use crate::links::record::Record;
use crate::links::{Bridge, Hub};
use crate::printable::counted;

/// How often it is looked whether messages shall go back.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const FAILED_PAUSE: Duration = Duration::from_secs(60);

/// A log goes on with a sequence further away than this after a reboot.
const JUMP: u64 = 1 << 30;

/// Messages that go into a log together.
const RUN_COUNT_MAX: usize = 256;
const RUN_SIZE_MAX: usize = 64 << 10;

/// Opens the file of a bridge: a message that is in it and in a log, too, because the process died in between, is over in the log.
pub(crate) async fn open(settings: &BridgeSettings, lines: &[Rc<Line>], folder: &Path) -> Aside {
    let mut waiting: Vec<(Place, Vec<u8>)> = Vec::new();
    let spool_of = |place: Place| {
        let line = lines.get(usize::from(place.connection));
        line.and_then(|line| line.outbound.spool())
    };
    let aside = Aside::open(folder, settings.aside_bytes_max, |entry| {
        let spool = spool_of(entry.place);
        if entry.taken.is_none()
            && spool.is_some_and(|spool| spool.state(entry.place.sequence) == Some(State::Waiting))
        {
            waiting.push((entry.place, entry.record.clone()));
        }
        // Without a log it was in memory, and went with the process.
        entry
            .taken
            .is_some_and(|taken| spool_of(taken).is_none_or(|spool| has_had(spool, taken.sequence)))
    });
    for (place, record) in waiting {
        let Some(spool) = spool_of(place) else { continue };
        // Another log may have begun with the same sequences.
        let is_same = |bytes: &[u8]| bytes == record;
        match spool.read(place.sequence, 1, 1).await {
            Ok(chunk) => {
                if chunk.iter().any(|(found, bytes)| found == place.sequence && is_same(bytes)) {
                    spool.done(place.sequence);
                }
            }
            Err(error) => warn!("bridge {}: {error}", settings.name),
        }
    }
    aside
}

/// Whether a log has a message that it was to get, or had it.
fn has_had(spool: &Spool, sequence: u64) -> bool {
    let next = spool.next_sequence();
    // Behind a jump nobody knows what was there. It was not committed then, as a rule.
    sequence < next && (next - sequence < JUMP || spool.state(sequence).is_some())
}

/// Takes messages back whenever somebody wants it, as long as the process lives.
pub(crate) async fn run(hub: Rc<Hub>, bridge: usize) {
    let bridge = &hub.bridges[bridge];
    let name = &bridge.settings.name;
    loop {
        if bridge.aside.has_again() {
            match bring_back(bridge).await {
                Ok(count) => info!(
                    "bridge {name}: {} that were set aside go to the remote again",
                    counted(count, "messages")
                ),
                Err(error) => {
                    warn!("bridge {name}: the file of what was set aside: {error}; tried again");
                    sleep(FAILED_PAUSE).await;
                }
            }
        }
        sleep(LOOK_INTERVAL).await;
    }
}

async fn bring_back(bridge: &Bridge) -> io::Result<u64> {
    let mut count = 0;
    let mut next = Some(0);
    while let Some(from) = next {
        let (entries, more) = bridge.aside.again(from).await?;
        let is_back = |entry: &Entry| {
            entry.taken == Some(IN_LOG) || bridge.aside.unnoted.borrow().contains(&entry.offset)
        };
        let entries: Vec<Entry> = entries.into_iter().filter(|entry| !is_back(entry)).collect();
        let mut rest = entries.as_slice();
        while let Some(first) = rest.first() {
            let line = bridge.line_of(first);
            let run = rest.iter().take(RUN_COUNT_MAX).scan(0, |size, entry| {
                let is_first = *size == 0;
                *size += entry.record.len();
                let belongs = Rc::ptr_eq(bridge.line_of(entry), line);
                (belongs && (is_first || *size <= RUN_SIZE_MAX)).then_some(())
            });
            let (run, behind) = rest.split_at(run.count());
            count += line.bring_back(&bridge.aside, run).await?;
            rest = behind;
        }
        next = more;
    }
    bridge.aside.forget_again().await?;
    Ok(count)
}

impl Bridge {
    /// The connection that a message takes, by its topic.
    fn line_of(&self, entry: &Entry) -> &Rc<Line> {
        let topic = Record::decode(&entry.record).map_or("", |record| record.topic);
        &self.lines[usize::from(connection_of(topic, self.settings.connections))]
    }
}

impl Line {
    /// How many went back.
    async fn bring_back(&self, aside: &Aside, mut entries: &[Entry]) -> io::Result<u64> {
        let mut count = 0;
        while !entries.is_empty() {
            let records: Vec<&[u8]> = entries.iter().map(|entry| &entry.record[..]).collect();
            let note = async |sequence, count| {
                let connection = self.index;
                aside.note_taken(&entries[..count], Place { connection, sequence }).await
            };
            let taken = self.outbound.bring_back(&records, note).await?;
            if taken == 0 {
                sleep(LOOK_INTERVAL).await;
            }
            let offsets = entries[..taken].iter().map(|entry| entry.offset);
            aside.unnoted.borrow_mut().extend(offsets.clone());
            self.outbound.settle().await;
            aside.note_taken(&entries[..taken], IN_LOG).await?;
            offsets.for_each(|offset| assert!(aside.unnoted.borrow_mut().remove(&offset)));
            count += taken as u64;
            entries = &entries[taken..];
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kept, Why, paths};
    use super::*;
    use crate::bridge::Echo;
    use crate::codec::{QoS, ReasonCode};
    use crate::disk::SpoolSettings;
    use crate::disk::tests::settings;
    use crate::executor::each_io::{for_each_io, run};
    use crate::links::outbound::{Origin, Outbound};
    use crate::links::returns::Drops;
    use crate::system::folder::Folder;
    use futures_lite::future::poll_once;
    use std::fs;

    const COUNT: u64 = 6;

    fn record(number: u64) -> Vec<u8> {
        let record = Record {
            qos: QoS::ExactlyOnce,
            retain: false,
            from_bridge: false,
            expires_at_ms: None,
            topic: "t",
            local_topic: "t",
            properties: &[],
            trail: &[],
            payload: &number.to_le_bytes(),
        };
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        bytes
    }

    fn number(record: &[u8]) -> u64 {
        let payload = Record::decode(record).unwrap().payload;
        u64::from_le_bytes(payload.try_into().unwrap())
    }

    /// What a process that starts has.
    async fn start(folder: &Path) -> Bridge {
        let bridge = BridgeSettings::new("north");
        let log = SpoolSettings { bytes_max: 4 << 20, messages_max: 10_000, ..settings() };
        let spool = Spool::open(&folder.join("0"), log).await.unwrap();
        let outbound = Outbound::new(&bridge, Some(spool), 1, Rc::default());
        let lines = vec![Rc::new(Line::new(0, 0, &bridge, Rc::new(outbound)).unwrap())];
        let aside = open(&bridge, &lines, folder).await;
        let echo: Option<std::cell::RefCell<Echo>> = None;
        Bridge {
            id: 0,
            settings: bridge,
            lines,
            echo,
            echoes: Drops::default(),
            loops: Drops::default(),
            paths_too_long: Drops::default(),
            aside,
        }
    }

    async fn in_log(bridge: &Bridge) -> Vec<(u64, u64)> {
        let spool = bridge.lines[0].outbound.spool().unwrap();
        let (mut found, mut from) = (Vec::new(), spool.floor());
        loop {
            let chunk = spool.read(from, 1 << 20, 1000).await.unwrap();
            let Some((last, _)) = chunk.iter().last() else { return found };
            found.extend(chunk.iter().map(|(sequence, bytes)| (sequence, number(bytes))));
            from = last + 1;
        }
    }

    /// A sequence that was noted of a message which does not get it is another's.
    #[test]
    fn no_more_messages_are_noted_than_go_into_the_log_together() {
        for_each_io(|io| {
            let folder = Folder::new("aside-small");
            let path = folder.path.clone();
            run(io, async move {
                let spool = Spool::open(&path.join("0"), settings()).await.unwrap();
                let mut bridge = BridgeSettings::new("north");
                bridge.spool_bytes_max = 64 << 10;
                let outbound = Outbound::new(&bridge, Some(spool), 1, Rc::default());
                for (size, expected) in [(8 << 10, 1), (100, 3)] {
                    let record = vec![7; size];
                    let records = [&record[..]; 3];
                    let next = outbound.spool().unwrap().next_sequence();
                    let noted = std::cell::Cell::new(None);
                    let note = async |sequence, count| {
                        noted.set(Some((sequence, count)));
                        Ok(())
                    };
                    let taken = outbound.bring_back(&records, note).await.unwrap();
                    assert_eq!((taken, noted.get()), (expected, Some((next, expected))));
                }
            });
        });
    }

    #[test]
    fn a_message_that_was_set_aside_as_the_process_died_is_in_one_place() {
        for_each_io(|io| {
            let folder = Folder::new("aside-twice");
            let path = folder.path.clone();
            run(io, async move {
                let bridge = start(&path).await;
                let line = &bridge.lines[0];
                for number in 1..=3 {
                    let origin = Origin { shard: 0, generation: crate::arena::Generation::NONE };
                    line.outbound.store(origin, record(number));
                }
                line.outbound.settle().await;
                let logged = in_log(&bridge).await;
                let why = Why::Refused(ReasonCode::QuotaExceeded);
                for (sequence, bytes) in [(logged[1].0, record(2)), (logged[0].0, record(9))] {
                    let place = Place { connection: 0, sequence };
                    let kept = bridge.aside.put(1, place, why, &bytes).await.unwrap();
                    assert_eq!(kept, Kept::Yes);
                }
                // It dies before its log hears of the second message. The other one is of a log that was removed since.
                drop(bridge);
                let numbers = in_log(&start(&path).await).await;
                assert_eq!(numbers.iter().map(|(_, number)| *number).collect::<Vec<_>>(), [1, 3]);
            });
        });
    }

    #[test]
    fn what_goes_back_goes_once_whenever_the_process_dies() {
        for_each_io(|io| {
            let folder = Folder::new("aside-again");
            let path = folder.path.clone();
            run(io, async move {
                let mut interrupted = 0;
                for polls in 0..25 {
                    interrupted +=
                        u32::from(check_death(&path.join(polls.to_string()), polls).await);
                }
                assert!(interrupted > 3, "{interrupted}");
            });
        });
    }

    /// Dies after some steps. Whether that was before its end.
    async fn check_death(folder: &Path, polls: u32) -> bool {
        let bridge = start(folder).await;
        for number in 0..COUNT {
            let place = Place { connection: 0, sequence: 1 << 40 };
            bridge.aside.put(1, place, Why::Closed, &record(number)).await.unwrap();
        }
        let (path, again) = paths(folder);
        fs::rename(path, &again).unwrap();
        let mut back = Box::pin(bring_back(&bridge));
        let mut is_over = false;
        for _ in 0..polls {
            is_over |= poll_once(&mut back).await.is_some();
            if is_over {
                break;
            }
            sleep(Duration::from_micros(300)).await;
        }
        drop(back);
        drop(bridge);
        // What the log has goes to the remote, and is forgotten.
        let bridge = start(folder).await;
        let mut delivered = Vec::new();
        for (sequence, number) in in_log(&bridge).await {
            bridge.lines[0].outbound.spool().unwrap().done(sequence);
            delivered.push(number);
        }
        bridge.lines[0].outbound.settle().await;
        drop(bridge);
        let bridge = start(folder).await;
        if bridge.aside.has_again() {
            bring_back(&bridge).await.unwrap();
        }
        assert!(!bridge.aside.has_again());
        delivered.extend(in_log(&bridge).await.iter().map(|(_, number)| *number));
        assert_eq!(delivered, (0..COUNT).collect::<Vec<_>>(), "after {polls} steps");
        !is_over
    }
}
