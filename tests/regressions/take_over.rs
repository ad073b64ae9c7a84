//! A client that says everything, leaves and is back at once under its name: nothing of what it said is lost, and no will
//! is published of a client that said goodbye. And a broker that stood still hears its clients before it ends them.

use std::thread;
use std::time::Duration;

use crate::client::{self, Client, PATIENCE, Received};
use crate::fields::Kind;
use crate::message::{Message, Source};
use crate::wire::Version;
use crate::world::World;

/// `TAKE_OVERS=2000` for longer.
fn rounds() -> u64 {
    std::env::var("TAKE_OVERS").map_or(200, |text| text.parse().expect("TAKE_OVERS is a number"))
}

/// What a message of the client's is not.
const WILL: u64 = 1 << 40;

#[test]
fn nothing_is_lost_when_a_client_is_back_before_its_old_connection_was_read() {
    for shards in [1, 2, 4] {
        for version in [Version::V311, Version::V5] {
            let mut world = World::start(shards, &[]);
            come_back_at_once(&mut world, version);
            world.end();
        }
    }
}

fn come_back_at_once(world: &mut World, version: Version) {
    let address = world.address();
    let mut watcher = Client::join(address, version, "watcher", &[]);
    watcher.subscribe(&["over/#@0"]);
    let topics = vec!["over/said".to_owned()];
    let source = Source { id: 7, version, topics, size_max: 300 };
    for number in 0..rounds() {
        let mut mover = Client::open(address, version);
        let topic = "over/will".to_owned();
        let will = Message { topic, ..source.message(WILL) };
        mover.send(&client::connect_with_will(version, "mover", &will));
        mover.answer(Kind::Connack);
        mover.subscribe(&["never/#@0"]);
        let mut last = source.message(number).publish(version, 0, 0);
        last.extend([0xE0, 0]);
        mover.send(&last);
    }
    for number in 0..rounds() {
        let Received::Frame(frame) = watcher.message(PATIENCE) else {
            panic!("{number} of {} arrived", rounds());
        };
        let delivery = watcher.delivery(&frame).unwrap();
        assert_eq!(delivery.topic, b"over/said", "the client has said goodbye");
        assert_eq!(delivery.payload, source.message(number).payload, "message {number}");
    }
    assert_eq!(watcher.receive(Duration::from_millis(300)), Received::Nothing);
    watcher.leave();
}

#[test]
fn a_broker_that_stood_still_hears_its_clients_before_it_ends_them() {
    const CLIENTS: usize = 200;
    for shards in [1, 2] {
        let world = World::start(shards, &[]);
        let address = world.address();
        let mut clients: Vec<Client> =
            (0..CLIENTS).map(|_| Client::open(address, Version::V311)).collect();
        // On a busy machine one after the other would take longer than the keep alive of the first.
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(&connect_with_keep_alive(&format!("pinger-{number}")));
        }
        clients.iter_mut().for_each(|client| drop(client.answer(Kind::Connack)));
        world.signal("STOP");
        for _ in 0..6 {
            thread::sleep(Duration::from_millis(400));
            clients.iter_mut().for_each(|client| client.send(&[0xC0, 0]));
        }
        world.signal("CONT");
        for client in &mut clients {
            client.answer(Kind::Pingresp);
        }
        clients.into_iter().for_each(Client::leave);
        world.end();
    }
}

/// CONNECT with a keep alive of a second.
fn connect_with_keep_alive(id: &str) -> Vec<u8> {
    let mut bytes = vec![0x10, 12 + id.len() as u8, 0, 4];
    bytes.extend(b"MQTT");
    bytes.extend([4, 2, 0, 1, 0, id.len() as u8]);
    bytes.extend(id.as_bytes());
    bytes
}
