//! Randomness from a seed, so that a run can be repeated.

/// A seeded generator; not for secrets.
#[derive(Clone, Debug)]
pub struct Random(fastrand::Rng);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(fastrand::Rng::with_seed(seed))
    }

    pub fn number(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// A number in `0..bound`; `bound` is above 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0.u64(..bound)
    }
}
