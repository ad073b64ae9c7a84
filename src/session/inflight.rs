//! QoS 1 and 2 messages sent to one client and not yet acknowledged, in the order they were sent.
//!
//! Packet ids are given out in a row, so the window is a queue in which an id is an index. An acknowledged message
//! in the middle leaves a `Done` entry until it reaches the front.
//!
//! ```text
//! PUBLISH QoS 1 -> AwaitPuback  -- PUBACK -> Done
//! PUBLISH QoS 2 -> AwaitPubrec  -- PUBREC -> AwaitPubcomp -- PUBCOMP -> Done
//! ```

use super::Envelope;
use crate::arena::{Budget, Stored, allocated};
use crate::codec::{PacketId, QoS};
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowState {
    AwaitPuback,
    AwaitPubrec,
    AwaitPubcomp,
    Done,
}

/// One message in flight. It is `stored` if the session can be resumed or the message handed to another member.
#[derive(Clone, Debug)]
pub struct Flow {
    pub state: FlowState,
    pub envelope: Envelope,
    pub stored: Option<Stored>,
}

/// The window of flows towards one client.
#[derive(Debug)]
pub struct Inflight {
    flows: VecDeque<Flow>,
    /// Packet id of the first flow.
    front_id: u16,
    /// Flows before this index were sent on the present connection.
    sent_count: u16,
    /// How many flows were sent on the present connection and are not done.
    outstanding: u16,
    /// Counts the memory of all windows, and other memory of sessions.
    budget: Budget,
}

const ID_MAX: usize = u16::MAX as usize;
/// Packet ids limit the window to 65,535 flows, so 16 bits suffice for counts of flows. Some ids stay free, so that the window
/// never has one id twice.
const FLOWS_MAX: usize = 65_000;
const _: () = assert!(FLOWS_MAX < ID_MAX);
/// How many flows the window has room for, for each place of the quota: a client that acknowledges all messages but one
/// must not make the window grow for ever.
const FLOWS_PER_PLACE: usize = 8;
/// A window has memory for so many flows in any case: a client that acknowledges goes on, however much other clients
/// hold.
const FLOWS_MIN: usize = 4;

impl Default for Inflight {
    fn default() -> Inflight {
        Inflight::new(Budget::default())
    }
}

impl Drop for Inflight {
    fn drop(&mut self) {
        self.budget.change(memory_of(self.flows.capacity()), 0);
    }
}

/// Bytes that a window with room for so many flows takes.
fn memory_of(flow_count: usize) -> usize {
    allocated(flow_count * size_of::<Flow>())
}

impl Inflight {
    /// `budget` is the one of all sessions of the shard.
    pub fn new(budget: Budget) -> Inflight {
        Inflight { flows: VecDeque::new(), front_id: 1, sent_count: 0, outstanding: 0, budget }
    }

    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Whether one more message may be sent under `quota`, after all that must be sent again. If so, there is memory
    /// for it.
    #[inline]
    pub fn has_room(&mut self, quota: u16) -> bool {
        self.outstanding < quota
            && usize::from(self.sent_count) == self.flows.len()
            && (self.flows.len() < self.flows.capacity() || self.grow(quota))
    }

    /// As `has_room`, for so many more messages.
    #[inline]
    pub fn has_room_for(&mut self, count: usize, quota: u16) -> bool {
        let is_within = usize::from(self.outstanding) + count <= usize::from(quota)
            && usize::from(self.sent_count) == self.flows.len();
        while is_within && self.flows.len() + count > self.flows.capacity() {
            if !self.grow(quota) {
                return false;
            }
        }
        is_within
    }

    /// Takes memory for more flows, up to the bound of the window, if the budget has it.
    #[cold]
    #[inline(never)]
    fn grow(&mut self, quota: u16) -> bool {
        let flows_max = FLOWS_MAX.min(usize::from(quota) * FLOWS_PER_PLACE);
        let before = self.flows.capacity();
        if before >= flows_max {
            return false;
        }
        // Small windows grow in few steps.
        let factor = if before < 64 { 4 } else { 2 };
        let target = (factor * before).max(FLOWS_MIN).min(flows_max);
        let needed = memory_of(target) - memory_of(before);
        // Windows leave half of the budget to uses that cannot do with less, so no client is refused for what other
        // clients have in flight.
        if before >= FLOWS_MIN && !self.budget.has_ample_room(needed) {
            return false;
        }
        self.flows.reserve_exact(target - self.flows.len());
        self.budget.change(memory_of(before), memory_of(self.flows.capacity()));
        true
    }

    /// How many more messages may be sent under `quota`, besides all that must be sent again.
    #[inline]
    pub fn free_places(&self, quota: u16) -> u16 {
        let unsent = self.flows.len() - usize::from(self.sent_count);
        let free = usize::from(quota.saturating_sub(self.outstanding)).saturating_sub(unsent);
        free.min(self.room_for_flows(quota)) as u16
    }

    #[inline]
    fn room_for_flows(&self, quota: u16) -> usize {
        let flows_max = FLOWS_MAX.min(usize::from(quota) * FLOWS_PER_PLACE);
        flows_max.saturating_sub(self.flows.len())
    }

    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// All flows, oldest first.
    pub fn flows(&self) -> impl Iterator<Item = &Flow> {
        self.flows.iter()
    }

    /// Packets that the client still has to send until all flows are over.
    pub fn steps_left(&self) -> usize {
        let steps = |flow: &Flow| match flow.state {
            FlowState::AwaitPubrec => 2,
            FlowState::AwaitPuback | FlowState::AwaitPubcomp => 1,
            FlowState::Done => 0,
        };
        self.flows.iter().map(steps).sum()
    }

    /// Packet id of the first flow.
    pub fn front_id(&self) -> Option<PacketId> {
        if self.flows.is_empty() { None } else { PacketId::new(self.front_id) }
    }

    /// Bytes of the messages that are kept to send them again.
    pub fn stored_bytes(&self) -> usize {
        self.flows.iter().filter_map(|flow| flow.stored.as_ref()).map(Stored::size).sum()
    }

    /// Whether some flows of an earlier connection were not sent on this one yet.
    pub fn has_unsent(&self) -> bool {
        usize::from(self.sent_count) < self.flows.len()
    }

    /// How many messages were sent on this connection and are not acknowledged.
    pub fn outstanding_count(&self) -> usize {
        usize::from(self.outstanding)
    }

    /// How many flows are not done.
    pub fn unacknowledged_count(&self) -> usize {
        self.flows.iter().filter(|flow| flow.state != FlowState::Done).count()
    }

    /// Adds a message that is sent now and gives it an id that no unacknowledged message has.
    // [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1]
    #[inline(always)]
    pub fn send(&mut self, envelope: Envelope, stored: Option<Stored>) -> PacketId {
        assert!(!self.has_unsent(), "older messages are sent again first");
        let state = match envelope.qos {
            QoS::ExactlyOnce => FlowState::AwaitPubrec,
            _ => FlowState::AwaitPuback,
        };
        let id = self.id_at(self.flows.len());
        self.flows.push_back(Flow { state, envelope, stored });
        self.sent_count += 1;
        self.outstanding += 1;
        id
    }

    /// As `send`, for several messages for which there is room. Returns the id of the first; the ids of the others
    /// follow.
    #[inline]
    pub fn send_run(
        &mut self,
        qos: QoS,
        stored: impl ExactSizeIterator<Item = Option<Stored>>,
    ) -> PacketId {
        let count = stored.len();
        assert!(!self.has_unsent(), "older messages are sent again first");
        let state = match qos {
            QoS::ExactlyOnce => FlowState::AwaitPubrec,
            _ => FlowState::AwaitPuback,
        };
        let first = self.id_at(self.flows.len());
        self.flows.extend(stored.map(|stored| {
            let envelope = Envelope { qos, retain: false, ids: None, membership: 0 };
            Flow { state, envelope, stored }
        }));
        // The window has fewer flows than there are packet ids.
        self.sent_count += count as u16;
        self.outstanding += count as u16;
        first
    }

    /// The next flow of an earlier connection to send again, and its id, if `quota` has a place or the flow needs none.
    /// [MQTT-4.4.0-1]
    pub fn resend(&mut self, quota: u16) -> Option<(PacketId, Flow)> {
        while let Some(flow) = self.flows.get(usize::from(self.sent_count)) {
            match flow.state {
                FlowState::Done => self.sent_count += 1,
                // A PUBREL takes no more places than its PUBLISH did. [MQTT-3.3.4-10]
                FlowState::AwaitPubcomp => break,
                _ if self.outstanding < quota => break,
                _ => return None,
            }
        }
        let index = usize::from(self.sent_count);
        let flow = self.flows.get(index)?.clone();
        let id = self.id_at(index);
        self.sent_count += 1;
        self.outstanding += 1;
        Some((id, flow))
    }

    /// Notes a PUBREC with success: from here on only the PUBREL is sent again, and the message is not needed any more.
    /// [MQTT-4.3.3-6]
    pub fn received(&mut self, id: PacketId) -> bool {
        let index = self.index_of(id);
        match self.flows.get_mut(index) {
            Some(flow)
                if matches!(flow.state, FlowState::AwaitPubrec | FlowState::AwaitPubcomp) =>
            {
                flow.state = FlowState::AwaitPubcomp;
                flow.stored = None;
                true
            }
            _ => false,
        }
    }

    /// Ends the flow if it is in this state; returns whether it was.
    #[inline(always)]
    pub fn finish(&mut self, id: PacketId, state: FlowState) -> bool {
        let index = self.index_of(id);
        let Some(flow) = self.flows.get_mut(index) else { return false };
        if flow.state != state || state == FlowState::Done {
            return false;
        }
        if index < usize::from(self.sent_count) {
            self.outstanding -= 1;
        }
        if index > 0 {
            *flow = Flow { state: FlowState::Done, envelope: Envelope::default(), stored: None };
            return true;
        }
        self.pop_front();
        while self.flows.front().is_some_and(|flow| flow.state == FlowState::Done) {
            self.pop_front();
        }
        if self.flows.is_empty()
            && self.flows.capacity() > FLOWS_MIN
            && (self.flows.capacity() > 64 || !self.budget.has_ample_room(0))
        {
            self.give_memory_back();
        }
        true
    }

    #[cold]
    fn give_memory_back(&mut self) {
        self.budget.change(memory_of(self.flows.capacity()), 0);
        self.flows = VecDeque::new();
    }

    #[inline]
    fn pop_front(&mut self) {
        self.flows.pop_front();
        self.front_id = if self.front_id == u16::MAX { 1 } else { self.front_id + 1 };
        self.sent_count = self.sent_count.saturating_sub(1);
    }

    /// Notes that the connection is gone: all flows that are not done will be sent again on the next one.
    pub fn disconnect(&mut self) {
        self.sent_count = 0;
        self.outstanding = 0;
        if self.flows.is_empty() && self.flows.capacity() > 0 {
            self.give_memory_back();
        }
    }

    /// Takes the messages of all flows for which `is_wanted`, in order. These flows will not be sent again.
    pub fn take_stored(
        &mut self,
        is_wanted: impl Fn(&Flow) -> bool,
        mut taken: impl FnMut(&Flow, Stored),
    ) {
        for flow in &mut self.flows {
            if is_wanted(flow)
                && let Some(stored) = flow.stored.take()
            {
                taken(flow, stored);
            }
        }
    }

    /// How many flows there are, including those that are done.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    #[inline]
    fn id_at(&self, index: usize) -> PacketId {
        let number = usize::from(self.front_id) + index;
        let number = if number > ID_MAX { number - ID_MAX } else { number };
        PacketId::new(number as u16).expect("1..=65535")
    }

    #[inline]
    fn index_of(&self, id: PacketId) -> usize {
        let (id, front_id) = (usize::from(id.get()), usize::from(self.front_id));
        if id >= front_id { id - front_id } else { id + ID_MAX - front_id }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use std::collections::BTreeMap;

    const STATES: [FlowState; 4] =
        [FlowState::AwaitPuback, FlowState::AwaitPubrec, FlowState::AwaitPubcomp, FlowState::Done];

    fn envelope(qos: QoS) -> Envelope {
        Envelope { qos, ..Envelope::default() }
    }

    fn send(inflight: &mut Inflight, qos: QoS) -> PacketId {
        assert!(inflight.has_room(10));
        inflight.send(envelope(qos), None)
    }

    #[test]
    fn an_id_is_never_given_out_while_it_is_unacknowledged() {
        let mut random = Random::new(1);
        let mut inflight = Inflight::default();
        let mut model: BTreeMap<u16, (u64, FlowState)> = BTreeMap::new();
        let mut sequence = 0u64;
        let mut wrap_count = 0;
        for _ in 0..300_000 {
            let quota = 1 + random.below(20) as u16;
            if inflight.has_room(quota) && random.below(2) == 0 {
                let qos = if random.below(2) == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
                let id = inflight.send(envelope(qos), None);
                let state = match qos {
                    QoS::ExactlyOnce => FlowState::AwaitPubrec,
                    _ => FlowState::AwaitPuback,
                };
                assert!(model.insert(id.get(), (sequence, state)).is_none(), "id in use");
                sequence += 1;
                wrap_count += u32::from(id.get() == 65_535);
            } else if let Some((&id, &(_, state))) =
                model.iter().nth(random.below(model.len().max(1) as u64) as usize)
            {
                let id = PacketId::new(id).unwrap();
                if state == FlowState::AwaitPubrec && random.below(2) == 0 {
                    assert!(inflight.received(id));
                    model.insert(id.get(), (model[&id.get()].0, FlowState::AwaitPubcomp));
                } else {
                    assert!(STATES.iter().all(|s| *s == state || !inflight.finish(id, *s)));
                    assert!(inflight.finish(id, state));
                    model.remove(&id.get());
                    assert!(STATES.iter().all(|state| !inflight.finish(id, *state)));
                }
            }
            assert_eq!(inflight.unacknowledged_count(), model.len());
            assert_eq!(usize::from(inflight.outstanding), model.len());
            // A smaller quota leaves a window the memory that it has.
            assert!(inflight.has_room(quota) || inflight.free_places(quota) == 0);
            let free = usize::from(quota).saturating_sub(model.len());
            assert!(usize::from(inflight.free_places(quota)) <= free);
        }
        assert!(wrap_count > 0, "the ids came round");
    }

    #[test]
    fn a_client_that_never_acknowledges_one_message_bounds_its_window() {
        let mut inflight = Inflight::default();
        let first = send(&mut inflight, QoS::AtLeastOnce);
        let mut count = 1;
        while inflight.has_room(10) {
            let id = inflight.send(envelope(QoS::AtLeastOnce), None);
            inflight.finish(id, FlowState::AwaitPuback);
            count += 1;
        }
        assert_eq!((count, inflight.flows.len()), (10 * FLOWS_PER_PLACE, 10 * FLOWS_PER_PLACE));
        inflight.finish(first, FlowState::AwaitPuback);
        assert!(inflight.is_empty() && inflight.has_room(10));
    }

    #[test]
    fn a_window_grows_as_far_as_the_budget_goes_and_gives_back_what_it_had() {
        // Windows may use half of the budget.
        let budget = Budget::new(20_000);
        let mut windows: Vec<Inflight> = (0..40).map(|_| Inflight::new(budget.clone())).collect();
        let mut lengths = Vec::new();
        for inflight in &mut windows {
            while inflight.has_room(1_000) {
                inflight.send(envelope(QoS::AtLeastOnce), None);
            }
            lengths.push(inflight.len());
        }
        // A window that comes late has a few flows, one after the other.
        assert!(lengths[0] > 100 && lengths[39] == FLOWS_MIN, "{lengths:?}");
        assert!(budget.bytes() < 10_000 + 40 * memory_of(FLOWS_MIN), "{budget:?}");
        let last = &mut windows[39];
        for _ in 0..100 {
            let front = last.front_id().unwrap();
            last.finish(front, FlowState::AwaitPuback);
            assert!(last.has_room(1_000));
            last.send(envelope(QoS::AtLeastOnce), None);
        }
        let before = budget.bytes();
        let first = &mut windows[0];
        while let Some(front) = first.front_id() {
            first.finish(front, FlowState::AwaitPuback);
        }
        assert!(budget.bytes() + 4_000 < before, "what is not needed is given back");
        let (before, small) = (budget.bytes(), &mut windows[39]);
        while let Some(front) = small.front_id() {
            small.finish(front, FlowState::AwaitPuback);
        }
        assert_eq!(budget.bytes(), before, "few places stay while the client is there");
        small.disconnect();
        assert_eq!(budget.bytes(), before - memory_of(FLOWS_MIN));
        drop(windows);
        assert_eq!(budget.bytes(), 0);
    }

    #[test]
    fn what_was_not_acknowledged_is_sent_again_in_order_and_under_the_quota() {
        let mut inflight = Inflight::default();
        let ids: Vec<PacketId> =
            [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
                .map(|qos| send(&mut inflight, qos))
                .to_vec();
        inflight.finish(ids[0], FlowState::AwaitPuback);
        inflight.received(ids[1]);
        inflight.disconnect();
        assert!(!inflight.has_room(10));
        let (id, flow) = inflight.resend(1).unwrap();
        assert_eq!((id, flow.state), (ids[1], FlowState::AwaitPubcomp));
        assert!(inflight.resend(1).is_none(), "the quota is used");
        assert_eq!([3, 4, 10].map(|quota| inflight.free_places(quota)), [0, 1, 7]);
        inflight.finish(ids[1], FlowState::AwaitPubcomp);
        assert_eq!(inflight.resend(1).unwrap().0, ids[2]);
        assert!(inflight.resend(1).is_none());
        assert_eq!(inflight.resend(2).unwrap().0, ids[3]);
        assert!(!inflight.has_unsent() && inflight.has_room(3) && !inflight.has_room(2));
    }

    #[test]
    fn an_ack_for_a_message_not_sent_again_yet_is_taken() {
        let mut inflight = Inflight::default();
        let first = send(&mut inflight, QoS::AtLeastOnce);
        let second = send(&mut inflight, QoS::AtLeastOnce);
        inflight.disconnect();
        assert!(inflight.finish(second, FlowState::AwaitPuback));
        assert_eq!(inflight.resend(5).unwrap().0, first);
        assert!(inflight.resend(5).is_none());
        assert!(!inflight.has_unsent());
        assert!(inflight.finish(first, FlowState::AwaitPuback));
        assert!(inflight.is_empty());
    }
}
