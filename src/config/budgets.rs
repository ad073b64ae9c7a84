//! The budgets of a shard in bytes, and how their defaults shrink where there is little memory.

use super::Settings;
use crate::limits::{Limits, Sizes};

/// What the process takes beside its shards' budgets: code, stacks, rings, reports.
const PROCESS_BYTES: u64 = 24 << 20;

/// The arena takes at most this part of a shard's memory, unless it is set.
const ARENA_PART: u64 = 8;

/// Bytes that one shard may hold, where the default shrinks with the memory.
struct Budget {
    get: fn(&Limits) -> usize,
    set: fn(&mut Limits, usize),
    /// What it must hold, by the relations between the bounds.
    least: fn(&Limits) -> usize,
}

macro_rules! budget {
    ($name:ident, $least:expr) => {
        Budget {
            get: |limits| limits.$name,
            set: |limits, size| limits.$name = size,
            least: $least,
        }
    };
}

const BUDGETS: [Budget; 7] = [
    budget!(shard_stored_bytes_max, |limits| {
        // A queue's own default shrinks with the store.
        let hold = |size, default| if size == default { limits.packet_size_max } else { size };
        hold(limits.queue_bytes_max, Limits::DEFAULT.queue_bytes_max)
            .max(hold(limits.group_bytes_max, Limits::DEFAULT.group_bytes_max))
    }),
    budget!(shard_output_bytes_max, |limits| {
        limits.output_size_max.saturating_add(limits.packet_size_max)
    }),
    budget!(shard_frames_bytes_max, |limits| limits.packet_size_max),
    budget!(shard_connects_bytes_max, Limits::connect_packet_size_max),
    budget!(shard_wills_bytes_max, |_| 64 << 10),
    budget!(shard_metadata_bytes_max, |_| 1 << 20),
    budget!(retained_bytes_max, |_| 64 << 10),
];

impl Budget {
    fn is_default(&self, limits: &Limits) -> bool {
        (self.get)(limits) == (self.get)(&Limits::DEFAULT)
    }
}

impl Settings {
    /// What one shard may hold in messages and buffers.
    pub fn shard_bytes_max(&self) -> u64 {
        let fixed = [
            self.sizes.arena_size,
            self.receive_buffers as usize * self.receive_buffer_size as usize,
        ];
        let budgets = BUDGETS.iter().map(|budget| (budget.get)(&self.limits));
        budgets.chain(fixed).fold(0, |sum, part| sum.saturating_add(part as u64))
    }

    /// Lowers budgets that have their default values until all shards together fit into `size` bytes, or until each is
    /// as small as it can be. What is set to another value stays. `cores` is filled in.
    pub fn fit_budgets(&mut self, size: u64) {
        let shard_size = size.saturating_sub(PROCESS_BYTES) / u64::from(self.shard_count());
        if self.shard_bytes_max() <= shard_size {
            return;
        }
        let limits = &mut self.limits;
        if self.sizes.arena_size == Sizes::DEFAULT.arena_size {
            let least = 4 * limits.packet_size_max.max(limits.large_message_size);
            self.sizes.arena_size =
                lowered(Sizes::DEFAULT.arena_size, shard_size / ARENA_PART, least);
        }
        let mut open: Vec<_> = BUDGETS.iter().filter(|one| one.is_default(limits)).collect();
        // Those that come to their least value leave less for the others.
        loop {
            let sum = |limits: &Limits| -> u64 {
                open.iter().map(|budget| (budget.get)(limits) as u64).sum()
            };
            let (wanted, now) = (sum(&Limits::DEFAULT), sum(&self.limits));
            let room = shard_size.saturating_sub(self.shard_bytes_max() - now);
            let before = open.len();
            open.retain(|budget| {
                let default = (budget.get)(&Limits::DEFAULT);
                let least = (budget.least)(&self.limits);
                let share = (default as u128 * u128::from(room) / u128::from(wanted.max(1))) as u64;
                (budget.set)(&mut self.limits, lowered(default, share, least));
                share > least as u64
            });
            if open.len() == before {
                break;
            }
        }
        let limits = &mut self.limits;
        let stored = limits.shard_stored_bytes_max;
        for (queue, default) in [
            (&mut limits.queue_bytes_max, Limits::DEFAULT.queue_bytes_max),
            (&mut limits.group_bytes_max, Limits::DEFAULT.group_bytes_max),
        ] {
            if *queue == default {
                *queue = stored.min(default);
            }
        }
    }
}

/// `share`, between `least` and `default`, and such that it reads well.
fn lowered(default: usize, share: u64, least: usize) -> usize {
    let step: u64 = if share >= 4 << 20 { 1 << 20 } else { 64 << 10 };
    let share = usize::try_from(share / step * step).unwrap_or(usize::MAX);
    share.max(least).min(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn fitted(shards: u16, memory: u64, change: impl FnOnce(&mut Limits)) -> Settings {
        let mut settings = Settings { shards, ..Settings::default() };
        settings.cores = vec![0];
        change(&mut settings.limits);
        settings.connections_max = 1;
        settings.fit_budgets(memory);
        assert_eq!(settings.contradictions(), [], "{shards} shards in {memory}");
        settings
    }

    fn sum(settings: &Settings) -> u64 {
        settings.shard_bytes_max() * u64::from(settings.shard_count())
    }

    #[test]
    fn defaults_shrink_until_all_shards_fit() {
        for (shards, memory) in
            [(1, 100 * MIB), (2, 225 * MIB), (4, 1024 * MIB), (16, 512 * MIB), (128, 8192 * MIB)]
        {
            let settings = fitted(shards, memory, |_| {});
            assert!(sum(&settings) <= memory, "{shards}: {} of {memory}", sum(&settings));
            assert!(sum(&settings) > memory / 2, "{shards}: only {} of {memory}", sum(&settings));
        }
    }

    #[test]
    fn with_memory_enough_every_default_stays() {
        let settings = fitted(2, 1 << 40, |_| {});
        assert_eq!(format!("{:?}", settings.limits), format!("{:?}", Settings::default().limits));
    }

    #[test]
    fn what_was_set_stays_and_the_others_make_room() {
        let settings = fitted(2, 400 * MIB, |limits| {
            limits.retained_bytes_max = 100 << 20;
            limits.queue_bytes_max = 20 << 20;
        });
        assert_eq!(settings.limits.retained_bytes_max, 100 << 20);
        assert_eq!(settings.limits.queue_bytes_max, 20 << 20);
        assert!(settings.limits.shard_stored_bytes_max >= 20 << 20);
        assert!(sum(&settings) <= 400 * MIB);
    }

    #[test]
    fn where_not_even_the_least_fits_every_relation_holds() {
        let settings = fitted(64, 100 * MIB, |limits| limits.packet_size_max = 2 << 20);
        assert!(sum(&settings) > 100 * MIB);
        assert_eq!(settings.limits.shard_frames_bytes_max, 2 << 20);
        assert_eq!(settings.limits.queue_bytes_max, settings.limits.shard_stored_bytes_max);
    }
}
