//! A broker's double that clients fare badly with. MQTT 3.1.1.

use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::packets::read_packet;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Manner {
    /// Every third client is refused.
    RefusesThirds,
    /// Each client's connection is closed behind its third packet.
    Closes,
    /// Nobody gets an answer.
    Silent,
    /// It answers what is no packet.
    Babbles,
}

/// Returns its port. It runs as long as the test.
pub(crate) fn start(manner: Manner) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        let count = &*Box::leak(Box::new(AtomicU64::new(0)));
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || -> Option<()> {
                let mut input = BufReader::new(stream.try_clone().ok()?);
                let mut packets = 0;
                loop {
                    let (header_size, packet) = read_packet(&mut input)?;
                    packets += 1;
                    let id = packet.get(header_size..header_size + 2).unwrap_or(&[0; 2]);
                    match (manner, packet[0] >> 4) {
                        (Manner::Silent, _) => {}
                        (Manner::Babbles, _) => {
                            stream.write_all(&[0xf7, 0xff, 0xff, 0xff, 0xff]).ok()?
                        }
                        (Manner::Closes, _) if packets == 3 => return None,
                        (Manner::RefusesThirds, 1) if count.fetch_add(1, Relaxed) % 3 == 2 => {
                            stream.write_all(&[0x20, 2, 0, 5]).ok()?;
                        }
                        (_, 1) => stream.write_all(&[0x20, 2, 0, 0]).ok()?,
                        (_, 3) if packet[0] & 6 == 2 => {
                            let topic_size = usize::from(u16::from_be_bytes([id[0], id[1]]));
                            let at = header_size + 2 + topic_size;
                            stream.write_all(&[0x40, 2, packet[at], packet[at + 1]]).ok()?;
                        }
                        (_, 8) => stream.write_all(&[0x90, 3, id[0], id[1], 0]).ok()?,
                        (_, 14) => return None,
                        _ => {}
                    }
                }
            });
        }
    });
    port
}
