//! One delivery held against what was published and subscribed to: content, options, order.

use super::{Fate, Incarnation, Ledger, Publication, Step, Subscription};
use ringmq::codec::{ProtocolVersion, Publish, QoS};
use ringmq::time::Instant;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub(crate) struct Receipt {
    pub publication: u32,
    pub qos: QoS,
    pub retain: bool,
    pub ids: Vec<u32>,
    pub at: Step,
    /// Which of the incarnation's connections.
    pub link: usize,
    /// A QoS 1 message that an earlier connection had brought.
    pub is_redelivery: bool,
}

/// Bytes in front of the filler of every payload: the publication's number.
pub(crate) fn payload_of(id: u32, size: usize) -> Vec<u8> {
    let mut payload = format!("P{id:08x}.").into_bytes();
    let mut state = id.wrapping_mul(2_654_435_761) | 1;
    while payload.len() < size {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        payload.push(b' ' + (state % 90) as u8);
    }
    payload
}

/// The number in a payload.
pub(crate) fn number_of(payload: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(payload.strip_prefix(b"P")?.get(..8)?).ok()?;
    u32::from_str_radix(digits, 16).ok()
}

impl Ledger {
    /// Takes in a delivery. Panics when the broker should not have made it. The publication's number, if it is one
    /// of ours.
    pub(crate) fn receive(
        &mut self,
        incarnation: usize,
        topic: &str,
        publish: &Publish<'_>,
        (step, now): (Step, Instant),
    ) -> Option<u32> {
        if publish.payload.is_empty() && topic.starts_with("d/") {
            return None;
        }
        let found =
            number_of(publish.payload).filter(|id| (*id as usize) < self.publications.len());
        let Some(id) = found else {
            let is_foreign = topic.starts_with("$SYS") || self.has_hostiles;
            assert!(is_foreign, "a payload that nobody sent, on '{topic}'");
            return None;
        };
        let publication = &self.publications[id as usize];
        if self.has_hostiles && publication.topic != topic {
            return None;
        }
        let receiver = &self.incarnations[incarnation];
        assert!(
            !self.plan.skips(&receiver.client_id, id),
            "the deliver hook left it out: {publication:?}"
        );
        check_content(receiver.version, publication, topic, publish);
        check_expiry(receiver, publication, publish, now);
        let same_session = publication.incarnation == incarnation;
        let receipt = Receipt {
            publication: id,
            qos: publish.qos,
            retain: publish.retain,
            ids: publish.subscription_ids.iter().collect(),
            at: step,
            link: receiver.links.len() - 1,
            is_redelivery: is_redelivery(receiver, id, publish),
        };
        if !receipt.is_redelivery {
            assert!(
                is_asked_for(receiver, publication, &receipt, same_session),
                "nothing asked for this: {receipt:?}\nof {publication:?}\nsubscriptions {:#?}",
                receiver.plain(topic).chain(receiver.shared(topic)).collect::<Vec<_>>()
            );
            self.check_order(incarnation, id, &receipt);
        }
        let receiver = &mut self.incarnations[incarnation];
        receiver.by_publication.entry(id).or_default().push(receiver.receipts.len());
        receiver.receipts.push(receipt);
        Some(id)
    }

    /// Whether no member of the group has left it so far, for a moment or for good.
    fn is_steady(&self, text: &str) -> bool {
        self.incarnations.iter().all(|member| {
            let mut memberships = member.subscriptions.iter().filter(|s| s.text == text);
            let Some(membership) = memberships.next() else { return true };
            memberships.next().is_none()
                && membership.end_sent_at.is_none()
                && member.ended_at.is_none()
                && member.links.len() == 1
                && member.links[0].closed_at.is_none()
        })
    }

    fn check_order(&mut self, incarnation: usize, id: u32, receipt: &Receipt) {
        let publication = &self.publications[id as usize];
        let receiver = &self.incarnations[incarnation];
        let shared: Vec<_> = receiver.shared(&publication.topic).map(|s| s.text.clone()).collect();
        let is_plain = receiver.plain(&publication.topic).next().is_some();
        match &shared[..] {
            [] => {}
            [text] if !is_plain && self.is_steady(text) => self.ordered_in_groups += 1,
            // What comes back to a group is given out again, out of order.
            _ => return,
        }
        let receiver = &self.incarnations[incarnation];
        let key = (
            publication.publisher,
            publication.incarnation,
            publication.topic.clone(),
            publication.qos,
        );
        let newest = receiver.newest.get(&key).copied();
        // What its publisher sent twice may have been lost the first time, at QoS 0 or before the subscription.
        let is_bound = publication.send_count == 1;
        if let Some(newest) = newest
            && id < newest
            && (self.may_overtake(incarnation, id, newest, receipt)
                || self.may_have_come_back(incarnation, id, &shared)
                || self.may_have_been_left(newest, receipt))
        {
            return;
        }
        if let Some(newest) = newest
            && id < newest
        {
            let other = &self.publications[newest as usize];
            let receipts = &receiver.receipts;
            let of_other: Vec<_> = receipts.iter().filter(|r| r.publication == newest).collect();
            assert!(
                !is_bound,
                "older after newer: {receipt:?}\nof {publication:?}\nafter {other:?}\nwhich came {of_other:?}"
            );
            return;
        }
        self.incarnations[incarnation].newest.insert(key, id);
    }
}

impl Ledger {
    /// Whether a fetched retained message and a live one may have passed each other between the shards: the owner of
    /// the topic and the subscriber's shard hear of a message on lanes of their own, and one may be full.
    /// Whether another member may have been given the message first. The broker ends a member whose keep alive has passed
    /// before that member hears of it; what the member has not acknowledged goes to the others, behind what they have.
    fn may_have_come_back(&self, incarnation: usize, id: u32, shared: &[String]) -> bool {
        let is_acknowledged = |qos| qos != QoS::AtMostOnce;
        let mut others =
            self.incarnations.iter().enumerate().filter(|(one, _)| *one != incarnation);
        is_acknowledged(self.publications[id as usize].qos)
            && others.any(|(_, other)| {
                let mut subscriptions = other.subscriptions.iter();
                subscriptions.any(|s| shared.contains(&s.text) && is_acknowledged(s.options.qos))
            })
    }

    /// Whether the newer message may have found no room among the retained ones: then the one before it stays.
    fn may_have_been_left(&self, newest: u32, receipt: &Receipt) -> bool {
        self.may_lose && receipt.retain && self.publications[newest as usize].retain
    }

    fn may_overtake(&self, incarnation: usize, id: u32, newest: u32, receipt: &Receipt) -> bool {
        if !self.may_fill {
            return false;
        }
        let topic = &self.publications[id as usize].topic;
        let receiver = &self.incarnations[incarnation];
        let receipts = receiver.by_publication.get(&newest).into_iter().flatten();
        let others: Vec<_> = receipts.map(|place| &receiver.receipts[*place]).collect();
        let as_published = receiver.plain(topic).any(|s| s.options.retain_as_published);
        let is_live = !receipt.retain || as_published;
        if is_live && others.iter().any(|other| other.retain) {
            return true;
        }
        // What another subscription brought before this one was made is not known to have reached the owner.
        let came_at = others.iter().map(|other| other.at).min().unwrap_or(0);
        receipt.retain && receiver.plain(topic).any(|s| s.acked_at.is_none_or(|at| at >= came_at))
    }
}

fn check_content(
    version: ProtocolVersion,
    publication: &Publication,
    topic: &str,
    publish: &Publish<'_>,
) {
    assert!(!publication.is_denied, "a message that was denied: {publication:?}");
    assert_ne!(publication.fate, Fate::Withdrawn, "a will that was withdrawn: {publication:?}");
    assert_eq!(publication.topic, topic, "the topic of {publication:?}");
    assert!(publication.payload == publish.payload, "the payload of {publication:?}");
    let properties: Vec<u8> = publish.properties.pieces().collect::<Vec<_>>().concat();
    if version == ProtocolVersion::V5 {
        assert_eq!(publication.properties, properties, "the properties of {publication:?}");
    }
}

/// By so much the turn of a shard may have begun before the turn in which another shard took a message in.
const LAG_MS: u64 = 1000;

/// The expiry is counted down by the time that the message was with the broker. [MQTT-3.3.2-6]
fn check_expiry(
    receiver: &Incarnation,
    publication: &Publication,
    publish: &Publish<'_>,
    now: Instant,
) {
    if receiver.version != ProtocolVersion::V5 {
        return;
    }
    let (sent, left) = match (publication.expiry_s, publish.message_expiry_s) {
        (None, None) => return,
        (Some(sent), Some(left)) => (u64::from(sent) * 1000, u64::from(left) * 1000),
        (sent, left) => panic!("expiry {left:?} of {sent:?}"),
    };
    assert!(left <= sent + LAG_MS, "expiry grew from {sent} to {left}");
    assert!(left > 0 || publish.dup, "an expired message was sent");
    if publication.is_will || publish.dup {
        return;
    }
    let at_most_ms = now.ms_since(publication.sent_time);
    assert!(left + at_most_ms + 1000 > sent, "{left} of {sent} after {at_most_ms} ms at most");
    let Some(link) = receiver.links.last() else { return };
    if let Some(accepted) = publication.accepted_time {
        // It waited for this connection at least.
        let at_least_ms = link.asked_time.ms_since(accepted);
        let most = sent + 1000 + LAG_MS;
        assert!(left + at_least_ms < most, "{left} of {sent} after {at_least_ms} ms");
    }
}

fn is_redelivery(receiver: &Incarnation, id: u32, publish: &Publish<'_>) -> bool {
    let link = receiver.links.len() - 1;
    assert!(!publish.dup || link > 0, "DUP on a session's first connection");
    let before = receiver.by_publication.get(&id);
    publish.dup
        && publish.qos == QoS::AtLeastOnce
        && before.is_some_and(|places| places.iter().any(|p| receiver.receipts[*p].link < link))
}

impl std::fmt::Display for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Receipt { publication, qos, retain, ids, at, link, is_redelivery } = self;
        write!(f, "{publication} at {at} on link {link}: {qos:?} retain {retain} ids {ids:?}")?;
        write!(f, "{}", if *is_redelivery { " again" } else { "" })
    }
}

/// Whether the subscriptions, as far as they are known, explain the delivery's QoS, retain flag and identifiers.
fn is_asked_for(
    receiver: &Incarnation,
    publication: &Publication,
    receipt: &Receipt,
    same_session: bool,
) -> bool {
    let mut ids = receipt.ids.clone();
    ids.sort_unstable();
    let published = publication.qos;
    let from = publication.sent_at;
    let by_pull = receipt.retain
        && publication.retain
        && receiver.plain(&publication.topic).any(|s| {
            // A retained message is as old as it likes.
            !s.is_refused
                && published.min(s.options.qos) == receipt.qos
                && ids == Vec::from_iter((s.id != 0).then_some(s.id))
        });
    let by_group = receiver.shared(&publication.topic).any(|s| {
        s.is_possible(from)
            && published.min(s.options.qos) == receipt.qos
            && receipt.retain == (publication.retain && s.options.retain_as_published)
            && ids == Vec::from_iter((s.id != 0).then_some(s.id))
    });
    by_pull || by_group || by_plain(receiver, publication, receipt, &ids, same_session)
}

/// One delivery stands for all plain subscriptions that match: some set of them, with all that are certain, explains
/// it.
fn by_plain(
    receiver: &Incarnation,
    publication: &Publication,
    receipt: &Receipt,
    ids: &[u32],
    same_session: bool,
) -> bool {
    let from = publication.sent_at;
    let same_client = receiver.client == publication.publisher;
    let mut certain: Vec<&Subscription> = Vec::new();
    let mut possible: BTreeMap<&str, Vec<&Subscription>> = BTreeMap::new();
    for subscription in receiver.plain(&publication.topic).filter(|s| s.is_possible(from)) {
        let is_own = subscription.options.no_local && same_client;
        if is_own && same_session {
            continue;
        }
        if subscription.is_definite(from) && !is_own {
            certain.push(subscription);
            continue;
        }
        // Of one filter only one is in force; those that ask for the same are as good as one.
        let choices = possible.entry(&subscription.text).or_default();
        let asks = |s: &Subscription| (s.options, s.id);
        if choices.iter().all(|other| asks(other) != asks(subscription)) {
            choices.push(subscription);
        }
    }
    let possible: Vec<_> = possible.into_values().collect();
    explains(&mut certain, &possible, &|set| {
        let Some(qos) = set.iter().map(|s| s.options.qos).max() else { return false };
        let mut expected: Vec<u32> = set.iter().map(|s| s.id).filter(|id| *id != 0).collect();
        expected.sort_unstable();
        let retain = publication.retain && set.iter().any(|s| s.options.retain_as_published);
        publication.qos.min(qos) == receipt.qos && retain == receipt.retain && expected == ids
    })
}

/// Whether `chosen` with none or one of each of `choices` is what `is_it` looks for.
fn explains<'a>(
    chosen: &mut Vec<&'a Subscription>,
    choices: &[Vec<&'a Subscription>],
    is_it: &dyn Fn(&[&Subscription]) -> bool,
) -> bool {
    let Some((first, rest)) = choices.split_first() else { return is_it(chosen) };
    if explains(chosen, rest, is_it) {
        return true;
    }
    first.iter().any(|subscription| {
        chosen.push(subscription);
        let found = explains(chosen, rest, is_it);
        chosen.pop();
        found
    })
}
