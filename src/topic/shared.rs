//! The members of a shared subscription, which take turns.

use std::collections::BTreeMap;

use slab::Slab;

use crate::arena::{allocated, tree_size};

/// A shared group: members in the order of their turns. Only members with credit, room for a message, are in the ring of turns.
///
/// Invariant: a member is in the ring of turns if and only if its credit is above 0.
#[derive(Clone, Debug)]
pub struct Members<M, V> {
    indices: BTreeMap<M, usize>,
    members: Slab<Member<M, V>>,
    /// The member that is next.
    next: Option<usize>,
}

#[derive(Clone, Debug)]
struct Member<M, V> {
    member: M,
    value: V,
    credit: u32,
    /// The neighbours in the ring of turns; meaningless for a member outside of it.
    before: usize,
    after: usize,
}

impl<M: Copy + Ord, V: Copy> Members<M, V> {
    pub fn new() -> Members<M, V> {
        Members { indices: BTreeMap::new(), members: Slab::new(), next: None }
    }

    /// Adds a member, behind all others in the ring of turns, or gives a member a new value and credit. Returns the
    /// previous value.
    pub fn join(&mut self, member: M, value: V, credit: u32) -> Option<V> {
        if let Some(&index) = self.indices.get(&member) {
            let previous = std::mem::replace(&mut self.members[index].value, value);
            self.set_credit(index, credit);
            return Some(previous);
        }
        let index = self.members.insert(Member { member, value, credit: 0, before: 0, after: 0 });
        self.indices.insert(member, index);
        self.set_credit(index, credit);
        None
    }

    pub fn leave(&mut self, member: &M) -> Option<V> {
        let index = self.indices.remove(member)?;
        self.set_credit(index, 0);
        Some(self.members.remove(index).value)
    }

    /// The member that is next, if any has credit; takes one credit from it.
    pub fn pick(&mut self) -> Option<(M, V)> {
        let index = self.next?;
        let Member { member, value, credit, after, .. } = self.members[index];
        self.next = Some(after);
        self.set_credit(index, credit - 1);
        Some((member, value))
    }

    /// Gives a member room for `count` more messages; `false`: there is no such member.
    pub fn credit(&mut self, member: &M, count: u32) -> bool {
        let Some(&index) = self.indices.get(member) else { return false };
        self.set_credit(index, self.members[index].credit.saturating_add(count));
        true
    }

    /// Takes a member's credit away. Such a member stays a member and is not picked.
    pub fn clear_credit(&mut self, member: &M) {
        if let Some(&index) = self.indices.get(member) {
            self.set_credit(index, 0);
        }
    }

    pub fn get(&self, member: &M) -> Option<V> {
        self.indices.get(member).map(|&index| self.members[index].value)
    }

    /// Room for messages that a member has; 0: there is no such member.
    pub fn credit_of(&self, member: &M) -> u32 {
        self.indices.get(member).map_or(0, |&index| self.members[index].credit)
    }

    /// All members with their values, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (M, V)> {
        self.indices.iter().map(|(&member, &index)| (member, self.members[index].value))
    }

    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// The memory in use, in bytes: an estimate.
    pub fn bytes(&self) -> usize {
        tree_size(self.indices.len(), size_of::<(M, usize)>())
            + allocated(self.members.capacity() * size_of::<Member<M, V>>())
    }

    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether `pick` finds a member.
    pub fn has_credit(&self) -> bool {
        self.next.is_some()
    }

    fn set_credit(&mut self, index: usize, credit: u32) {
        let had = std::mem::replace(&mut self.members[index].credit, credit);
        match (had > 0, credit > 0) {
            (false, true) => self.enter_ring(index),
            (true, false) => self.leave_ring(index),
            _ => {}
        }
    }

    /// Puts a member at the end of the turns, which is in front of the member that is next.
    fn enter_ring(&mut self, index: usize) {
        let after = *self.next.get_or_insert(index);
        // A member that is alone in the ring is its own neighbour.
        let before = if after == index { index } else { self.members[after].before };
        self.members[index].before = before;
        self.members[index].after = after;
        self.members[before].after = index;
        self.members[after].before = index;
    }

    fn leave_ring(&mut self, index: usize) {
        let Member { before, after, .. } = self.members[index];
        self.members[before].after = after;
        self.members[after].before = before;
        if self.next == Some(index) {
            self.next = (after != index).then_some(after);
        }
    }
}

impl<M: Copy + Ord, V: Copy> Default for Members<M, V> {
    fn default() -> Members<M, V> {
        Members::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(members: &mut Members<char, u8>, count: usize) -> String {
        (0..count).map_while(|_| members.pick()).map(|(member, _)| member).collect()
    }

    #[test]
    fn members_take_turns_as_long_as_they_have_credit() {
        let mut members = Members::new();
        for (member, credit) in [('a', 2), ('b', 0), ('c', 4), ('d', 1)] {
            assert_eq!(members.join(member, 0, credit), None);
        }
        assert_eq!(picks(&mut members, 10), "acdaccc");
        assert!(!members.has_credit());
        assert_eq!(members.len(), 4);

        assert!(members.credit(&'b', 2));
        assert!(members.credit(&'a', 2));
        assert!(!members.credit(&'x', 2));
        assert_eq!(picks(&mut members, 10), "baba");
    }

    #[test]
    fn who_leaves_or_loses_its_credit_is_passed_over() {
        let mut members = Members::new();
        for member in ['a', 'b', 'c', 'd'] {
            members.join(member, member as u8, 10);
        }
        assert_eq!(picks(&mut members, 2), "ab");
        assert_eq!(members.leave(&'c'), Some(b'c'));
        assert_eq!(members.leave(&'c'), None);
        assert_eq!(picks(&mut members, 3), "dab");
        members.clear_credit(&'a');
        assert_eq!(picks(&mut members, 3), "dbd");
        members.leave(&'b');
        members.leave(&'d');
        assert_eq!(members.pick(), None);
        assert_eq!(members.len(), 1);
        members.credit(&'a', 1);
        assert_eq!(members.pick(), Some(('a', b'a')));
    }

    #[test]
    fn joining_again_replaces_value_and_credit() {
        let mut members = Members::new();
        members.join('a', 1, 5);
        members.join('b', 1, 5);
        assert_eq!(members.join('a', 2, 1), Some(1));
        assert_eq!(members.pick(), Some(('a', 2)));
        assert_eq!(picks(&mut members, 10), "bbbbb");
        assert_eq!(members.join('a', 3, 0), Some(2));
        assert_eq!(members.pick(), None);
    }
}
