//! A stream of packets reads the same whether it comes at once or in pieces, and an error shows no later in pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmq::codec::{DecodeError, frame_size, next_frame};

// The first byte picks the largest packet, the second the size of the pieces; the rest is the stream.
fuzz_target!(|input: &[u8]| {
    let [size, piece, stream @ ..] = input else { return };
    let packet_size_max = 1 << (size % 32);
    let at_once = read(&[stream], packet_size_max);
    let pieces: Vec<&[u8]> = stream.chunks(1 + usize::from(*piece)).collect();
    assert_eq!(read(&pieces, packet_size_max), at_once);
});

/// First byte and body of each packet, and how the stream ends: bytes left over, or an error.
type Read = (Vec<(u8, Vec<u8>)>, Result<usize, DecodeError>);

fn read(pieces: &[&[u8]], packet_size_max: usize) -> Read {
    let mut packets = Vec::new();
    let mut pending = Vec::new();
    for piece in pieces {
        pending.extend_from_slice(piece);
        let mut taken = 0;
        loop {
            let rest = &pending[taken..];
            let frame = match next_frame(rest, packet_size_max) {
                Err(error) => return (packets, Err(error)),
                Ok(None) => break check_incomplete(rest, packet_size_max),
                Ok(Some(frame)) => frame,
            };
            assert_eq!(frame_size(rest), Ok(Some(frame.size)));
            assert!(frame.size <= packet_size_max && frame.size <= rest.len());
            assert_eq!(rest[0], frame.first_byte);
            assert!(rest[..frame.size].ends_with(frame.body));
            packets.push((frame.first_byte, frame.body.to_vec()));
            taken += frame.size;
        }
        pending.drain(..taken);
    }
    (packets, Ok(pending.len()))
}

/// It is incomplete because its header is, or because it is longer than `rest`.
fn check_incomplete(rest: &[u8], packet_size_max: usize) {
    match frame_size(rest).expect("next_frame found no error") {
        None => assert!(rest.len() < 5),
        Some(size) => assert!(size > rest.len() && size <= packet_size_max),
    }
}
