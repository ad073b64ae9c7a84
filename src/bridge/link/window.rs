//! Messages above QoS 0 that the remote has not finished, by their sequence in the log.
//!
//! Packet ids follow from sequences of the log. PUBREC is recorded before PUBREL leaves, so SIGKILL between log and
//! remote repeats no QoS 2 message.

use std::collections::VecDeque;

use crate::codec::PacketId;

/// Packet identifiers follow from sequences, so that a message has the same identifier in every process that sends it.
#[derive(Debug)]
pub(super) struct Window {
    /// The messages by rising sequence; messages in the middle may be finished.
    flights: VecDeque<Flight>,
    /// The number of messages that are not finished.
    count: usize,
    first_id: u16,
    id_count: u16,
    /// The sequence that has the first identifier.
    origin: u64,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    sequence: u64,
    state: FlightState,
    /// The hash of the message's topic; 0 where no caller asks for it.
    topic: u64,
}

/// How far a message has come.
///
/// ```text
/// AtLeastOnce -- PUBACK ---------------------------------------------> Finished
/// ExactlyOnce -- PUBREC --> Received -- recorded --> Released -- PUBCOMP --^
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlightState {
    /// PUBACK is awaited.
    AtLeastOnce,
    /// PUBREC is awaited.
    ExactlyOnce,
    /// PUBREC came; it must be recorded before PUBREL leaves.
    Received,
    /// PUBCOMP is awaited.
    Released,
    Finished,
}

impl Window {
    /// Sequences from `origin` on take the `id_count` identifiers from `first_id` on, round and round.
    pub(super) fn new(first_id: u16, id_count: u16, origin: u64) -> Window {
        debug_assert!(first_id > 0 && id_count > 0 && first_id.checked_add(id_count - 1).is_some());
        Window { flights: VecDeque::new(), count: 0, first_id, id_count, origin }
    }

    /// Messages that are not finished.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn clear(&mut self) {
        self.flights.clear();
        self.count = 0;
    }

    /// Gives back the memory of a window that is empty.
    pub(super) fn trim(&mut self) {
        if self.flights.is_empty() {
            self.flights = VecDeque::new();
        }
    }

    pub(super) fn id_of(&self, sequence: u64) -> PacketId {
        let offset = (sequence - self.origin) % u64::from(self.id_count);
        PacketId::new(self.first_id + offset as u16).expect("the first identifier is above 0")
    }

    /// Whether the identifier of `sequence` is free.
    pub(super) fn takes(&self, sequence: u64) -> bool {
        let (Some(oldest), Some(newest)) = (self.flights.front(), self.flights.back()) else {
            return true;
        };
        let span = newest.sequence.max(sequence) - oldest.sequence.min(sequence);
        span < u64::from(self.id_count)
    }

    /// Adds a message. It nearly always goes behind all others: only a message that was to be released before, or that
    /// was refused for a time, comes out of order.
    pub(super) fn push(&mut self, sequence: u64, state: FlightState, topic: u64) {
        assert!(self.takes(sequence), "an identifier stands for one message");
        let index = self.flights.partition_point(|flight| flight.sequence < sequence);
        let flight = Flight { sequence, state, topic };
        match self.flights.get_mut(index).filter(|present| present.sequence == sequence) {
            Some(present) => {
                assert_eq!(present.state, FlightState::Finished, "a message is in flight once");
                *present = flight;
            }
            None => self.flights.insert(index, flight),
        }
        self.count += 1;
    }

    /// The hash of the topic of a message in flight.
    pub(super) fn topic_of(&self, sequence: u64) -> u64 {
        self.index(sequence).map_or(0, |index| self.flights[index].topic)
    }

    /// The oldest message that the remote has not acknowledged in any way, and the number of such messages.
    pub(super) fn unacknowledged(&self) -> (Option<u64>, usize) {
        let is_open = |flight: &&Flight| {
            matches!(flight.state, FlightState::AtLeastOnce | FlightState::ExactlyOnce)
        };
        let mut open = self.flights.iter().filter(is_open);
        let oldest = open.next().map(|flight| flight.sequence);
        (oldest, usize::from(oldest.is_some()) + open.count())
    }

    /// The unfinished messages from a sequence on, in order; nearly always none.
    pub(super) fn unfinished_from(&self, sequence: u64) -> Vec<u64> {
        let first = self.flights.partition_point(|flight| flight.sequence < sequence);
        let open =
            self.flights.range(first..).filter(|flight| flight.state != FlightState::Finished);
        open.map(|flight| flight.sequence).collect()
    }

    /// The sequence for which `id` stands now.
    pub(super) fn sequence_of(&self, id: PacketId) -> Option<u64> {
        let count = u64::from(self.id_count);
        let offset = u64::from(id.get().checked_sub(self.first_id)?);
        if offset >= count {
            return None;
        }
        let oldest = self.flights.front()?.sequence;
        let distance = (offset + count - (oldest - self.origin) % count) % count;
        self.state(oldest + distance).map(|_| oldest + distance)
    }

    /// `None`: the message is finished, or was never sent.
    pub(super) fn state(&self, sequence: u64) -> Option<FlightState> {
        let state = self.flights[self.index(sequence)?].state;
        (state != FlightState::Finished).then_some(state)
    }

    /// Moves an unfinished message on.
    pub(super) fn set(&mut self, sequence: u64, state: FlightState) {
        let Some(index) = self.index(sequence) else { return };
        if self.flights[index].state == FlightState::Finished {
            return;
        }
        self.flights[index].state = state;
        if state == FlightState::Finished {
            self.count -= 1;
            while self.flights.front().is_some_and(|flight| flight.state == FlightState::Finished) {
                self.flights.pop_front();
            }
        }
    }

    fn index(&self, sequence: u64) -> Option<usize> {
        // Nearly every caller asks for a message that was not sent yet.
        self.flights.back().filter(|newest| newest.sequence >= sequence)?;
        self.flights.binary_search_by_key(&sequence, |flight| flight.sequence).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use std::collections::BTreeMap;

    #[test]
    fn an_identifier_finds_the_one_message_that_has_it() {
        let mut random = Random::new(4);
        let mut refused_count = 0;
        for _ in 0..100 {
            let (first_id, id_count) = (1 + random.below(9) as u16, 1 + random.below(12) as u16);
            let mut sequence = random.below(1 << 40);
            let mut window =
                Window::new(first_id, id_count, sequence.saturating_sub(random.below(30)));
            let mut model = BTreeMap::new();
            for _ in 0..300 {
                if random.below(2) == 0 {
                    sequence += 1 + random.below(3);
                    let oldest = model.keys().next().copied().unwrap_or(sequence);
                    assert_eq!(window.takes(sequence), sequence - oldest < u64::from(id_count));
                    if window.takes(sequence) {
                        window.push(sequence, FlightState::ExactlyOnce, sequence % 7);
                        model.insert(sequence, FlightState::ExactlyOnce);
                    } else {
                        refused_count += 1;
                    }
                } else if let Some(&one) =
                    model.keys().nth(random.below(model.len().max(1) as u64) as usize)
                {
                    let state =
                        [FlightState::Received, FlightState::Released, FlightState::Finished];
                    let state = state[random.below(3) as usize];
                    window.set(one, state);
                    model.insert(one, state);
                    model.retain(|_, state| *state != FlightState::Finished);
                }
                assert_eq!(window.count(), model.len());
                let mut found = BTreeMap::new();
                for id in 0..40 {
                    let Some(id) = PacketId::new(id) else { continue };
                    if let Some(one) = window.sequence_of(id) {
                        assert_eq!(window.id_of(one), id);
                        assert_eq!(window.topic_of(one), one % 7);
                        found.insert(one, window.state(one).unwrap());
                    }
                }
                assert_eq!(found, model);
            }
        }
        assert!(refused_count > 100);
    }
}
