//! The members of a shared subscription, which take turns.

use std::collections::BTreeMap;

use slab::Slab;

use crate::arena::{allocated, tree_size};

/// A shared group: members in the order of their turns. Only members with credit, room for a message, have a turn.
///
/// Invariant: a member is in the ring of turns if and only if its credit is above 0.
#[derive(Clone, Debug)]
pub struct Members<M, V> {
    places: BTreeMap<M, usize>,
    members: Slab<Member<M, V>>,
    /// The member that is next.
    turn: Option<usize>,
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
        Members { places: BTreeMap::new(), members: Slab::new(), turn: None }
    }

    /// Adds a member, behind all others in the ring of turns, or gives a member a new value and credit. Returns the
    /// previous value.
    pub fn join(&mut self, member: M, value: V, credit: u32) -> Option<V> {
        if let Some(&place) = self.places.get(&member) {
            let previous = std::mem::replace(&mut self.members[place].value, value);
            self.set_credit(place, credit);
            return Some(previous);
        }
        let place = self.members.insert(Member { member, value, credit: 0, before: 0, after: 0 });
        self.places.insert(member, place);
        self.set_credit(place, credit);
        None
    }

    pub fn leave(&mut self, member: &M) -> Option<V> {
        let place = self.places.remove(member)?;
        self.set_credit(place, 0);
        Some(self.members.remove(place).value)
    }

    /// The member whose turn it is, if any has credit; takes one credit from it.
    pub fn pick(&mut self) -> Option<(M, V)> {
        let place = self.turn?;
        let Member { member, value, credit, after, .. } = self.members[place];
        self.turn = Some(after);
        self.set_credit(place, credit - 1);
        Some((member, value))
    }

    /// Gives a member room for `count` more messages; `false`: there is no such member.
    pub fn credit(&mut self, member: &M, count: u32) -> bool {
        let Some(&place) = self.places.get(member) else { return false };
        self.set_credit(place, self.members[place].credit.saturating_add(count));
        true
    }

    /// Takes a member's credit away. Such a member stays a member and is not picked.
    pub fn clear_credit(&mut self, member: &M) {
        if let Some(&place) = self.places.get(member) {
            self.set_credit(place, 0);
        }
    }

    pub fn get(&self, member: &M) -> Option<V> {
        self.places.get(member).map(|&place| self.members[place].value)
    }

    /// Room for messages that a member has; 0: there is no such member.
    pub fn credit_of(&self, member: &M) -> u32 {
        self.places.get(member).map_or(0, |&place| self.members[place].credit)
    }

    /// All members with their values, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (M, V)> {
        self.places.iter().map(|(&member, &place)| (member, self.members[place].value))
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The memory in use, in bytes: an estimate.
    pub fn bytes(&self) -> usize {
        tree_size(self.places.len(), size_of::<(M, usize)>())
            + allocated(self.members.capacity() * size_of::<Member<M, V>>())
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether `pick` finds a member.
    pub fn has_credit(&self) -> bool {
        self.turn.is_some()
    }

    fn set_credit(&mut self, place: usize, credit: u32) {
        let had = std::mem::replace(&mut self.members[place].credit, credit);
        match (had > 0, credit > 0) {
            (false, true) => self.enter_ring(place),
            (true, false) => self.leave_ring(place),
            _ => {}
        }
    }

    /// Puts a member at the end of the turns, which is in front of the member that is next.
    fn enter_ring(&mut self, place: usize) {
        let after = *self.turn.get_or_insert(place);
        // A member that is alone in the ring is its own neighbour.
        let before = if after == place { place } else { self.members[after].before };
        self.members[place].before = before;
        self.members[place].after = after;
        self.members[before].after = place;
        self.members[after].before = place;
    }

    fn leave_ring(&mut self, place: usize) {
        let Member { before, after, .. } = self.members[place];
        self.members[before].after = after;
        self.members[after].before = before;
        if self.turn == Some(place) {
            self.turn = (after != place).then_some(after);
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
