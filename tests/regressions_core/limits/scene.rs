//! Who meets a limit, and who looks on.

use crate::quiet;
use crate::world::{V5, World};
use ringmq::codec::{
    Connect, Packet, PacketId, ProtocolVersion, Publish, QoS, RetainHandling, Subscribe,
    SubscribeFilters, SubscriptionOptions, encode_pingreq,
};
use ringmq::limits::Limits;
use ringmq::shard::Event;

/// A broker, whoever provokes the limit, and whoever looks at `$SYS`.
pub(super) struct Scene {
    pub world: World,
    version: ProtocolVersion,
    watcher: usize,
    pub culprit: Option<usize>,
    other: Option<usize>,
}

impl Scene {
    /// `counter` is one below `$SYS/broker/shards/0/`.
    pub(super) fn new(set: fn(&mut Limits), counter: &str, version: ProtocolVersion) -> Scene {
        let mut limits = Limits { sys_interval_ms: 1_000, ..quiet() };
        set(&mut limits);
        let mut world = World::new(1, limits);
        let watcher = world.connect("watcher", |_| ());
        let topic = format!("$SYS/broker/shards/0/{counter}");
        world.subscribe(watcher, &topic, QoS::AtMostOnce);
        world.settle();
        Scene { world, version, watcher, culprit: None, other: None }
    }

    /// A connection that says nothing.
    pub(super) fn dial(&mut self) -> usize {
        let client = self.world.dial(self.version);
        self.world.settle();
        self.culprit = Some(client);
        client
    }

    pub(super) fn connect(&mut self) {
        self.connect_with(|_| ());
    }

    pub(super) fn connect_with(&mut self, change: impl FnOnce(&mut Connect<'static>)) {
        let mut connect = Connect::new(self.version, "culprit");
        connect.clean_start = false;
        connect.session_expiry_s = (self.version == V5).then_some(600);
        change(&mut connect);
        let mut bytes = Vec::new();
        connect.encode(&mut bytes);
        self.dial();
        self.send_bytes(&bytes);
    }

    /// The one who meets the limit, connected and with nothing to read.
    fn culprit(&mut self) -> usize {
        if self.culprit.is_none() {
            self.connect();
            self.answers();
        }
        self.culprit.expect("it connected")
    }

    /// Another client that is connected.
    pub(super) fn other(&mut self) -> usize {
        *self.other.get_or_insert_with(|| self.world.connect("other", |_| ()))
    }

    pub(super) fn send_bytes(&mut self, bytes: &[u8]) {
        let culprit = self.culprit();
        self.world.send_bytes(culprit, bytes);
        self.world.settle();
    }

    pub(super) fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes);
        self.send_bytes(&bytes);
    }

    pub(super) fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS, id: u16) {
        let packet_id = PacketId::new(id);
        let publish = Publish { qos, topic, packet_id, payload, ..Publish::default() };
        self.send(&Packet::Publish(publish));
    }

    pub(super) fn publish_some(&mut self, count: u16) {
        (1..=count).for_each(|id| self.publish("t", b"x", QoS::AtLeastOnce, id));
    }

    /// Marked as UTF-8, and it is none.
    pub(super) fn publish_ill_formed(&mut self, qos: QoS) {
        let first = 0x30 | (qos as u8) << 1;
        let bytes: &[u8] = match qos {
            QoS::AtMostOnce => &[first, 7, 0, 1, b't', 2, 1, 1, 0xff],
            _ => &[first, 9, 0, 1, b't', 0, 1, 2, 1, 1, 0xff],
        };
        self.send_bytes(bytes);
    }

    pub(super) fn retain(&mut self, topic: &str, payload: &[u8], id: u16) {
        let packet_id = PacketId::new(id);
        let qos = QoS::AtLeastOnce;
        let publish =
            Publish { qos, retain: true, topic, packet_id, payload, ..Publish::default() };
        self.send(&Packet::Publish(publish));
    }

    pub(super) fn subscribe(&mut self, filters: &[&str], subscription_id: Option<u32>) {
        let options = SubscriptionOptions {
            qos: QoS::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        };
        let list: Vec<_> = filters.iter().map(|filter| (*filter, options)).collect();
        self.send(&Packet::Subscribe(Subscribe {
            packet_id: PacketId::new(7).expect("not 0"),
            subscription_id,
            user_properties: Default::default(),
            filters: SubscribeFilters::from_list(&list),
        }));
    }

    /// It subscribes at QoS 1 and goes; its session stays.
    pub(super) fn leave_subscribed(&mut self) {
        let culprit = self.culprit();
        self.world.subscribe(culprit, "t", QoS::AtLeastOnce);
        self.world.settle();
        self.world.lose(culprit);
    }

    pub(super) fn queue_while_away(&mut self, count: u16, size: usize) {
        self.leave_subscribed();
        let publisher = self.other();
        for id in 1..=count {
            self.world.publish(publisher, "t", &vec![7; size], QoS::AtLeastOnce, id);
            self.world.settle();
        }
        // It is back; what it gets is not looked at.
        self.connect();
        self.answers();
    }

    /// A group whose member acknowledges nothing.
    pub(super) fn fill_group(&mut self, count: u16, size: usize) {
        let culprit = self.culprit();
        self.world.subscribe(culprit, "$share/g/t", QoS::AtLeastOnce);
        let publisher = self.other();
        for id in 1..=count {
            self.world.publish(publisher, "t", &vec![7; size], QoS::AtLeastOnce, id);
            self.world.settle();
        }
        self.answers();
    }

    /// So many PINGREQs that their answers pass the limit of its output.
    pub(super) fn ping_without_reading(&mut self) {
        let culprit = self.culprit();
        self.answers();
        self.world.set_stuck(culprit, true);
        let mut ping = Vec::new();
        encode_pingreq(&mut ping);
        self.send_bytes(&ping);
        self.send_bytes(&ping.repeat(1_001));
    }

    /// What the one who meets the limit has received.
    pub(super) fn answers(&mut self) -> Vec<String> {
        let Some(culprit) = self.culprit else { return Vec::new() };
        let mut lines = Vec::new();
        self.world.packets(culprit, |packet| {
            lines.push(match packet {
                Packet::Connack(connack) => format!("CONNACK {:?}", connack.reason),
                Packet::Suback(suback) => {
                    let reasons = suback.reasons.iter().map(|reason| format!(" {reason:?}"));
                    format!("SUBACK{}", reasons.collect::<String>())
                }
                Packet::Puback(ack) => format!("PUBACK {:?}", ack.reason),
                Packet::Pubrec(ack) => format!("PUBREC {} {:?}", ack.packet_id.get(), ack.reason),
                Packet::Disconnect(disconnect) => format!("DISCONNECT {:?}", disconnect.reason),
                other => format!("{other:?}"),
            });
        });
        lines
    }

    /// What is said of the counter.
    pub(super) fn count(&mut self) -> u64 {
        let mut last = 0;
        self.world.packets(self.watcher, |packet| {
            if let Packet::Publish(publish) = packet {
                let text = std::str::from_utf8(publish.payload).expect("a number");
                last = text.parse().expect("a number");
            }
        });
        last
    }

    pub(super) fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(event) = self.world.shards[0].poll_event() {
            assert!(matches!(event, Event::Noticed(_)), "{event}");
            lines.push(event.to_string());
        }
        lines
    }
}
