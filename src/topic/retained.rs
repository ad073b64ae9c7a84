//! Retained messages by topic, and the search for the messages that a filter matches, in bounded pieces.

use std::collections::BTreeMap;
use std::ops::Bound;

use memchr::memchr;

use crate::topic::filter::has_wildcards;

/// The retained message of each topic, in the order of the topics' bytes.
#[derive(Clone, Debug)]
pub struct RetainedStore<T> {
    messages: BTreeMap<Box<str>, T>,
}

/// Where a scan ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScanEnd {
    /// The scan found all messages that the filter means.
    Done,
    /// The scan goes on after this topic, which may be gone by then.
    More(Box<str>),
}

impl<T> RetainedStore<T> {
    pub fn new() -> RetainedStore<T> {
        RetainedStore { messages: BTreeMap::new() }
    }

    /// Stores the message of a valid topic name; returns the one it replaces.
    pub fn insert(&mut self, topic: &str, message: T) -> Option<T> {
        match self.messages.get_mut(topic) {
            Some(previous) => Some(std::mem::replace(previous, message)),
            None => self.messages.insert(topic.into(), message),
        }
    }

    pub fn remove(&mut self, topic: &str) -> Option<T> {
        self.messages.remove(topic)
    }

    pub fn get(&self, topic: &str) -> Option<&T> {
        self.messages.get(topic)
    }

    pub fn len(&self) -> usize {
        self.messages.len()
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Calls `found` for the messages that `filter` means, in the order of their topics. It looks at no more than
    /// `visit_max` topics (but at one at least), matching or not. `after` is what the previous scan returned.
    ///
    /// A message that is stored during the whole of a scan in pieces is found exactly once.
    pub fn scan(
        &self,
        filter: &str,
        after: Option<&str>,
        mut visit_max: usize,
        mut found: impl FnMut(&str, &T),
    ) -> ScanEnd {
        self.scan_while(filter, after, &mut visit_max, |topic, message| {
            found(topic, message);
            true
        })
    }

    /// As `scan`; the scan also ends, to go on later, after a message for which `found` returns false. Each topic that
    /// it looks at is subtracted from `visits_left`; it looks at one in any case.
    pub fn scan_while(
        &self,
        filter: &str,
        after: Option<&str>,
        visits_left: &mut usize,
        mut found: impl FnMut(&str, &T) -> bool,
    ) -> ScanEnd {
        if !has_wildcards(filter) {
            *visits_left = visits_left.saturating_sub(1);
            if let Some(message) = self.messages.get(filter)
                && after.is_none()
            {
                found(filter, message);
            }
            return ScanEnd::Done;
        }
        let mut target = String::new();
        let first = match after {
            None => {
                target.push_str(literal_prefix(filter));
                Bound::Included(target.as_str())
            }
            Some(after) => match fit(filter, after, &mut target) {
                Fit::Match | Fit::Next => Bound::Excluded(after),
                Fit::Seek => Bound::Included(target.as_str()),
                Fit::End => return ScanEnd::Done,
            },
        };
        let mut messages = self.messages.range::<str, _>((first, Bound::Unbounded));
        while let Some((topic, message)) = messages.next() {
            *visits_left = visits_left.saturating_sub(1);
            let mut more = *visits_left > 0;
            match fit(filter, topic, &mut target) {
                Fit::Match => more &= found(topic, message),
                Fit::Next => {}
                Fit::Seek if more => {
                    let from = Bound::Included(target.as_str());
                    messages = self.messages.range::<str, _>((from, Bound::Unbounded));
                }
                Fit::Seek => {}
                Fit::End => return ScanEnd::Done,
            }
            if !more {
                return ScanEnd::More(topic.clone());
            }
        }
        ScanEnd::Done
    }
}

impl<T> Default for RetainedStore<T> {
    fn default() -> RetainedStore<T> {
        RetainedStore::new()
    }
}

/// Whether a topic matches a filter, and where the next topic stands that can match it.
#[derive(Debug, PartialEq, Eq)]
enum Fit {
    Match,
    /// The topic does not match; the next one may.
    Next,
    /// The topic does not match, nor does any before the target, which is greater than the topic.
    Seek,
    /// The topic does not match, nor does any after it.
    End,
}

/// Walks the levels of a wildcard filter and of a topic side by side. In the order of bytes, the topics below `a/x` do
/// not follow `a/x` at once: names such as `a/x-y` stand between, since `-` is less than `/`. All topics with the prefix
/// `a/x/` stand together, and `a/x0` is greater than all of them (`0` follows `/`).
fn fit(filter: &str, topic: &str, target: &mut String) -> Fit {
    // [MQTT-4.7.2-1]
    if filter.starts_with(['+', '#']) && topic.starts_with('$') {
        return seek(target, "", "%");
    }
    // The end of the last level that a `+` took: a search goes on only with another name there.
    let mut branch = None;
    let mut start = 0;
    let mut levels = filter.split('/');
    let mut wanted = levels.next();
    while let Some(level) = wanted {
        wanted = levels.next();
        if level == "#" {
            return Fit::Match;
        }
        let rest = &topic[start..];
        let end = start + memchr(b'/', rest.as_bytes()).unwrap_or(rest.len());
        if level == "+" {
            branch = Some(end);
        } else if level != &topic[start..end] {
            if rest < level {
                return seek(target, &topic[..start], level);
            }
            // `level` itself has been passed; `level/...` has not, if a byte less than `/` follows.
            let follows = rest.strip_prefix(level).and_then(|after| after.bytes().next());
            if wanted.is_some() && follows.is_some_and(|byte| byte < b'/') {
                seek(target, &topic[..start], level);
                target.push('/');
                return Fit::Seek;
            }
            return seek_branch(target, topic, branch);
        }
        let topic_ends = end == topic.len();
        match wanted {
            None if topic_ends => return Fit::Match,
            // All topics with this prefix have too many levels.
            None => return seek_branch(target, topic, branch),
            Some("#") => return Fit::Match,
            // Longer names of this level stand before its children.
            Some(_) if topic_ends && level == "+" => return Fit::Next,
            Some(_) if topic_ends => return seek(target, topic, "/"),
            Some(_) => start = end + 1,
        }
    }
    unreachable!("a filter's last level decides")
}

fn seek(target: &mut String, prefix: &str, name: &str) -> Fit {
    target.clear();
    target.push_str(prefix);
    target.push_str(name);
    Fit::Seek
}

/// Seeks the next name for the level that ends at `branch`: no later topic with the present name matches.
fn seek_branch(target: &mut String, topic: &str, branch: Option<usize>) -> Fit {
    match branch {
        Some(end) => {
            debug_assert_eq!(topic.as_bytes().get(end), Some(&b'/'));
            seek(target, &topic[..end], "0")
        }
        None => Fit::End,
    }
}

/// The levels before the first wildcard: no topic that is less matches.
fn literal_prefix(filter: &str) -> &str {
    let wildcard = filter.find(['+', '#']).unwrap_or(filter.len());
    filter[..wildcard].strip_suffix('/').unwrap_or("")
}
