//! The nodes of the tree of filters, in chunks that never move.

use std::collections::BTreeSet;

use smallvec::SmallVec;

use crate::arena::{allocated, tree_size};

use super::subscribers::Subscribers;

pub(super) type NodeIndex = u32;

/// The root is no node's child, so its index stands for "none" where a node refers to a child.
pub(super) const ROOT: NodeIndex = 0;

/// A level of filters: all filters that begin with the same levels share the nodes of those levels.
pub(super) struct Node<K, V> {
    /// The parent; in a node that is free, the next free node of the chunk.
    pub parent: NodeIndex,
    /// The child for the level `+`.
    pub plus: NodeIndex,
    /// How many children have a name of their own.
    pub named_count: u32,
    pub name: Name,
    /// Subscribers of the filter that ends with this level.
    pub here: Subscribers<K, V>,
    /// Subscribers of the filter that goes on with `#`.
    pub below: Subscribers<K, V>,
}

/// The text of a level; most texts are short enough to need no memory of their own.
pub(super) type Name = SmallVec<[u8; 16]>;

pub(super) struct Nodes<K, V> {
    chunks: Vec<Chunk<K, V>>,
    /// Chunks with a free node. The lowest chunk is filled first, so that others can become empty.
    open: BTreeSet<u32>,
    /// Nodes in use, not counting the root.
    count: usize,
    /// Bytes that the chunks take.
    chunks_size: usize,
    /// Bytes that names hold outside their nodes.
    names_size: usize,
}

struct Chunk<K, V> {
    /// `CHUNK_NODES` nodes, or none: an empty chunk gives its memory back.
    nodes: Box<[Node<K, V>]>,
    used_count: u32,
    /// The first free node, if there is one.
    free: u32,
}

const CHUNK_NODES: u32 = 256;

impl<K, V> Node<K, V> {
    fn new(parent: NodeIndex, name: Name) -> Node<K, V> {
        let (here, below) = (Subscribers::None, Subscribers::None);
        Node { parent, plus: ROOT, named_count: 0, name, here, below }
    }

    pub(super) fn subscribers_mut(&mut self, below: bool) -> &mut Subscribers<K, V> {
        if below { &mut self.below } else { &mut self.here }
    }

    /// Whether no filter ends here or goes through here.
    pub(super) fn is_unused(&self) -> bool {
        self.is_leaf() && self.here.is_empty() && self.below.is_empty()
    }

    pub(super) fn is_leaf(&self) -> bool {
        self.plus == ROOT && self.named_count == 0
    }
}

impl<K, V> Nodes<K, V> {
    /// Nodes with the root alone.
    pub(super) fn new() -> Nodes<K, V> {
        let mut nodes = Nodes {
            chunks: Vec::new(),
            open: BTreeSet::new(),
            count: 0,
            chunks_size: 0,
            names_size: 0,
        };
        let root = nodes.add(ROOT, b"");
        debug_assert_eq!(root, ROOT);
        nodes
    }

    pub(super) fn get(&self, at: NodeIndex) -> &Node<K, V> {
        &self.chunks[(at / CHUNK_NODES) as usize].nodes[(at % CHUNK_NODES) as usize]
    }

    pub(super) fn get_mut(&mut self, at: NodeIndex) -> &mut Node<K, V> {
        &mut self.chunks[(at / CHUNK_NODES) as usize].nodes[(at % CHUNK_NODES) as usize]
    }

    pub(super) fn add(&mut self, parent: NodeIndex, name: &[u8]) -> NodeIndex {
        let number = self.open.first().copied().unwrap_or_else(|| self.add_chunk());
        let chunk = &mut self.chunks[number as usize];
        if chunk.nodes.is_empty() {
            *chunk = Chunk::new();
            self.chunks_size += allocated(size_of_val(&*chunk.nodes));
        }
        let place = chunk.free;
        let name = Name::from_slice(name);
        self.names_size += outside_size(&name);
        let node = &mut chunk.nodes[place as usize];
        chunk.free = node.parent;
        *node = Node::new(parent, name);
        chunk.used_count += 1;
        if chunk.used_count == CHUNK_NODES {
            self.open.remove(&number);
        }
        self.count += 1;
        number * CHUNK_NODES + place
    }

    pub(super) fn remove(&mut self, at: NodeIndex) {
        debug_assert_ne!(at, ROOT);
        let (number, place) = (at / CHUNK_NODES, at % CHUNK_NODES);
        let chunk = &mut self.chunks[number as usize];
        let vacant = Node::new(chunk.free, Name::new());
        let node = std::mem::replace(&mut chunk.nodes[place as usize], vacant);
        self.names_size -= outside_size(&node.name);
        chunk.free = place;
        chunk.used_count -= 1;
        if chunk.used_count == 0 {
            self.chunks_size -= allocated(size_of_val(&*chunk.nodes));
            chunk.nodes = Box::default();
        }
        self.open.insert(number);
        self.count -= 1;
    }

    /// Nodes in use, not counting the root.
    pub(super) fn count(&self) -> usize {
        self.count - 1
    }

    pub(super) fn bytes(&self) -> usize {
        let list_size = allocated(self.chunks.capacity() * size_of::<Chunk<K, V>>());
        let open_size = tree_size(self.open.len(), size_of::<u32>());
        self.chunks_size + self.names_size + list_size + open_size
    }

    /// Bytes that names hold outside their nodes.
    pub(super) fn names_size(&self) -> usize {
        self.names_size
    }

    fn add_chunk(&mut self) -> u32 {
        let number = self.chunks.len() as u32;
        assert!(number < u32::MAX / CHUNK_NODES, "a shard has fewer than 2^32 levels of filters");
        self.chunks.push(Chunk { nodes: Box::default(), used_count: 0, free: 0 });
        self.open.insert(number);
        number
    }
}

impl<K, V> Chunk<K, V> {
    /// A chunk in which each free node names the next one.
    fn new() -> Chunk<K, V> {
        let nodes = (0..CHUNK_NODES).map(|place| Node::new(place + 1, Name::new())).collect();
        Chunk { nodes, used_count: 0, free: 0 }
    }
}

fn outside_size(name: &Name) -> usize {
    if name.spilled() { allocated(name.capacity()) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn nodes_stay_where_they_are_and_empty_chunks_go() {
        let mut random = Random::new(1);
        let mut nodes: Nodes<u32, u32> = Nodes::new();
        let empty_size = nodes.bytes();
        let mut kept: Vec<(NodeIndex, u32)> = Vec::new();
        for (grow, rounds) in [(9, 20_000), (5, 20_000), (1, 30_000), (9, 5_000), (1, 10_000)] {
            for name in 0..rounds {
                if random.below(10) < grow {
                    let text = format!("{name:0>width$}", width = name as usize % 24);
                    kept.push((nodes.add(name, text.as_bytes()), name));
                } else if !kept.is_empty() {
                    let (at, name) = kept.swap_remove(random.below(kept.len() as u64) as usize);
                    assert_eq!(nodes.get(at).parent, name);
                    nodes.remove(at);
                }
            }
            for &(at, name) in &kept {
                let node = nodes.get(at);
                let text = String::from_utf8(node.name.to_vec()).unwrap();
                assert_eq!((node.parent, text.parse()), (name, Ok(name)));
            }
            assert_eq!(nodes.count(), kept.len());
        }
        kept.iter().for_each(|&(at, _)| nodes.remove(at));
        assert_eq!(nodes.count(), 0);
        // Only the lists of chunks are left.
        assert!(nodes.chunks.len() > 50 && nodes.bytes() < empty_size + 128 * 24);
    }
}
