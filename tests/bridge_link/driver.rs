//! What stands around a link: a log that survives crashes as far as it was committed, and a connection that breaks.

use std::collections::{HashMap, VecDeque};

use super::broker::{Arrived, Broker};
use ringmq::bridge::{Link, LinkEvent, OutMessage, Sent};
use ringmq::codec::{QoS, ReasonCode};
use ringmq::config::bridge::BridgeSettings;
use ringmq::random::Random;
use ringmq::turn::memory::SocketId;

/// How often things go wrong: once in so many steps; 0: never.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub cut_in: u64,
    pub crash_in: u64,
}

impl Plan {
    pub(crate) const QUIET: Plan = Plan { cut_in: 0, crash_in: 0 };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Received,
    Done,
}

struct Logged {
    topic: String,
    qos: QoS,
    payload: Vec<u8>,
    /// As it is known in the process, and as it would be after a crash.
    known: State,
    committed: State,
    is_too_large: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub cuts: u64,
    pub crashes: u64,
    pub resumed: u64,
    pub too_large: u64,
    pub again: u64,
    pub inbound: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, other: &Totals) {
        self.cuts += other.cuts;
        self.crashes += other.crashes;
        self.resumed += other.resumed;
        self.too_large += other.too_large;
        self.again += other.again;
        self.inbound += other.inbound;
    }
}

pub(crate) struct Driver {
    pub plan: Plan,
    pub totals: Totals,
    settings: BridgeSettings,
    link: Link,
    random: Random,
    log: Vec<Logged>,
    /// The place of the next message to send.
    next: usize,
    commits: VecDeque<(usize, State)>,
    pipe: Option<SocketId>,
    to_remote: VecDeque<u8>,
    /// Numbers of inbound messages to acknowledge, in any order.
    to_ack: Vec<u64>,
    inbound: Vec<Arrived>,
    quiet_steps: u32,
    ups: u32,
}

const STEPS_MAX: u64 = 200_000;

impl Driver {
    pub(crate) fn new(settings: BridgeSettings, plan: Plan, seed: u64) -> Driver {
        Driver {
            plan,
            totals: Totals::default(),
            link: Link::new(&settings, 0, seed).unwrap(),
            settings,
            random: Random::new(seed ^ 0xabcd),
            log: Vec::new(),
            next: 0,
            commits: VecDeque::new(),
            pipe: None,
            to_remote: VecDeque::new(),
            to_ack: Vec::new(),
            inbound: Vec::new(),
            quiet_steps: 0,
            ups: 0,
        }
    }

    /// A message for the remote; some do not fit into a packet of `packet_size_max`.
    pub(crate) fn log(&mut self, topic: &str, qos: QoS, number: u64, packet_size_max: usize) {
        let is_large = self.random.below(20) == 0;
        let size = if is_large { packet_size_max } else { 8 + self.random.below(100) as usize };
        let mut payload = number.to_le_bytes().to_vec();
        payload.resize(size, 0);
        let (known, committed) = (State::Waiting, State::Waiting);
        let topic = topic.to_owned();
        self.log.push(Logged { topic, qos, payload, known, committed, is_too_large: false });
    }

    pub(crate) fn is_done(&self) -> bool {
        self.log.iter().all(|one| one.known == State::Done)
    }

    pub(crate) fn has_subscribed(&self) -> bool {
        self.ups > 0 && self.quiet_steps > 5
    }

    /// Nothing moves any more, and the link is up.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.plan = Plan::QUIET;
        self.link.is_up() && self.quiet_steps > 20
    }

    pub(crate) fn run(&mut self, broker: &mut Broker, until: impl Fn(&mut Driver) -> bool) {
        for step in 0..STEPS_MAX {
            if until(self) {
                return;
            }
            // An end that is reached at last.
            if step == STEPS_MAX / 2 {
                self.plan = Plan::QUIET;
            }
            self.step(broker);
        }
        panic!("no end: {:?}", self.link.is_up());
    }

    pub(crate) fn run_for(&mut self, broker: &mut Broker, steps: u64) {
        (0..steps).for_each(|_| self.step(broker));
    }

    fn is_time(&mut self, one_in: u64) -> bool {
        one_in > 0 && self.random.below(one_in) == 0
    }

    fn step(&mut self, broker: &mut Broker) {
        broker.now = broker.now.plus_ms(1 + self.random.below(40));
        self.quiet_steps += 1;
        self.link.handle_timeout(broker.now);
        self.events(broker);
        if self.link.poll_attempt(broker.now).is_some() {
            self.quiet_steps = 0;
            if self.random.below(5) == 0 {
                self.link.handle_disconnected(broker.now, "refused");
            } else {
                self.pipe = Some(broker.open_pipe());
                self.link.handle_connected();
            }
        }
        self.send(broker);
        self.transfer(broker);
        // Bytes and the end of the connection may come together: all that the link says is taken later.
        if self.is_time(6) {
            self.cut(broker);
        }
        self.events(broker);
        self.commit(broker);
        self.acknowledge(broker);
        self.cut(broker);
        self.events(broker);
        if self.is_time(self.plan.crash_in) {
            self.totals.crashes += 1;
            self.lose(broker);
            self.crash();
        }
    }

    fn cut(&mut self, broker: &mut Broker) {
        if self.pipe.is_some() && self.is_time(self.plan.cut_in) {
            self.totals.cuts += 1;
            self.lose(broker);
            self.link.handle_disconnected(broker.now, "cut");
        }
    }

    /// The connection is gone; some of what was on its way still arrives.
    fn lose(&mut self, broker: &mut Broker) {
        let Some(pipe) = self.pipe.take() else { return };
        let count = self.random.below(self.to_remote.len() as u64 + 1) as usize;
        let bytes: Vec<u8> = self.to_remote.drain(..count).collect();
        broker.receive(pipe, &bytes);
        broker.close_pipe(pipe);
        self.to_remote.clear();
    }

    fn crash(&mut self) {
        let seed = self.random.number();
        self.link = Link::new(&self.settings, 0, seed).unwrap();
        self.link.recovered(self.log.len() as u64);
        self.commits.clear();
        for one in &mut self.log {
            one.known = one.committed;
        }
    }

    fn send(&mut self, broker: &mut Broker) {
        while self.link.room() > 0 && self.next < self.log.len() && self.random.below(8) > 0 {
            let place = self.next;
            self.next += 1;
            let one = &self.log[place];
            if one.known != State::Waiting {
                continue;
            }
            let message = OutMessage {
                topic: &one.topic,
                properties: &[],
                payload: &one.payload,
                qos: one.qos,
                retain: false,
                message_expiry_s: None,
            };
            match self.link.send(broker.now, place as u64 + 1, &message) {
                Sent::Taken => {}
                Sent::NoRoom | Sent::Waits => panic!("there was room"),
                Sent::TooLarge => {
                    self.totals.too_large += 1;
                    self.log[place].is_too_large = true;
                    self.mark(place, State::Done);
                }
            }
        }
    }

    fn mark(&mut self, place: usize, state: State) {
        if state == State::Done {
            self.log[place].known = State::Done;
        }
        self.commits.push_back((place, state));
    }

    /// Some bytes in both directions.
    fn transfer(&mut self, broker: &mut Broker) {
        while let Some(bytes) = self.link.poll_transmit() {
            self.to_remote.extend(&bytes);
            self.link.recycle(bytes);
        }
        let Some(pipe) = self.pipe else { return self.to_remote.clear() };
        let count = self.random.below(self.to_remote.len() as u64 + 1) as usize;
        let bytes: Vec<u8> = self.to_remote.drain(..count).collect();
        broker.receive(pipe, &bytes);
        broker.turn();
        let waiting = broker.sent(pipe);
        let count = self.random.below(waiting.len() as u64 + 1) as usize;
        let answer: Vec<u8> = waiting.drain(..count).collect();
        if !(bytes.is_empty()
            && answer.is_empty()
            && waiting.is_empty()
            && self.to_remote.is_empty())
        {
            self.quiet_steps = 0;
        }
        if !answer.is_empty() && self.link.wants_bytes() {
            self.link.handle_bytes(broker.now, &answer);
        } else if !answer.is_empty() {
            broker.sent(pipe).splice(0..0, answer);
        }
        if broker.is_closed(pipe) && broker.sent(pipe).is_empty() {
            broker.close_pipe(pipe);
            self.pipe = None;
            self.link.handle_disconnected(broker.now, "closed");
        }
    }

    fn events(&mut self, broker: &mut Broker) {
        while let Some(event) = self.link.poll_event() {
            match event {
                LinkEvent::Up { .. } => self.resume(),
                LinkEvent::Down { .. } => {
                    if let Some(pipe) = self.pipe.take() {
                        broker.close_pipe(pipe);
                    }
                    self.to_remote.clear();
                }
                LinkEvent::Inbound { number, message } => {
                    self.totals.inbound += 1;
                    let bytes = message.payload().first_chunk().expect("a number");
                    assert_eq!(message.remote_topic().replace("in/", "local/"), message.topic());
                    self.inbound.push(Arrived {
                        topic: message.remote_topic().to_owned(),
                        number: u64::from_le_bytes(*bytes),
                        qos: message.qos,
                    });
                    if number != 0 {
                        self.to_ack.push(number);
                    }
                }
                LinkEvent::Received { sequence } => {
                    let place = sequence as usize - 1;
                    assert_eq!(self.log[place].qos, QoS::ExactlyOnce);
                    self.mark(place, State::Received);
                }
                LinkEvent::Done { sequence } => self.mark(sequence as usize - 1, State::Done),
                other => panic!("{other:?}"),
            }
        }
    }

    fn resume(&mut self) {
        self.ups += 1;
        let received: Vec<u64> = (1..)
            .zip(&self.log)
            .filter(|(_, one)| one.committed == State::Received && one.known != State::Done)
            .map(|(sequence, _)| sequence)
            .collect();
        self.totals.resumed += received.len() as u64;
        for one in &mut self.log {
            if one.known != State::Done {
                one.known = one.committed;
            }
        }
        self.link.resume(received);
        self.next = 0;
    }

    fn commit(&mut self, broker: &mut Broker) {
        while !self.commits.is_empty() && self.random.below(3) > 0 {
            let Some((place, state)) = self.commits.pop_front() else { return };
            let one = &mut self.log[place];
            if one.committed != State::Done {
                one.committed = state;
            }
            if state == State::Received {
                self.link.release(broker.now, place as u64 + 1);
            }
        }
    }

    fn acknowledge(&mut self, broker: &mut Broker) {
        while !self.to_ack.is_empty() && self.random.below(3) > 0 {
            let place = self.random.below(self.to_ack.len() as u64) as usize;
            let number = self.to_ack.swap_remove(place);
            self.link.acked_inbound(broker.now, number, ReasonCode::Success);
            self.quiet_steps = 0;
        }
    }

    /// Holds what arrived against the log.
    pub(crate) fn check(&mut self, arrived: &[Arrived], seed: u64) {
        let mut counts: HashMap<u64, u64> = HashMap::new();
        let mut last: HashMap<&str, u64> = HashMap::new();
        for one in arrived {
            let logged = &self.log[one.number as usize];
            assert_eq!((&one.topic, one.qos), (&logged.topic, logged.qos), "seed {seed}");
            let count = counts.entry(one.number).or_default();
            *count += 1;
            if *count == 1 {
                let last = last.insert(&one.topic, one.number);
                assert!(last.is_none_or(|last| last < one.number), "seed {seed}: order");
            }
        }
        for (number, logged) in (0..).zip(&self.log) {
            let count = counts.get(&number).copied().unwrap_or(0);
            let is_right = match (logged.is_too_large, logged.qos) {
                (true, _) => count == 0,
                (_, QoS::ExactlyOnce) => count == 1,
                _ => count >= 1,
            };
            assert!(
                is_right,
                "seed {seed}: message {number} at {:?} came {count} times",
                logged.qos
            );
            self.totals.again += count.saturating_sub(1);
        }
    }

    /// Holds what came in against what was published.
    pub(crate) fn check_inbound(&self, published: &[Arrived], seed: u64) {
        let mut counts: HashMap<u64, u64> = HashMap::new();
        let mut last = HashMap::new();
        for one in &self.inbound {
            let count = counts.entry(one.number).or_default();
            *count += 1;
            assert_eq!(&published[one.number as usize], one, "seed {seed}");
            // Another QoS is another queue on the way of those that are sent again.
            let key = (&one.topic, one.qos);
            if *count == 1 {
                let last = last.insert(key, one.number);
                assert!(last.is_none_or(|last| last < one.number), "seed {seed}: order");
            }
        }
        for one in published {
            let count = counts.get(&one.number).copied().unwrap_or(0);
            let is_right = match one.qos {
                _ if one.topic == "in/not/me" => count == 0,
                QoS::AtMostOnce => count <= 1,
                QoS::AtLeastOnce => count >= 1,
                QoS::ExactlyOnce => count == 1,
            };
            assert!(is_right, "seed {seed}: {one:?} came {count} times");
        }
    }
}
