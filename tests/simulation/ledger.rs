//! What every client published, subscribed to and received: the truth that the broker is held against.
//!
//! Times are steps of the run. A publication's number is its place here; numbers of one publisher count up, so they
//! are its sequence numbers. What cannot be known from outside (a socket was lost under a packet) is `Unknown`, and
//! only then is more than one outcome accepted.

mod receipt;
mod verdict;

pub(crate) use receipt::{Receipt, number_of, payload_of};

use crate::hooks::{Plan, Runs};

use ringmq::codec::{ProtocolVersion, QoS, SubscriptionOptions};
use ringmq::time::Instant;
use ringmq::topic::matches;
use std::collections::{BTreeMap, HashMap};

pub(crate) type Step = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Unknown,
    /// The broker has taken it.
    Accepted,
    /// The broker must not publish it: a will whose client said goodbye, a message that it refused.
    Withdrawn,
}

/// As it leaves its publisher, where that differs from what must arrive.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub topic: String,
    pub qos: QoS,
    pub retain: bool,
    pub payload: Vec<u8>,
    pub properties: Vec<u8>,
    pub expiry_s: Option<u32>,
}

/// What must arrive, and what was sent.
#[derive(Clone)]
pub(crate) struct Publication {
    pub publisher: usize,
    pub incarnation: usize,
    pub topic: String,
    pub qos: QoS,
    pub retain: bool,
    pub payload: Vec<u8>,
    /// Encoded, as they must arrive.
    pub properties: Vec<u8>,
    pub expiry_s: Option<u32>,
    pub sent: Sent,
    /// A hook denies it.
    pub is_denied: bool,
    pub is_will: bool,
    pub sent_at: Step,
    /// When it left first, and when it was certainly taken.
    pub sent_time: Instant,
    pub accepted_time: Option<Instant>,
    pub send_count: u32,
    pub fate: Fate,
}

impl std::fmt::Debug for Publication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}{}'{}' of client {} in {} at {:?}{}, {} bytes, {} of properties, expires {:?}, sent {} \
             times from {} on, {:?}",
            if self.is_denied { "denied " } else { "" },
            if self.is_will { "will " } else { "" },
            self.topic,
            self.publisher,
            self.incarnation,
            self.qos,
            if self.retain { " retained" } else { "" },
            self.payload.len(),
            self.properties.len(),
            self.expiry_s,
            self.send_count,
            self.sent_at,
            self.fate
        )
    }
}

/// One subscription from SUBSCRIBE to UNSUBACK, or to the SUBACK of the one that replaced it.
#[derive(Clone)]
pub(crate) struct Subscription {
    /// As the client wrote it.
    pub text: String,
    pub filter: String,
    pub is_shared: bool,
    pub options: SubscriptionOptions,
    /// 0: none.
    pub id: u32,
    pub sent_at: Step,
    pub acked_at: Option<Step>,
    pub end_sent_at: Option<Step>,
    pub ended_at: Option<Step>,
    /// The broker said no.
    pub is_refused: bool,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let SubscriptionOptions { qos, no_local, retain_as_published, retain_handling } =
            self.options;
        write!(
            f,
            "'{}' {qos:?} no local {no_local} as published {retain_as_published} \
             {retain_handling:?} id {} sent {} acked {:?} end sent {:?} ended {:?} refused {}",
            self.text,
            self.id,
            self.sent_at,
            self.acked_at,
            self.end_sent_at,
            self.ended_at,
            self.is_refused
        )
    }
}

impl Subscription {
    /// In force for all of the time since `from`.
    pub(crate) fn is_definite(&self, from: Step) -> bool {
        !self.is_refused && self.acked_at.is_some_and(|at| at < from) && self.end_sent_at.is_none()
    }

    /// Perhaps in force at some time since `from`.
    pub(crate) fn is_possible(&self, from: Step) -> bool {
        !self.is_refused && self.ended_at.is_none_or(|at| at > from)
    }
}

/// One network connection of an incarnation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub opened_at: Step,
    /// When CONNECT left.
    pub asked_time: Instant,
    pub closed_at: Option<Step>,
}

/// One life of a client's session.
#[derive(Clone, Debug)]
pub(crate) struct Incarnation {
    pub client: usize,
    pub client_id: String,
    pub version: ProtocolVersion,
    pub packet_size_max: usize,
    pub subscriptions: Vec<Subscription>,
    pub receipts: Vec<Receipt>,
    /// Places of receipts.
    pub by_publication: HashMap<u32, Vec<usize>>,
    /// Newest publication received, by publisher and its session, topic and QoS.
    pub newest: HashMap<(usize, usize, String, QoS), u32>,
    pub links: Vec<Link>,
    pub ended_at: Option<Step>,
}

#[derive(Default)]
pub(crate) struct Ledger {
    pub publications: Vec<Publication>,
    pub incarnations: Vec<Incarnation>,
    /// Somebody sends what nobody accounts for.
    pub has_hostiles: bool,
    pub may_lose: bool,
    /// Lanes hold so little that messages wait in front of them.
    pub may_fill: bool,
    pub plan: Plan,
    /// How often the publish hook met each message.
    pub runs: Runs,
    /// Messages of groups whose order was checked.
    pub ordered_in_groups: u64,
}

impl Ledger {
    /// Takes in a message as it is sent, and enters what hooks make of it.
    pub(crate) fn publish(&mut self, mut publication: Publication) -> u32 {
        let id = self.next_publication();
        let sent = &publication.sent;
        if number_of(&sent.payload).is_some() {
            let change = self.plan.change(id, &sent.topic, sent.payload.len());
            publication.is_denied = change.is_denied;
            publication.topic = change.topic.unwrap_or(sent.topic.clone());
            publication.qos = change.qos.unwrap_or(sent.qos);
            publication.retain = change.retain.unwrap_or(sent.retain);
            publication.expiry_s = change.expiry_s.or(sent.expiry_s);
            publication.properties = change.properties.apply(id, &sent.properties);
            if let Some(size) = change.payload_size {
                publication.payload = payload_of(id, size);
            }
        }
        self.publications.push(publication);
        id
    }

    /// The broker has it; a message that was denied goes nowhere all the same.
    pub(crate) fn confirm(&mut self, publication: u32) {
        let publication = &mut self.publications[publication as usize];
        if !publication.is_denied {
            publication.fate = Fate::Accepted;
        }
    }

    /// The publish hook meets a message as often as it arrives anew.
    pub(crate) fn check_runs(&self) {
        for (&id, &count) in self.runs.borrow().iter() {
            let Some(publication) = self.publications.get(id as usize) else { continue };
            let most = match publication.sent.qos {
                QoS::AtMostOnce => 1,
                // A 5.0 client may send again what was refused, and does not know.
                QoS::ExactlyOnce
                    if !(publication.is_denied || self.may_lose && publication.retain) =>
                {
                    1
                }
                _ => publication.send_count.max(1),
            };
            assert!(count <= most, "the hook met it {count} times: {publication:?}");
        }
    }

    pub(crate) fn next_publication(&self) -> u32 {
        self.publications.len() as u32
    }

    pub(crate) fn begin(
        &mut self,
        (client, client_id): (usize, &str),
        version: ProtocolVersion,
        size_max: usize,
    ) -> usize {
        self.incarnations.push(Incarnation {
            client,
            client_id: client_id.into(),
            version,
            packet_size_max: size_max,
            subscriptions: Vec::new(),
            receipts: Vec::new(),
            by_publication: HashMap::new(),
            newest: HashMap::new(),
            links: Vec::new(),
            ended_at: None,
        });
        self.incarnations.len() - 1
    }

    pub(crate) fn end(&mut self, incarnation: usize, step: Step) {
        let incarnation = &mut self.incarnations[incarnation];
        incarnation.ended_at.get_or_insert(step);
        if let Some(link) = incarnation.links.last_mut() {
            link.closed_at.get_or_insert(step);
        }
    }

    pub(crate) fn open_link(&mut self, incarnation: usize, asked_time: Instant, step: Step) {
        let link = Link { opened_at: step, asked_time, closed_at: None };
        self.incarnations[incarnation].links.push(link);
    }

    pub(crate) fn accepted(&mut self, publication: u32, now: Instant) -> &Publication {
        self.confirm(publication);
        let publication = &mut self.publications[publication as usize];
        publication.accepted_time.get_or_insert(now);
        publication
    }

    /// No room was left to retain it: it is not delivered either, unless it was when it was sent before.
    pub(crate) fn refused_for_room(&mut self, publication: u32) {
        let publication = &mut self.publications[publication as usize];
        publication.fate = match publication.send_count {
            1 => Fate::Withdrawn,
            _ => Fate::Unknown,
        };
    }

    pub(crate) fn close_link(&mut self, incarnation: usize, step: Step) {
        if let Some(link) = self.incarnations[incarnation].links.last_mut() {
            link.closed_at.get_or_insert(step);
        }
    }

    /// SUBSCRIBE with one filter leaves; the one it may replace ends.
    pub(crate) fn subscribe(
        &mut self,
        incarnation: usize,
        text: &str,
        options: SubscriptionOptions,
        id: u32,
        step: Step,
    ) -> usize {
        let subscriptions = &mut self.incarnations[incarnation].subscriptions;
        for old in subscriptions.iter_mut().filter(|old| old.text == text) {
            old.end_sent_at.get_or_insert(step);
        }
        let is_shared = text.starts_with("$share/");
        let filter = match is_shared {
            true => text.splitn(3, '/').nth(2).unwrap_or_default(),
            false => text,
        };
        subscriptions.push(Subscription {
            text: text.into(),
            filter: filter.into(),
            is_shared,
            options,
            id,
            sent_at: step,
            acked_at: None,
            end_sent_at: None,
            ended_at: None,
            is_refused: false,
        });
        subscriptions.len() - 1
    }

    pub(crate) fn granted(&mut self, incarnation: usize, place: usize, step: Step) {
        let subscriptions = &mut self.incarnations[incarnation].subscriptions;
        subscriptions[place].acked_at = Some(step);
        let text = subscriptions[place].text.clone();
        for old in subscriptions[..place].iter_mut().filter(|old| old.text == text) {
            old.ended_at.get_or_insert(step);
        }
    }

    /// The broker refused it: an older one with the same filter, if there was one, stays as it was.
    pub(crate) fn refused(&mut self, incarnation: usize, place: usize) {
        let subscriptions = &mut self.incarnations[incarnation].subscriptions;
        subscriptions[place].is_refused = true;
    }

    pub(crate) fn unsubscribe(&mut self, incarnation: usize, text: &str, step: Step) {
        for old in self.incarnations[incarnation].subscriptions.iter_mut() {
            if old.text == text {
                old.end_sent_at.get_or_insert(step);
            }
        }
    }

    pub(crate) fn unsubscribed(
        &mut self,
        incarnation: usize,
        text: &str,
        sent_at: Step,
        step: Step,
    ) {
        for old in self.incarnations[incarnation].subscriptions.iter_mut() {
            if old.text == text && old.sent_at < sent_at {
                old.ended_at.get_or_insert(step);
            }
        }
    }

    /// Filters that the incarnation certainly has now, or `None` while that is not certain.
    pub(crate) fn filters(&self, incarnation: usize) -> Option<Vec<String>> {
        let mut filters = Vec::new();
        for subscription in &self.incarnations[incarnation].subscriptions {
            if subscription.is_refused || subscription.ended_at.is_some() {
                continue;
            }
            if subscription.acked_at.is_none() || subscription.end_sent_at.is_some() {
                return None;
            }
            filters.push(subscription.text.clone());
        }
        Some(filters)
    }

    /// Newest accepted retained publication of each topic that has one publisher; `None` where it is not certain.
    pub(crate) fn retained(&self) -> BTreeMap<String, Option<u32>> {
        let mut newest: BTreeMap<String, Option<u32>> = BTreeMap::new();
        for (id, publication) in self.publications.iter().enumerate() {
            if !publication.retain || publication.is_denied || !publication.topic.starts_with("r/")
            {
                continue;
            }
            let place = newest.entry(publication.topic.clone()).or_default();
            match publication.fate {
                Fate::Accepted if publication.expiry_s.is_none() => *place = Some(id as u32),
                _ => *place = None,
            }
        }
        newest
    }
}

impl Incarnation {
    /// Plain subscriptions for the topic.
    pub(crate) fn plain<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a Subscription> {
        self.subscriptions.iter().filter(move |s| !s.is_shared && matches(&s.filter, topic))
    }

    pub(crate) fn shared<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a Subscription> {
        self.subscriptions.iter().filter(move |s| s.is_shared && matches(&s.filter, topic))
    }
}
