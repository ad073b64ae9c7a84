//! A remote that refuses messages for a time, or closes over them, over connections that break: nothing is lost, QoS 2 comes
//! once, order holds per topic, and what cannot be brought is set aside, and nothing else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{bytes, seeds, settings, version};
use ringmq::bridge::{Link, LinkEvent, OutMessage, Sent, Unwanted};
use ringmq::codec::{Ack, Connack, Packet, PacketId, QoS, ReasonCode, next_frame};
use ringmq::config::bridge::{BridgeProtocol, BridgeSettings};
use ringmq::random::Random;
use ringmq::time::Instant;

const STEPS_MAX: u32 = 100_000;
const MESSAGE_COUNT: u64 = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Received,
    Done,
}

struct Logged {
    topic: String,
    qos: QoS,
    state: State,
    /// A full log has dropped it.
    is_dropped: bool,
}

/// A 5.0 broker with one session.
#[derive(Debug, Default)]
struct Remote {
    /// By number: how often it is still refused.
    refusals: BTreeMap<u64, u32>,
    /// It closes over them.
    poison: BTreeSet<u64>,
    has_session: bool,
    unreleased: BTreeSet<PacketId>,
    accepted: Vec<u64>,
    refused_count: u32,
    closing_count: u32,
}

impl Remote {
    /// The answer; an error: it closes.
    fn take(&mut self, packet: Packet<'_>) -> Result<Option<Packet<'static>>, ()> {
        Ok(match packet {
            Packet::Connect(_) => {
                let session_present = std::mem::replace(&mut self.has_session, true);
                Some(Packet::Connack(Connack { session_present, ..Connack::default() }))
            }
            Packet::Pingreq => Some(Packet::Pingresp),
            Packet::Publish(publish) => {
                let number = u64::from_le_bytes(*publish.payload.first_chunk().unwrap());
                if self.poison.contains(&number) {
                    self.closing_count += 1;
                    return Err(());
                }
                let packet_id = publish.packet_id.unwrap();
                let left = self.refusals.entry(number).or_default();
                let is_known = self.unreleased.contains(&packet_id);
                let reason = match *left > 0 && !is_known {
                    true => ReasonCode::QuotaExceeded,
                    false => ReasonCode::Success,
                };
                if reason.is_error() {
                    *left -= 1;
                    self.refused_count += 1;
                } else if publish.qos == QoS::AtLeastOnce || self.unreleased.insert(packet_id) {
                    self.accepted.push(number);
                }
                let ack = Ack::new(packet_id, reason);
                let is_once = publish.qos == QoS::ExactlyOnce;
                Some(if is_once { Packet::Pubrec(ack) } else { Packet::Puback(ack) })
            }
            Packet::Pubrel(ack) => {
                self.unreleased.remove(&ack.packet_id);
                Some(Packet::Pubcomp(Ack::new(ack.packet_id, ReasonCode::Success)))
            }
            _ => None,
        })
    }
}

/// How often things go wrong: once in so many steps; 0: never.
#[derive(Clone, Copy, Default)]
struct Plan {
    cut_in: u64,
    crash_in: u64,
    drop_in: u64,
    /// The remote ends without a word, over no message.
    restart_in: u64,
}

struct Run {
    seed: u64,
    now: Instant,
    random: Random,
    settings: BridgeSettings,
    plan: Plan,
    link: Link,
    remote: Remote,
    log: Vec<Logged>,
    is_open: bool,
    to_remote: Vec<u8>,
    to_link: Vec<u8>,
    unsent: usize,
    due: VecDeque<u64>,
    /// Since the order was looked at.
    sent: Vec<u64>,
    aside: Vec<(u64, Unwanted)>,
    kept_count: u32,
    crash_count: u32,
    drop_count: u32,
}

impl Run {
    fn new(settings: BridgeSettings, plan: Plan, seed: u64) -> Run {
        Run {
            seed,
            now: Instant(1),
            random: Random::new(seed),
            link: Link::new(&settings, 0, seed).unwrap(),
            settings,
            plan,
            remote: Remote::default(),
            log: Vec::new(),
            is_open: false,
            to_remote: Vec::new(),
            to_link: Vec::new(),
            unsent: 0,
            due: VecDeque::new(),
            sent: Vec::new(),
            aside: Vec::new(),
            kept_count: 0,
            crash_count: 0,
            drop_count: 0,
        }
    }

    fn run(&mut self) {
        for step in 0..STEPS_MAX {
            if self.log.iter().all(|one| one.state == State::Done) {
                return;
            }
            if step == STEPS_MAX / 2 {
                self.plan = Plan::default();
            }
            self.step();
        }
        let left = self.log.iter().filter(|one| one.state != State::Done).count();
        panic!("no end: {left} are left, up: {}, {:?}", self.link.is_up(), self.remote);
    }

    fn is_time(&mut self, one_in: u64) -> bool {
        one_in > 0 && self.random.below(one_in) == 0
    }

    fn step(&mut self) {
        self.now = self.now.plus_ms(1 + self.random.below(40));
        self.link.handle_timeout(self.now);
        self.events();
        if self.link.poll_attempt(self.now).is_some() {
            self.link.handle_connected();
            self.is_open = true;
        }
        self.feed();
        self.check_order();
        while let Some(bytes) = self.link.poll_transmit() {
            self.to_remote.extend(&bytes);
        }
        let was_up = self.link.is_up();
        if self.is_open {
            self.transfer();
        }
        if was_up && self.is_time(2) {
            // As an owner does that has read the log meanwhile, and has not heard everything.
            self.feed();
        }
        self.events();
        self.check_order();
        if self.is_open && self.is_time(self.plan.cut_in) {
            self.close();
            self.link.handle_disconnected(self.now, "cut");
            self.events();
        }
        if self.is_open && self.is_time(self.plan.restart_in) {
            self.close();
            self.link.handle_closed(self.now, "closed");
            self.events();
        }
        if self.is_time(self.plan.crash_in) {
            self.crash();
        }
        if self.is_time(self.plan.drop_in) {
            self.drop_oldest();
        }
    }

    fn close(&mut self) {
        self.is_open = false;
        self.to_remote.clear();
        self.to_link.clear();
    }

    fn crash(&mut self) {
        self.crash_count += 1;
        self.close();
        self.link = Link::new(&self.settings, 0, self.random.number()).unwrap();
        self.link.recovered(self.log.len() as u64);
        self.due.clear();
    }

    /// As a full log drops: nothing that is in flight.
    fn drop_oldest(&mut self) {
        let (from, in_flight) = self.link.droppable(1, self.unsent as u64 + 1);
        let oldest = (from as usize..=self.log.len()).find(|sequence| {
            self.log[sequence - 1].state == State::Waiting
                && in_flight.binary_search(&(*sequence as u64)).is_err()
        });
        if let Some(sequence) = oldest {
            assert!(!self.link.is_under_way(sequence as u64));
            self.drop_count += 1;
            self.log[sequence - 1].state = State::Done;
            self.log[sequence - 1].is_dropped = true;
        }
    }

    fn transfer(&mut self) {
        let count = self.random.below(self.to_remote.len() as u64 + 1) as usize;
        let (mut used, mut has_closed) = (0, false);
        while let Some(frame) = next_frame(&self.to_remote[used..count], usize::MAX).unwrap() {
            used += frame.size;
            let packet = Packet::decode(&frame, version(&self.settings)).unwrap();
            match self.remote.take(packet) {
                Ok(Some(answer)) => self.to_link.extend(bytes(&self.settings, &answer)),
                Ok(None) => {}
                Err(()) => {
                    has_closed = true;
                    break;
                }
            }
        }
        self.to_remote.drain(..used);
        // A reset takes along what was not read.
        let is_all = has_closed && self.random.below(2) == 0;
        let count = match is_all {
            true => self.to_link.len(),
            false => self.random.below(self.to_link.len() as u64 + 1) as usize,
        };
        let answers: Vec<u8> = self.to_link.drain(..count).collect();
        self.link.handle_bytes(self.now, &answers);
        if has_closed {
            self.close();
            self.link.handle_closed(self.now, "closed");
        }
    }

    fn events(&mut self) {
        while let Some(event) = self.link.poll_event() {
            match event {
                LinkEvent::Up { .. } => {
                    let received = (0..).zip(&self.log);
                    let received = received.filter(|(_, one)| one.state == State::Received);
                    let received: Vec<u64> = received.map(|(place, _)| place + 1).collect();
                    self.link.resume(received);
                    self.unsent = 0;
                }
                LinkEvent::Down { .. } => {
                    self.due.clear();
                    self.close();
                }
                LinkEvent::Received { sequence } => {
                    self.log[sequence as usize - 1].state = State::Received;
                    self.link.release(self.now, sequence);
                }
                LinkEvent::Done { sequence } => self.log[sequence as usize - 1].state = State::Done,
                LinkEvent::Postponed { reason, .. } => {
                    assert_eq!(reason, ReasonCode::QuotaExceeded);
                }
                LinkEvent::Due { sequence } => self.due.push_back(sequence),
                LinkEvent::Again { from } => self.unsent = self.unsent.min(from as usize - 1),
                LinkEvent::SetAside { sequence, .. }
                    if self.log[sequence as usize - 1].state == State::Done =>
                {
                    // The log has dropped it meanwhile.
                    self.link.forget(sequence);
                }
                LinkEvent::SetAside { sequence, .. } if self.random.below(3) == 0 => {
                    self.kept_count += 1;
                    self.link.keep(self.now, sequence);
                }
                LinkEvent::SetAside { sequence, why } => {
                    self.aside.push((sequence, why));
                    self.log[sequence as usize - 1].state = State::Done;
                    self.link.forget(sequence);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn feed(&mut self) {
        while let Some(&sequence) = self.due.front() {
            if !self.link.has_room_again() || !self.offer(sequence) {
                break;
            }
            self.due.pop_front();
        }
        while self.link.room() > 0 && self.unsent < self.log.len() {
            if !self.offer(self.unsent as u64 + 1) {
                break;
            }
            self.unsent += 1;
        }
    }

    /// Whether to go on with the next one.
    fn offer(&mut self, sequence: u64) -> bool {
        let place = sequence as usize - 1;
        if self.link.is_under_way(sequence) || self.log[place].state == State::Received {
            return true;
        }
        if self.log[place].state == State::Done {
            self.link.forget(sequence);
            return true;
        }
        let (topic, qos) = (self.log[place].topic.clone(), self.log[place].qos);
        let payload = (sequence - 1).to_le_bytes();
        let message = OutMessage {
            topic: &topic,
            properties: &[],
            payload: &payload,
            qos,
            retain: false,
            message_expiry_s: None,
        };
        match self.link.send(self.now, sequence, &message) {
            Sent::NoRoom => return false,
            Sent::Waits => {}
            Sent::Taken => self.sent.push(sequence),
            Sent::TooLarge => panic!("it is small"),
        }
        true
    }

    /// Whatever was sent has none of its topic behind it that was not.
    fn check_order(&mut self) {
        for sequence in std::mem::take(&mut self.sent) {
            let topic = &self.log[sequence as usize - 1].topic;
            let earlier = (1..sequence).zip(&self.log);
            for (earlier, one) in earlier.filter(|(_, one)| one.topic == *topic) {
                let is_before = one.state != State::Waiting || self.link.is_under_way(earlier);
                let seed = self.seed;
                assert!(is_before, "seed {seed}: {sequence} overtakes {earlier} of {topic}");
            }
        }
    }

    fn is_unwanted(&self, number: u64) -> bool {
        // One that was to be refused a few times may have been refused for long: looked at below.
        let is_refused = self.remote.refusals.get(&number).is_some_and(|left| *left > 0);
        is_refused || self.remote.poison.contains(&number)
    }

    /// Holds what the remote has against the log.
    fn check(&self, seed: u64) {
        let mut counts = BTreeMap::<u64, u32>::new();
        let mut last = BTreeMap::<&str, u64>::new();
        for number in &self.remote.accepted {
            let count = counts.entry(*number).or_default();
            *count += 1;
            let topic = self.log[*number as usize].topic.as_str();
            // With more in flight those behind a refused message may be there already.
            if *count == 1 && self.settings.inflight_max == 1 {
                let last = last.insert(topic, *number);
                assert!(last.is_none_or(|last| last < *number), "seed {seed}: order of {topic}");
            }
        }
        let mut aside: Vec<u64> = self.aside.iter().map(|(sequence, _)| sequence - 1).collect();
        aside.sort_unstable();
        let is_dropped = |number: &u64| self.log[*number as usize].is_dropped;
        let unwanted = (0..MESSAGE_COUNT).filter(|number| self.is_unwanted(*number));
        let unwanted: Vec<u64> = unwanted.filter(|number| !is_dropped(number)).collect();
        assert_eq!(aside, unwanted, "seed {seed}");
        for (sequence, why) in &self.aside {
            match why {
                Unwanted::Closed { .. } => assert!(self.remote.poison.contains(&(sequence - 1))),
                Unwanted::Refused { for_ms, .. } => {
                    assert!(*for_ms >= 1000 * self.settings.refused_max_s);
                }
            }
        }
        for (number, one) in (0..).zip(&self.log) {
            if self.is_unwanted(number) {
                assert_eq!(counts.get(&number), None, "seed {seed}");
                continue;
            }
            let count = counts.get(&number).copied().unwrap_or(0);
            let is_right = match one.qos {
                QoS::ExactlyOnce => count == 1 || one.is_dropped && count == 0,
                _ => count >= 1 || one.is_dropped,
            };
            assert!(is_right, "seed {seed}: {number} at {:?} came {count} times", one.qos);
        }
    }
}

#[test]
fn a_moody_remote_gets_all_it_takes_once_and_in_order_and_the_rest_is_set_aside() {
    let (mut refused, mut crashes, mut drops) = (0, 0, 0);
    let (mut closings, mut kept, mut given_up) = (0, 0, 0);
    let seeds = seeds();
    // They are quick.
    let count = if seeds.end - seeds.start == 1 { 1 } else { 8 * (seeds.end - seeds.start) };
    for seed in seeds.start..seeds.start + count {
        let mut random = Random::new(seed);
        let mut settings = settings(BridgeProtocol::V5);
        settings.inflight_max = [1, 1 + random.below(40) as u16][random.below(2) as usize];
        settings.poison_closes_max = 1 + random.below(5) as u32;
        settings.refused_max_s = 10;
        let plan = Plan {
            cut_in: [0, 5 + random.below(300)][random.below(2) as usize],
            crash_in: [0, 20 + random.below(300)][random.below(2) as usize],
            drop_in: [0, 30][random.below(2) as usize],
            // One that ends when a message is alone in flight, so often in a row, may mean it.
            restart_in: match settings.poison_closes_max {
                5 => 1000 + random.below(1000),
                _ => 0,
            },
        };
        let mut run = Run::new(settings, plan, seed);
        let topic_count = 1 + random.below(8);
        for number in 0..MESSAGE_COUNT {
            let topic = format!("t/{}", random.below(topic_count));
            let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce][random.below(2) as usize];
            run.log.push(Logged { topic, qos, state: State::Waiting, is_dropped: false });
            match random.below(40) {
                0 => drop(run.remote.poison.insert(number)),
                1 => drop(run.remote.refusals.insert(number, u32::MAX)),
                2..6 => drop(run.remote.refusals.insert(number, 1 + random.below(5) as u32)),
                _ => {}
            }
        }
        run.run();
        run.check(seed);
        refused += run.remote.refused_count;
        crashes += run.crash_count;
        drops += run.drop_count;
        closings += run.remote.closing_count;
        kept += run.kept_count;
        given_up += run.aside.len();
    }
    println!("{refused} refused, {crashes} crashes, {drops} dropped, {closings} closings");
    println!("{kept} kept, {given_up} given up");
    assert!(closings > 500 && kept > 50 && given_up > 100);
    assert!(refused > 1000 && crashes > 50 && drops > 50);
}
