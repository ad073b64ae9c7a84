//! A broker's double that passes messages on, all but some of them as it should. MQTT 3.1.1, QoS 0; every subscriber gets all.

use std::io::{BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::packets::read_packet;

/// What it does wrong, with every tenth message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Nothing,
    Drops,
    Repeats,
    /// It comes behind the next one.
    Reorders,
    /// The last byte of the payload is another.
    Corrupts,
    /// The last byte of the topic is another.
    Misdirects,
    Delays,
    /// Once it has got so many, all connections are closed.
    Closes(u64),
}

pub(crate) const DELAY: Duration = Duration::from_millis(200);

struct State {
    fault: Fault,
    passed: Mutex<Passed>,
}

#[derive(Default)]
struct Passed {
    count: u64,
    held: Option<Vec<u8>>,
    readers: Vec<TcpStream>,
}

/// Runs as long as the test. Returns its address.
pub(crate) fn start(fault: Fault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let state = Arc::new(State { fault, passed: Mutex::default() });
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = state.clone();
            std::thread::spawn(move || state.serve(stream));
        }
    });
    address
}

impl State {
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut input = BufReader::new(stream.try_clone().ok()?);
        loop {
            let (header_size, packet) = read_packet(&mut input)?;
            let body = &packet[header_size..];
            match packet[0] >> 4 {
                // It does not know 5.0: the level stands behind "MQTT".
                1 if body[6] == 5 => {
                    stream.write_all(&[0x20, 2, 0, 1]).ok()?;
                    return None;
                }
                1 => stream.write_all(&[0x20, 2, 0, 0]).ok()?,
                8 => {
                    stream.write_all(&[0x90, 3, body[0], body[1], 0]).ok()?;
                    if body.windows(6).any(|part| part == b"uptime") {
                        let listener = stream.try_clone().ok()?;
                        std::thread::spawn(move || pulse(listener));
                    } else if !body[4..].starts_with(b"$SYS") {
                        self.passed.lock().ok()?.readers.push(stream.try_clone().ok()?);
                    }
                }
                3 => self.pass(packet)?,
                12 => stream.write_all(&[0xd0, 0]).ok()?,
                _ => return None,
            }
        }
    }

    fn pass(&self, mut packet: Vec<u8>) -> Option<()> {
        let mut passed = self.passed.lock().ok()?;
        passed.count += 1;
        let is_chosen = passed.count % 10 == 0;
        let mut copies = 1;
        match self.fault {
            Fault::Drops if is_chosen => copies = 0,
            Fault::Repeats if is_chosen => copies = 2,
            Fault::Reorders if is_chosen => {
                passed.held = Some(packet);
                return Some(());
            }
            Fault::Corrupts if is_chosen => *packet.last_mut()? ^= 1,
            // One byte of size in front, and two of the topic's.
            Fault::Misdirects if is_chosen => {
                let topic_size = usize::from(packet[3]);
                packet[3 + topic_size] ^= 1;
            }
            Fault::Delays if is_chosen => std::thread::sleep(DELAY),
            Fault::Closes(count) if passed.count > count => {
                for reader in passed.readers.drain(..) {
                    let _ = reader.shutdown(Shutdown::Both);
                }
                return None;
            }
            _ => {}
        }
        let held = passed.held.take();
        let all = std::iter::repeat_n(&packet, copies).chain(&held);
        let all: Vec<u8> = all.flatten().copied().collect();
        passed.readers.iter_mut().for_each(|reader| {
            let _ = reader.write_all(&all);
        });
        Some(())
    }
}

/// It is there, and says nothing of drops.
fn pulse(mut listener: TcpStream) -> std::io::Result<()> {
    loop {
        let topic = "$SYS/broker/uptime";
        let head = [0x30, 3 + topic.len() as u8, 0, topic.len() as u8];
        listener.write_all(&[&head[..], topic.as_bytes(), b"1"].concat())?;
        std::thread::sleep(Duration::from_millis(200));
    }
}
