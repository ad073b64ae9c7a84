//! Messages of the remote above QoS 0, which are answered in the order of their arrival, once this broker has them.

use std::collections::{HashMap, VecDeque};

use crate::codec::{PacketId, QoS, ReasonCode};

#[derive(Debug)]
pub(super) struct Inflow {
    /// The messages without an answer, in the order of their numbers.
    pending: VecDeque<Pending>,
    /// The number of the first pending message.
    first: u64,
    /// QoS 2 messages that were not released yet: whether this broker has them, and their numbers until it does.
    unreleased: HashMap<PacketId, Option<u64>, ahash::RandomState>,
    /// Counts connections: an answer goes to the connection that asked.
    epoch: u32,
    /// QoS 1 messages of this connection that are pending.
    at_least_once_count: usize,
}

#[derive(Debug)]
struct Pending {
    packet_id: PacketId,
    qos: QoS,
    epoch: u32,
    /// The answer's reason code, once there is an answer.
    answer: Option<ReasonCode>,
}

/// An answer that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub packet_id: PacketId,
    pub qos: QoS,
    pub reason: ReasonCode,
}

impl Inflow {
    pub(super) fn new(state: ahash::RandomState) -> Inflow {
        let unreleased = HashMap::with_hasher(state);
        Inflow { pending: VecDeque::new(), first: 1, unreleased, epoch: 0, at_least_once_count: 0 }
    }

    /// Messages that this broker has not taken yet, those of earlier connections included.
    pub(super) fn pending_count(&self) -> usize {
        self.pending.len()
    }

    /// Exchanges that are not finished: those of this connection, and QoS 2 ones that earlier connections left.
    pub(super) fn open_count(&self) -> usize {
        self.at_least_once_count + self.unreleased.len()
    }

    /// Another connection begins. Without its session the remote starts over.
    pub(super) fn begin(&mut self, session_present: bool) {
        self.epoch = self.epoch.wrapping_add(1);
        self.at_least_once_count = 0;
        if !session_present {
            self.unreleased.clear();
        }
    }

    /// A message came. Returns its number if the message is new; the answer to a repeated message follows by itself.
    pub(super) fn arrive(&mut self, packet_id: PacketId, qos: QoS) -> Option<u64> {
        let number = self.first + self.pending.len() as u64;
        let mut answer = None;
        if qos == QoS::ExactlyOnce {
            match self.unreleased.get(&packet_id) {
                // [MQTT-4.3.3-10]
                Some(Some(earlier)) => {
                    let place = earlier.checked_sub(self.first).map(|place| place as usize);
                    if let Some(one) = place.and_then(|place| self.pending.get_mut(place)) {
                        one.epoch = self.epoch;
                    }
                    return None;
                }
                Some(None) => answer = Some(ReasonCode::Success),
                None => {
                    self.unreleased.insert(packet_id, Some(number));
                }
            }
        }
        self.at_least_once_count += usize::from(qos == QoS::AtLeastOnce);
        self.pending.push_back(Pending { packet_id, qos, epoch: self.epoch, answer });
        answer.is_none().then_some(number)
    }

    /// Notes that this broker has the message, or refuses it.
    pub(super) fn take(&mut self, number: u64, reason: ReasonCode) {
        let place = number.checked_sub(self.first).map(|place| place as usize);
        if let Some(one) = place.and_then(|place| self.pending.get_mut(place)) {
            one.answer = Some(reason);
        }
    }

    /// The next answer. [MQTT-4.6.0-2] [MQTT-4.6.0-3]
    pub(super) fn poll(&mut self) -> Option<Answer> {
        loop {
            let reason = self.pending.front()?.answer?;
            let one = self.pending.pop_front()?;
            let number = self.first;
            self.first += 1;
            // The identifier may belong to another message by now.
            if one.qos == QoS::ExactlyOnce
                && self.unreleased.get(&one.packet_id) == Some(&Some(number))
            {
                match reason.is_error() {
                    true => self.unreleased.remove(&one.packet_id),
                    false => self.unreleased.insert(one.packet_id, None),
                };
            }
            if one.epoch == self.epoch {
                self.at_least_once_count -= usize::from(one.qos == QoS::AtLeastOnce);
                return Some(Answer { packet_id: one.packet_id, qos: one.qos, reason });
            }
        }
    }

    /// The remote releases a QoS 2 message. Returns whether the identifier stood for such a message.
    pub(super) fn release(&mut self, packet_id: PacketId) -> bool {
        self.unreleased.remove(&packet_id).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use QoS::{AtLeastOnce, ExactlyOnce};

    fn id(id: u16) -> PacketId {
        PacketId::new(id).unwrap()
    }

    fn answers(inflow: &mut Inflow) -> Vec<(u16, u8)> {
        std::iter::from_fn(|| inflow.poll()).map(|a| (a.packet_id.get(), a.qos as u8)).collect()
    }

    fn inflow() -> Inflow {
        let mut inflow = Inflow::new(crate::hash::KeyedHash::new(1).state());
        inflow.begin(false);
        inflow
    }

    #[test]
    fn answers_leave_in_the_order_in_which_messages_came() {
        let mut inflow = inflow();
        let numbers: Vec<_> = (1..=4).map(|n| inflow.arrive(id(n), AtLeastOnce).unwrap()).collect();
        inflow.take(numbers[2], ReasonCode::Success);
        inflow.take(numbers[1], ReasonCode::Success);
        assert_eq!(answers(&mut inflow), []);
        inflow.take(numbers[0], ReasonCode::Success);
        assert_eq!(answers(&mut inflow), [(1, 1), (2, 1), (3, 1)]);
        inflow.take(numbers[0], ReasonCode::Success);
        inflow.take(numbers[3], ReasonCode::Success);
        assert_eq!(answers(&mut inflow), [(4, 1)]);
        assert_eq!(inflow.pending_count(), 0);
    }

    #[test]
    fn a_qos_2_message_is_new_once_until_it_is_released() {
        let mut inflow = inflow();
        let number = inflow.arrive(id(7), ExactlyOnce).unwrap();
        assert_eq!(inflow.arrive(id(7), ExactlyOnce), None);
        inflow.begin(true);
        assert_eq!(inflow.arrive(id(7), ExactlyOnce), None);
        inflow.take(number, ReasonCode::Success);
        assert_eq!(answers(&mut inflow), [(7, 2)], "the new connection asked again");
        assert_eq!(inflow.arrive(id(7), ExactlyOnce), None);
        assert_eq!(answers(&mut inflow), [(7, 2)]);
        assert!(inflow.release(id(7)));
        assert!(!inflow.release(id(7)));
        assert!(inflow.arrive(id(7), ExactlyOnce).is_some());
    }

    #[test]
    fn a_lost_connection_is_not_answered_and_its_messages_are_remembered() {
        let mut inflow = inflow();
        let first = inflow.arrive(id(1), AtLeastOnce).unwrap();
        let second = inflow.arrive(id(2), ExactlyOnce).unwrap();
        inflow.begin(true);
        let again = inflow.arrive(id(1), AtLeastOnce).unwrap();
        for number in [first, second] {
            inflow.take(number, ReasonCode::Success);
        }
        assert_eq!(answers(&mut inflow), []);
        inflow.take(again, ReasonCode::Success);
        assert_eq!(answers(&mut inflow), [(1, 1)]);
        assert_eq!(inflow.arrive(id(2), ExactlyOnce), None, "this broker has it");
        assert_eq!(answers(&mut inflow), [(2, 2)]);
        inflow.begin(false);
        assert!(inflow.arrive(id(2), ExactlyOnce).is_some(), "the remote has forgotten it");
    }

    #[test]
    fn a_late_answer_does_not_touch_the_next_message_of_its_identifier() {
        let mut inflow = inflow();
        let old = inflow.arrive(id(3), ExactlyOnce).unwrap();
        inflow.begin(false);
        let new = inflow.arrive(id(3), ExactlyOnce).unwrap();
        inflow.take(old, ReasonCode::QuotaExceeded);
        assert_eq!(answers(&mut inflow), []);
        assert_eq!(inflow.arrive(id(3), ExactlyOnce), None);
        inflow.take(new, ReasonCode::Success);
        assert_eq!(answers(&mut inflow), [(3, 2)]);
    }
}
