//! Messages that come back over a bridge: told by their hop marks where these are kept, else by what was sent before.

use std::cell::{Cell, RefCell};

use tracing::{info, warn};

use super::record::Record;
use super::{Bridge, Hub};
use crate::arena::Message;
use crate::bridge::{
    Arrival, Echo, InMessage, Keeping, Origin, Return, Trail, connection_of, hops,
};
use crate::printable::Quoted;
use crate::time::Instant;

/// How long a message that may be an echo waits for what shards have no room to tell; then it is judged by what is known.
const BEHIND_MS: u64 = 1_000;

/// Messages that are dropped for one reason: the first is told, all are counted.
#[derive(Default)]
pub(crate) struct Drops(Cell<u64>);

impl Drops {
    pub(crate) fn count(&self) -> u64 {
        self.0.get()
    }

    fn add(&self, tell_first: impl FnOnce()) {
        if self.0.get() == 0 {
            tell_first();
        }
        self.0.set(self.0.get() + 1);
    }
}

/// What becomes of a message of the remote.
pub(crate) enum Judgement {
    /// It is handed on, with these properties, as it came by this trail.
    New { properties: Vec<u8>, trail: Trail },
    /// It was here.
    Dropped,
    /// Shards have told of messages that were not heard of yet: what it may be an echo of is not known.
    Open,
}

impl Bridge {
    /// Whether a message that came over a bridge is, by its content, one that was sent over this one: looked at where its hop
    /// marks do not tell. `keeping`: what becomes of marks on the connection that it would leave by.
    pub(crate) fn is_echo(
        &self,
        now: Instant,
        keeping: Keeping,
        topic: &str,
        message: &Message<'_>,
    ) -> bool {
        let Some(echo) = &self.echo else { return false };
        if keeping != Keeping::Nothing && !Trail::of(message.trail()).has_gap {
            return false;
        }
        let is_echo = echo.borrow_mut().is_echo(now, Return::Around, topic, message.payload);
        if is_echo {
            self.count_echo(topic);
        }
        is_echo
    }

    pub(crate) fn note_sent(&self, now: Instant, record: &Record<'_>) {
        if let Some(echo) = &self.echo {
            let origin = if record.from_bridge { Origin::Bridge } else { Origin::Here };
            echo.borrow_mut().note(now, origin, record.topic, record.payload);
        }
    }

    /// Whether a message that this bridge brings in is one that it has sent, which a remote without no-local gives back, or
    /// one that was `given` to a neighbour's bridge.
    fn is_return(
        &self,
        now: Instant,
        given: &RefCell<Echo>,
        has_no_local: bool,
        message: &InMessage,
    ) -> bool {
        let Some(echo) = &self.echo else { return false };
        let (topic, payload) = (message.remote_topic(), message.payload());
        // Other connections are other clients there.
        let is_kept_from_us = has_no_local && connection_of(topic, self.settings.connections) == 0;
        let is_echo = !is_kept_from_us
            && echo.borrow_mut().is_echo(now, Return::Same, topic, payload)
            || given.borrow_mut().is_echo(now, Return::Around, topic, payload);
        if is_echo {
            self.count_echo(topic);
        }
        is_echo
    }

    /// Whether a message that this bridge brings in is one that was `given` to a neighbour's bridge.
    fn is_given(&self, now: Instant, given: &RefCell<Echo>, message: &InMessage) -> bool {
        let (topic, payload) = (message.remote_topic(), message.payload());
        let is_echo = given.borrow_mut().is_echo(now, Return::Around, topic, payload);
        if is_echo {
            self.count_echo(topic);
        }
        is_echo
    }

    fn count_echo(&self, topic: &str) {
        let name = &self.settings.name;
        self.echoes.add(|| {
            warn!(
                "bridge {name}: a message to {} is dropped as one that comes back, because the same was sent within a minute. \
                 Further ones are counted in $SYS/bridges/{name}/messages/dropped/echoes; see echo_detection",
                Quoted(topic)
            );
        });
    }
}

impl Hub {
    /// Whether a message of the remote is new here.
    pub(crate) fn judge(
        &self,
        now: Instant,
        bridge: &Bridge,
        (keeping, has_no_local): (Keeping, bool),
        message: &InMessage,
    ) -> Judgement {
        let name = &bridge.settings.name;
        let arrival = match keeping {
            Keeping::Marks => hops::arrive(message.properties(), self.broker_id, Trail::UNKNOWN),
            // A broker that knows of no marks has clients, whose messages begin there.
            Keeping::Properties => {
                hops::arrive(message.properties(), self.broker_id, Trail::default())
            }
            Keeping::Nothing => {
                let properties = message.properties().into();
                Arrival::New { properties, trail: Trail::UNKNOWN }
            }
        };
        let (properties, trail) = match arrival {
            Arrival::New { properties, trail } => (properties, trail),
            Arrival::Returned => {
                bridge.loops.add(|| {
                    info!(
                        "bridge {name}: a message to {} has been here before: a loop of bridges ends here. Further ones are \
                         counted in $SYS/bridges/{name}/messages/dropped/loops",
                        Quoted(message.topic())
                    );
                });
                return Judgement::Dropped;
            }
            Arrival::TooFar => {
                bridge.paths_too_long.add(|| {
                    warn!(
                        "bridge {name}: a message to {} has come over as many bridges as may be, and is dropped. Further ones \
                         are counted in $SYS/bridges/{name}/messages/dropped/hops",
                        Quoted(message.topic())
                    );
                });
                return Judgement::Dropped;
            }
        };
        // Without a mark it may have come around by a bridge that is no broker of ours, over which we gave it without one.
        let is_unmarked = keeping == Keeping::Properties && trail == Trail::default();
        if bridge.echo.is_some() && (trail.has_gap || is_unmarked) {
            if !self.has_caught_up(now) {
                return Judgement::Open;
            }
            let is_return = match is_unmarked {
                true => bridge.is_given(now, &self.given, message),
                false => bridge.is_return(now, &self.given, has_no_local, message),
            };
            if is_return {
                return Judgement::Dropped;
            }
        }
        Judgement::New { properties: properties.into_owned(), trail }
    }

    /// Takes what the shards have told. Whether that is all that they had to tell before they sent what may have come back: a
    /// shard tells before it sends, but for what its lane has no room for. One that does not come to its end is not waited for.
    fn has_caught_up(&self, now: Instant) -> bool {
        if self.is_flooded() {
            // Nothing is taken before a log has room, and logs get room by what is read from the remotes: nothing may wait.
            return true;
        }
        // Before the lanes are looked at: what was left behind may be in them by now, and is then not missed.
        let is_behind = self.end.borrow().is_any_behind();
        if self.take_mail() {
            self.has_moved.set(true);
        }
        if !is_behind {
            self.behind.set(None);
            return true;
        }
        let before = self.behind.get().filter(|(_, seen_at)| now.ms_since(*seen_at) < BEHIND_MS);
        let since = before.map_or(now, |(since, _)| since);
        self.behind.set(Some((since, now)));
        now.ms_since(since) >= BEHIND_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::{Claim, Generation, Meta};
    use crate::bridge::{BrokerId, ForwardIndex};
    use crate::codec::{Publish, QoS};
    use crate::config::bridge::{BridgeProtocol, BridgeSettings, RuleSettings};
    use crate::executor::each_io::{for_each_io, run};
    use crate::executor::sleep;
    use crate::links::{Patience, Setup, open};
    use crate::mesh::shutdown::Orders;
    use crate::mesh::{self, BridgePort, bridge_lanes};
    use crate::routing::bridge_mail::{BridgeBatch, ToBridges};
    use crate::shard::Mail;
    use crate::system::clock::Clock;
    use crate::system::folder::Folder;
    use crate::system::io::Io;
    use std::sync::Arc;
    use std::time::Duration;

    /// A bridge that subscribes, and the end of the one shard.
    async fn hub_and_port(io: Io, folder: &Folder, protocol: BridgeProtocol) -> (Hub, BridgePort) {
        let settings = BridgeSettings {
            protocol,
            subscribe: vec![RuleSettings::new("#")],
            ..BridgeSettings::new("north")
        };
        let ports = mesh::connect::<Mail>(1, 1 << 20).unwrap();
        let (mut lanes, end) = bridge_lanes::connect(&ports[0].doors(), 1 << 20);
        let index = Arc::new(ForwardIndex::compile(std::slice::from_ref(&settings)).unwrap());
        let hub = open(Setup {
            io,
            settings: vec![settings],
            broker_id: BrokerId::from_number(1),
            packet_size_max: 1 << 20,
            index,
            end,
            clock: Clock::new(),
            orders: Arc::new(Orders::new(1)),
            data_dir: folder.path.clone(),
            patience: Patience { time_max: Duration::ZERO, is_ending: Arc::default() },
            sys_interval_ms: 0,
            shutdown_stall_ms: 0,
            moved: Arc::default(),
            left: Arc::default(),
        });
        (hub.await.unwrap(), lanes.remove(0))
    }

    /// What a shard tells of a message that it gives to a client that is a bridge.
    fn given(topic: &str) -> ToBridges {
        let meta = Meta {
            qos: 0,
            retain: true,
            is_origin: true,
            expires_at: None,
            publisher: 1,
            from_bridge: false,
            claim: Claim::None,
        };
        let mut batch = BridgeBatch::default();
        let message = Message::of(topic.as_bytes(), topic.len(), 0, meta, None);
        batch.push(&[], Generation::NONE, false, &message);
        ToBridges::Messages(batch)
    }

    fn arrive(hub: &Hub, topic: &str) {
        let message = InMessage::new(topic, topic, &Publish::default(), QoS::AtMostOnce, true);
        hub.bridges[0].lines[0].on_inbound(hub, 0, message);
    }

    #[test]
    fn what_comes_back_without_a_mark_over_a_neighbour_s_own_bridge_is_an_echo() {
        for_each_io(|io| {
            run(io, async move {
                let folder = Folder::new("unmarked");
                let (hub, mut port) = hub_and_port(io, &folder, BridgeProtocol::V5).await;
                let line = &hub.bridges[0].lines[0];
                assert!(port.has_room());
                port.send(given("lamp"));
                port.wake();
                for (topic, is_echo) in [("lamp", true), ("lamp", false), ("other", false)] {
                    arrive(&hub, topic);
                    assert_eq!(line.take_inbound(0).is_none(), is_echo, "{topic}");
                }
                assert_eq!(hub.bridges[0].echoes.count(), 1);
            });
        });
    }

    #[test]
    fn an_echo_that_is_faster_than_the_word_of_what_was_given_is_one() {
        for_each_io(|io| {
            run(io, async move {
                let folder = Folder::new("returns");
                let (hub, mut port) = hub_and_port(io, &folder, BridgeProtocol::V311).await;
                let line = &hub.bridges[0].lines[0];
                let echoes = || hub.bridges[0].echoes.count();
                assert!(port.has_room());
                port.send(given("kept/1"));
                port.wake();
                arrive(&hub, "kept/1");
                assert_eq!((echoes(), line.has_inbound()), (1, false));
                // The lane is full, and the shard has more to tell.
                while port.has_room() {
                    port.send(given("other"));
                }
                port.wake();
                for topic in ["kept/2", "kept/3"] {
                    arrive(&hub, topic);
                }
                assert_eq!((echoes(), line.has_inbound()), (1, true));
                assert!(line.take_inbound(0).is_none(), "they wait");
                assert!(port.has_room());
                port.send(given("kept/2"));
                line.take_arrivals(&hub);
                assert_eq!(echoes(), 1, "more may follow in the same turn");
                assert!(port.has_room());
                port.wake();
                line.take_arrivals(&hub);
                assert_eq!(echoes(), 2);
                assert!(line.take_inbound(0).is_some(), "the third is no echo");
                assert!(!line.has_inbound());
            });
        });
    }

    #[test]
    fn a_shard_that_never_tells_all_holds_nothing_for_long() {
        for_each_io(|io| {
            run(io, async move {
                let folder = Folder::new("behind");
                let (hub, mut port) = hub_and_port(io, &folder, BridgeProtocol::V311).await;
                let line = &hub.bridges[0].lines[0];
                let began = std::time::Instant::now();
                arrive(&hub, "first");
                assert!(line.take_inbound(0).is_some());
                let mut has_waited = false;
                while line.take_inbound(0).is_none() {
                    while port.has_room() {
                        port.send(given("other"));
                    }
                    port.wake();
                    if !line.has_inbound() {
                        arrive(&hub, "second");
                    } else {
                        line.take_arrivals(&hub);
                    }
                    has_waited |= line.has_inbound();
                    assert!(began.elapsed() < Duration::from_secs(60), "it waits for ever");
                    sleep(Duration::from_millis(5)).await;
                }
                assert!(has_waited);
                // While that goes on nothing else waits either.
                arrive(&hub, "third");
                assert!(line.take_inbound(0).is_some());
            });
        });
    }
}
