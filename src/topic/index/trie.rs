//! Filters with wildcards, as a tree of their levels.

use std::collections::HashMap;

use ahash::RandomState;
use memchr::memchr;
use slab::Slab;
use smallvec::SmallVec;

use super::subscribers::Subscribers;
use super::{CAPACITY_KEPT, table_size};

/// A tree whose nodes stand for the levels of filters. Names of levels are numbered, so that a name is hashed once for a
/// topic, however many branches ask for it.
pub struct Trie<K, V> {
    nodes: Slab<Node<K, V>>,
    /// The child of a node by the number of its level's name.
    edges: HashMap<(NodeIndex, LevelNumber), NodeIndex, RandomState>,
    levels: HashMap<Box<str>, Level, RandomState>,
    level_numbers_free: Vec<LevelNumber>,
    /// Texts of levels, and what subscribers hold outside their nodes.
    size: usize,
}

pub struct Inserted<V> {
    pub previous: Option<V>,
    /// The filter had no subscriber before.
    pub first: bool,
}

pub struct Removed<V> {
    pub value: V,
    /// The filter has no subscriber any more.
    pub last: bool,
}

type NodeIndex = u32;
type LevelNumber = u32;

struct Node<K, V> {
    parent: NodeIndex,
    /// The child for `+`; `ROOT`, which is nobody's child, stands for none.
    plus: NodeIndex,
    /// Children with a name of their own.
    named_count: u32,
    /// Of the filter that ends with this level.
    here: Subscribers<K, V>,
    /// Of the filter that goes on with `#`.
    below: Subscribers<K, V>,
}

struct Level {
    number: LevelNumber,
    /// Edges with this name.
    edge_count: u32,
}

const ROOT: NodeIndex = 0;

/// Levels that a search keeps track of without allocating; one more than the usual bound of levels, and one for the
/// branch not taken.
const LEVELS_INLINE: usize = 130;

impl<K: Copy + Ord, V: Copy> Trie<K, V> {
    pub fn new(hash: RandomState) -> Trie<K, V> {
        let mut nodes = Slab::new();
        let root = nodes.insert(Node::new(ROOT));
        debug_assert_eq!(root, ROOT as usize);
        Trie {
            nodes,
            edges: HashMap::with_hasher(hash.clone()),
            levels: HashMap::with_hasher(hash),
            level_numbers_free: Vec::new(),
            size: 0,
        }
    }

    pub fn insert(&mut self, filter: &str, key: K, value: V) -> Inserted<V> {
        let (path, below) = split_below(filter);
        let mut node = ROOT;
        for level in path.into_iter().flat_map(|path| path.split('/')) {
            node = self.child(node, level).unwrap_or_else(|| self.add_child(node, level));
        }
        let subscribers = self.nodes[node as usize].subscribers_mut(below);
        let first = subscribers.is_empty();
        self.size -= subscribers.heap_size();
        let previous = subscribers.insert(key, value);
        self.size += subscribers.heap_size();
        Inserted { previous, first }
    }

    pub fn remove(&mut self, filter: &str, key: K) -> Option<Removed<V>> {
        let (path, below) = split_below(filter);
        let node = self.node(path)?;
        let subscribers = self.nodes[node as usize].subscribers_mut(below);
        self.size -= subscribers.heap_size();
        let value = subscribers.remove(key);
        self.size += subscribers.heap_size();
        let last = subscribers.is_empty();
        let value = value?;
        if last {
            self.prune(path, node);
        }
        Some(Removed { value, last })
    }

    pub fn get(&self, filter: &str) -> Option<&Subscribers<K, V>> {
        let (path, below) = split_below(filter);
        let node = &self.nodes[self.node(path)? as usize];
        Some(if below { &node.below } else { &node.here })
    }

    pub fn matches(&self, topic: &str, found: &mut impl FnMut(&K, &V)) {
        // [MQTT-4.7.2-1]
        let is_dollar = topic.starts_with('$');
        let mut levels = TopicLevels { topic, passed: SmallVec::new() };
        // Depth first: at most one branch waits for each level on the way.
        let mut branches: SmallVec<[(NodeIndex, usize); LEVELS_INLINE]> = SmallVec::new();
        branches.push((ROOT, 0));
        while let Some((at, depth)) = branches.pop() {
            let node = &self.nodes[at as usize];
            let wild = !(is_dollar && depth == 0);
            if wild {
                node.below.each(found);
            }
            if !levels.pass(depth) {
                node.here.each(found);
                continue;
            }
            if node.named_count > 0
                && let Some(number) = levels.number(depth, &self.levels)
                && let Some(&child) = self.edges.get(&(at, number))
            {
                branches.push((child, depth + 1));
            }
            if node.plus != ROOT && wild {
                branches.push((node.plus, depth + 1));
            }
        }
    }

    #[cfg(test)]
    pub fn node_count(&self) -> usize {
        self.nodes.len() - 1
    }

    fn node(&self, path: Option<&str>) -> Option<NodeIndex> {
        let mut levels = path.into_iter().flat_map(|path| path.split('/'));
        levels.try_fold(ROOT, |node, level| self.child(node, level))
    }

    fn child(&self, node: NodeIndex, level: &str) -> Option<NodeIndex> {
        if level == "+" {
            let plus = self.nodes[node as usize].plus;
            return (plus != ROOT).then_some(plus);
        }
        let number = self.levels.get(level)?.number;
        self.edges.get(&(node, number)).copied()
    }

    fn add_child(&mut self, parent: NodeIndex, level: &str) -> NodeIndex {
        let child = NodeIndex::try_from(self.nodes.insert(Node::new(parent)))
            .expect("a shard has fewer than 2^32 levels of filters");
        if level == "+" {
            self.nodes[parent as usize].plus = child;
        } else {
            let number = self.number(level);
            self.edges.insert((parent, number), child);
            self.nodes[parent as usize].named_count += 1;
        }
        child
    }

    /// The number of a level's name, for one more edge.
    fn number(&mut self, name: &str) -> LevelNumber {
        if let Some(level) = self.levels.get_mut(name) {
            level.edge_count += 1;
            return level.number;
        }
        // Without a free one the numbers in use are those below the count.
        let number = self.level_numbers_free.pop().unwrap_or(self.levels.len() as LevelNumber);
        self.levels.insert(name.into(), Level { number, edge_count: 1 });
        self.size += name.len();
        number
    }

    /// Removes `node`, which `path` leads to, and its ancestors, as far as nothing needs them.
    fn prune(&mut self, path: Option<&str>, mut node: NodeIndex) {
        let mut names = path.into_iter().flat_map(|path| path.rsplit('/'));
        while node != ROOT && self.nodes[node as usize].is_unused() {
            let name = names.next().expect("a node's depth is the count of the path's levels");
            let parent = self.nodes.remove(node as usize).parent;
            if name == "+" {
                self.nodes[parent as usize].plus = ROOT;
            } else {
                let number = self.drop_number(name);
                self.edges.remove(&(parent, number));
                self.nodes[parent as usize].named_count -= 1;
            }
            node = parent;
        }
        self.shrink();
    }

    /// One edge less has this name.
    fn drop_number(&mut self, name: &str) -> LevelNumber {
        let level = self.levels.get_mut(name).expect("an edge's name has a number");
        let number = level.number;
        level.edge_count -= 1;
        if level.edge_count == 0 {
            self.levels.remove(name);
            self.size -= name.len();
            self.level_numbers_free.push(number);
        }
        number
    }

    fn shrink(&mut self) {
        if self.edges.capacity() > CAPACITY_KEPT.max(8 * self.edges.len()) {
            self.edges.shrink_to(CAPACITY_KEPT.max(2 * self.edges.len()));
        }
        if self.levels.capacity() > CAPACITY_KEPT.max(8 * self.levels.len()) {
            self.levels.shrink_to(CAPACITY_KEPT.max(2 * self.levels.len()));
        }
        // Nodes do not move, so their memory can be given back only all at once.
        if self.edges.is_empty() && self.nodes.len() == 1 && self.nodes.capacity() > CAPACITY_KEPT {
            self.nodes.shrink_to_fit();
        }
        if self.levels.is_empty() {
            self.level_numbers_free = Vec::new();
        }
    }
}

impl<K, V> Trie<K, V> {
    /// The memory held, in bytes: an estimate.
    pub fn bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node<K, V>>()
            + table_size(
                self.edges.capacity(),
                size_of::<((NodeIndex, LevelNumber), NodeIndex)>() + 1,
            )
            + table_size(self.levels.capacity(), size_of::<(Box<str>, Level)>() + 1)
            + self.level_numbers_free.capacity() * size_of::<LevelNumber>()
            + self.size
    }
}

impl<K, V> Node<K, V> {
    fn new(parent: NodeIndex) -> Node<K, V> {
        Node {
            parent,
            plus: ROOT,
            named_count: 0,
            here: Subscribers::None,
            below: Subscribers::None,
        }
    }

    fn subscribers_mut(&mut self, below: bool) -> &mut Subscribers<K, V> {
        if below { &mut self.below } else { &mut self.here }
    }

    fn is_unused(&self) -> bool {
        self.plus == ROOT && self.named_count == 0 && self.here.is_empty() && self.below.is_empty()
    }
}

/// The levels of a topic, as far as a search has come: each is measured once, and its name looked up once.
struct TopicLevels<'a> {
    topic: &'a str,
    passed: SmallVec<[PassedLevel; LEVELS_INLINE]>,
}

struct PassedLevel {
    end: usize,
    name: LevelName,
}

#[derive(Clone, Copy)]
enum LevelName {
    NotAsked,
    /// No filter has it.
    Unknown,
    Number(LevelNumber),
}

impl TopicLevels<'_> {
    fn start(&self, depth: usize) -> usize {
        if depth == 0 { 0 } else { self.passed[depth - 1].end + 1 }
    }

    /// Whether the topic has a level at `depth`. All levels above were passed before.
    fn pass(&mut self, depth: usize) -> bool {
        if depth < self.passed.len() {
            return true;
        }
        let start = self.start(depth);
        let Some(rest) = self.topic.as_bytes().get(start..) else { return false };
        let end = start + memchr(b'/', rest).unwrap_or(rest.len());
        self.passed.push(PassedLevel { end, name: LevelName::NotAsked });
        true
    }

    /// The number of the name of a level that was passed.
    fn number(
        &mut self,
        depth: usize,
        numbers: &HashMap<Box<str>, Level, RandomState>,
    ) -> Option<LevelNumber> {
        let start = self.start(depth);
        let PassedLevel { end, name } = &mut self.passed[depth];
        if let LevelName::NotAsked = name {
            *name = match numbers.get(&self.topic[start..*end]) {
                Some(level) => LevelName::Number(level.number),
                None => LevelName::Unknown,
            };
        }
        match *name {
            LevelName::Number(number) => Some(number),
            _ => None,
        }
    }
}

/// The path to the node that holds a filter's subscribers, `None` for the root, and whether the filter ends in `#`.
fn split_below(filter: &str) -> (Option<&str>, bool) {
    match filter.strip_suffix('#') {
        Some(path) => (path.strip_suffix('/'), true),
        None => (Some(filter), false),
    }
}
