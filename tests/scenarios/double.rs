//! A broker's double that keeps sessions, retained messages and QoS 0 to 2 of MQTT 3.1.1, and does one thing wrong on purpose.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringmq::topic;

use crate::packets::read_packet;

/// What the double does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    Drops,
    Repeats,
    /// Behind the next of the same topic.
    Reorders,
    /// Behind the next of another topic: nothing is wrong with that.
    ReordersTopics,
    Corrupts,
    /// A byte of the payload is missing.
    Cuts,
    /// Under a topic that another message has.
    SwapsTopic,
    Delays,
    /// The retain flag is not what it should be.
    FlipsRetain,
    /// Sessions end with their connections.
    ForgetsSessions,
    /// Sessions stay, and what waits for them, and their subscriptions do not.
    ForgetsSubscriptions,
    /// A connection is refused.
    Refuses,
    /// A connection is closed behind its CONNACK.
    Closes,
    /// CONNACK comes late.
    AcceptsLate,
}

/// Of deliveries, and of connections, this one is concerned, from 0 on.
const DELIVERY: u64 = 23;
const CONNECTION: u64 = 7;

/// Of `$SYS`, of which it says nothing but that it is there: nothing was dropped at a limit.
const INTERVAL: Duration = Duration::from_millis(200);
const PULSE_TOPIC: &str = "$SYS/broker/uptime";

pub(crate) const DELAY: Duration = Duration::from_millis(300);

#[derive(Clone, Debug)]
struct Message {
    topic: String,
    payload: Vec<u8>,
    qos: u8,
}

#[derive(Default)]
struct Session {
    stream: Option<TcpStream>,
    is_clean: bool,
    filters: Vec<(String, u8)>,
    waiting: Vec<(Message, u8)>,
    packet_id: u16,
    /// Held until the next one has gone.
    held: Option<(Message, u8, bool)>,
}

#[derive(Default)]
struct State {
    sessions: HashMap<String, Session>,
    retained: BTreeMap<String, Message>,
    deliveries: u64,
    connections: u64,
    last_topic: String,
}

struct Broker {
    fault: Fault,
    state: Mutex<State>,
}

/// Starts a double, which runs as long as the test. Returns its address.
pub(crate) fn start(fault: Fault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let broker = Arc::new(Broker { fault, state: Mutex::default() });
    let ticking = broker.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(INTERVAL);
            ticking.tick();
        }
    });
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let broker = broker.clone();
            let _ = stream.set_nodelay(true);
            std::thread::spawn(move || {
                let mut client_id = String::new();
                let _ = broker.serve(stream, &mut client_id);
                broker.gone(&client_id);
            });
        }
    });
    address
}

fn text(bytes: &[u8]) -> (String, usize) {
    let size = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    (String::from_utf8_lossy(&bytes[2..2 + size]).into_owned(), 2 + size)
}

impl Broker {
    fn tick(&self) {
        let (topic, payload) = (PULSE_TOPIC.to_string(), b"1 seconds".to_vec());
        let pulse = Message { topic, payload, qos: 0 };
        for session in self.state.lock().expect("no panic").sessions.values_mut() {
            if session.filters.iter().any(|(filter, _)| filter == PULSE_TOPIC) {
                session.send(&pulse, 0, false);
            }
        }
    }

    fn serve(&self, mut stream: TcpStream, client_id: &mut String) -> Option<()> {
        let mut input = BufReader::new(stream.try_clone().ok()?);
        loop {
            let (header_size, packet) = read_packet(&mut input)?;
            let (first, body) = (packet[0], &packet[header_size..]);
            match first >> 4 {
                // It does not know 5.0.
                1 if body[6] == 5 => {
                    stream.write_all(&[0x20, 2, 0, 1]).ok()?;
                    return None;
                }
                1 => self.connect(&mut stream, body, client_id)?,
                3 => self.publish(&mut stream, first, body)?,
                5 => stream.write_all(&[0x62, 2, body[0], body[1]]).ok()?,
                6 => stream.write_all(&[0x70, 2, body[0], body[1]]).ok()?,
                8 => self.subscribe(&mut stream, body, client_id)?,
                12 => stream.write_all(&[0xd0, 0]).ok()?,
                4 | 7 => {}
                _ => return None,
            }
        }
    }

    fn connect(&self, stream: &mut TcpStream, body: &[u8], client_id: &mut String) -> Option<()> {
        let is_clean = body[7] & 2 != 0;
        let name = text(&body[10..]).0;
        // Those that the bench asks questions with are none of the scenario's.
        let counts = !name.contains("asks") && !name.contains("drops");
        let mut state = self.state.lock().expect("no panic");
        let concerned = counts && state.connections == CONNECTION;
        state.connections += u64::from(counts);
        match self.fault {
            Fault::Refuses if concerned => {
                stream.write_all(&[0x20, 2, 0, 3]).ok()?;
                return None;
            }
            Fault::AcceptsLate if concerned => {
                drop(state);
                std::thread::sleep(DELAY);
                state = self.state.lock().expect("no panic");
            }
            _ => {}
        }
        if is_clean || self.fault == Fault::ForgetsSessions {
            state.sessions.remove(&name);
        }
        let is_present = state.sessions.contains_key(&name);
        let session = state.sessions.entry(name.clone()).or_default();
        session.is_clean = is_clean;
        session.stream = Some(stream.try_clone().ok()?);
        if self.fault == Fault::ForgetsSubscriptions && is_present {
            session.filters.clear();
        }
        let waiting = std::mem::take(&mut session.waiting);
        *client_id = name.clone();
        stream.write_all(&[0x20, 2, u8::from(is_present), 0]).ok()?;
        for (message, qos) in waiting {
            self.deliver(&mut state, &name, message, qos, false);
        }
        if self.fault == Fault::Closes && concerned {
            drop(state);
            std::thread::sleep(Duration::from_millis(50));
            return None;
        }
        Some(())
    }

    fn gone(&self, client_id: &str) {
        let mut state = self.state.lock().expect("no panic");
        if let Some(session) = state.sessions.get_mut(client_id) {
            if let Some(stream) = session.stream.take() {
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
            if session.is_clean {
                state.sessions.remove(client_id);
            }
        }
    }

    fn subscribe(&self, stream: &mut TcpStream, body: &[u8], client_id: &str) -> Option<()> {
        let (mut at, mut codes, mut asked) = (2, Vec::new(), Vec::new());
        while at < body.len() {
            let (filter, size) = text(&body[at..]);
            at += size + 1;
            codes.push(body[at - 1]);
            // One client is the whole group.
            let shared = filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/'));
            let filter = shared.map_or(filter.clone(), |(_, plain)| plain.to_string());
            asked.push((filter, body[at - 1]));
        }
        let mut state = self.state.lock().expect("no panic");
        let session = state.sessions.get_mut(client_id)?;
        session.filters.extend(asked.iter().cloned());
        stream.write_all(&[0x90, 2 + codes.len() as u8, body[0], body[1]]).ok()?;
        stream.write_all(&codes).ok()?;
        for (filter, qos) in asked {
            let found = state.retained.values().filter(|kept| topic::matches(&filter, &kept.topic));
            for message in found.cloned().collect::<Vec<_>>() {
                self.deliver(&mut state, client_id, message, qos, true);
            }
        }
        Some(())
    }

    fn publish(&self, stream: &mut TcpStream, first: u8, body: &[u8]) -> Option<()> {
        let qos = first >> 1 & 3;
        let (topic, mut at) = text(body);
        if qos > 0 {
            let answer = if qos == 1 { 0x40 } else { 0x50 };
            stream.write_all(&[answer, 2, body[at], body[at + 1]]).ok()?;
            at += 2;
        }
        let message = Message { topic, payload: body[at..].to_vec(), qos };
        let mut state = self.state.lock().expect("no panic");
        if first & 1 == 1 {
            match message.payload.is_empty() {
                true => drop(state.retained.remove(&message.topic)),
                false => drop(state.retained.insert(message.topic.clone(), message.clone())),
            }
        }
        let asked = |session: &Session| {
            let found =
                session.filters.iter().find(|(filter, _)| topic::matches(filter, &message.topic));
            found.map(|(_, qos)| *qos)
        };
        let readers: Vec<(String, u8)> = state
            .sessions
            .iter()
            .filter_map(|(name, session)| Some((name.clone(), asked(session)?)))
            .collect();
        for (name, qos) in readers {
            let session = state.sessions.get_mut(&name)?;
            match session.stream {
                Some(_) => self.deliver(&mut state, &name, message.clone(), qos, false),
                None => session.waiting.push((message.clone(), qos)),
            }
        }
        Some(())
    }

    /// Delivers a message, and of all the one that is concerned in the wrong way.
    fn deliver(
        &self,
        state: &mut State,
        client_id: &str,
        mut message: Message,
        asked: u8,
        mut retain: bool,
    ) {
        let concerned = state.deliveries == DELIVERY;
        state.deliveries += 1;
        let last_topic = std::mem::replace(&mut state.last_topic, message.topic.clone());
        let Some(session) = state.sessions.get_mut(client_id) else { return };
        let qos = asked.min(message.qos);
        if concerned {
            match self.fault {
                Fault::Drops => return,
                Fault::Repeats => session.send(&message, qos, retain),
                Fault::Reorders | Fault::ReordersTopics => {
                    session.held = Some((message, qos, retain));
                    return;
                }
                Fault::Corrupts => *message.payload.last_mut().expect("not empty") ^= 4,
                Fault::Cuts => drop(message.payload.pop()),
                Fault::SwapsTopic => message.topic = last_topic,
                Fault::Delays => std::thread::sleep(DELAY),
                Fault::FlipsRetain => retain = !retain,
                _ => {}
            }
        }
        let is_same = session.held.as_ref().is_some_and(|(held, ..)| held.topic == message.topic);
        if is_same && self.fault == Fault::ReordersTopics {
            session.release();
        }
        session.send(&message, qos, retain);
        if is_same == (self.fault == Fault::Reorders) {
            session.release();
        }
    }
}

impl Session {
    fn release(&mut self) {
        if let Some((held, qos, retain)) = self.held.take() {
            self.send(&held, qos, retain);
        }
    }

    fn send(&mut self, message: &Message, qos: u8, retain: bool) {
        let id_size = if qos > 0 { 2 } else { 0 };
        let mut size = 2 + message.topic.len() + id_size + message.payload.len();
        let mut packet = vec![0x30 | qos << 1 | u8::from(retain)];
        while size > 0x7f {
            packet.push(size as u8 | 0x80);
            size >>= 7;
        }
        packet.push(size as u8);
        packet.extend((message.topic.len() as u16).to_be_bytes());
        packet.extend(message.topic.as_bytes());
        if qos > 0 {
            self.packet_id = self.packet_id % 65_535 + 1;
            packet.extend(self.packet_id.to_be_bytes());
        }
        packet.extend(&message.payload);
        if let Some(stream) = &mut self.stream {
            let _ = stream.write_all(&packet);
        }
    }
}
