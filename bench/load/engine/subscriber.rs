//! A subscriber: verifies each message where it lies in the receive buffer, and acknowledges it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::control::Shared;
use super::far::Far;
use super::wire::{Opened, Wire, body_range, open_publish, unexpected};
use crate::machine::now_ns;
use crate::message::{self, Stamp};
use crate::mix;
use crate::plan::{NO_CELL, SubscriberPlan};
use crate::recorder::Recorder;
use crate::tally::{Faults, Gaps, Seen, is_near};

const PUBLISH: u8 = 3;
const PUBREL: u8 = 6;
const PINGRESP: u8 = 13;

#[derive(Debug)]
pub(crate) struct Subscriber {
    pub wire: Wire,
    /// The subscriber's number in the plan.
    pub index: usize,
    pub flow: usize,
    gaps: Gaps,
    /// Whether bytes arrived while it was not to read.
    pub held_back: bool,
}

/// The findings of a thread's subscribers.
#[derive(Debug)]
pub(crate) struct Findings {
    pub faults: Faults,
    /// The time from when a message was due to when its bytes were read.
    pub latency: Recorder,
    /// How many messages later ones have overtaken, that have not arrived yet.
    pub missing: u64,
    /// For each shared group one `Seen` for each publisher.
    pub seen: Vec<Vec<Seen>>,
    pub far: Far,
}

impl Findings {
    pub(crate) fn new(shared: &Shared) -> Findings {
        let publisher_count = shared.plan.publishers.len();
        let seen = |members: &usize| (0..publisher_count).map(|_| Seen::new(*members)).collect();
        Findings {
            faults: Faults::default(),
            latency: Recorder::default(),
            missing: 0,
            seen: shared.plan.groups.iter().map(seen).collect(),
            far: Far::default(),
        }
    }
}

/// The messages that arrived at once.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub delivered: u64,
    pub size: u64,
    /// Reads in which publishes, or parts of one, arrived.
    pub reads: u64,
}

impl Subscriber {
    pub(crate) fn new(wire: Wire, index: usize, shared: &Shared) -> Subscriber {
        let flow = shared.plan.subscribers[index].flow;
        Subscriber { wire, index, flow, gaps: Gaps::default(), held_back: false }
    }

    /// Takes all bytes that have arrived.
    pub(crate) fn read(
        &mut self,
        buffer: &mut [u8],
        shared: &Shared,
        findings: &mut Findings,
    ) -> Result<Batch, String> {
        let mut batch = Batch::default();
        let plan = &shared.plan.subscribers[self.index];
        let flow = &shared.plan.flows[self.flow];
        let payload_size = flow.mix.is_none().then_some(flow.layout.payload_size);
        let allows_added = flow.allow_added_properties;
        let gaps = &mut self.gaps;
        self.wire.read(buffer, |bytes, out| {
            let now = now_ns();
            let batch = &mut batch;
            let mut inbox =
                Inbox { shared, plan, payload_size, allows_added, findings, gaps, out, now, batch };
            let mut at = 0;
            let mut has_publish = false;
            while let Some((from, to)) = body_range(&bytes[at..])? {
                let (first, body) = (bytes[at], &bytes[at + from..at + to]);
                match first >> 4 {
                    PUBLISH => {
                        has_publish = true;
                        inbox.publish(first, body, to);
                    }
                    PUBREL if body.len() >= 2 => {
                        inbox.out.extend_from_slice(&[0x70, 2, body[0], body[1]])
                    }
                    PINGRESP => {}
                    kind => {
                        return Err(unexpected("subscriber", kind, body));
                    }
                }
                at += to;
            }
            // Releases of QoS 2 alone are no batch of messages.
            batch.reads += u64::from(has_publish || at < bytes.len());
            Ok(at)
        })?;
        Ok(batch)
    }

    /// How many messages for this subscriber alone were sent and never arrived.
    pub(crate) fn lost(&self, shared: &Shared) -> u64 {
        let plan = &shared.plan.subscribers[self.index];
        if plan.group.is_some() {
            return 0;
        }
        let cells = plan.cells.iter().zip(&shared.sent).filter(|(cell, _)| **cell != NO_CELL);
        let behind = cells.map(|(cell, sent)| {
            let next = shared.next[*cell as usize].load(Relaxed);
            sent.load(Relaxed).saturating_sub(next)
        });
        behind.sum::<u64>() + self.gaps.count()
    }
}

/// The C library's comparison reads, masked, at the dangling address of an empty slice. That is an assist of the
/// processor, which takes longer than all other work on a message.
#[inline(always)]
fn equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && (one.is_empty() || one == other)
}

struct Inbox<'a> {
    shared: &'a Shared,
    plan: &'a SubscriberPlan,
    /// `None`: the sizes differ.
    payload_size: Option<usize>,
    allows_added: bool,
    findings: &'a mut Findings,
    gaps: &'a mut Gaps,
    out: &'a mut Vec<u8>,
    now: u64,
    batch: &'a mut Batch,
}

impl Inbox<'_> {
    /// Takes a publish with this first byte and body; `size` is the size of the whole packet.
    #[inline(always)]
    fn publish(&mut self, first: u8, body: &[u8], size: usize) {
        if self.verified(first, body).is_none() {
            self.findings.faults.corrupt += 1;
        } else {
            self.batch.size += size as u64;
        }
    }

    /// `None`: the message is not, byte for byte, one that a publisher sent.
    #[inline(always)]
    fn verified(&mut self, first: u8, body: &[u8]) -> Option<()> {
        let Opened { qos, topic, rest } = open_publish(first, body, self.out)?;
        let payload_index = match self.payload_size {
            Some(payload_size) => rest.len().checked_sub(payload_size)?,
            None if self.shared.plan.mqtt == 5 => mix::property_section(rest)?.end,
            None => 0,
        };
        let (properties, payload) = rest.split_at_checked(payload_index)?;
        let stamp = message::open(payload)?;
        let publisher = self.shared.plan.publishers.get(stamp.publisher as usize)?;
        if !equal(&publisher.topic, topic)
            || !self.has_properties(&publisher.properties, properties)
            || qos != self.plan.qos
            || first & 1 != 0
        {
            return None;
        }
        self.count(stamp, payload.len())
    }

    /// Whether a publish has the properties that were sent, and behind them those that the broker may add.
    #[inline(always)]
    fn has_properties(&self, sent: &[u8], properties: &[u8]) -> bool {
        equal(sent, properties)
            || self.allows_added && message::only_adds_user_properties(sent, properties)
    }

    /// `None`: no publisher has sent the message.
    #[inline(always)]
    fn count(&mut self, stamp: Stamp, payload_size: usize) -> Option<()> {
        let cell = self.plan.cells[stamp.publisher as usize];
        let Some(next) = self.shared.next.get(cell as usize) else {
            self.findings.faults.astray += 1;
            return Some(());
        };
        let expected = next.load(Relaxed);
        let stamp = stamp.widen(payload_size, expected, self.now)?;
        if !is_near(stamp.sequence, expected) {
            return None;
        }
        let faults = &mut self.findings.faults;
        let is_new = match self.plan.group {
            Some((group, member)) => {
                let seen = &mut self.findings.seen[group][stamp.publisher as usize];
                seen.note(next, member, stamp.sequence, faults)
            }
            None if expected == stamp.sequence => {
                next.store(stamp.sequence + 1, Relaxed);
                true
            }
            None => self.count_late(stamp, next),
        };
        if is_new {
            self.batch.delivered += 1;
            if !self.findings.far.takes(&stamp, self.now) {
                self.findings.latency.record(stamp.due_ns, self.now);
            }
        }
        Some(())
    }

    /// Counts a message that is not the next one. Returns whether it is delivered for the first time.
    #[cold]
    fn count_late(&mut self, stamp: Stamp, next: &AtomicU64) -> bool {
        let skipped = stamp.sequence.checked_sub(next.load(Relaxed));
        let faults = &mut self.findings.faults;
        let is_new = self.gaps.note(stamp.publisher, next, stamp.sequence, faults);
        self.findings.missing += skipped.unwrap_or(0);
        self.findings.missing -= u64::from(is_new && skipped.is_none());
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use crate::scenario::Scenario;

    #[test]
    fn a_sequence_that_nobody_can_have_sent_is_corrupt_and_takes_no_memory() {
        for filter in ["bench/+", "$share/group/bench/+"] {
            let scenario = Scenario { filters: vec![filter.to_string()], ..Scenario::default() };
            let shared = Shared::new(Plan::new(&scenario), 1);
            let mut findings = Findings::new(&shared);
            let (mut gaps, mut out, mut batch) = (Gaps::default(), Vec::new(), Batch::default());
            for sequence in [u64::MAX, 1 << 40, 0, 1] {
                let topic = &shared.plan.publishers[0].topic;
                let mut payload = vec![0; scenario.payload];
                message::seal(&mut payload, Stamp { publisher: 0, sequence, due_ns: 1 });
                let body = [&[0, topic.len() as u8][..], topic, &payload].concat();
                let mut inbox = Inbox {
                    shared: &shared,
                    plan: &shared.plan.subscribers[0],
                    payload_size: Some(scenario.payload),
                    allows_added: false,
                    findings: &mut findings,
                    gaps: &mut gaps,
                    out: &mut out,
                    now: 5,
                    batch: &mut batch,
                };
                inbox.publish(0x30, &body, body.len());
            }
            assert_eq!(findings.faults, Faults { corrupt: 2, ..Faults::default() }, "{filter}");
            assert_eq!((batch.delivered, gaps.count()), (2, 0), "{filter}");
        }
    }
}
