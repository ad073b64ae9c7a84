//! A broker's double that does one thing wrong on purpose. MQTT 3.1.1, QoS 0 and 1, filters with `+`.

use std::collections::VecDeque;
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::packets::read_packet;

/// What the double does to one message, or to all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Manner {
    Good,
    /// Does not pass on the one hundredth message.
    Drops,
    /// Passes it on twice.
    Repeats,
    /// Passes it on behind the next one of its publisher.
    Reorders,
    /// Changes a byte of it.
    Corrupts,
    /// Passes on nothing from it on.
    Swallows,
    /// Passes every message on so much later.
    Delays(Duration),
}

/// Which message that is.
const ODD: u64 = 100;

struct Reader {
    filter: String,
    qos: u8,
    output: Sender<(Instant, Vec<u8>)>,
}

struct State {
    manner: Manner,
    published: AtomicU64,
    /// The odd message, until the next of its topic.
    held: Mutex<VecDeque<(String, Vec<u8>)>>,
    readers: Mutex<Vec<Reader>>,
}

/// Starts a double, which runs as long as the test. Returns its address.
pub(crate) fn start(manner: Manner) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let state = Arc::new(State {
        manner,
        published: AtomicU64::new(0),
        held: Mutex::default(),
        readers: Mutex::default(),
    });
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = state.clone();
            std::thread::spawn(move || state.serve(stream));
        }
    });
    address
}

/// A level of the filter may be `+`.
fn matches(filter: &str, topic: &str) -> bool {
    let (filter, topic) = (filter.split('/'), topic.split('/'));
    filter.clone().count() == topic.clone().count()
        && filter.zip(topic).all(|(filter, topic)| filter == "+" || filter == topic)
}

/// Writes each packet once it is due; so nobody waits for a reader.
fn write_all(mut stream: TcpStream) -> Sender<(Instant, Vec<u8>)> {
    let (sender, packets) = channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        for (due, packet) in packets {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if stream.write_all(&packet).is_err() {
                return;
            }
        }
    });
    sender
}

impl State {
    fn serve(&self, stream: TcpStream) -> Option<()> {
        let _ = stream.set_nodelay(true);
        let mut input = BufReader::new(stream.try_clone().ok()?);
        let output = write_all(stream);
        loop {
            let (header_size, packet) = read_packet(&mut input)?;
            let (first, body) = (packet[0], &packet[header_size..]);
            let answer = |bytes: &[u8]| output.send((Instant::now(), bytes.to_vec())).ok();
            match first >> 4 {
                // It does not know 5.0: the level stands behind "MQTT".
                1 if body[6] == 5 => {
                    answer(&[0x20, 2, 0, 1])?;
                    return None;
                }
                1 => answer(&[0x20, 2, 0, 0])?,
                8 => self.subscribe(&output, body)?,
                3 => {
                    let qos = first >> 1 & 3;
                    let topic_size = usize::from(u16::from_be_bytes([body[0], body[1]]));
                    if qos > 0 {
                        answer(&[0x40, 2, body[2 + topic_size], body[3 + topic_size]])?;
                    }
                    let topic = String::from_utf8(body[2..2 + topic_size].to_vec()).ok()?;
                    let payload = &body[2 + topic_size + if qos > 0 { 2 } else { 0 }..];
                    self.publish(topic, payload.to_vec());
                }
                // Acknowledgements.
                4 => {}
                _ => return None,
            }
        }
    }

    fn subscribe(&self, output: &Sender<(Instant, Vec<u8>)>, body: &[u8]) -> Option<()> {
        let (mut at, mut granted) = (2, Vec::new());
        while at < body.len() {
            let size = usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
            let filter = String::from_utf8(body[at + 2..at + 2 + size].to_vec()).ok()?;
            let qos = body[at + 2 + size];
            granted.push(qos);
            at += 3 + size;
            if filter.starts_with("$SYS") {
                tick(output.clone());
                continue;
            }
            self.readers.lock().expect("no panic").push(Reader {
                filter,
                qos,
                output: output.clone(),
            });
        }
        let mut suback = vec![0x90, 2 + granted.len() as u8, body[0], body[1]];
        suback.extend(granted);
        output.send((Instant::now(), suback)).ok()
    }

    fn publish(&self, topic: String, mut payload: Vec<u8>) {
        let number = self.published.fetch_add(1, Relaxed);
        let is_odd = number == ODD;
        let held = {
            let mut held = self.held.lock().expect("no panic");
            let at = held.iter().position(|(other, _)| *other == topic);
            at.and_then(|at| held.remove(at))
        };
        match self.manner {
            Manner::Drops if is_odd => return,
            Manner::Swallows if number >= ODD => return,
            Manner::Reorders if is_odd => {
                self.held.lock().expect("no panic").push_back((topic, payload));
                return;
            }
            Manner::Corrupts if is_odd => *payload.last_mut().expect("a payload") ^= 1,
            Manner::Repeats if is_odd => self.pass_on(&topic, &payload),
            _ => {}
        }
        self.pass_on(&topic, &payload);
        if let Some((topic, payload)) = held {
            self.pass_on(&topic, &payload);
        }
    }

    fn pass_on(&self, topic: &str, payload: &[u8]) {
        let due = Instant::now()
            + if let Manner::Delays(time) = self.manner { time } else { Duration::ZERO };
        for reader in self.readers.lock().expect("no panic").iter() {
            if matches(&reader.filter, topic) {
                let _ = reader.output.send((due, publish(topic, payload, reader.qos)));
            }
        }
    }
}

fn publish(topic: &str, payload: &[u8], qos: u8) -> Vec<u8> {
    let mut body = (topic.len() as u16).to_be_bytes().to_vec();
    body.extend_from_slice(topic.as_bytes());
    if qos > 0 {
        body.extend_from_slice(&[0, 1]);
    }
    body.extend_from_slice(payload);
    let mut packet = vec![0x30 | qos << 1];
    let mut size = body.len();
    while size > 0x7f {
        packet.push(size as u8 | 0x80);
        size >>= 7;
    }
    packet.push(size as u8);
    packet.extend(body);
    packet
}

/// Says what brokers say in each interval of `$SYS`: that they run, and have dropped nothing.
fn tick(output: Sender<(Instant, Vec<u8>)>) {
    let say =
        |topic: &str, text: &str| output.send((Instant::now(), publish(topic, text.as_bytes(), 0)));
    let mut said = Ok(());
    let _ = say("$SYS/broker/publish/messages/dropped", "0");
    std::thread::spawn(move || {
        while said.is_ok() {
            std::thread::sleep(Duration::from_millis(150));
            let topic = "$SYS/broker/uptime";
            said = output.send((Instant::now(), publish(topic, b"1 seconds", 0)));
        }
    });
}
