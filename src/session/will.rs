//! The message that a client leaves behind.

use crate::arena::{Gauge, Stored};

/// A will with its properties. Its message expiry begins when it is published.
#[derive(Debug)]
pub struct Will {
    pub stored: Stored,
    pub delay_s: u32,
    pub message_expiry_s: Option<u32>,
    /// Counts the will to the address of its client; `None`: addresses are not told apart.
    pub charge: Option<Charge>,
}

impl Will {
    /// Counts the will in `gauge` as long as the will lives.
    pub fn count_in(&mut self, gauge: Gauge) {
        let size = self.stored.size();
        gauge.add(size);
        self.charge = Some(Charge { gauge, size });
    }
}

/// Bytes that count as long as this value lives.
#[derive(Debug)]
pub struct Charge {
    gauge: Gauge,
    size: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.gauge.subtract(self.size);
    }
}
