//! How far each stage has come. The pipeline knows no stage's work.
//!
//! `Pipeline` asserts after each ack, for each stage: `released <= acked <= taken <= admitted`, and `encode.taken,
//! bridge.taken <= plugin.prepared`. A stage acks every message that it took, also a denied one, so the smallest ack of
//! all stages says which slots may be used again.
//!
//! The generation in these cursors guards one thing: no stage reads a slot that is released. It does not guard hooks.
//! Publish hooks run before a message is admitted (`shard::hooks`), so the plugin stage prepares a message at once when
//! it takes it, and acks it behind the encode stage, which asks the deliver hooks.

use crate::arena::Generation;

/// The stages, each of which must ack a message before the message's slot is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Routes a message, encodes it for local subscribers and copies it for other shards.
    Encode = 0,
    /// Prepares a message for the other two stages, and acks it when its deliver hooks have run.
    Plugin = 1,
    /// Copies a message for bridges.
    Bridge = 2,
}

pub const STAGES: [Stage; 3] = [Stage::Encode, Stage::Plugin, Stage::Bridge];

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    taken: Generation,
    acked: Generation,
}

/// The cursors of all stages over one arena.
#[derive(Debug, Default)]
pub struct Pipeline {
    admitted: Generation,
    prepared: Generation,
    progress: [Progress; 3],
    released: Generation,
}

/// The messages that a stage has taken, first to last.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    next: Generation,
    last: Generation,
}

impl Iterator for Batch {
    type Item = Generation;

    fn next(&mut self) -> Option<Generation> {
        if self.next > self.last {
            return None;
        }
        let generation = self.next;
        self.next = generation.next();
        Some(generation)
    }
}

impl Batch {
    pub fn through(&self) -> Generation {
        self.last
    }

    /// Skips all messages up to `generation`.
    pub fn pass(&mut self, generation: Generation) {
        debug_assert!(self.next <= generation.next() && generation <= self.last);
        self.next = generation.next();
    }
}

impl Pipeline {
    /// Notes that every message up to `generation` was admitted.
    pub fn admit_to(&mut self, generation: Generation) {
        assert!(generation >= self.admitted, "generations are admitted in order");
        self.admitted = generation;
    }

    /// All messages that `stage` may work on next; `None`: there are none.
    pub fn take(&mut self, stage: Stage) -> Option<Batch> {
        let limit = match stage {
            Stage::Plugin => self.admitted,
            Stage::Encode | Stage::Bridge => self.prepared,
        };
        let progress = &mut self.progress[stage as usize];
        if progress.taken == limit {
            return None;
        }
        let batch = Batch { next: progress.taken.next(), last: limit };
        progress.taken = limit;
        Some(batch)
    }

    /// Lets the other stages read every message up to `generation`.
    pub fn prepare(&mut self, generation: Generation) {
        assert!(generation <= self.progress[Stage::Plugin as usize].taken);
        self.prepared = self.prepared.max(generation);
    }

    /// Notes that `stage` is done with every message up to `generation`.
    pub fn ack(&mut self, stage: Stage, generation: Generation) {
        let progress = &mut self.progress[stage as usize];
        assert!(generation <= progress.taken, "a stage acks only what it took");
        progress.acked = progress.acked.max(generation);
        self.check(stage);
    }

    /// Releases every message that all stages have acked; returns the last of these.
    pub fn release(&mut self) -> Generation {
        let acked = self.progress.iter().map(|progress| progress.acked).min();
        let released = acked.unwrap_or(self.released);
        // The smallest ack never moves back, because no ack does.
        assert!(released >= self.released, "nothing that was released is held again");
        self.released = released;
        self.released
    }

    pub fn admitted(&self) -> Generation {
        self.admitted
    }

    /// The last message that `stage` acked. A shard that is stuck shows here: the ack stands still while messages are
    /// held.
    pub fn acked(&self, stage: Stage) -> Generation {
        self.progress[stage as usize].acked
    }

    /// Checks the invariant of one stage. An ack of one stage cannot break the invariant of another.
    #[inline(always)]
    fn check(&self, stage: Stage) {
        let progress = &self.progress[stage as usize];
        assert!(self.released <= progress.acked);
        assert!(progress.acked <= progress.taken);
        assert!(progress.taken <= self.admitted);
        assert!(stage == Stage::Plugin || progress.taken <= self.prepared);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn admit(pipeline: &mut Pipeline, count: u64) {
        for _ in 0..count {
            let next = pipeline.admitted().next();
            pipeline.admit_to(next);
        }
    }

    #[test]
    fn nothing_is_released_before_every_stage_has_acked() {
        let mut pipeline = Pipeline::default();
        admit(&mut pipeline, 3);
        assert!(pipeline.take(Stage::Encode).is_none(), "not prepared yet");
        let batch = pipeline.take(Stage::Plugin).unwrap();
        pipeline.prepare(batch.through());
        pipeline.ack(Stage::Plugin, batch.through());
        assert_eq!(pipeline.release(), Generation::NONE);
        let batch = pipeline.take(Stage::Encode).unwrap();
        assert_eq!(batch.count(), 3);
        pipeline.ack(Stage::Encode, pipeline.admitted());
        assert_eq!(pipeline.release(), Generation::NONE);
        pipeline.take(Stage::Bridge).unwrap();
        pipeline.ack(Stage::Bridge, pipeline.admitted());
        assert_eq!(pipeline.release(), pipeline.admitted());
    }

    #[test]
    #[should_panic(expected = "acks only what it took")]
    fn a_stage_cannot_ack_what_it_did_not_take() {
        let mut pipeline = Pipeline::default();
        admit(&mut pipeline, 1);
        pipeline.ack(Stage::Plugin, pipeline.admitted());
    }

    #[test]
    fn stages_in_any_order_release_the_smallest_ack() {
        let mut random = Random::new(11);
        let mut pipeline = Pipeline::default();
        let mut taken = [Generation::NONE; 3];
        let mut acked = [Generation::NONE; 3];
        for _ in 0..20_000 {
            let stage = STAGES[random.below(3) as usize];
            match random.below(4) {
                0 => admit(&mut pipeline, random.below(3)),
                1 => {
                    if let Some(batch) = pipeline.take(stage) {
                        taken[stage as usize] = batch.through();
                    }
                }
                2 => pipeline.prepare(taken[Stage::Plugin as usize]),
                _ => {
                    let target = taken[stage as usize];
                    pipeline.ack(stage, target);
                    acked[stage as usize] = target;
                }
            }
            assert_eq!(pipeline.release(), acked.into_iter().min().unwrap());
        }
        assert!(pipeline.admitted().number() > 1000);
    }
}
