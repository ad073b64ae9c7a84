//! Topic to receivers: local sessions, groups owned here, and shards with interest; remembered per topic.

use super::known::KnownInterest;
use crate::arena::allocated;
use crate::codec::QoS;
use crate::hash::KeyedHash;
use crate::routing::route::{LocalDelivery, NoLocal, Route};
use crate::session::SessionKey;
use crate::topic::Index;
use std::collections::HashMap;
use std::rc::Rc;

/// Who is behind a subscription on this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Subscriber {
    Session(SessionKey),
    /// A shared group that this shard owns, by its place.
    Group(u32),
}

/// A subscription's options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    /// Subscription identifier; 0: none.
    pub id: u32,
}

pub(crate) struct Router {
    pub subscriptions: Index<Subscriber, Options>,
    pub interest: KnownInterest,
    cache: HashMap<Box<[u8]>, Rc<Route>, ahash::RandomState>,
    cache_versions: (u64, u64),
    cache_max: usize,
    /// Bytes of all remembered routes, about, and how many there may be.
    cache_bytes: usize,
    cache_bytes_max: usize,
}

/// What a topic takes in the table of routes, half of which may be empty.
const ENTRY_SIZE: usize = size_of::<(Box<[u8]>, Rc<Route>)>() + 1;

/// What a remembered topic may take on average, in bytes: many topics with many subscribers each are not all
/// remembered.
const ROUTE_BYTES_MEAN: usize = 512;

impl Router {
    pub fn new(hash: &KeyedHash, cache_max: usize, cache_bytes_max: usize) -> Router {
        Router {
            subscriptions: Index::new(hash.clone()),
            interest: KnownInterest::new(hash),
            cache: HashMap::with_hasher(hash.state()),
            cache_versions: (0, 0),
            cache_max,
            cache_bytes: 0,
            cache_bytes_max: cache_bytes_max.min(cache_max.saturating_mul(ROUTE_BYTES_MEAN)),
        }
    }

    /// The memory of remembered routes, about.
    pub fn route_bytes(&self) -> usize {
        self.cache_bytes
    }

    #[inline(always)]
    pub fn route(&mut self, topic: &[u8], steps: &mut u64) -> Rc<Route> {
        let versions = (self.subscriptions.version(), self.interest.version());
        if versions != self.cache_versions {
            self.forget_routes(steps);
            self.cache_versions = versions;
        }
        if let Some(route) = self.cache.get(topic) {
            return Rc::clone(route);
        }
        self.find_route(topic, steps)
    }

    /// The route of a topic that is not remembered.
    fn find_route(&mut self, topic: &[u8], steps: &mut u64) -> Rc<Route> {
        let route = Rc::new(self.build(topic, steps));
        let bytes = allocated(topic.len()) + route.bytes() + 2 * ENTRY_SIZE;
        let bytes_max = self.cache_bytes_max;
        if self.cache.len() >= self.cache_max || self.cache_bytes + bytes > bytes_max {
            self.forget_routes(steps);
        }
        if bytes <= bytes_max {
            self.cache_bytes += bytes;
            self.cache.insert(topic.into(), Rc::clone(&route));
        }
        route
    }

    /// How many receivers a message of this topic has, if that is remembered.
    pub fn weight(&self, topic: &[u8]) -> Option<u64> {
        let versions = (self.subscriptions.version(), self.interest.version());
        let route = self.cache.get(topic).filter(|_| versions == self.cache_versions)?;
        Some((route.local.len() + route.groups.len()) as u64)
    }

    /// No message costs more steps to find its receivers and to be offered to them, its bytes apart.
    pub fn weight_max(&self) -> u64 {
        let (subscriptions, interest) = (&self.subscriptions, &self.interest);
        let found_max = 2 * subscriptions.found_max() + interest.found_max();
        (found_max + subscriptions.visits_max() + interest.visits_max()) as u64
    }

    fn forget_routes(&mut self, steps: &mut u64) {
        *steps += self.cache.len() as u64;
        self.cache.clear();
        self.cache_bytes = 0;
    }

    fn build(&self, topic: &[u8], steps: &mut u64) -> Route {
        let topic = std::str::from_utf8(topic).expect("a topic was validated when it was decoded");
        let mut route = Route::default();
        let mut found: Vec<(SessionKey, Options)> = Vec::new();
        let mut visit_count =
            self.subscriptions.matches(topic, |subscriber, options| match subscriber {
                Subscriber::Session(key) => found.push((*key, *options)),
                Subscriber::Group(index) => route.groups.push(*index),
            });
        let (remote, remote_count) = self.interest.shards(topic);
        route.remote = remote;
        visit_count += remote_count;
        *steps += (visit_count + found.len() + route.groups.len()) as u64;
        found.sort_by_key(|(key, _)| *key);
        for matching in found.chunk_by(|a, b| a.0 == b.0) {
            let all = merge(matching).expect("a chunk has an entry");
            let others: Vec<_> = matching.iter().filter(|(_, o)| !o.no_local).copied().collect();
            let no_local = if others.len() == matching.len() {
                NoLocal::Same
            } else {
                merge(&others).map_or(NoLocal::Nothing, |other| NoLocal::Other(Box::new(other)))
            };
            route.local.push(LocalDelivery { no_local, ..all });
        }
        route
    }
}

/// One delivery for all subscriptions of one session that match. [MQTT-3.3.4-2]
fn merge(matching: &[(SessionKey, Options)]) -> Option<LocalDelivery> {
    let (session, _) = matching.first()?;
    let ids: Vec<u32> = matching.iter().map(|(_, o)| o.id).filter(|id| *id != 0).collect();
    Some(LocalDelivery {
        session: *session,
        qos: matching.iter().map(|(_, o)| o.qos).max()?,
        retain_as_published: matching.iter().any(|(_, o)| o.retain_as_published),
        ids: (!ids.is_empty()).then(|| ids.into()),
        no_local: NoLocal::Same,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_remembered_routes_is_bounded() {
        const CACHE_MAX: usize = 100;
        let mut router = Router::new(&KeyedHash::new(1), CACHE_MAX, usize::MAX);
        let options =
            Options { qos: QoS::AtMostOnce, no_local: false, retain_as_published: false, id: 7 };
        let mut most = 0;
        for index in 0..2_000 {
            let key = SessionKey { index, generation: 1 };
            router.subscriptions.insert("#", Subscriber::Session(key), options);
            if index % 100 == 0 {
                for topic in 0..50u8 {
                    let route = router.route(&[b'a' + topic % 26, b'/', b'0' + topic / 26], &mut 0);
                    assert_eq!(route.local.len(), index as usize + 1);
                    let bytes: usize = router.cache.values().map(|route| route.bytes()).sum();
                    assert!(bytes <= CACHE_MAX * ROUTE_BYTES_MEAN);
                    most = most.max(router.cache.len());
                }
            }
        }
        assert_eq!(most, 50, "routes are remembered while there is room");
    }
}
