//! Finds a topic's receivers and remembers them as its route: local sessions, groups owned here, and shards with
//! interest.

use super::known::KnownInterest;
use crate::arena::allocated;
use crate::codec::QoS;
use crate::hash::{KeyedHash, PartedTable};
use crate::peers::ShardId;
use crate::random::Random;
use crate::routing::route::{LocalDelivery, NoLocal, Route};
use crate::session::SessionKey;
use crate::topic::{Changes, Index, Levels, has_wildcards};
use std::rc::Rc;

/// The subscriber of a filter on this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Subscriber {
    Session(SessionKey),
    /// The index of a shared group that this shard owns.
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

/// Subscriptions of this shard, interest of other shards, and routes of topics.
///
/// Invariants worth naming:
/// - Only methods of the router change subscriptions or interest, and each of them notes the filter. So a route that is
///   found names no session that has ended, and no group whose index another group has.
/// - The cost of a change does not depend on how many routes are remembered.
pub(crate) struct Router {
    subscriptions: Index<Subscriber, Options>,
    interest: KnownInterest,
    routes: PartedTable<Remembered>,
    /// Changes of filters with wildcards. A change of any other filter removes the route of its topic.
    changes: Changes,
    hash: KeyedHash,
    /// Chooses the routes that make room for new ones.
    random: Random,
    route_count: usize,
    routes_max: usize,
    /// Bytes that topics and routes hold outside of the table.
    outside_bytes: usize,
    bytes_max: usize,
}

/// A route that was found.
struct Remembered {
    topic: Box<[u8]>,
    route: Rc<Route>,
    /// The version of `changes` up to which the route is valid.
    version: u64,
    levels: Levels,
}

/// The bytes that a remembered topic may take on average. If many topics have many subscribers each, not all topics are
/// remembered.
const ROUTE_BYTES_MEAN: usize = 512;

/// The number of topics for one part of the table, and the largest number of parts.
const TOPICS_PER_PART: usize = 1_024;
const PARTS_MAX: usize = 256;

/// The most stamps of `Changes`. If fewer topics are remembered, there are as many stamps as topics.
const STAMPS_MAX: usize = 65_536;

/// The most routes that make room for a new one: two, and one more for every four subscriptions that it has.
const EVICTED_MAX: usize = 2;
const FOUND_PER_EVICTED: usize = 4;

/// Freeing so many receivers of a route takes one step.
const FREED_PER_STEP: usize = 16;

/// A route with more receivers is freed when its topic is looked up, not when its subscription changes.
const FREED_AT_ONCE_MAX: usize = 64;

impl Router {
    /// At most `routes_max` routes are remembered. With their topics they take at most `bytes_max` bytes.
    pub(crate) fn new(hash: &KeyedHash, routes_max: usize, bytes_max: usize) -> Router {
        let bytes_max = bytes_within(bytes_max, routes_max);
        let (routes, changes) = tables(hash, bytes_max);
        Router {
            subscriptions: Index::new(hash.clone()),
            interest: KnownInterest::new(hash),
            routes,
            changes,
            hash: hash.clone(),
            random: Random::new(hash.bytes(b"routes")),
            route_count: 0,
            routes_max,
            outside_bytes: 0,
            bytes_max,
        }
    }

    /// From now on routes and their topics take `bytes_max` bytes at most. With another bound all are forgotten, as the table
    /// of routes is made for its bound.
    pub(crate) fn set_bytes_max(&mut self, bytes_max: usize) {
        let bytes_max = bytes_within(bytes_max, self.routes_max);
        if bytes_max == self.bytes_max {
            return;
        }
        self.bytes_max = bytes_max;
        (self.routes, self.changes) = tables(&self.hash, bytes_max);
        (self.route_count, self.outside_bytes) = (0, 0);
    }

    pub(crate) fn subscriptions(&self) -> &Index<Subscriber, Options> {
        &self.subscriptions
    }

    pub(crate) fn interest(&self) -> &KnownInterest {
        &self.interest
    }

    /// Adds a subscription to a valid filter without share name, or replaces it; returns the previous options.
    pub(crate) fn subscribe(
        &mut self,
        filter: &str,
        subscriber: Subscriber,
        options: Options,
    ) -> Option<Options> {
        let previous = self.subscriptions.insert(filter, subscriber, options);
        if previous != Some(options) {
            self.note(filter);
        }
        previous
    }

    pub(crate) fn unsubscribe(&mut self, filter: &str, subscriber: Subscriber) {
        if self.subscriptions.remove(filter, subscriber).is_some() {
            self.note(filter);
        }
    }

    /// Notes that a shard has announced a filter.
    pub(crate) fn add_interest(&mut self, filter: &str, shard: ShardId) {
        self.interest.add(filter, shard);
        self.note(filter);
    }

    /// Notes that a shard has withdrawn a filter that it announced.
    pub(crate) fn remove_interest(&mut self, filter: &str, shard: ShardId) {
        self.interest.remove(filter, shard);
        self.note(filter);
    }

    /// The memory of remembered routes and of `changes`.
    pub(crate) fn route_bytes(&self) -> usize {
        self.outside_bytes + self.routes.bytes() + self.changes.bytes()
    }

    #[inline(always)]
    pub(crate) fn route(&mut self, topic: &[u8], steps: &mut u64) -> Rc<Route> {
        let hash = self.hash.bytes_inlined(topic);
        if let Some(remembered) = self.routes.find_mut(hash, |other| *other.topic == *topic)
            && (remembered.version == self.changes.version()
                || is_untouched(&self.changes, remembered, steps))
        {
            return Rc::clone(&remembered.route);
        }
        self.find_route(hash, topic, steps)
    }

    /// Finds the route of a topic that has no valid route, and remembers it.
    #[inline(never)]
    fn find_route(&mut self, hash: u64, topic: &[u8], steps: &mut u64) -> Rc<Route> {
        *steps += self.forget(hash, topic);
        let text = std::str::from_utf8(topic).expect("a topic was validated when it was decoded");
        let route = Rc::new(self.build(text, steps));
        let bytes = bytes_of(topic, &route);
        if self.make_room(hash, bytes, &route, steps) {
            let remembered = Remembered {
                topic: topic.into(),
                route: Rc::clone(&route),
                version: self.changes.version(),
                levels: self.changes.levels(text),
            };
            self.routes.insert(hash, remembered, |other| self.hash.bytes(&other.topic));
            self.route_count += 1;
            self.outside_bytes += bytes;
        }
        route
    }

    /// Forgets routes until there is room for a new one that takes `bytes`; returns whether there is.
    fn make_room(&mut self, hash: u64, bytes: usize, route: &Route, steps: &mut u64) -> bool {
        if bytes + self.routes.bytes() + self.changes.bytes() > self.bytes_max {
            return false;
        }
        let found_count = route.local.len() + route.groups.len();
        let mut left = EVICTED_MAX + found_count / FOUND_PER_EVICTED;
        loop {
            let bytes = self.route_bytes() + bytes + self.routes.growth(hash);
            if self.route_count < self.routes_max && bytes <= self.bytes_max {
                return true;
            }
            if left == 0 {
                return false;
            }
            left -= 1;
            let hash_of = |other: &Remembered| self.hash.bytes(&other.topic);
            let Some(evicted) = self.routes.take_any(self.random.number(), hash_of) else {
                return false;
            };
            *steps += self.count_forgotten(&evicted);
        }
    }

    /// Notes a change of a filter, which may change the route of each topic that the filter means.
    fn note(&mut self, filter: &str) {
        if self.route_count == 0 {
            return;
        }
        if has_wildcards(filter) {
            return self.changes.note(filter);
        }
        // A topic whose hash equals the hash of another shard's filter keeps its route. At worst that route sends
        // needless mail.
        let topic = filter.as_bytes();
        let hash = self.hash.bytes(topic);
        let Some(remembered) = self.routes.find_mut(hash, |other| *other.topic == *topic) else {
            return;
        };
        if remembered.route.local.len() > FREED_AT_ONCE_MAX {
            remembered.version = Changes::NEVER;
        } else {
            self.forget(hash, topic);
        }
    }

    /// Forgets a route; returns the steps that this takes.
    fn forget(&mut self, hash: u64, topic: &[u8]) -> u64 {
        let hash_of = |other: &Remembered| self.hash.bytes(&other.topic);
        let forgotten = self.routes.remove(hash, |other| *other.topic == *topic, hash_of);
        forgotten.map_or(0, |forgotten| self.count_forgotten(&forgotten))
    }

    /// Counts a route out; returns the steps of freeing it.
    fn count_forgotten(&mut self, forgotten: &Remembered) -> u64 {
        self.route_count -= 1;
        self.outside_bytes -= bytes_of(&forgotten.topic, &forgotten.route);
        1 + (forgotten.route.local.len() / FREED_PER_STEP) as u64
    }

    /// How many receivers a message of this topic has, if a valid route is remembered.
    pub(crate) fn weight(&self, topic: &[u8]) -> Option<u64> {
        let hash = self.hash.bytes(topic);
        let remembered = self.routes.find(hash, |other| *other.topic == *topic)?;
        let is_valid = remembered.version == self.changes.version()
            || !self.changes.since(remembered.version, remembered.levels).is_touched;
        let Route { local, groups, .. } = &*remembered.route;
        is_valid.then_some((local.len() + groups.len()) as u64)
    }

    /// The most steps that it takes to find the receivers of a message and to offer it to them. The steps of its bytes,
    /// and of freeing routes with many receivers, come on top.
    pub(crate) fn weight_max(&self) -> u64 {
        let (subscriptions, interest) = (&self.subscriptions, &self.interest);
        let own_max = subscriptions.found_max();
        let found_max = 2 * own_max + interest.found_max();
        let visits_max = subscriptions.visits_max() + interest.visits_max();
        let remembered_max = Changes::STEPS_MAX + EVICTED_MAX + own_max / FOUND_PER_EVICTED;
        (found_max + visits_max + remembered_max) as u64
    }

    fn build(&self, topic: &str, steps: &mut u64) -> Route {
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
        route.local.reserve_exact(found.len());
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
        route.local.shrink_to_fit();
        route
    }
}

fn bytes_within(bytes_max: usize, routes_max: usize) -> usize {
    bytes_max.min(routes_max.saturating_mul(ROUTE_BYTES_MEAN))
}

/// Empty tables of routes and of changes for so many bytes.
fn tables(hash: &KeyedHash, bytes_max: usize) -> (PartedTable<Remembered>, Changes) {
    let topics_mean = (bytes_max / ROUTE_BYTES_MEAN).max(1);
    let power = |count: usize, most: usize| count.min(most).next_power_of_two();
    let parts = power(topics_mean / TOPICS_PER_PART, PARTS_MAX);
    (PartedTable::with_parts(parts), Changes::new(hash, power(topics_mean, STAMPS_MAX)))
}

/// Whether no change since the last lookup of a route touches it. The route is then valid from now on.
#[inline(never)]
fn is_untouched(changes: &Changes, remembered: &mut Remembered, steps: &mut u64) -> bool {
    let since = changes.since(remembered.version, remembered.levels);
    *steps += since.steps;
    if !since.is_touched {
        remembered.version = changes.version();
    }
    !since.is_touched
}

/// Bytes that a topic and its route hold outside of the table.
fn bytes_of(topic: &[u8], route: &Route) -> usize {
    allocated(topic.len()) + route.bytes()
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
    use crate::peers::ShardSet;
    use crate::topic::matches;
    use std::collections::BTreeMap;

    const OPTIONS: Options =
        Options { qos: QoS::AtMostOnce, no_local: false, retain_as_published: false, id: 0 };

    fn session(index: u32, generation: u32) -> Subscriber {
        Subscriber::Session(SessionKey { index, generation })
    }

    #[test]
    fn the_memory_of_remembered_routes_is_bounded() {
        const ROUTES_MAX: usize = 100;
        let mut router = Router::new(&KeyedHash::new(1), ROUTES_MAX, usize::MAX);
        let mut most = 0;
        for index in 0..2_000 {
            router.subscribe("#", session(index, 1), OPTIONS);
            if index % 100 == 0 {
                for topic in 0..50u8 {
                    let route = router.route(&[b'a' + topic % 26, b'/', b'0' + topic / 26], &mut 0);
                    assert_eq!(route.local.len(), index as usize + 1);
                    assert!(router.route_bytes() <= ROUTES_MAX * ROUTE_BYTES_MEAN);
                    most = most.max(router.route_count);
                }
            }
        }
        assert_eq!(most, 50, "routes are remembered while there is room");
    }

    #[test]
    fn a_topic_too_many_forgets_few_others() {
        const ROUTES_MAX: usize = 5_000;
        let mut router = Router::new(&KeyedHash::new(1), ROUTES_MAX, usize::MAX);
        let topic = |n: usize| format!("some/topic/{n}");
        for n in 0..ROUTES_MAX {
            router.route(topic(n).as_bytes(), &mut 0);
        }
        assert_eq!(router.route_count, ROUTES_MAX);
        for n in 0..500 {
            router.route(topic(ROUTES_MAX + n).as_bytes(), &mut 0);
        }
        assert_eq!(router.route_count, ROUTES_MAX);
        let kept = (0..ROUTES_MAX).filter(|n| router.weight(topic(*n).as_bytes()).is_some());
        assert!(kept.count() >= ROUTES_MAX - 500);
    }

    #[test]
    fn a_change_takes_no_route_that_it_does_not_mean() {
        let mut router = Router::new(&KeyedHash::new(1), 10_000, usize::MAX);
        let topics: Vec<String> = (0..1_000).map(|n| format!("a/{n}")).collect();
        let look_up = |router: &mut Router| -> Vec<Rc<Route>> {
            topics.iter().map(|topic| router.route(topic.as_bytes(), &mut 0)).collect()
        };
        let before = look_up(&mut router);
        for n in 0..100 {
            router.subscribe(&format!("a/x{n}"), session(n, 1), OPTIONS);
            router.subscribe(&format!("a/x{n}/#"), session(n, 1), OPTIONS);
            router.add_interest(&format!("+/x{n}"), 3);
        }
        router.subscribe("a/7", session(1, 1), OPTIONS);
        router.add_interest("+/8", 3);
        router.subscribe("a/9/#", session(1, 1), OPTIONS);
        let is_same = |(a, b): (&Rc<Route>, &Rc<Route>)| Rc::ptr_eq(a, b);
        let after = look_up(&mut router);
        let kept: Vec<bool> = before.iter().zip(&after).map(is_same).collect();
        assert!(!kept[7] && !kept[8] && !kept[9]);
        let taken_count = kept.iter().filter(|kept| !**kept).count();
        assert!(taken_count < 60, "{taken_count} routes are taken, where stamps are shared seldom");
    }

    #[test]
    fn a_route_of_many_is_not_freed_where_a_subscription_changes() {
        let mut router = Router::new(&KeyedHash::new(1), 10_000, usize::MAX);
        for count in [FREED_AT_ONCE_MAX as u32, FREED_AT_ONCE_MAX as u32 + 1] {
            (0..count).for_each(|n| _ = router.subscribe("a", session(n, 1), OPTIONS));
            let before = router.route(b"a", &mut 0);
            router.unsubscribe("a", session(0, 1));
            assert_eq!(Rc::strong_count(&before) > 1, before.local.len() > FREED_AT_ONCE_MAX);
            assert_eq!(router.weight(b"a"), None);
            assert_eq!(router.route(b"a", &mut 0).local.len(), count as usize - 1);
        }
    }

    /// How a lookup found its route.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    enum Path {
        New,
        Valid,
        Revalidated,
        Rebuilt,
        Evicted,
        NotRemembered,
    }

    /// A router, and the subscriptions and interest that it must reflect.
    struct World {
        router: Router,
        random: Random,
        subscribed: BTreeMap<(String, Subscriber), Options>,
        announced: BTreeMap<(String, ShardId), ()>,
        generations: [u32; 6],
        paths: BTreeMap<Path, usize>,
    }

    impl World {
        fn new(seed: u64, routes_max: usize, bytes_max: usize) -> World {
            World {
                router: Router::new(&KeyedHash::new(seed), routes_max, bytes_max),
                random: Random::new(seed),
                subscribed: BTreeMap::new(),
                announced: BTreeMap::new(),
                generations: [1; 6],
                paths: BTreeMap::new(),
            }
        }

        fn below(&mut self, bound: usize) -> usize {
            self.random.below(bound as u64) as usize
        }

        fn topic(&mut self) -> String {
            const NAMES: [&str; 4] = ["a", "b", "", "$c"];
            let count = 1 + self.below(5);
            (0..count).map(|_| NAMES[self.below(4)]).collect::<Vec<_>>().join("/")
        }

        fn filter(&mut self) -> String {
            let topic = self.topic();
            if self.below(3) == 0 {
                return topic;
            }
            let mut levels: Vec<&str> = topic.split('/').collect();
            for level in &mut levels {
                if self.below(3) == 0 {
                    *level = "+";
                }
            }
            match self.below(8) {
                0 => "#".to_owned(),
                1..4 => levels.join("/") + "/#",
                _ => levels.join("/"),
            }
        }

        /// A session, or a group that may have the index of an earlier one.
        fn subscriber(&mut self) -> Subscriber {
            let index = self.below(6);
            match self.below(4) {
                0 => Subscriber::Group(index as u32),
                _ => session(index as u32, self.generations[index]),
            }
        }

        fn subscribe(&mut self) {
            let (filter, subscriber) = (self.filter(), self.subscriber());
            let options = Options {
                qos: QoS::from_bits(self.below(3) as u8).expect("it is below 3"),
                no_local: self.below(4) == 0,
                retain_as_published: self.below(2) == 0,
                id: self.below(3) as u32,
            };
            let previous = self.router.subscribe(&filter, subscriber, options);
            assert_eq!(previous, self.subscribed.insert((filter, subscriber), options));
        }

        fn unsubscribe(&mut self) {
            if !self.subscribed.is_empty() {
                let place = self.below(self.subscribed.len());
                let (filter, subscriber) =
                    self.subscribed.keys().nth(place).expect("it is subscribed").clone();
                self.router.unsubscribe(&filter, subscriber);
                self.subscribed.remove(&(filter, subscriber));
            }
        }

        /// Ends all subscriptions of a session; another session has its index from then on.
        fn end_session(&mut self) {
            let index = self.below(6);
            let ended = session(index as u32, self.generations[index]);
            self.generations[index] += 1;
            let router = &mut self.router;
            self.subscribed.retain(|(filter, subscriber), _| {
                let is_its = *subscriber == ended;
                if is_its {
                    router.unsubscribe(filter, *subscriber);
                }
                !is_its
            });
        }

        fn change_interest(&mut self) {
            let place = self.below(self.announced.len().max(6));
            if let Some((filter, shard)) = self.announced.keys().nth(place).cloned() {
                self.router.remove_interest(&filter, shard);
                self.announced.remove(&(filter, shard));
                return;
            }
            let announced = (self.filter(), [0, 1, 70][self.below(3)]);
            if self.announced.insert(announced.clone(), ()).is_none() {
                self.router.add_interest(&announced.0, announced.1);
            }
        }

        fn look_up(&mut self) {
            let topic = self.topic();
            let (hash, version) =
                (self.router.hash.bytes(topic.as_bytes()), self.router.changes.version());
            let find = |router: &Router| {
                let found = router.routes.find(hash, |other| *other.topic == *topic.as_bytes())?;
                Some((Rc::clone(&found.route), found.version))
            };
            let (before, count) = (find(&self.router), self.router.route_count);
            let weight = self.router.weight(topic.as_bytes());
            let mut steps = 0;
            let route = self.router.route(topic.as_bytes(), &mut steps);
            let path = match (&before, find(&self.router)) {
                (_, None) => Path::NotRemembered,
                (None, _) if self.router.route_count <= count => Path::Evicted,
                (None, _) => Path::New,
                (Some((_, since)), _) if *since == version => Path::Valid,
                (Some((old, _)), _) if Rc::ptr_eq(old, &route) => Path::Revalidated,
                (Some(_), _) => Path::Rebuilt,
            };
            *self.paths.entry(path).or_default() += 1;
            let is_kept = matches!(path, Path::Valid | Path::Revalidated);
            let receiver_count = (route.local.len() + route.groups.len()) as u64;
            assert_eq!(weight, is_kept.then_some(receiver_count), "{path:?}");
            assert!(steps <= self.router.weight_max(), "{path:?}: {steps} steps");
            // An empty table takes some bytes in any case.
            assert!(self.router.route_bytes() <= self.router.bytes_max.max(100));
            assert!(self.router.route_count <= self.router.routes_max);

            let fresh = self.router.build(&topic, &mut 0);
            assert_eq!(format!("{route:?}"), format!("{fresh:?}"), "{topic} {path:?}");
            self.check_by_hand(&topic, &route);
        }

        /// Compares the route with the receivers whose filters mean the topic, found without any index.
        fn check_by_hand(&self, topic: &str, route: &Route) {
            let mut remote = ShardSet::EMPTY;
            for (filter, shard) in self.announced.keys() {
                if matches(filter, topic) {
                    remote.insert(*shard);
                }
            }
            let mut groups = Vec::new();
            let mut sessions = BTreeMap::new();
            for ((filter, subscriber), options) in &self.subscribed {
                match subscriber {
                    _ if !matches(filter, topic) => {}
                    Subscriber::Group(index) => groups.push(*index),
                    Subscriber::Session(key) => {
                        let qos = sessions.entry(*key).or_insert(options.qos);
                        *qos = options.qos.max(*qos);
                    }
                }
            }
            let mut route_groups = route.groups.clone();
            route_groups.sort_unstable();
            groups.sort_unstable();
            let local: Vec<_> = route.local.iter().map(|d| (d.session, d.qos)).collect();
            assert_eq!((route.remote, route_groups), (remote, groups), "{topic}");
            assert_eq!(local, sessions.into_iter().collect::<Vec<_>>(), "{topic}");
        }
    }

    #[test]
    fn a_route_is_what_a_search_finds_whatever_has_changed() {
        let mut paths = BTreeMap::new();
        for (seed, routes_max, bytes_max) in [
            (1, 1, usize::MAX),
            (2, 3, usize::MAX),
            (3, 20, usize::MAX),
            (4, 1_000, usize::MAX),
            (5, 1_000, 9_000),
            (6, 1_000, 1_000),
            (7, 1_000, 0),
        ] {
            let mut world = World::new(seed, routes_max, bytes_max);
            for _ in 0..4_000 {
                match world.below(40) {
                    0..3 => world.subscribe(),
                    3..5 => world.unsubscribe(),
                    5 => world.end_session(),
                    6..8 => world.change_interest(),
                    _ => world.look_up(),
                }
            }
            for (path, count) in world.paths {
                *paths.entry(path).or_insert(0) += count;
            }
        }
        for path in [
            Path::New,
            Path::Valid,
            Path::Revalidated,
            Path::Rebuilt,
            Path::Evicted,
            Path::NotRemembered,
        ] {
            let count = paths.get(&path).copied().unwrap_or_default();
            assert!(count > 300, "{path:?} only {count} times: {paths:?}");
        }
    }
}
