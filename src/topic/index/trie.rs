//! Filters with wildcards, as a tree of their levels.

use smallvec::SmallVec;

use crate::hash::{KeyedHash, PartedTable};

use super::nodes::{NodeIndex, Nodes, ROOT};
use super::subscribers::Subscribers;

pub(super) struct Trie<K, V> {
    nodes: Nodes<K, V>,
    /// Nodes by their parent and name, but for the nodes of `+`.
    children: PartedTable<NodeIndex>,
    hash: KeyedHash,
    /// Bytes that subscribers hold outside their nodes.
    subscribers_size: usize,
}

pub(super) struct Inserted<V> {
    pub previous: Option<V>,
    /// How many subscribers the filter has now.
    pub count: usize,
    /// The filter had no subscriber before.
    pub first: bool,
}

pub(super) struct Removed<V> {
    pub value: V,
    /// The filter has no subscriber any more.
    pub last: bool,
}

/// So many levels can a search keep track of without allocating: one more than the usual bound of levels, and one for
/// the branch not taken.
const LEVELS_INLINE: usize = 130;

impl<K: Copy + Ord, V: Copy> Trie<K, V> {
    pub(super) fn new(hash: KeyedHash) -> Trie<K, V> {
        Trie { nodes: Nodes::new(), children: PartedTable::default(), hash, subscribers_size: 0 }
    }

    pub(super) fn insert(&mut self, filter: &str, key: K, value: V) -> Inserted<V> {
        let (levels, below) = split_filter(filter);
        let node = levels.fold(ROOT, |node, level| self.child_or_new(node, level));
        let subscribers = self.nodes.get_mut(node).subscribers_mut(below);
        let first = subscribers.is_empty();
        self.subscribers_size -= subscribers.heap_size();
        let previous = subscribers.insert(key, value);
        self.subscribers_size += subscribers.heap_size();
        Inserted { previous, count: subscribers.len(), first }
    }

    pub(super) fn remove(&mut self, filter: &str, key: K) -> Option<Removed<V>> {
        let (node, below) = self.find(filter)?;
        let subscribers = self.nodes.get_mut(node).subscribers_mut(below);
        self.subscribers_size -= subscribers.heap_size();
        let value = subscribers.remove(key);
        self.subscribers_size += subscribers.heap_size();
        let last = subscribers.is_empty();
        let value = value?;
        if last {
            self.prune(node);
        }
        Some(Removed { value, last })
    }

    pub(super) fn get(&self, filter: &str) -> Option<&Subscribers<K, V>> {
        let (node, below) = self.find(filter)?;
        let node = self.nodes.get(node);
        Some(if below { &node.below } else { &node.here })
    }

    /// Returns how many nodes the search has visited.
    pub(super) fn matches(&self, topic: &str, found: &mut impl FnMut(&K, &V)) -> usize {
        // [MQTT-4.7.2-1]
        let is_dollar = topic.starts_with('$');
        let mut levels = TopicLevels { topic: topic.as_bytes(), passed: SmallVec::new() };
        // The search is depth first: at most one branch waits for each level on the way.
        let mut branches: SmallVec<[(NodeIndex, usize); LEVELS_INLINE]> = SmallVec::new();
        branches.push((ROOT, 0));
        let mut visit_count = 0;
        while let Some((at, depth)) = branches.pop() {
            visit_count += 1;
            let node = self.nodes.get(at);
            let wild = !(is_dollar && depth == 0);
            if wild {
                node.below.each(found);
            }
            if levels.start(depth) > topic.len() {
                node.here.each(found);
                continue;
            }
            if node.is_leaf() {
                continue;
            }
            levels.measure(depth);
            if node.named_count > 0 {
                let (name, hash) = levels.name(depth, &self.hash);
                if let Some(child) = self.named_child(at, name, hash) {
                    branches.push((child, depth + 1));
                }
            }
            if node.plus != ROOT && wild {
                branches.push((node.plus, depth + 1));
            }
        }
        visit_count
    }

    pub(super) fn bytes(&self) -> usize {
        self.nodes.bytes() + self.children.bytes() + self.subscribers_size
    }

    /// Bytes that names hold outside their nodes.
    pub(super) fn names_size(&self) -> usize {
        self.nodes.names_size()
    }

    /// Nodes in use, not counting the root.
    pub(super) fn node_count(&self) -> usize {
        self.nodes.count()
    }

    /// The node that holds a filter's subscribers, and whether the filter goes on with `#` below it.
    fn find(&self, filter: &str) -> Option<(NodeIndex, bool)> {
        let (mut levels, below) = split_filter(filter);
        let node = levels.try_fold(ROOT, |node, level| self.child(node, level))?;
        Some((node, below))
    }

    fn child(&self, parent: NodeIndex, level: &str) -> Option<NodeIndex> {
        if level == "+" {
            let plus = self.nodes.get(parent).plus;
            return (plus != ROOT).then_some(plus);
        }
        self.named_child(parent, level.as_bytes(), self.hash.bytes(level.as_bytes()))
    }

    fn named_child(&self, parent: NodeIndex, name: &[u8], hash: u64) -> Option<NodeIndex> {
        let is_it = |&child: &NodeIndex| {
            let child = self.nodes.get(child);
            child.parent == parent && *child.name == *name
        };
        self.children.find(edge_hash(parent, hash), is_it).copied()
    }

    fn child_or_new(&mut self, parent: NodeIndex, level: &str) -> NodeIndex {
        if let Some(child) = self.child(parent, level) {
            return child;
        }
        let child = self.nodes.add(parent, level.as_bytes());
        if level == "+" {
            self.nodes.get_mut(parent).plus = child;
        } else {
            self.nodes.get_mut(parent).named_count += 1;
            let hash = edge_hash(parent, self.hash.bytes(level.as_bytes()));
            self.children.insert(hash, child, hash_of_edge(&self.nodes, &self.hash));
        }
        child
    }

    /// Removes a node and those of its ancestors that no filter needs.
    fn prune(&mut self, mut at: NodeIndex) {
        while at != ROOT && self.nodes.get(at).is_unused() {
            let node = self.nodes.get(at);
            let parent = node.parent;
            if *node.name == *b"+" {
                self.nodes.get_mut(parent).plus = ROOT;
            } else {
                let hash = edge_hash(parent, self.hash.bytes(&node.name));
                let hash_of = hash_of_edge(&self.nodes, &self.hash);
                self.children.remove(hash, |&child| child == at, hash_of);
                self.nodes.get_mut(parent).named_count -= 1;
            }
            self.nodes.remove(at);
            at = parent;
        }
    }
}

/// The hash under which the child of `parent` is found, if `name` is the hash of its name.
fn edge_hash(parent: NodeIndex, name: u64) -> u64 {
    // The factor is odd, so children of different parents with one name differ in the bits that the table looks at.
    name ^ u64::from(parent).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn hash_of_edge<K, V>(nodes: &Nodes<K, V>, hash: &KeyedHash) -> impl Fn(&NodeIndex) -> u64 {
    |&child| {
        let node = nodes.get(child);
        edge_hash(node.parent, hash.bytes(&node.name))
    }
}

/// The levels of a filter, and whether `#` follows them, which is not among them.
fn split_filter(filter: &str) -> (impl Iterator<Item = &str>, bool) {
    let (path, below) = match filter.strip_suffix('#') {
        Some(path) => (path.strip_suffix('/'), true),
        None => (Some(filter), false),
    };
    (path.into_iter().flat_map(|path| path.split('/')), below)
}

/// The levels of a topic, as far as a search has come: each level is measured once, and hashed once.
struct TopicLevels<'a> {
    topic: &'a [u8],
    passed: SmallVec<[PassedLevel; LEVELS_INLINE]>,
}

struct PassedLevel {
    end: usize,
    /// The hash is computed when a node asks for it.
    hash: Option<u64>,
}

impl<'a> TopicLevels<'a> {
    /// Where the level begins, if the topic has it; else an index beyond the topic's end.
    fn start(&self, depth: usize) -> usize {
        if depth == 0 { 0 } else { self.passed[depth - 1].end + 1 }
    }

    /// Finds the end of a level that the topic has. The levels above were measured before.
    fn measure(&mut self, depth: usize) {
        if depth == self.passed.len() {
            let rest = &self.topic[self.start(depth)..];
            // Names are short: a plain loop is quicker than the call of a vectorized search.
            let size = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
            self.passed.push(PassedLevel { end: self.start(depth) + size, hash: None });
        }
    }

    /// The name of a level that was measured, and its hash.
    fn name(&mut self, depth: usize, hash: &KeyedHash) -> (&'a [u8], u64) {
        let start = self.start(depth);
        let level = &mut self.passed[depth];
        let name = &self.topic[start..level.end];
        (name, *level.hash.get_or_insert_with(|| hash.bytes(name)))
    }
}
