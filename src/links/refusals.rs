//! Lines of the log for the operator about messages that a bridge refuses.

use std::cell::Cell;

use tracing::warn;

use super::line::Line;
use crate::limits::Size;
use crate::printable::counted;
use crate::time::Instant;

/// Between two lines about the same bridge.
const SILENCE_MS: u64 = 10_000;

/// What one connection of a bridge has told.
#[derive(Default)]
pub(crate) struct Told {
    count: Cell<u64>,
    silent_until: Cell<Instant>,
}

impl Told {
    /// How many messages came since the last line, if one is due.
    fn is_due(&self, now: Instant, total: u64) -> Option<u64> {
        let count = total - self.count.get();
        if count == 0 || self.silent_until.get() > now {
            return None;
        }
        self.count.set(total);
        self.silent_until.set(now.plus_ms(SILENCE_MS));
        Some(count)
    }
}

impl Line {
    /// Says how many messages of the remote were too large, now and then.
    pub(crate) fn tell_oversized(&self, now: Instant, packet_size_max: usize) {
        if let Some(count) = self.told.is_due(now, self.status().oversized) {
            warn!(
                "bridge {}: {} refused: larger than {}; raise the bridge's packet_size_max, and \
                 arena_size with it",
                self.name(),
                counted(count, "messages of the remote"),
                Size(packet_size_max as u64)
            );
        }
    }

    /// Says how many messages the remote could not take just now, now and then.
    pub(crate) fn tell_postponed(&self, now: Instant) {
        let (total, reason) = {
            let status = self.status.borrow();
            (status.postponed, status.postponed_reason)
        };
        if let (Some(count), Some(reason)) = (self.told_postponed.is_due(now, total), reason) {
            warn!(
                "bridge {}: the remote cannot take {} now: {reason:?}; each is sent again, up to refused_max_s, and what has \
                 its topic waits behind it",
                self.name(),
                counted(count, "messages")
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_told_once_in_a_while_with_what_came_since() {
        let told = Told::default();
        for (at, total, want) in [
            (0, 0, None),
            (1_000, 3, Some(3)),
            (2_000, 5, None),
            (11_000, 5, Some(2)),
            (30_000, 5, None),
            (31_000, 6, Some(1)),
        ] {
            assert_eq!(told.is_due(Instant(at), total), want, "at {at} ms");
        }
    }
}
