//! A connection knows the listener at which it came in, on whichever shard it is.

use super::world::World;
use ringmq::codec::{Connect, ProtocolVersion};
use ringmq::limits::Limits;
use ringmq::shard::ListenerId;

const SHARDS: u16 = 4;
const CLIENTS: u16 = 64;

#[test]
fn a_connection_that_moves_keeps_its_listener() {
    let mut world = World::new(SHARDS, Limits::default());
    let mut moved_count = 0;
    for number in 0..CLIENTS {
        let client = world.dial_to(ListenerId(number));
        let mut bytes = Vec::new();
        Connect::new(ProtocolVersion::V5, &format!("client {number}")).encode(&mut bytes);
        world.send_bytes(client, &bytes);
        world.settle();
        assert_eq!(world.listener_of(client), Some(ListenerId(number)));
        moved_count += u16::from(world.shard_of(client) != 0);
    }
    assert!(moved_count > CLIENTS / 2, "{moved_count} moved");
}
