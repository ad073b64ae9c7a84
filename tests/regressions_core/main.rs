//! What was wrong once, in small: shards in memory, a few packets, and what must come of them.

mod world;

use ringmq::codec::QoS;
use ringmq::limits::Limits;
use world::World;

/// Nothing but what the test does.
fn quiet() -> Limits {
    Limits { sys_interval_ms: 0, ..Limits::default() }
}

#[test]
fn interest_is_acknowledged_while_messages_keep_crossing() {
    let mut world = World::new(2, quiet());
    let subscriber = world.client_on(0, "s");
    let publisher = world.client_on(1, "p");
    world.subscribe(subscriber, "busy", QoS::AtMostOnce);
    world.settle();
    world.received(subscriber);
    world.subscribe(subscriber, "other", QoS::AtMostOnce);
    for _ in 0..20 {
        world.publish(publisher, "busy", b"x", QoS::AtMostOnce, 0);
        world.turn(1);
        world.turn(0);
    }
    assert!(world.received(subscriber).contains(&"SUBACK".to_string()));
}

#[test]
fn who_reads_is_served_though_others_fill_the_output_of_the_shard() {
    let limits = Limits {
        packet_size_max: 4096,
        output_size_max: 4096,
        shard_output_bytes_max: 8192,
        ..quiet()
    };
    let mut world = World::new(1, limits);
    let publisher = world.connect("p", |_| ());
    let stuck: Vec<usize> = (0..4).map(|n| world.connect(&format!("stuck{n}"), |_| ())).collect();
    let reader = world.connect("reader", |_| ());
    for &client in &stuck {
        world.subscribe(client, "bulk", QoS::AtMostOnce);
    }
    world.subscribe(reader, "news", QoS::AtMostOnce);
    world.settle();
    world.received(reader);
    stuck.iter().for_each(|&client| world.clients[client].is_stuck = true);
    for _ in 0..20 {
        world.publish(publisher, "bulk", &[b'b'; 3000], QoS::AtMostOnce, 0);
        world.settle();
    }
    assert!(world.shards[0].gauges().output_bytes >= 8192, "the shard's bound is met");
    for number in 0..5 {
        world.publish(publisher, "news", format!("{number}").as_bytes(), QoS::AtMostOnce, 0);
    }
    world.settle();
    assert_eq!(world.messages(reader), ["news=0", "news=1", "news=2", "news=3", "news=4"]);
}

#[test]
fn sessions_that_wait_for_the_same_message_share_one_copy() {
    let mut world = World::new(1, quiet());
    let publisher = world.connect("p", |_| ());
    for number in 0..100 {
        let client = world.connect(&format!("away{number}"), |c| c.session_expiry_s = Some(60));
        world.subscribe(client, "t", QoS::AtLeastOnce);
        world.lose(client);
    }
    world.publish(publisher, "t", &[b'm'; 10_000], QoS::AtLeastOnce, 1);
    world.settle();
    let stored = world.shards[0].gauges().stored_bytes;
    assert!((10_000..20_000).contains(&stored), "{stored} bytes are stored");
    world.now = world.now.plus_s(61);
    world.settle();
    assert_eq!(world.shards[0].gauges().stored_bytes, 0);
}
