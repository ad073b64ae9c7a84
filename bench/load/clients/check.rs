//! Verifies what `ringmq-bench pub` has sent: checksum, sequence and time of each message that a client gets.

use std::collections::HashMap;
use std::ops::Range;

use super::counts::{Counts, LocalTimes, add};
use crate::message::{self, LONG_HEAD_SIZE, Stamp};

/// Sequences count to here; above it the run, and above that the mark of a sequence that is none.
const RUN_SHIFT: u32 = 40;
/// The publisher's topic changes from one message to the next: nobody need get them all.
const UNORDERED: u64 = 1 << 63;

/// Publishers that a thread's clients follow: 64 bytes each.
const STREAM_COUNT_MAX: usize = 500_000;
/// Gaps of a publisher that may still be filled.
const GAP_COUNT_MAX: usize = 64;

/// Times below are of no wall clock: other scenarios count from their begin.
const WALL_NS_MIN: u64 = 1_000_000_000_000_000_000;

/// The stamp of a message. `run` has 23 bits.
pub(super) fn stamp(
    publisher: u32,
    run: u64,
    sequence: u64,
    is_ordered: bool,
    due_ns: u64,
) -> Stamp {
    let order = if is_ordered { 0 } else { UNORDERED };
    let sequence = order | run << RUN_SHIFT | sequence & ((1 << RUN_SHIFT) - 1);
    Stamp { publisher, sequence, due_ns }
}

/// The messages of one publisher to one client.
#[derive(Debug)]
struct Stream {
    next: u64,
    gaps: Vec<Range<u64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    client: u32,
    /// What comes on another connection begins anew: meanwhile messages may have gone elsewhere.
    connection: u32,
    publisher: u32,
    run: u32,
}

/// A message as it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival<'a> {
    pub client: u32,
    pub connection: u32,
    pub dup: bool,
    pub retain: bool,
    /// The client has a place in a shared subscription: it gets some messages only.
    pub shares: bool,
    pub payload: &'a [u8],
    pub wall_ns: u64,
}

#[derive(Debug, Default)]
pub(super) struct Check {
    streams: HashMap<Key, Stream>,
}

impl Check {
    pub(super) fn note(&mut self, arrival: &Arrival<'_>, counts: &Counts, times: &mut LocalTimes) {
        // A smaller one has no room for the run, without which two of them look like duplicates.
        let whole = Some(arrival.payload).filter(|payload| payload.len() >= LONG_HEAD_SIZE);
        let Some(stamp) = whole.and_then(message::open) else {
            add(&counts.unverified, 1);
            return;
        };
        add(&counts.verified, 1);
        if arrival.retain {
            return;
        }
        if stamp.due_ns > WALL_NS_MIN {
            match arrival.wall_ns.checked_sub(stamp.due_ns) {
                Some(ns) => times.record(ns),
                None => add(&counts.early, 1),
            }
        }
        if stamp.sequence & UNORDERED == 0 && !arrival.shares {
            self.follow(arrival, stamp, counts);
        }
    }

    fn follow(&mut self, arrival: &Arrival<'_>, stamp: Stamp, counts: &Counts) {
        let sequence = stamp.sequence & ((1 << RUN_SHIFT) - 1);
        let key = Key {
            client: arrival.client,
            connection: arrival.connection,
            publisher: stamp.publisher,
            run: (stamp.sequence >> RUN_SHIFT) as u32,
        };
        if self.streams.len() >= STREAM_COUNT_MAX && !self.streams.contains_key(&key) {
            add(&counts.untracked, 1);
            return;
        }
        // What was sent before the first that comes here is not missed: it may have been before the subscription.
        let stream = self.streams.entry(key).or_insert(Stream { next: sequence, gaps: Vec::new() });
        if sequence == stream.next {
            stream.next += 1;
        } else if sequence > stream.next {
            add(&counts.lost, sequence - stream.next);
            if stream.gaps.len() == GAP_COUNT_MAX {
                stream.gaps.remove(0);
            }
            stream.gaps.push(stream.next..sequence);
            stream.next = sequence + 1;
        } else if stream.fill(sequence) {
            counts.lost.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
            add(&counts.reordered, 1);
        } else if arrival.dup {
            add(&counts.redelivered, 1);
        } else {
            add(&counts.duplicated, 1);
        }
    }
}

impl Stream {
    fn fill(&mut self, sequence: u64) -> bool {
        let Some(at) = self.gaps.iter().position(|gap| gap.contains(&sequence)) else {
            return false;
        };
        let parts = [self.gaps[at].start..sequence, sequence + 1..self.gaps[at].end];
        self.gaps.splice(at..=at, parts.into_iter().filter(|part| !part.is_empty()));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::counts::value;
    use super::*;

    #[test]
    fn what_a_client_misses_or_gets_twice_is_counted_by_run_and_connection() {
        let (mut check, counts, mut times) =
            (Check::default(), Counts::default(), LocalTimes::new());
        let mut note = |connection: u32, run: u64, sequence: u64, dup: bool| {
            let mut payload = [0; 40];
            message::seal(&mut payload, stamp(7, run, sequence, true, WALL_NS_MIN + 5));
            let wall_ns = WALL_NS_MIN + 9;
            let (retain, shares, payload) = (false, false, &payload[..]);
            let arrival = Arrival { client: 1, connection, dup, retain, shares, payload, wall_ns };
            check.note(&arrival, &counts, &mut times);
        };
        // It begins in the middle; another run and another connection begin anew.
        for (connection, run, sequence, dup) in [
            (0, 3, 10, false),
            (0, 3, 11, false),
            (0, 4, 0, false),
            (0, 3, 15, false),
            (0, 3, 13, false),
            (0, 3, 11, false),
            (0, 3, 11, true),
            (1, 3, 90, false),
        ] {
            note(connection, run, sequence, dup);
        }
        let found = [&counts.lost, &counts.reordered, &counts.duplicated, &counts.redelivered];
        assert_eq!(found.map(value), [2, 1, 1, 1]);
        assert_eq!(value(&counts.verified), 8);
    }

    #[test]
    fn gaps_of_a_hostile_broker_take_no_more_than_their_room() {
        let mut check = Check::default();
        let (counts, mut times) = (Counts::default(), LocalTimes::new());
        for sequence in (0..10_000).step_by(2) {
            let mut payload = [0; 24];
            message::seal(&mut payload, stamp(7, 1, sequence, true, 1));
            let arrival = Arrival {
                client: 1,
                connection: 0,
                dup: false,
                retain: false,
                shares: false,
                payload: &payload,
                wall_ns: 0,
            };
            check.note(&arrival, &counts, &mut times);
        }
        assert_eq!(value(&counts.lost), 4999);
        assert!(check.streams.values().all(|stream| stream.gaps.len() <= GAP_COUNT_MAX));
    }
}
