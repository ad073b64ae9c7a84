//! What the doubles of brokers read.

use std::io::Read;

/// The next packet, and the size of its fixed header.
pub(crate) fn read_packet(input: &mut impl Read) -> Option<(usize, Vec<u8>)> {
    let mut packet = vec![0; 2];
    input.read_exact(&mut packet).ok()?;
    let mut size = usize::from(packet[1] & 0x7f);
    while packet.last()? & 0x80 != 0 {
        let mut byte = [0];
        input.read_exact(&mut byte).ok()?;
        size |= usize::from(byte[0] & 0x7f) << (7 * (packet.len() - 1));
        packet.push(byte[0]);
    }
    let header_size = packet.len();
    packet.resize(header_size + size, 0);
    input.read_exact(&mut packet[header_size..]).ok()?;
    Some((header_size, packet))
}
