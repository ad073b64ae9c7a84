//! The one count of connections that all shards share.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Lets in as many as the process may have. Touched when a connection opens and when it closes, never between.
#[derive(Debug)]
pub struct Gate {
    inside: AtomicUsize,
    max: usize,
}

impl Gate {
    pub fn new(max: usize) -> Gate {
        Gate { inside: AtomicUsize::new(0), max }
    }

    /// `false`: it is full.
    pub fn enter(&self) -> bool {
        let entered = self.inside.fetch_add(1, Ordering::Relaxed) < self.max;
        if !entered {
            self.leave();
        }
        entered
    }

    pub fn leave(&self) {
        let before = self.inside.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "who leaves has entered");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_gate_opens_when_somebody_leaves() {
        let gate = Gate::new(2);
        assert!(gate.enter() && gate.enter());
        assert!(!gate.enter() && !gate.enter());
        gate.leave();
        assert!(gate.enter());
        assert!(!gate.enter());
    }
}
