//! What a replay has sent and what has come of it: each message that comes is found among those that were sent.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hdrhistogram::Histogram;

use super::messages::digest;
use super::summary::{NO_STREAM, Summary};
use crate::message::{self, LONG_HEAD_SIZE, Stamp};
use crate::recorder::new_histogram;
use crate::tally::{Faults, Gaps};

/// Messages of a stream that are remembered once all have them: one that comes again is known by its bytes.
const KEPT_BEHIND: u64 = 64;

/// Messages of all streams that are remembered. Of more, the oldest of a stream are known by their stamp alone.
const KEPT_COUNT_MAX: usize = 4_000_000;

/// Among so many a message without a stamp is looked for: among the oldest that may have come, and among the newest.
const LOOKED_AT_MAX: usize = 1024;

/// A message that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub payload_size: u32,
    pub is_stamped: bool,
    pub retain: bool,
    /// Of the payload; of one with a stamp it is not needed.
    pub digest: u64,
    /// Of the property section.
    pub properties: u64,
    pub due_ns: u64,
}

/// Payloads that have no room for a whole stamp have none: their digests are known.
fn stamp_of(payload: &[u8]) -> Option<Stamp> {
    Some(payload).filter(|payload| payload.len() >= LONG_HEAD_SIZE).and_then(message::open)
}

/// How far a stream has come to a subscriber.
#[derive(Debug)]
struct Cell {
    subscriber: u32,
    next: AtomicU64,
}

#[derive(Debug)]
struct Flow {
    publisher: u32,
    /// How many were sent.
    count: u64,
    /// Those from `first` on.
    sent: VecDeque<Sent>,
    first: u64,
    /// By subscriber.
    cells: Vec<Cell>,
}

impl Flow {
    fn sent(&self, sequence: u64) -> Option<&Sent> {
        self.sent.get(usize::try_from(sequence.checked_sub(self.first)?).ok()?)
    }

    fn cell(&self, subscriber: u32) -> Option<usize> {
        self.cells.binary_search_by_key(&subscriber, |cell| cell.subscriber).ok()
    }
}

/// A message as it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival<'a> {
    pub topic: &'a [u8],
    pub qos: u8,
    pub retain: bool,
    pub properties: &'a [u8],
    pub payload: &'a [u8],
    pub now_ns: u64,
}

#[derive(Debug)]
struct Listener {
    /// What the broker granted.
    qos: u8,
    gaps: Gaps,
}

#[derive(Debug)]
pub(super) struct Verifier {
    summary: Arc<Summary>,
    mqtt: u8,
    /// The broker may add properties: they are not compared.
    ignores_properties: bool,
    /// One a stream.
    flows: Vec<Flow>,
    listeners: Vec<Listener>,
    kept_count: usize,
    /// Per publisher: deliveries that have not come.
    pub outstanding: Vec<u64>,
    pub faults: Faults,
    pub latency: Histogram<u64>,
    /// Deliveries that should come in all, and those that came.
    pub expected: u64,
    pub delivered: u64,
    /// Messages that later ones have overtaken, and that have not come.
    pub missing: u64,
}

/// Where a message belongs.
enum Place {
    At(u32, u64),
    /// One that came before.
    Again,
    /// A stream of another subscriber.
    Astray,
    Nowhere,
}

impl Verifier {
    /// `matching`: for each topic of the recording, who gets it. `granted`: one a subscriber.
    pub(super) fn new(
        summary: Arc<Summary>,
        (mqtt, ignores_properties): (u8, bool),
        publisher_count: usize,
        granted: &[u8],
        matching: impl Fn(&str) -> Vec<u32>,
    ) -> Verifier {
        let flow = |stream: &super::summary::Stream| Flow {
            publisher: stream.topic_index % publisher_count as u32,
            count: 0,
            sent: VecDeque::new(),
            first: 0,
            cells: matching(&stream.topic)
                .into_iter()
                .map(|subscriber| Cell { subscriber, next: AtomicU64::new(0) })
                .collect(),
        };
        let listener = |qos: &u8| Listener { qos: *qos, gaps: Gaps::default() };
        Verifier {
            flows: summary.streams.iter().map(flow).collect(),
            summary,
            mqtt,
            ignores_properties,
            listeners: granted.iter().map(listener).collect(),
            kept_count: 0,
            outstanding: vec![0; publisher_count],
            faults: Faults::default(),
            latency: new_histogram(),
            expected: 0,
            delivered: 0,
            missing: 0,
        }
    }

    pub(super) fn publisher_of(&self, stream: u32) -> usize {
        self.flows[stream as usize].publisher as usize
    }

    /// The next sequence of a stream.
    pub(super) fn sequence(&self, stream: u32) -> u64 {
        self.flows[stream as usize].count
    }

    /// A message has been sent: the next of its stream.
    pub(super) fn note_sent(&mut self, stream: u32, sent: Sent) {
        let flow = &mut self.flows[stream as usize];
        flow.count += 1;
        let deliveries = flow.cells.len() as u64;
        self.expected += deliveries;
        self.outstanding[flow.publisher as usize] += deliveries;
        flow.sent.push_back(sent);
        self.kept_count += 1;
        if self.kept_count > KEPT_COUNT_MAX || deliveries == 0 {
            flow.sent.pop_front();
            flow.first += 1;
            self.kept_count -= 1;
        }
    }

    /// A message has come to a subscriber.
    pub(super) fn take(&mut self, subscriber: u32, arrival: &Arrival<'_>) {
        match self.place(subscriber, arrival) {
            Place::At(stream, sequence) => self.count(subscriber, stream, sequence, arrival),
            Place::Again => self.faults.duplicated += 1,
            Place::Astray => self.faults.astray += 1,
            Place::Nowhere => self.faults.corrupt += 1,
        }
    }

    fn place(&self, subscriber: u32, arrival: &Arrival<'_>) -> Place {
        let topic = std::str::from_utf8(arrival.topic).ok();
        let streams = topic.and_then(|topic| self.summary.streams_of_topic.get(topic));
        let Some(streams) = streams else { return Place::Nowhere };
        let granted = self.listeners[subscriber as usize].qos;
        let is_fit = |stream: &u32| {
            let published = self.summary.streams.get(*stream as usize).map(|stream| stream.qos);
            *stream != NO_STREAM && published.is_some_and(|qos| qos.min(granted) == arrival.qos)
        };
        if let Some(stamp) = stamp_of(arrival.payload)
            && let Some(stream) = Some(stamp.publisher).filter(|one| self.stamps(streams, *one))
        {
            let flow = &self.flows[stream as usize];
            if flow.cell(subscriber).is_none() {
                return Place::Astray;
            }
            let fits = flow.sent(stamp.sequence).is_none_or(|sent| {
                sent.is_stamped && self.has_front(sent, arrival) && sent.due_ns == stamp.due_ns
            });
            // One that is not remembered any more is known by its stamp alone.
            if fits && is_fit(&stream) && stamp.sequence < flow.count {
                return Place::At(stream, stamp.sequence);
            }
        }
        // A recorded payload may hold the stamp of an earlier run: its bytes say what it is.
        let fit: Vec<u32> = streams.iter().copied().filter(is_fit).collect();
        self.place_by_bytes(subscriber, &fit, arrival)
    }

    /// The number is that of one of these streams, and messages of that stream get stamps.
    fn stamps(&self, streams: &[u32], number: u32) -> bool {
        number != NO_STREAM
            && streams.contains(&number)
            && self.summary.streams[number as usize].has_stamped
    }

    /// Of messages that look alike, the one that should come next is it.
    fn place_by_bytes(&self, subscriber: u32, streams: &[u32], arrival: &Arrival<'_>) -> Place {
        let sum = digest(arrival.payload);
        let mut has_cell = false;
        let mut found = None;
        for stream in streams {
            let flow = &self.flows[*stream as usize];
            let Some(cell) = flow.cell(subscriber) else { continue };
            has_cell = true;
            let next = flow.cells[cell].next.load(Relaxed);
            let is_it = |sequence: &u64| {
                flow.sent(*sequence).is_some_and(|sent| {
                    !sent.is_stamped && sent.digest == sum && self.has_front(sent, arrival)
                })
            };
            if is_it(&next) {
                return Place::At(*stream, next);
            }
            let gaps = self.listeners[subscriber as usize].gaps.of(*stream);
            let missing = gaps.iter().flat_map(Range::clone).take(LOOKED_AT_MAX).find(is_it);
            let ahead = || (next..flow.count).skip(1).take(LOOKED_AT_MAX).find(is_it);
            // Behind a long loss it is among the newest.
            let newest_index = flow.count.saturating_sub(LOOKED_AT_MAX as u64).max(next);
            let newest = || (newest_index..flow.count).find(is_it);
            if let Some(sequence) = missing.or_else(ahead).or_else(newest) {
                found.get_or_insert(Place::At(*stream, sequence));
            }
            if (next.saturating_sub(KEPT_BEHIND)..next).any(|sequence| is_it(&sequence)) {
                found.get_or_insert(Place::Again);
            }
        }
        match found {
            Some(place) => place,
            None if !has_cell && !streams.is_empty() => Place::Astray,
            None => Place::Nowhere,
        }
    }

    /// What stands beside the payload is what was sent.
    fn has_front(&self, sent: &Sent, arrival: &Arrival<'_>) -> bool {
        // Only MQTT 5 hands the flag on to those who ask for it.
        let retain = sent.retain && self.mqtt == 5;
        sent.payload_size as usize == arrival.payload.len()
            && retain == arrival.retain
            && (self.ignores_properties || sent.properties == digest(arrival.properties))
    }

    fn count(&mut self, subscriber: u32, stream: u32, sequence: u64, arrival: &Arrival<'_>) {
        let flow = &mut self.flows[stream as usize];
        let Some(at) = flow.cell(subscriber) else {
            self.faults.astray += 1;
            return;
        };
        let due_ns = flow.sent(sequence).map(|sent| sent.due_ns);
        let next = &flow.cells[at].next;
        let before = next.load(Relaxed);
        if sequence == before {
            next.store(sequence + 1, Relaxed);
        } else {
            let gaps = &mut self.listeners[subscriber as usize].gaps;
            if !gaps.note(stream, next, sequence, &mut self.faults) {
                return;
            }
        }
        let passed = next.load(Relaxed) - before;
        // One that comes late has been counted as missing.
        self.missing = (self.missing + passed).saturating_sub(1);
        let outstanding = &mut self.outstanding[flow.publisher as usize];
        *outstanding = outstanding.saturating_sub(passed);
        self.delivered += 1;
        if let Some(due_ns) = due_ns.or_else(|| stamp_of(arrival.payload).map(|stamp| stamp.due_ns))
        {
            self.latency.saturating_record(arrival.now_ns.saturating_sub(due_ns).max(1));
        }
        self.forget(stream);
    }

    /// Of what all have, a few are enough.
    fn forget(&mut self, stream: u32) {
        let flow = &mut self.flows[stream as usize];
        let reached = flow.cells.iter().map(|cell| cell.next.load(Relaxed)).min().unwrap_or(0);
        while flow.first + KEPT_BEHIND < reached {
            flow.sent.pop_front();
            flow.first += 1;
            self.kept_count -= 1;
        }
    }

    /// Nothing has come for long: what should have is not waited for any more.
    pub(super) fn give_up_waiting(&mut self) {
        self.outstanding.fill(0);
    }

    /// Counts what never came.
    pub(super) fn finish(&mut self) {
        let behind = |flow: &Flow| {
            let missing = |cell: &Cell| flow.count - cell.next.load(Relaxed);
            flow.cells.iter().map(missing).sum::<u64>()
        };
        self.faults.lost = self.flows.iter().map(behind).sum::<u64>()
            + self.listeners.iter().map(|listener| listener.gaps.count()).sum::<u64>();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::summary::Stream;
    use super::*;
    use crate::message::seal;

    /// One topic with messages of QoS 0, and of QoS 1 with stamps. The first of two subscribers gets it, the second does not.
    fn verifier() -> Verifier {
        let stream = |qos| Stream { topic: "t".into(), qos, topic_index: 0, has_stamped: qos == 1 };
        let summary = Summary {
            streams: vec![stream(0), stream(1)],
            streams_of_topic: HashMap::from([("t".into(), [0, 1, NO_STREAM])]),
            ..Summary::default()
        };
        Verifier::new(Arc::new(summary), (3, false), 1, &[2, 2], |_| vec![0])
    }

    fn short(text: &[u8]) -> Sent {
        Sent {
            payload_size: text.len() as u32,
            is_stamped: false,
            retain: false,
            digest: digest(text),
            properties: digest(&[]),
            due_ns: 0,
        }
    }

    fn arrival(qos: u8, payload: &[u8]) -> Arrival<'_> {
        Arrival { topic: b"t", qos, retain: false, properties: &[], payload, now_ns: 5 }
    }

    /// Sends all, lets those come in this order, and returns what was found.
    fn check(sent: &[&[u8]], came: &[&[u8]], expected: Faults) {
        let mut verifier = verifier();
        sent.iter().for_each(|text| verifier.note_sent(0, short(text)));
        came.iter().for_each(|text| verifier.take(0, &arrival(0, text)));
        verifier.finish();
        assert_eq!(verifier.faults, expected, "{sent:?} {came:?}");
    }

    #[test]
    fn messages_without_a_stamp_are_found_by_their_bytes() {
        let none = Faults::default();
        let sent: [&[u8]; 4] = [b"a", b"b", b"", b"a"];
        check(&sent, &sent, none);
        check(&sent, &[b"a", b"b", b""], Faults { lost: 1, ..none });
        check(&sent, &[b"a", b"", b"a"], Faults { lost: 1, ..none });
        check(&sent, &[b"a", b"", b"b", b"a"], Faults { reordered: 1, ..none });
        check(&sent, &[b"a", b"b", b"b", b"", b"a"], Faults { duplicated: 1, ..none });
        check(&sent, &[b"a", b"x", b"", b"a"], Faults { lost: 1, corrupt: 1, ..none });
        // Of messages that look alike, one too many is one too many.
        check(&[b"", b""], &[b"", b"", b""], Faults { duplicated: 1, ..none });
        check(&[b"", b""], &[b""], Faults { lost: 1, ..none });
    }

    #[test]
    fn a_stamp_says_which_message_it_is_and_nothing_beside_it_may_differ() {
        let payload = |sequence| {
            let mut payload = vec![0; 40];
            seal(&mut payload, Stamp { publisher: 1, sequence, due_ns: 7 });
            payload
        };
        let sent = Sent { payload_size: 40, is_stamped: true, due_ns: 7, ..short(b"") };
        let run = |change: &dyn Fn(&mut Verifier)| {
            let mut verifier = verifier();
            (0..3).for_each(|_| verifier.note_sent(1, sent));
            change(&mut verifier);
            verifier.finish();
            verifier.faults
        };
        let take = |verifier: &mut Verifier, sequence: u64| {
            verifier.take(0, &arrival(1, &payload(sequence)));
        };
        let none = Faults::default();
        assert_eq!(run(&|verifier| (0..3).for_each(|at| take(verifier, at))), none);
        let orders: [(&[u64], Faults); 3] = [
            (&[0, 2, 1], Faults { reordered: 1, ..none }),
            (&[0, 1, 1, 2], Faults { duplicated: 1, ..none }),
            (&[0, 2], Faults { lost: 1, ..none }),
        ];
        for (order, expected) in orders {
            assert_eq!(run(&|verifier| order.iter().for_each(|at| take(verifier, *at))), expected);
        }
        let changed: [&dyn Fn(&mut Arrival<'_>); 5] = [
            &|arrival| arrival.qos = 0,
            &|arrival| arrival.retain = true,
            &|arrival| arrival.properties = &[0],
            &|arrival| arrival.topic = b"u",
            &|arrival| arrival.payload = &arrival.payload[..39],
        ];
        for change in changed {
            let found = run(&|verifier| {
                let payload = payload(0);
                let mut arrival = arrival(1, &payload);
                change(&mut arrival);
                verifier.take(0, &arrival);
            });
            assert_eq!(found, Faults { corrupt: 1, lost: 3, ..none });
        }
        let found = run(&|verifier| verifier.take(1, &arrival(1, &payload(0))));
        assert_eq!(found, Faults { astray: 1, lost: 3, ..none });
        // Nobody has sent it yet.
        let found = run(&|verifier| take(verifier, 3));
        assert_eq!(found, Faults { corrupt: 1, lost: 3, ..none });
    }

    #[test]
    fn a_stamp_of_no_stream_is_corrupt() {
        for publisher in [NO_STREAM, NO_STREAM - 1, 2] {
            let mut payload = vec![0; 40];
            seal(&mut payload, Stamp { publisher, sequence: 0, due_ns: 7 });
            let mut verifier = verifier();
            verifier.take(0, &arrival(1, &payload));
            assert_eq!(verifier.faults, Faults { corrupt: 1, ..Faults::default() }, "{publisher}");
        }
    }

    #[test]
    fn a_recorded_payload_with_the_stamp_of_an_earlier_run_is_found_by_its_bytes() {
        // Stream 0 has recorded payloads alone; in stream 1 they stand beside stamped ones.
        for (stream, qos) in [(0, 0), (1, 1)] {
            for sequence in [0, 1, 900] {
                let mut payload = vec![0; 40];
                seal(&mut payload, Stamp { publisher: stream, sequence, due_ns: 3 });
                let mut verifier = verifier();
                verifier.note_sent(stream, short(&payload));
                verifier.take(0, &arrival(qos, &payload));
                verifier.finish();
                assert_eq!(verifier.faults, Faults::default(), "{stream}, {sequence}");
                assert_eq!(verifier.delivered, 1);
            }
        }
    }

    #[test]
    fn what_comes_behind_a_long_loss_is_found() {
        let mut verifier = verifier();
        let lost_count = 2 * LOOKED_AT_MAX as u64;
        for index in 0..lost_count + 10 {
            let text = index.to_le_bytes();
            verifier.note_sent(0, short(&text));
            if index >= lost_count {
                verifier.take(0, &arrival(0, &text));
            }
        }
        verifier.finish();
        assert_eq!(verifier.faults, Faults { lost: lost_count, ..Faults::default() });
    }

    #[test]
    fn what_has_come_is_forgotten_and_what_has_not_is_counted() {
        let mut verifier = verifier();
        for index in 0..1000u64 {
            let text = index.to_le_bytes();
            verifier.note_sent(0, short(&text));
            verifier.take(0, &arrival(0, &text));
        }
        assert_eq!(verifier.outstanding, [0]);
        assert!(verifier.kept_count as u64 <= KEPT_BEHIND + 1, "{}", verifier.kept_count);
        assert_eq!((verifier.expected, verifier.delivered), (1000, 1000));
        assert_eq!(verifier.latency.len(), 1000);
        verifier.note_sent(0, short(b"x"));
        verifier.finish();
        assert_eq!(verifier.faults, Faults { lost: 1, ..Faults::default() });
    }
}
