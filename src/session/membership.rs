//! A session's memberships of shared groups: how many messages the owners of its groups may send it.
//!
//! `Membership::places` counts the messages that the group's owner may still send, those on their way, and those that wait in
//! the session. It never exceeds `group_credit_max`. Where the subscription asks for acknowledgements, it does not exceed the
//! free places of the client's window either, as they were when the places were given. Leaving groups takes one pass
//! through the queue, whatever its length.

use super::inflight::FlowState;
use super::{Connection, Session};
use crate::arena::{Stored, allocated, tree_size};
use crate::codec::QoS;
use std::collections::BTreeMap;
use std::rc::Rc;

/// All memberships of a session, by number and by filter: a client may have thousands and leave them all at once.
#[derive(Debug, Default)]
pub struct Memberships {
    by_number: BTreeMap<u32, Membership>,
    numbers: BTreeMap<Rc<str>, u32>,
    /// Bytes that the texts of the filters take.
    texts_size: usize,
    /// How many memberships were ever begun.
    last_number: u32,
    /// The number of the first membership that the present round of `give_places` has not visited yet; 0: no round has
    /// begun.
    places_from: u32,
}

/// Messages that a session gives back, in their order, by the numbers of the memberships through which they came.
pub type Returned = BTreeMap<u32, Vec<Stored>>;

/// The memory of a filter's text with its reference counts.
fn text_size(filter: &str) -> usize {
    allocated(filter.len() + 2 * size_of::<usize>())
}

/// A session's place in a shared subscription.
#[derive(Debug)]
pub struct Membership {
    /// The session never gives a number again, so a flow of an earlier membership finds nothing.
    pub number: u32,
    /// The whole filter, `$share/name/filter`.
    pub filter: Rc<str>,
    pub owner: u16,
    /// The QoS that the subscription asks for.
    pub qos: QoS,
    /// How many messages the group's owner may still send, including those on their way and those that wait here.
    pub places: u32,
}

impl Memberships {
    fn get_mut(&mut self, number: u32) -> Option<&mut Membership> {
        self.by_number.get_mut(&number)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Membership> {
        self.by_number.values()
    }

    pub fn count(&self) -> usize {
        self.by_number.len()
    }

    /// The memory in use, in bytes: an estimate.
    pub fn bytes(&self) -> usize {
        allocated(size_of::<Memberships>())
            + tree_size(self.by_number.len(), size_of::<(u32, Membership)>())
            + tree_size(self.numbers.len(), size_of::<(Rc<str>, u32)>())
            + self.texts_size
    }
}

impl Session {
    /// Begins the membership of a group, unless there is one. Returns its number, and how many places the owner gets:
    /// none if there was a membership.
    pub fn join(
        &mut self,
        connection: &Connection,
        (filter, owner): (&str, u16),
        qos: QoS,
        full: u32,
    ) -> (u32, u32) {
        let places = self.places_for(connection, qos, full);
        let memberships = self.memberships.get_or_insert_default();
        if let Some(number) = memberships.numbers.get(filter).copied() {
            if let Some(found) = memberships.get_mut(number) {
                found.qos = qos;
            }
            return (number, 0);
        }
        self.is_short_of_places |= places < full;
        memberships.last_number += 1;
        let number = memberships.last_number;
        let filter: Rc<str> = filter.into();
        memberships.texts_size += text_size(&filter);
        memberships.numbers.insert(Rc::clone(&filter), number);
        memberships.by_number.insert(number, Membership { number, filter, owner, qos, places });
        (number, places)
    }

    /// Gives the owners of up to `count_max` groups the places that they may have, each up to `full`. `give` gets
    /// owner, filter and how many places are added. Returns whether more groups are left for the next call.
    pub fn give_places(
        &mut self,
        connection: &Connection,
        full: u32,
        count_max: usize,
        mut give: impl FnMut(u16, &str, u32),
    ) -> bool {
        let Some(mut memberships) = self.memberships.take() else {
            self.is_credit_due = false;
            return false;
        };
        if memberships.places_from == 0 {
            self.is_credit_due = false;
            self.is_short_of_places = false;
        }
        let mut left = count_max;
        let mut next = 0;
        for (number, membership) in memberships.by_number.range_mut(memberships.places_from..) {
            if left == 0 {
                next = *number;
                break;
            }
            left -= 1;
            let wanted = self.places_for(connection, membership.qos, full);
            self.is_short_of_places |= wanted < full;
            let count = wanted.saturating_sub(membership.places);
            if count > 0 {
                membership.places += count;
                give(membership.owner, &membership.filter, count);
            }
        }
        memberships.places_from = next;
        self.memberships = Some(memberships);
        next != 0
    }

    /// Whether a round of `give_places` is not finished.
    pub fn is_giving_places(&self) -> bool {
        self.memberships.as_ref().is_some_and(|memberships| memberships.places_from != 0)
    }

    /// Takes back the places of all groups: all of them are given anew.
    pub fn take_back_places(&mut self) {
        if let Some(memberships) = &mut self.memberships {
            memberships.places_from = 0;
            memberships.by_number.values_mut().for_each(|membership| membership.places = 0);
        }
    }

    /// A message above QoS 0 needs a place of the client's window, too. A message without one would wait here and be
    /// kept from other members.
    fn places_for(&self, connection: &Connection, qos: QoS, full: u32) -> u32 {
        match qos {
            QoS::AtMostOnce => full,
            _ => full.min(u32::from(self.inflight.free_places(connection.quota))),
        }
    }

    pub fn leave(&mut self, filter: &str) -> Option<Membership> {
        let memberships = self.memberships.as_mut()?;
        let number = memberships.numbers.remove(filter)?;
        memberships.texts_size -= text_size(filter);
        memberships.by_number.remove(&number)
    }

    /// Number, owner and filter of each membership.
    pub fn memberships_list(&self) -> Vec<(u32, u16, Rc<str>)> {
        let memberships = self.memberships.iter().flat_map(|memberships| memberships.iter());
        memberships.map(|m| (m.number, m.owner, Rc::clone(&m.filter))).collect()
    }

    /// All memberships end.
    pub fn leave_all(&mut self) -> Vec<Membership> {
        let Some(memberships) = &mut self.memberships else { return Vec::new() };
        memberships.numbers.clear();
        memberships.texts_size = 0;
        std::mem::take(&mut memberships.by_number).into_values().collect()
    }

    /// The number of the session's membership of a group.
    pub fn membership_number(&self, filter: &str) -> Option<u32> {
        self.memberships.as_ref()?.numbers.get(filter).copied()
    }

    pub fn membership_count(&self) -> usize {
        self.memberships.as_ref().map_or(0, |memberships| memberships.count())
    }

    pub fn is_member(&self, number: u32) -> bool {
        self.memberships.as_ref().is_some_and(|m| m.by_number.contains_key(&number))
    }

    /// Notes that one place of a shared subscription was used.
    pub fn use_place(&mut self, number: u32) {
        if number == 0 {
            return;
        }
        if let Some(membership) = self.memberships.as_mut().and_then(|m| m.get_mut(number)) {
            // A message that was under way when the client left was not counted when the client came back.
            membership.places = membership.places.saturating_sub(1);
            self.is_credit_due = true;
        }
    }

    /// Takes the waiting messages that came through a membership that `is_left`, in one pass through the queue.
    pub fn take_unsent(&mut self, is_left: impl Fn(u32) -> bool) -> Returned {
        let mut returned = Returned::new();
        let is_wanted = |number| number != 0 && is_left(number);
        for queued in self.queue.extract(|queued| is_wanted(queued.envelope.membership)) {
            returned.entry(queued.envelope.membership).or_default().push(queued.stored);
        }
        returned
    }

    /// Takes the QoS 1 messages that came through memberships and were sent, but not acknowledged.
    pub fn take_unacknowledged(&mut self) -> Returned {
        let mut returned = Returned::new();
        self.inflight.take_stored(
            |flow| flow.envelope.membership != 0 && flow.state == FlowState::AwaitPuback,
            |flow, stored| returned.entry(flow.envelope.membership).or_default().push(stored),
        );
        returned
    }
}
