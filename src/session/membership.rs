//! A session's places in shared subscriptions: how many messages the owners of its groups may send it.

use super::{Connection, Session};
use crate::codec::QoS;

/// A session's place in a shared subscription.
#[derive(Debug)]
pub struct Membership {
    /// The session has given it to no other before: what an earlier membership left in flight finds nothing.
    pub number: u32,
    /// The whole filter, `$share/name/filter`.
    pub filter: Box<str>,
    pub owner: u16,
    /// What the subscription asks for.
    pub qos: QoS,
    /// Messages that the group's owner may still send, those on their way and those that wait here.
    pub places: u32,
}

impl Session {
    /// The membership of a group, begun now unless it is there, and how many places its owner gets: none if it is there.
    pub fn join(
        &mut self,
        connection: &Connection,
        (filter, owner): (&str, u16),
        qos: QoS,
        full: u32,
    ) -> (u32, u32) {
        if let Some(found) = self.memberships.iter_mut().find(|m| *m.filter == *filter) {
            found.qos = qos;
            return (found.number, 0);
        }
        let places = self.places_for(connection, qos, full);
        self.is_short_of_places |= places < full;
        self.membership_number += 1;
        let number = self.membership_number;
        self.memberships.push(Membership { number, filter: filter.into(), owner, qos, places });
        (number, places)
    }

    /// Gives the owners of all groups the places that they may have, `full` each at most; `give` gets owner, filter and how
    /// many more there are.
    pub fn give_places(
        &mut self,
        connection: &Connection,
        full: u32,
        mut give: impl FnMut(u16, &str, u32),
    ) {
        self.is_credit_due = false;
        self.is_short_of_places = false;
        let mut memberships = std::mem::take(&mut self.memberships);
        for membership in &mut memberships {
            let wanted = self.places_for(connection, membership.qos, full);
            self.is_short_of_places |= wanted < full;
            let count = wanted.saturating_sub(membership.places);
            if count > 0 {
                membership.places += count;
                give(membership.owner, &membership.filter, count);
            }
        }
        self.memberships = memberships;
    }

    /// A message above QoS 0 needs a place of the client's window, too; what finds none is kept from other members.
    fn places_for(&self, connection: &Connection, qos: QoS, full: u32) -> u32 {
        match qos {
            QoS::AtMostOnce => full,
            _ => full.min(u32::from(self.inflight.free_places(connection.quota))),
        }
    }

    pub fn leave(&mut self, filter: &str) -> Option<Membership> {
        let place = self.memberships.iter().position(|m| *m.filter == *filter)?;
        Some(self.memberships.remove(place))
    }

    pub fn is_member(&self, number: u32) -> bool {
        self.memberships.binary_search_by_key(&number, |m| m.number).is_ok()
    }

    /// One place of a shared subscription was used.
    pub fn use_place(&mut self, number: u32) {
        if number == 0 {
            return;
        }
        if let Ok(place) = self.memberships.binary_search_by_key(&number, |m| m.number) {
            let places = &mut self.memberships[place].places;
            // What was under way when the client left was not counted when it came back.
            *places = places.saturating_sub(1);
            self.is_credit_due = true;
        }
    }
}
