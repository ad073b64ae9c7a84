//! How the bounds relate: each relation with the keys it ties together and what to do when it does not hold.

use super::{Limits, Size, Sizes};

/// Settings that cannot hold together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    pub keys: Vec<&'static str>,
    /// Names the keys, their values and what to do.
    pub sentence: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    /// A largest packet can be admitted while others are still held.
    ArenaHoldsFourPackets,
    /// A slot's index is the low bits of a distance between generations (`Arena::index`).
    SlotsArePowerOfTwo,
    /// What is copied into the byte ring leaves room for others.
    ArenaHoldsFourInlineMessages,
    /// A whole packet can arrive in pieces.
    FramesHoldAPacket,
    ConnectsHoldAPacket,
    /// A message that was accepted can wait for its subscriber.
    QueueHoldsAPacket,
    GroupHoldsAPacket,
    /// One session, or group, reaches its own bound before the shard's.
    StoredHoldsAQueue,
    StoredHoldsAGroup,
    /// One connection can fill its buffer and pass it by a largest packet.
    OutputHoldsAConnection,
    /// The cap holds for clients of every version.
    OldSessionsEndWithinTheCap,
}

const RELATIONS: [Relation; 11] = [
    Relation::ArenaHoldsFourPackets,
    Relation::SlotsArePowerOfTwo,
    Relation::ArenaHoldsFourInlineMessages,
    Relation::FramesHoldAPacket,
    Relation::ConnectsHoldAPacket,
    Relation::QueueHoldsAPacket,
    Relation::GroupHoldsAPacket,
    Relation::StoredHoldsAQueue,
    Relation::StoredHoldsAGroup,
    Relation::OutputHoldsAConnection,
    Relation::OldSessionsEndWithinTheCap,
];

// The defaults contradict nothing.
const _: () = {
    let mut index = 0;
    while index < RELATIONS.len() {
        assert!(RELATIONS[index].holds(&Sizes::DEFAULT, &Limits::DEFAULT));
        index += 1;
    }
};

impl Limits {
    /// Every relation between the bounds of a shard of these sizes that does not hold.
    pub fn contradictions(&self, sizes: &Sizes) -> Vec<Contradiction> {
        RELATIONS
            .into_iter()
            .filter(|relation| !relation.holds(sizes, self))
            .map(|relation| relation.explain(sizes, self))
            .collect()
    }

    /// The first relation between the bounds that does not hold, as a sentence for the operator.
    pub fn contradiction(&self, sizes: &Sizes) -> Option<String> {
        self.contradictions(sizes).into_iter().next().map(|found| found.sentence)
    }
}

impl Relation {
    const fn holds(self, sizes: &Sizes, limits: &Limits) -> bool {
        match self {
            Relation::ArenaHoldsFourPackets => sizes.arena_size / 4 >= limits.packet_size_max,
            Relation::SlotsArePowerOfTwo => sizes.arena_slots.is_power_of_two(),
            Relation::ArenaHoldsFourInlineMessages => {
                sizes.arena_size / 4 >= limits.large_message_size
            }
            Relation::FramesHoldAPacket => limits.shard_frames_bytes_max >= limits.packet_size_max,
            Relation::ConnectsHoldAPacket => {
                limits.shard_connects_bytes_max >= limits.connect_packet_size_max()
            }
            Relation::QueueHoldsAPacket => limits.queue_bytes_max >= limits.packet_size_max,
            Relation::GroupHoldsAPacket => limits.group_bytes_max >= limits.packet_size_max,
            Relation::StoredHoldsAQueue => limits.shard_stored_bytes_max >= limits.queue_bytes_max,
            Relation::StoredHoldsAGroup => limits.shard_stored_bytes_max >= limits.group_bytes_max,
            Relation::OutputHoldsAConnection => {
                limits.shard_output_bytes_max
                    >= limits.output_size_max.saturating_add(limits.packet_size_max)
            }
            Relation::OldSessionsEndWithinTheCap => {
                limits.session_expiry_v3_s <= limits.session_expiry_max_s
            }
        }
    }

    fn explain(self, sizes: &Sizes, limits: &Limits) -> Contradiction {
        let packet = ("packet_size_max", limits.packet_size_max);
        let arena = ("arena_size", sizes.arena_size);
        let frames = ("shard_frames_bytes_max", limits.shard_frames_bytes_max);
        let stored = ("shard_stored_bytes_max", limits.shard_stored_bytes_max);
        let queue = ("queue_bytes_max", limits.queue_bytes_max);
        let group = ("group_bytes_max", limits.group_bytes_max);
        match self {
            Relation::ArenaHoldsFourPackets => at_least(arena, 4, packet),
            Relation::SlotsArePowerOfTwo => Contradiction {
                keys: vec!["arena_slots"],
                sentence: format!("arena_slots ({}) must be a power of two", sizes.arena_slots),
            },
            Relation::ArenaHoldsFourInlineMessages => {
                at_least(arena, 4, ("large_message_size", limits.large_message_size))
            }
            Relation::FramesHoldAPacket => at_least(frames, 1, packet),
            Relation::ConnectsHoldAPacket => at_least(
                ("shard_connects_bytes_max", limits.shard_connects_bytes_max),
                1,
                ("connect_size_max", limits.connect_packet_size_max()),
            ),
            Relation::QueueHoldsAPacket => at_least(queue, 1, packet),
            Relation::GroupHoldsAPacket => at_least(group, 1, packet),
            Relation::StoredHoldsAQueue => at_least(stored, 1, queue),
            Relation::StoredHoldsAGroup => at_least(stored, 1, group),
            Relation::OutputHoldsAConnection => Contradiction {
                keys: vec!["shard_output_bytes_max", "output_size_max", "packet_size_max"],
                sentence: format!(
                    "shard_output_bytes_max ({}) must be at least output_size_max ({}) plus \
                     packet_size_max ({}): raise the first or lower one of the others",
                    Size(limits.shard_output_bytes_max as u64),
                    Size(limits.output_size_max as u64),
                    Size(limits.packet_size_max as u64)
                ),
            },
            Relation::OldSessionsEndWithinTheCap => Contradiction {
                keys: vec!["session_expiry_v3_s", "session_expiry_max_s"],
                sentence: format!(
                    "session_expiry_v3_s ({}) must be at most session_expiry_max_s ({}): lower the \
                     first or raise the second",
                    limits.session_expiry_v3_s, limits.session_expiry_max_s
                ),
            },
        }
    }
}

/// The sentence for `whole < factor * part`.
fn at_least(
    whole: (&'static str, usize),
    factor: u64,
    part: (&'static str, usize),
) -> Contradiction {
    let times = if factor == 1 { String::new() } else { format!("{factor} times ") };
    let needed = (part.1 as u64).saturating_mul(factor);
    Contradiction {
        keys: vec![whole.0, part.0],
        sentence: format!(
            "{} ({}) must be at least {times}{} ({}): raise the first to {} or lower the second",
            whole.0,
            Size(whole.1 as u64),
            part.0,
            Size(part.1 as u64),
            Size(needed)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{Limits, Sizes};

    fn check(change: impl FnOnce(&mut Sizes, &mut Limits), keys: &[&str]) {
        let (mut sizes, mut limits) = (Sizes::default(), Limits::default());
        change(&mut sizes, &mut limits);
        let found = limits.contradictions(&sizes);
        let named: Vec<_> = found.iter().map(|one| one.keys.as_slice()).collect();
        assert_eq!(named, [keys], "{found:?}");
        for key in keys {
            assert!(found[0].sentence.contains(key), "{found:?}");
        }
        assert_eq!(limits.contradiction(&sizes).as_ref(), Some(&found[0].sentence));
    }

    #[test]
    fn each_relation_is_reported_alone_with_its_keys() {
        let packet = Limits::DEFAULT.packet_size_max;
        check(|s, _| s.arena_size = 4 * packet - 1, &["arena_size", "packet_size_max"]);
        check(|s, _| s.arena_slots = 100, &["arena_slots"]);
        check(
            |s, l| {
                l.packet_size_max = 4096;
                s.arena_size = 64 << 10;
            },
            &["arena_size", "large_message_size"],
        );
        check(
            |_, l| l.shard_frames_bytes_max = packet - 1,
            &["shard_frames_bytes_max", "packet_size_max"],
        );
        let connect = Limits::DEFAULT.connect_size_max;
        check(
            |_, l| l.shard_connects_bytes_max = connect - 1,
            &["shard_connects_bytes_max", "connect_size_max"],
        );
        check(|_, l| l.queue_bytes_max = packet - 1, &["queue_bytes_max", "packet_size_max"]);
        check(|_, l| l.group_bytes_max = packet - 1, &["group_bytes_max", "packet_size_max"]);
        check(|_, l| l.queue_bytes_max = 1 << 40, &["shard_stored_bytes_max", "queue_bytes_max"]);
        check(|_, l| l.group_bytes_max = 1 << 40, &["shard_stored_bytes_max", "group_bytes_max"]);
        check(
            |_, l| l.shard_output_bytes_max = l.output_size_max + packet - 1,
            &["shard_output_bytes_max", "output_size_max", "packet_size_max"],
        );
        check(|_, l| l.session_expiry_max_s = 60, &["session_expiry_v3_s", "session_expiry_max_s"]);
    }

    #[test]
    fn bounds_that_just_fit_are_no_contradiction() {
        let packet = Limits::DEFAULT.packet_size_max;
        let limits = Limits {
            large_message_size: packet,
            shard_frames_bytes_max: packet,
            shard_connects_bytes_max: Limits::DEFAULT.connect_size_max,
            queue_bytes_max: packet,
            group_bytes_max: packet,
            shard_stored_bytes_max: packet,
            shard_output_bytes_max: Limits::DEFAULT.output_size_max + packet,
            session_expiry_max_s: Limits::DEFAULT.session_expiry_v3_s,
            ..Limits::default()
        };
        let sizes = Sizes { arena_size: 4 * packet, ..Sizes::default() };
        assert_eq!(limits.contradictions(&sizes), []);
    }
}
