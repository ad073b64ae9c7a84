//! Connections with a transport: what arrives in records, and what leaves in them, on one shard and over a move.

#[path = "../simulation/records.rs"]
#[allow(dead_code, reason = "the simulation asks for more")]
mod records;

use super::world::{V5, World};
use records::Records;
use ringmq::codec::{
    Connect, Disconnect, Packet, PacketId, Publish, QoS, ReasonCode, RetainHandling, Subscribe,
    SubscribeFilters, SubscriptionOptions, Will,
};
use ringmq::limits::Limits;
use ringmq::session::BufferPool;
use ringmq::shard::Output;
use ringmq::transport::{End, Opened, Transport};

/// Bytes of a record's header and tag.
const OVERHEAD: usize = 5 + 16;

fn quiet() -> Limits {
    Limits { sys_interval_ms: 0, ..Limits::default() }
}

fn ends(seed: u64, body_max: usize) -> (Box<dyn Transport>, Box<dyn Transport>) {
    let (broker, client) = Records::pair(seed, body_max);
    (Box::new(broker), Box::new(client))
}

fn connect_bytes(client_id: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    Connect::new(V5, client_id).encode(&mut bytes);
    bytes
}

fn publish_bytes(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let publish = Publish { topic, payload, ..Publish::default() };
    Packet::Publish(publish).encode(V5, &mut bytes);
    bytes
}

/// A packet of so many filters that the client's turn ends behind it.
fn subscribe_bytes(prefix: &str) -> Vec<u8> {
    let options = SubscriptionOptions {
        qos: QoS::AtMostOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::DoNotSend,
    };
    let filters: Vec<String> = (0..20).map(|number| format!("{prefix}/{number}")).collect();
    let list: Vec<_> = filters.iter().map(|filter| (filter.as_str(), options)).collect();
    let mut bytes = Vec::new();
    Packet::Subscribe(Subscribe {
        packet_id: PacketId::new(1).unwrap(),
        subscription_id: None,
        user_properties: Default::default(),
        filters: SubscribeFilters::from_list(&list),
    })
    .encode(V5, &mut bytes);
    bytes
}

/// A client with a transport whose CONNECT was accepted.
fn connect(world: &mut World, seed: u64, body_max: usize) -> usize {
    let client = world.dial_with(0, ends(seed, body_max));
    world.send_bytes(client, &connect_bytes(&format!("client {seed}")));
    world.settle();
    assert_eq!(world.received(client), ["CONNACK Success"]);
    client
}

fn transport_bytes(world: &World) -> usize {
    world.shards.iter().map(|shard| shard.gauges().transport_bytes).sum()
}

#[test]
fn a_connection_that_moves_takes_its_transport_along_with_half_a_record() {
    let mut moved_count = 0;
    for number in 0..16 {
        let mut world = World::new(4, quiet());
        let reader = world.connect("reader", |_| ());
        world.subscribe(reader, "t", QoS::AtMostOnce);
        world.settle();
        world.received(reader);
        let client = world.dial_with(0, ends(number, 512));
        let first = world.sealed(client, &connect_bytes(&format!("client {number}")));
        let second = world.sealed(client, &publish_bytes("t", b"behind CONNECT"));
        let third = world.sealed(client, &publish_bytes("t", b"over the move"));
        let (begun, rest) = third.split_at(third.len() / 2);
        world.send_raw(client, &[&first[..], &second, begun].concat());
        world.settle();
        moved_count += u32::from(world.shard_of(client) != 0);
        assert_eq!(world.messages(reader), ["t=behind CONNECT"]);
        world.send_raw(client, rest);
        world.settle();
        assert_eq!(world.messages(reader), ["t=over the move"]);
        assert_eq!(world.received(client), ["CONNACK Success"]);
    }
    assert!(moved_count > 8, "{moved_count} moved");
}

#[test]
fn bytes_come_one_by_one_and_records_end_anywhere() {
    let mut world = World::new(1, quiet());
    let client = connect(&mut world, 1, 20);
    world.subscribe(client, "t", QoS::AtMostOnce);
    world.settle();
    world.received(client);
    let payload: Vec<u8> = (0..100).map(|number| b'a' + number % 26).collect();
    let sealed = world.sealed(client, &publish_bytes("t", &payload));
    assert!(sealed.len() > payload.len() + 5 * OVERHEAD, "it takes several records");
    for byte in sealed {
        world.send_raw(client, &[byte]);
        world.settle();
    }
    assert_eq!(world.messages(client), [format!("t={}", String::from_utf8_lossy(&payload))]);
}

#[test]
fn an_output_leaves_in_the_room_in_front_of_it_or_in_records_of_the_largest_size() {
    let mut world = World::new(1, quiet());
    let reader = connect(&mut world, 1, 512);
    let publisher = world.connect("p", |_| ());
    world.subscribe(reader, "t", QoS::AtMostOnce);
    world.settle();
    world.received(reader);
    // A payload of 200 kB leaves by reference, and is copied into records.
    for size in [1, 500, 512, 1000, 200_000] {
        world.publish(publisher, "t", &vec![b'x'; size], QoS::AtMostOnce, 0);
        world.settle();
        assert_eq!(world.messages(reader), [format!("t={}", "x".repeat(size))]);
    }
}

#[test]
fn a_changed_record_ends_its_connection_and_what_was_sent_before_is_used() {
    let mut world = World::new(2, quiet());
    let reader = world.connect("reader", |_| ());
    world.subscribe(reader, "t", QoS::AtMostOnce);
    world.settle();
    world.received(reader);
    let client = connect(&mut world, 1, 512);
    let good = world.sealed(client, &publish_bytes("t", b"good"));
    let mut bad = world.sealed(client, &publish_bytes("t", b"bad"));
    bad[8] ^= 1;
    let behind = world.sealed(client, &publish_bytes("t", b"behind"));
    world.send_raw(client, &[good, bad, behind].concat());
    world.settle();
    assert_eq!(world.messages(reader), ["t=good"]);
    assert_eq!(world.received(client), ["DISCONNECT ProtocolError", "Pingreq"]);
    assert!(!world.is_open(client));
    let errors: u64 = world.shards.iter_mut().map(|shard| shard.counters().protocol_errors).sum();
    assert_eq!((errors, transport_bytes(&world)), (1, 0));
}

#[test]
fn a_client_that_speaks_no_records_is_refused_before_its_connect() {
    let mut world = World::new(1, quiet());
    let client = world.dial_with(0, ends(1, 512));
    world.send_raw(client, &connect_bytes("plain"));
    world.settle();
    assert!(!world.is_open(client));
    assert_eq!(world.received(client), ["Pingreq"], "the transport's goodbye alone");
    assert_eq!(world.shards[0].counters().protocol_errors, 1);
    assert_eq!(world.shards[0].gauges().connections, 0);
}

#[test]
fn a_goodbye_is_answered_and_the_will_is_published() {
    let mut world = World::new(1, quiet());
    let reader = world.connect("reader", |_| ());
    world.subscribe(reader, "#", QoS::AtMostOnce);
    world.settle();
    world.received(reader);
    let client = world.dial_with(0, ends(1, 512));
    let mut connect = Connect::new(V5, "c");
    connect.will = Some(Will { topic: "will", payload: b"gone", ..Will::default() });
    let mut bytes = Vec::new();
    connect.encode(&mut bytes);
    world.send_bytes(client, &bytes);
    world.send_bytes(client, &publish_bytes("t", b"last"));
    world.say_goodbye(client);
    world.settle();
    assert_eq!(world.messages(reader), ["t=last", "will=gone"]);
    assert_eq!(world.received(client), ["CONNACK Success", "Pingreq"]);
    assert!(!world.is_open(client));
}

#[test]
fn behind_disconnect_the_transport_says_goodbye_and_nothing_is_left() {
    let mut world = World::new(1, quiet());
    let client = connect(&mut world, 1, 512);
    assert!(world.shards[0].gauges().transport_bytes > 0);
    world.send(client, &Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
    world.settle();
    assert_eq!(world.received(client), ["Pingreq"]);
    assert!(!world.is_open(client));
    assert_eq!((transport_bytes(&world), world.shards[0].gauges().sealed_bytes), (0, 0));
}

#[test]
fn sealed_bytes_are_counted_while_they_are_on_their_way() {
    let mut world = World::new(1, quiet());
    let reader = connect(&mut world, 1, 20);
    let publisher = world.connect("p", |_| ());
    world.subscribe(reader, "t", QoS::AtMostOnce);
    world.settle();
    world.received(reader);
    world.set_stuck(reader, true);
    world.publish(publisher, "t", &[b'x'; 100], QoS::AtMostOnce, 0);
    world.settle();
    let gauges = world.shards[0].gauges();
    assert!(gauges.sealed_bytes >= 100 + 5 * OVERHEAD, "{}", gauges.sealed_bytes);
    assert_eq!(gauges.output_bytes, gauges.sealed_bytes);
    world.set_stuck(reader, false);
    world.settle();
    assert_eq!(world.shards[0].gauges().sealed_bytes, 0);
    world.set_stuck(reader, true);
    world.publish(publisher, "t", &[b'x'; 100], QoS::AtMostOnce, 0);
    world.settle();
    world.lose(reader);
    let gauges = world.shards[0].gauges();
    assert_eq!((gauges.sealed_bytes, gauges.output_bytes, gauges.transport_bytes), (0, 0, 0));
}

#[test]
fn what_completes_late_for_a_connection_that_is_gone_touches_no_link_in_its_place() {
    let mut world = World::new(1, quiet());
    let gone = connect(&mut world, 1, 512);
    let stale = world.connection_of(gone);
    world.lose(gone);
    let reader = connect(&mut world, 2, 20);
    assert_eq!(world.connection_of(reader).index, stale.index);
    let publisher = world.connect("p", |_| ());
    world.subscribe(reader, "t", QoS::AtMostOnce);
    world.settle();
    world.received(reader);
    world.set_stuck(reader, true);
    world.publish(publisher, "t", &[b'x'; 100], QoS::AtMostOnce, 0);
    world.settle();
    let sealed = world.shards[0].gauges().sealed_bytes;
    let now = world.now;
    world.shards[0].handle_sent(now, stale, Output::from(b"late".to_vec()));
    world.shards[0].handle_bytes(now, stale, &mut b"late".to_vec());
    assert_eq!(world.shards[0].gauges().sealed_bytes, sealed);
    world.set_stuck(reader, false);
    world.settle();
    assert_eq!(world.messages(reader), [format!("t={}", "x".repeat(100))]);
}

/// A transport that has no goodbye.
#[derive(Debug)]
struct Curt(Records);

impl Transport for Curt {
    fn room(&self) -> u32 {
        self.0.room()
    }

    fn open<'a>(&'a mut self, bytes: &'a mut [u8]) -> Opened<'a> {
        self.0.open(bytes)
    }

    fn end(&self) -> Option<End> {
        self.0.end()
    }

    fn has_own_bytes(&self) -> bool {
        self.0.has_own_bytes()
    }

    fn seal(&mut self, output: Output, pool: &mut BufferPool) -> Output {
        self.0.seal(output, pool)
    }

    fn say_goodbye(&mut self) {}

    fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

#[test]
fn a_connection_whose_transport_has_no_goodbye_ends_at_once() {
    let mut world = World::new(1, quiet());
    let (broker, client) = Records::pair(1, 512);
    let client = world.dial_with(0, (Box::new(Curt(broker)), Box::new(client)));
    world.send_bytes(client, &connect_bytes("curt"));
    world.settle();
    assert_eq!(world.received(client), ["CONNACK Success"]);
    world.send(client, &Packet::Disconnect(Disconnect::new(ReasonCode::Success)));
    world.settle();
    assert!(!world.is_open(client), "no time passes");
    assert_eq!(transport_bytes(&world), 0);
}

#[test]
fn a_transport_answers_its_peer_only_behind_connack() {
    let mut world = World::new(1, quiet());
    let (broker, mut client) = Records::pair(1, 512);
    let connect = connect_bytes("early");
    // The fifth record of a client follows a question of its transport.
    let early: Vec<u8> = connect[..5].iter().flat_map(|byte| client.seal_bytes(&[*byte])).collect();
    let rest = client.seal_bytes(&connect[5..]);
    let client = world.dial_with(0, (Box::new(broker), Box::new(client)));
    world.send_raw(client, &early);
    world.settle();
    assert_eq!(world.arrived(client), 0, "it may still move, with nothing in flight");
    world.send_raw(client, &rest);
    world.settle();
    let updated = 5 + 16;
    let connack = world.arrived(client);
    assert_eq!(world.received(client), ["CONNACK Success"]);
    let mut other = World::new(1, quiet());
    let plain = other.dial_with(0, ends(1, 512));
    other.send_bytes(plain, &connect);
    other.settle();
    assert_eq!(connack, other.arrived(plain) + updated, "the answer leaves with CONNACK");
}

#[test]
fn a_goodbye_behind_input_that_waits_ends_the_connection_when_that_was_used() {
    let mut world = World::new(1, Limits { turn_steps_max: 1, ..quiet() });
    let reader = world.connect("reader", |_| ());
    world.subscribe(reader, "t", QoS::AtMostOnce);
    world.settle();
    world.received(reader);
    let client = connect(&mut world, 1, 512);
    let mut bytes = Vec::new();
    for filter in ["a", "b", "c"] {
        bytes.extend(subscribe_bytes(filter));
    }
    bytes.extend(publish_bytes("t", b"before"));
    let sealed = world.sealed(client, &bytes);
    world.send_raw(client, &sealed);
    world.say_goodbye(client);
    world.turn(0);
    assert!(world.is_open(client), "its input waits for the next turns");
    let behind = world.sealed(client, &publish_bytes("t", b"behind"));
    world.send_raw(client, &behind);
    world.settle();
    assert_eq!(world.messages(reader), ["t=before"], "nothing follows a goodbye");
    assert!(!world.is_open(client));
    assert_eq!(world.received(client), ["SUBACK", "SUBACK", "SUBACK", "Pingreq"]);
}

#[test]
fn an_end_behind_connect_goes_with_the_connection_to_its_shard() {
    for breaks in [false, true] {
        let mut moved_count = 0;
        for number in 0..16 {
            let mut world = World::new(4, quiet());
            let reader = world.connect("reader", |_| ());
            world.subscribe(reader, "t", QoS::AtMostOnce);
            world.settle();
            world.received(reader);
            let (broker, mut client) = Records::pair(number, 512);
            let mut bytes = client.seal_bytes(&connect_bytes(&format!("client {number}")));
            bytes.extend(client.seal_bytes(&publish_bytes("t", b"last")));
            match breaks {
                true => bytes.extend(b"no record at all"),
                false => {
                    client.say_goodbye();
                    bytes.extend(client.seal_bytes(&[]));
                }
            }
            let client = world.dial_with(0, (Box::new(broker), Box::new(client)));
            world.send_raw(client, &bytes);
            // It is accepted in the first turn and read in the second.
            world.turn(0);
            world.turn(0);
            moved_count += u32::from(world.is_between_shards(client));
            world.settle();
            assert_eq!(world.messages(reader), ["t=last"]);
            assert!(!world.is_open(client), "no time passes");
            let told = world.received(client);
            let expected: &[&str] = match breaks {
                true => &["CONNACK Success", "DISCONNECT ProtocolError", "Pingreq"],
                false => &["CONNACK Success", "Pingreq"],
            };
            assert_eq!(told, expected);
            assert_eq!(transport_bytes(&world), 0);
        }
        assert!(moved_count > 8, "{moved_count} moved");
    }
}
