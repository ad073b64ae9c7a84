//! How far each message has come: waiting, received or done, kept as spans above a floor.

use std::collections::BTreeMap;

/// The recorded mark of a message; a message without a mark waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The remote has it (PUBREC came): only PUBREL is left to send.
    Received,
    /// The message is acknowledged, refused or dropped: nothing is left to do.
    Done,
}

/// A message that is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The message is to be sent, or was sent and not answered.
    Waiting,
    /// The remote has it (PUBREC came): only PUBREL is left to send.
    Received,
}

/// Sequences `first..end` with the same mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub first: u64,
    pub end: u64,
    pub mark: Mark,
}

/// The marks of all sequences. A mark only ever rises: waiting, received, done.
///
/// Invariants: spans do not overlap, neighbours that touch have different marks, all lie above `floor`, and the message
/// at `floor` is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct States {
    floor: u64,
    /// The end and the mark of each span, by its first sequence.
    spans: BTreeMap<u64, (u64, Mark)>,
}

impl States {
    pub fn new(floor: u64) -> States {
        States { floor, spans: BTreeMap::new() }
    }

    pub fn from_spans(floor: u64, spans: &[Span]) -> States {
        let mut states = States::new(floor);
        spans.iter().for_each(|span| states.set(*span));
        states
    }

    /// All sequences below this one are done.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// `None`: the message is done.
    pub fn state(&self, sequence: u64) -> Option<State> {
        if sequence < self.floor {
            return None;
        }
        match self.span_at(sequence) {
            None => Some(State::Waiting),
            Some(Span { mark: Mark::Received, .. }) => Some(State::Received),
            Some(Span { mark: Mark::Done, .. }) => None,
        }
    }

    /// Raises the marks of a span. A higher mark stays.
    pub fn set(&mut self, span: Span) {
        let Span { first, end, mark } = span;
        let first = first.max(self.floor);
        if first >= end {
            return;
        }
        match mark {
            Mark::Done => {
                self.split_at(first);
                self.split_at(end);
                while let Some((&inner, _)) = self.spans.range(first..end).next() {
                    self.spans.remove(&inner);
                }
                if first == self.floor {
                    self.floor = end;
                } else {
                    self.insert(first, end, Mark::Done);
                }
            }
            Mark::Received => {
                let mut at = first;
                while at < end {
                    let marked = self.span_at(at).map(|span| span.end);
                    let next = self.spans.range(at..).next().map_or(end, |(&next, _)| next);
                    if marked.is_none() {
                        self.insert(at, next.min(end), Mark::Received);
                    }
                    at = marked.unwrap_or(next.min(end));
                }
            }
        }
        while let Some((&next, &(next_end, Mark::Done))) = self.spans.first_key_value() {
            if next != self.floor {
                break;
            }
            self.spans.remove(&next);
            self.floor = next_end;
        }
    }

    /// The first sequence from `from` on that waits. Sequences that were never given out count as waiting.
    pub fn next_waiting(&self, from: u64) -> u64 {
        let mut at = from.max(self.floor);
        while let Some(span) = self.span_at(at) {
            at = span.end;
        }
        at
    }

    /// The first sequence from `from` on that is not done.
    pub fn next_unfinished(&self, from: u64) -> u64 {
        let mut at = from.max(self.floor);
        while let Some(Span { end, mark: Mark::Done, .. }) = self.span_at(at) {
            at = end;
        }
        at
    }

    /// All spans, in order.
    pub fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        self.spans.iter().map(|(&first, &(end, mark))| Span { first, end, mark })
    }

    /// The sequences that were received and are not done, in order.
    pub fn received(&self) -> impl Iterator<Item = u64> + '_ {
        let received = self.spans().filter(|span| span.mark == Mark::Received);
        received.flat_map(|span| span.first..span.end)
    }

    fn span_at(&self, sequence: u64) -> Option<Span> {
        let (&first, &(end, mark)) = self.spans.range(..=sequence).next_back()?;
        (sequence < end).then_some(Span { first, end, mark })
    }

    fn split_at(&mut self, at: u64) {
        if let Some(span) = self.span_at(at).filter(|span| span.first < at) {
            self.spans.insert(span.first, (at, span.mark));
            self.spans.insert(at, (span.end, span.mark));
        }
    }

    /// Inserts the span `first..end`, which is free, and joins it with neighbours that touch it and have the same mark.
    fn insert(&mut self, mut first: u64, mut end: u64, mark: Mark) {
        if let Some((&before, &(before_end, before_mark))) = self.spans.range(..first).next_back()
            && before_end == first
            && before_mark == mark
        {
            first = before;
        }
        if let Some(&(after_end, after_mark)) = self.spans.get(&end)
            && after_mark == mark
        {
            self.spans.remove(&end);
            end = after_end;
        }
        self.spans.insert(first, (end, mark));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// The plain model: a mark per sequence.
    fn check_against(states: &States, model: &[Option<Mark>]) {
        for (sequence, mark) in model.iter().enumerate() {
            let expected = match mark {
                None => Some(State::Waiting),
                Some(Mark::Received) => Some(State::Received),
                Some(Mark::Done) => None,
            };
            assert_eq!(states.state(sequence as u64), expected, "{sequence} of {states:?}");
            let waiting = (sequence..model.len()).find(|&at| model[at].is_none());
            let found = states.next_waiting(sequence as u64);
            assert_eq!(found.min(model.len() as u64), waiting.unwrap_or(model.len()) as u64);
        }
        let floor = model.iter().position(|mark| *mark != Some(Mark::Done));
        assert_eq!(states.floor(), floor.unwrap_or(model.len()) as u64);
        let received = |at: &usize| model[*at] == Some(Mark::Received);
        let expected: Vec<u64> = (0..model.len()).filter(received).map(|at| at as u64).collect();
        assert_eq!(states.received().collect::<Vec<_>>(), expected);
        let spans: Vec<Span> = states.spans().collect();
        for pair in spans.windows(2) {
            let joined = pair[0].end == pair[1].first && pair[0].mark == pair[1].mark;
            assert!(pair[0].end <= pair[1].first && !joined, "{spans:?}");
        }
        assert_eq!(&States::from_spans(states.floor(), &spans), states);
    }

    #[test]
    fn spans_say_what_a_mark_per_message_says() {
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let size = 1 + random.below(60);
            let mut model = vec![None; size as usize];
            let mut states = States::new(0);
            for _ in 0..60 {
                let first = random.below(size);
                let more = 1 + random.below(8);
                let end = (first + 1 + random.below(more)).min(size);
                let mark = if random.below(2) == 0 { Mark::Received } else { Mark::Done };
                for slot in &mut model[first as usize..end as usize] {
                    if *slot != Some(Mark::Done) {
                        *slot = Some(mark);
                    }
                }
                states.set(Span { first, end, mark });
                check_against(&states, &model);
            }
        }
    }
}
