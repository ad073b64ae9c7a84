//! A route: to whom a publisher's packets go, as of its last look.

use std::rc::Rc;

#[derive(Clone, Default)]
pub(super) struct Route {
    pub takers: Rc<[usize]>,
    /// How many subscriptions there were when it was found; 0: it was not.
    of: u32,
    /// Type, QoS and flags of the publish for which it was found.
    first: u8,
}

impl Route {
    /// Found for publishes that begin with `first`, when there were so many subscriptions.
    pub(super) fn new(takers: Vec<usize>, subscriptions: u32, first: u8) -> Route {
        Route { takers: takers.into(), of: subscriptions, first }
    }

    #[inline]
    pub(super) fn is_of(&self, subscriptions: u32, first: u8) -> bool {
        self.of == subscriptions && self.first == first
    }
}
