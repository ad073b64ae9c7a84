//! A broker's double that loses messages on purpose, and says of them in `$SYS` what it is told to. MQTT 3.1.1, QoS 0, one
//! topic that all who are no listeners of `$SYS` get.

use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::packets::read_packet;

/// How the double misbehaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Its count of dropped messages before the first client came.
    pub counted_before: u64,
    /// How many of those it has not said yet when a client subscribes.
    pub unsaid: u64,
    /// Messages that it loses, from the fiftieth on.
    pub loses: u64,
    /// What it adds to its count for that.
    pub counts: u64,
}

struct State {
    manner: Manner,
    published: AtomicU64,
    counted: AtomicU64,
    readers: Mutex<Vec<TcpStream>>,
    listeners: Mutex<Vec<TcpStream>>,
}

const FIRST_LOST: u64 = 50;
const INTERVAL: Duration = Duration::from_millis(200);

/// A double, which runs as long as the test.
pub(crate) struct Double {
    pub address: String,
    state: Arc<State>,
}

impl Double {
    /// Messages that it has got.
    pub(crate) fn published(&self) -> u64 {
        self.state.published.load(Relaxed)
    }
}

pub(crate) fn start(manner: Manner) -> Double {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let state = Arc::new(State {
        manner,
        published: AtomicU64::new(0),
        counted: AtomicU64::new(manner.counted_before),
        readers: Mutex::default(),
        listeners: Mutex::default(),
    });
    let (ticking, seen) = (state.clone(), state.clone());
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(INTERVAL);
            let mut listeners = ticking.listeners.lock().expect("no panic");
            let counted = ticking.counted.load(Relaxed);
            listeners.retain_mut(|listener| report(listener, counted).is_ok());
        }
    });
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = state.clone();
            std::thread::spawn(move || state.serve(stream));
        }
    });
    Double { address, state: seen }
}

/// What an interval of `$SYS` says.
fn report(listener: &mut TcpStream, counted: u64) -> std::io::Result<()> {
    let counted = counted.to_string();
    for (topic, text) in [
        ("$SYS/broker/uptime", "1 seconds"),
        ("$SYS/broker/publish/messages/dropped", counted.as_str()),
    ] {
        let mut packet = vec![0x30, (2 + topic.len() + text.len()) as u8, 0, topic.len() as u8];
        packet.extend_from_slice(topic.as_bytes());
        packet.extend_from_slice(text.as_bytes());
        listener.write_all(&packet)?;
    }
    Ok(())
}

impl State {
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut input = BufReader::new(stream.try_clone().ok()?);
        loop {
            let packet = read_packet(&mut input)?;
            let (header_size, body) = packet;
            match body[0] >> 4 {
                // It does not know 5.0: the level stands behind "MQTT".
                1 if body[header_size + 6] == 5 => {
                    stream.write_all(&[0x20, 2, 0, 1]).ok()?;
                    return None;
                }
                1 => stream.write_all(&[0x20, 2, 0, 0]).ok()?,
                8 => self.subscribe(&mut stream, &body[header_size..])?,
                3 => self.publish(&body),
                _ => return None,
            }
        }
    }

    fn subscribe(&self, stream: &mut TcpStream, body: &[u8]) -> Option<()> {
        let (mut at, mut count) = (2, 0);
        while at < body.len() {
            at += 3 + usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
            count += 1;
        }
        stream.write_all(&[0x90, 2 + count, body[0], body[1]]).ok()?;
        stream.write_all(&vec![0; usize::from(count)]).ok()?;
        if body[4..].starts_with(b"$SYS") {
            report(stream, self.counted.load(Relaxed) - self.manner.unsaid).ok()?;
            self.listeners.lock().expect("no panic").push(stream.try_clone().ok()?);
        } else {
            self.readers.lock().expect("no panic").push(stream.try_clone().ok()?);
        }
        Some(())
    }

    fn publish(&self, packet: &[u8]) {
        let number = self.published.fetch_add(1, Relaxed);
        if number == FIRST_LOST {
            self.counted.fetch_add(self.manner.counts, Relaxed);
        }
        if (FIRST_LOST..FIRST_LOST + self.manner.loses).contains(&number) {
            return;
        }
        for reader in self.readers.lock().expect("no panic").iter_mut() {
            let _ = reader.write_all(packet);
        }
    }
}
