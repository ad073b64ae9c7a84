//! Which filters with wildcards have changed, in constant memory: it tells whether one that changed may mean a topic.

use crate::arena::allocated;
use crate::hash::KeyedHash;
use smallvec::SmallVec;

/// Which filters with wildcards have changed. A route that was found at a version holds as long as `since` says that no
/// change touched its topic.
///
/// A filter is known by its shape, which says where its wildcards stand, and by the names between them. At most one filter of a
/// shape means a topic: the names that the topic has at the same levels are hashed as the filter's names were, and the
/// hash finds two stamps, as in a Bloom filter. Each stamp holds the version of the last change of a filter that leads to it.
///
/// Invariants worth naming:
/// - A change that means a topic is never missed. Filters may share stamps, and a shape may be forgotten: then a topic
///   is said to be touched although it is not.
/// - The cost of a change depends neither on earlier changes nor on the number of routes.
pub struct Changes {
    /// Shapes with the version of their last change, the latest first.
    shapes: SmallVec<[(Shape, u64); SHAPES_MAX]>,
    /// Each stamp is the version of the last change of all filters that lead to it; the count is a power of two.
    stamps: Box<[u64]>,
    /// The hash of a name without bytes.
    seed: u64,
    version: u64,
    /// Changes before this version may have been forgotten.
    known_from: u64,
}

/// Whether a change may have touched a topic, and how many steps of work the answer took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    pub is_touched: bool,
    pub steps: u64,
}

/// What `Changes` reads of a topic: 20 bits of the hash of each name, above the count of levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// Two words instead of one `u128`, whose alignment of 16 bytes would make holders larger.
    words: [u64; 2],
}

/// Where the wildcards of a filter stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// A bit for each level that is a name.
    mask: u128,
    /// Levels, not counting `#`.
    level_count: u64,
    /// Whether `#` follows, or further levels that are not compared.
    is_open: bool,
}

/// How many shapes are remembered. A search of subscriptions takes longer than a comparison with all of them.
const SHAPES_MAX: usize = 32;

/// Comparing so many shapes takes about as long as one step of other work.
const SHAPES_PER_STEP: usize = 8;

/// How many levels are compared: further levels of a filter match every level.
const LEVELS_MAX: usize = 6;

/// Two odd factors without a pattern in their bits.
const FACTORS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93];

const COUNT_BITS: usize = 8;
const NAME_BITS: usize = 20;

const _: () = assert!(COUNT_BITS + LEVELS_MAX * NAME_BITS == u128::BITS as usize);

impl Changes {
    /// The version of a route that was never found: every topic counts as touched since then.
    pub const NEVER: u64 = 0;

    /// `since` takes at most so many steps.
    pub const STEPS_MAX: usize = 1 + SHAPES_MAX / SHAPES_PER_STEP;

    /// `stamp_count`, a power of two of at most 2^20, bounds how many changes are told apart. Each stamp takes 8 bytes.
    pub fn new(hash: &KeyedHash, stamp_count: usize) -> Changes {
        assert!(stamp_count.is_power_of_two() && stamp_count <= 1 << 20);
        Changes {
            shapes: SmallVec::new(),
            stamps: vec![0; stamp_count].into(),
            seed: hash.bytes(b"names"),
            version: 1,
            known_from: 1,
        }
    }

    /// Notes that a filter with wildcards has changed: its subscribers, or their options.
    pub fn note(&mut self, filter: &str) {
        self.version += 1;
        let (levels, shape) = self.filter(filter);
        for stamp in self.stamps(&shape, levels) {
            self.stamps[stamp] = self.version;
        }
        match self.shapes.iter().position(|(known, _)| *known == shape) {
            Some(place) => self.shapes[..=place].rotate_right(1),
            None => {
                if self.shapes.len() == SHAPES_MAX
                    && let Some((_, last)) = self.shapes.pop()
                {
                    self.known_from = self.known_from.max(last);
                }
                self.shapes.insert(0, (shape, 0));
            }
        }
        self.shapes[0] = (shape, self.version);
    }

    /// The version, which grows with every change that is noted.
    #[inline(always)]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The levels of a topic, for `since`.
    pub fn levels(&self, topic: &str) -> Levels {
        self.names(topic).0
    }

    /// Whether a change after `version` may have touched a topic with these levels. A topic whose first level begins
    /// with `$` is not told apart from others.
    #[inline]
    pub fn since(&self, version: u64, levels: Levels) -> Since {
        let mut looked_at = 0;
        let mut is_touched = version < self.known_from;
        if !is_touched {
            for (shape, last) in &self.shapes {
                if *last <= version {
                    break;
                }
                looked_at += 1;
                if shape.may_mean(levels)
                    && self.stamps(shape, levels).into_iter().all(|s| self.stamps[s] > version)
                {
                    is_touched = true;
                    break;
                }
            }
        }
        Since { is_touched, steps: 1 + (looked_at / SHAPES_PER_STEP) as u64 }
    }

    /// The memory in use, in bytes.
    pub fn bytes(&self) -> usize {
        allocated(size_of_val(&*self.stamps))
    }

    /// The names and the shape of a filter.
    fn filter(&self, filter: &str) -> (Levels, Shape) {
        let (path, is_open) = match filter.strip_suffix('#') {
            Some(path) => (path.strip_suffix('/').unwrap_or(path), true),
            None => (filter, false),
        };
        let (levels, mask) = self.names(path);
        if filter == "#" {
            return (levels, Shape { mask: 0, level_count: 0, is_open });
        }
        let level_count = levels.count().min(LEVELS_MAX as u64);
        let is_open = is_open || levels.count() > level_count;
        (levels, Shape { mask, level_count, is_open })
    }

    /// The names of a text, and a bit for each level that is not `+`. Where the hash of a name equals the hash of `+`,
    /// a filter means more topics, never fewer.
    fn names(&self, text: &str) -> (Levels, u128) {
        let mut bits = 0;
        let mut mask = 0;
        let mut level_count = 0;
        let mut hash = self.seed;
        // The end of the text ends a name, too.
        for byte in text.bytes().chain([b'/']) {
            if byte != b'/' {
                hash = hashed(hash, byte);
                continue;
            }
            if level_count == LEVELS_MAX {
                level_count += 1;
                break;
            }
            let place = COUNT_BITS + level_count * NAME_BITS;
            bits |= u128::from(hash >> (u64::BITS as usize - NAME_BITS)) << place;
            if hash != hashed(self.seed, b'+') {
                mask |= ((1 << NAME_BITS) - 1) << place;
            }
            level_count += 1;
            hash = self.seed;
        }
        bits |= level_count as u128;
        (Levels { words: [bits as u64, (bits >> 64) as u64] }, mask)
    }

    /// The indices of the stamps of a filter, by its shape and the names of its levels.
    #[inline(always)]
    fn stamps(&self, shape: &Shape, levels: Levels) -> [usize; 2] {
        let size = shape.level_count << 1 | u64::from(shape.is_open);
        let low = levels.words[0] & shape.mask as u64 ^ size.wrapping_mul(FACTORS[0]);
        let high = levels.words[1] & (shape.mask >> 64) as u64 ^ FACTORS[1];
        let product = u128::from(low) * u128::from(high);
        let folded = (product as u64 ^ (product >> 64) as u64).wrapping_mul(FACTORS[0]);
        let last = self.stamps.len() - 1;
        [(folded >> 24) as usize & last, (folded >> 44) as usize & last]
    }
}

impl Levels {
    /// The count of levels; levels above `LEVELS_MAX` count as one.
    #[inline]
    fn count(self) -> u64 {
        self.words[0] & ((1 << COUNT_BITS) - 1)
    }
}

impl Shape {
    /// Whether a filter of this shape may mean a topic with so many levels.
    #[inline]
    fn may_mean(&self, levels: Levels) -> bool {
        let count = levels.count();
        count == self.level_count || self.is_open && count > self.level_count
    }
}

/// A hash with one more byte.
#[inline(always)]
fn hashed(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(FACTORS[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::topic::matches;

    const NAMES: [&str; 6] = ["a", "b", "", "$c", "long-name-of-a-level", "d"];

    fn filter(random: &mut Random) -> String {
        let count = random.below(9);
        let level = |random: &mut Random| match random.below(3) {
            0 => "+",
            _ => NAMES[random.below(6) as usize],
        };
        let mut levels: Vec<&str> = (0..count).map(|_| level(random)).collect();
        if count == 0 || random.below(2) == 0 {
            levels.push("#");
        } else {
            levels.push("+");
        }
        levels.join("/")
    }

    fn topic(random: &mut Random) -> String {
        let levels: Vec<&str> =
            (0..1 + random.below(9)).map(|_| NAMES[random.below(6) as usize]).collect();
        levels.join("/")
    }

    #[test]
    fn a_change_that_means_a_topic_is_never_missed_and_others_seldom_touch_it() {
        for (seed, stamp_count) in [(1, 1 << 16), (2, 1 << 16), (3, 64), (4, 1)] {
            let mut random = Random::new(seed);
            let mut changes = Changes::new(&KeyedHash::new(seed), stamp_count);
            let mut noted: Vec<String> = Vec::new();
            let (mut untouched, mut needless) = (0, 0);
            for _ in 0..3_000 {
                for _ in 0..random.below(4) {
                    let filter = filter(&mut random);
                    changes.note(&filter);
                    noted.push(filter);
                }
                let age = random.below(20).min(noted.len() as u64);
                let version = changes.version() - age;
                let topic = topic(&mut random);
                let is_meant =
                    noted[noted.len() - age as usize..].iter().any(|f| matches(f, &topic));
                let since = changes.since(version, changes.levels(&topic));
                assert!(since.steps <= Changes::STEPS_MAX as u64);
                assert!(since.is_touched || !is_meant, "{topic} at {version}: {noted:?}");
                untouched += usize::from(!since.is_touched);
                let is_first_wild = |f: &String| f.starts_with(['+', '#']);
                let is_system = topic.starts_with('$') && noted.iter().any(is_first_wild);
                needless += usize::from(since.is_touched && !is_meant && !is_system);
            }
            if stamp_count > 64 {
                assert!(untouched > 500 && needless < 300, "{untouched}, {needless}");
            }
        }
    }

    #[test]
    fn a_shape_that_is_forgotten_touches_every_topic_that_is_older() {
        let mut changes = Changes::new(&KeyedHash::new(1), 1 << 10);
        // Places of `+` among six levels, as bits.
        let filter = |wild: usize| {
            let level = |place: usize| if wild >> place & 1 == 1 { "+" } else { "x" };
            (0..6).map(level).collect::<Vec<_>>().join("/")
        };
        for wild in 1..=SHAPES_MAX {
            changes.note(&filter(wild));
        }
        let topic = changes.levels("y/y/y/y/y/y");
        let is_touched = |changes: &Changes, version| changes.since(version, topic).is_touched;
        assert!(!is_touched(&changes, 1), "all shapes are known");
        assert!(is_touched(&changes, Changes::NEVER));
        // The first shape is the latest now, so the second one is forgotten.
        changes.note(&filter(1));
        changes.note(&filter(SHAPES_MAX + 1));
        assert!(is_touched(&changes, 2), "the second change is not known any more");
        assert!(!is_touched(&changes, 3));
    }

    #[test]
    fn further_levels_of_a_filter_mean_every_level() {
        let mut changes = Changes::new(&KeyedHash::new(1), 1 << 10);
        let deep = |count: usize, last: &str| "x/".repeat(count - 1) + last;
        let is_touched = |changes: &Changes, version, topic: &str| {
            changes.since(version, changes.levels(topic)).is_touched
        };
        let (exact, more) = (deep(LEVELS_MAX, "y"), deep(LEVELS_MAX + 1, "y"));
        changes.note(&deep(LEVELS_MAX, "+"));
        assert!(is_touched(&changes, 1, &exact) && !is_touched(&changes, 1, &more));
        changes.note(&deep(LEVELS_MAX, "+/#"));
        assert!(is_touched(&changes, 2, &exact) && is_touched(&changes, 2, &more));
        changes.note(&deep(LEVELS_MAX + 1, "+/z"));
        assert!(!is_touched(&changes, 3, &exact) && is_touched(&changes, 3, &more));
        assert!(is_touched(&changes, 3, &deep(100, "y")));
        assert!(!is_touched(&changes, 3, &format!("y/{}", deep(100, "y"))));
    }
}
