//! The codec against named packets, against the tables of the specification, and against itself.

mod packets;
mod previous_publish;
mod random_packets;
mod round_trip;
mod rules;
mod short_ways;
mod vectors;

use ringmq::codec::{DecodeError, Packet, ProtocolVersion, next_frame};

/// The largest packet that the tests take.
const PACKET_SIZE_MAX: usize = 1 << 20;

const VERSIONS: [ProtocolVersion; 3] =
    [ProtocolVersion::V31, ProtocolVersion::V311, ProtocolVersion::V5];

/// The one packet that `bytes` are.
fn decode(bytes: &[u8], version: ProtocolVersion) -> Result<Packet<'_>, DecodeError> {
    let frame = next_frame(bytes, PACKET_SIZE_MAX)?.expect("whole");
    assert_eq!(frame.size, bytes.len(), "one packet");
    Packet::decode(&frame, version)
}

fn encode(packet: &Packet<'_>, version: ProtocolVersion) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    bytes
}
