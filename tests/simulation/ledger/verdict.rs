//! What must have arrived when all is quiet, and how often at most.

use super::{Fate, Incarnation, Ledger, Link, Publication, Step};
use ringmq::codec::QoS;
use std::collections::{BTreeMap, HashMap};

/// Bytes that a PUBLISH may have beside topic, properties and payload, identifiers included.
const HEAD_SIZE_MAX: usize = 96;

impl Ledger {
    /// Every message a session was sure to get and did not, as far as that can be told from outside.
    pub(crate) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for incarnation in &self.incarnations {
            if incarnation.subscriptions.is_empty() {
                continue;
            }
            if incarnation.ended_at.is_none() {
                self.missing_at_rest(incarnation, &mut missing);
            }
            self.gaps(incarnation, &mut missing);
        }
        missing.sort();
        missing.dedup();
        missing
    }

    fn missing_at_rest(&self, incarnation: &Incarnation, missing: &mut Vec<String>) {
        let Some(link) = incarnation.links.last() else { return };
        for (id, publication) in self.publications.iter().enumerate() {
            let is_settled = self.has(incarnation, id) || self.skips(incarnation, id);
            if !self.is_certain(publication) || is_settled {
                continue;
            }
            match self.owed_qos(incarnation, publication) {
                None => continue,
                Some(QoS::AtMostOnce) if !was_open(link, publication.sent_at) => continue,
                Some(qos) => missing.push(describe(id, publication, incarnation, qos)),
            }
        }
    }

    /// Messages missing in front of others that came: within a connection at QoS 0, within the session above.
    fn gaps(&self, incarnation: &Incarnation, missing: &mut Vec<String>) {
        for receipt in &incarnation.receipts {
            let last = &self.publications[receipt.publication as usize];
            // Only what came live says that those before it came by.
            if last.retain || incarnation.shared(&last.topic).next().is_some() {
                continue;
            }
            for id in
                self.earlier(receipt.publication, receipt.qos, &incarnation.links[receipt.link])
            {
                let publication = &self.publications[id];
                let is_owed = self.owed_qos(incarnation, publication) == Some(receipt.qos);
                let is_settled = self.has(incarnation, id) || self.skips(incarnation, id);
                if is_owed && self.is_certain(publication) && !is_settled {
                    missing.push(describe(id, publication, incarnation, receipt.qos));
                }
            }
        }
    }

    /// Up to a few of the same publisher's messages to the same topic at the same QoS before this one.
    fn earlier(&self, before: u32, qos: QoS, link: &Link) -> Vec<usize> {
        let last = &self.publications[before as usize];
        let from = if qos == QoS::AtMostOnce { link.opened_at } else { 0 };
        let mut found = Vec::new();
        for id in (0..before as usize).rev().take(300) {
            let publication = &self.publications[id];
            if publication.sent_at <= from || found.len() >= 4 {
                break;
            }
            let is_same = publication.publisher == last.publisher
                && publication.incarnation == last.incarnation
                && publication.qos == last.qos
                && publication.topic == last.topic
                && !publication.is_will;
            if is_same {
                found.push(id);
            }
        }
        found
    }

    fn is_certain(&self, publication: &Publication) -> bool {
        publication.fate == Fate::Accepted
            && publication.expiry_s.is_none()
            && !publication.payload.is_empty()
    }

    /// The deliver hook keeps it from the client.
    fn skips(&self, incarnation: &Incarnation, id: usize) -> bool {
        self.plan.skips(&incarnation.client_id, id as u32)
    }

    fn has(&self, incarnation: &Incarnation, id: usize) -> bool {
        incarnation.by_publication.contains_key(&(id as u32))
    }

    /// The QoS at which plain subscriptions were sure to bring the message.
    fn owed_qos(&self, incarnation: &Incarnation, publication: &Publication) -> Option<QoS> {
        let size = publication.topic.len()
            + publication.properties.len()
            + publication.payload.len()
            + HEAD_SIZE_MAX;
        if size > incarnation.packet_size_max {
            return None;
        }
        let granted = incarnation
            .plain(&publication.topic)
            .filter(|s| s.is_definite(publication.sent_at))
            .filter(|s| !(s.options.no_local && incarnation.client == publication.publisher))
            .map(|s| s.options.qos)
            .max()?;
        Some(granted.min(publication.qos))
    }

    /// No message came more often than it may.
    pub(crate) fn check_counts(&self) {
        for incarnation in &self.incarnations {
            for (&id, places) in &incarnation.by_publication {
                let publication = &self.publications[id as usize];
                let receipts: Vec<_> = places.iter().map(|p| &incarnation.receipts[*p]).collect();
                let count = receipts.iter().filter(|r| !r.is_redelivery).count();
                let most = most(incarnation, publication);
                let is_withdrawn = publication.fate == Fate::Withdrawn;
                assert!(!is_withdrawn, "published though its client said goodbye: {publication:?}");
                assert!(
                    count <= most,
                    "{count} times instead of {most}: {publication:?}\n{receipts:#?}\n{:#?}",
                    incarnation.plain(&publication.topic).collect::<Vec<_>>()
                );
            }
        }
    }

    /// At rest a subscriber's last message of each retained topic is the newest one.
    pub(crate) fn stale_retained(&self) -> Vec<String> {
        let newest = self.retained();
        let mut stale = Vec::new();
        for incarnation in self.incarnations.iter().filter(|i| i.ended_at.is_none()) {
            let Some(link) = incarnation.links.last() else { continue };
            let last: HashMap<&str, u32> = incarnation
                .receipts
                .iter()
                // What is sent again for want of an ack says nothing new.
                .filter(|r| !r.is_redelivery)
                .map(|r| (self.publications[r.publication as usize].topic.as_str(), r.publication))
                .collect();
            for (topic, id) in &newest {
                let Some(id) = id else { continue };
                let publication = &self.publications[*id as usize];
                let is_kept = last.get(topic.as_str()) == Some(id)
                    || self.skips(incarnation, *id as usize)
                    || !self.wants(incarnation, publication);
                if is_kept {
                    continue;
                }
                if publication.qos == QoS::AtMostOnce && !was_open(link, 1) {
                    continue;
                }
                stale.push(format!(
                    "client {} last got {:?} of '{topic}', the newest is {id}: {publication:?}\n\
                     links {:?}\nreceipts {:#?}\nsubscriptions {:#?}",
                    incarnation.client,
                    last.get(topic.as_str()),
                    incarnation.links,
                    incarnation
                        .receipts
                        .iter()
                        .filter(|r| self.publications[r.publication as usize].topic == *topic)
                        .map(ToString::to_string)
                        .collect::<Vec<_>>(),
                    incarnation.plain(topic).collect::<Vec<_>>(),
                ));
            }
        }
        stale
    }

    fn wants(&self, incarnation: &Incarnation, publication: &Publication) -> bool {
        use ringmq::codec::RetainHandling::SendAtSubscribe;
        let size = publication.payload.len() + publication.properties.len() + HEAD_SIZE_MAX + 20;
        size <= incarnation.packet_size_max
            && publication.send_count == 1
            && incarnation.shared(&publication.topic).next().is_none()
            && incarnation.client != publication.publisher
            && incarnation.plain(&publication.topic).any(|s| {
                s.is_definite(Step::MAX)
                    && s.options.retain_handling == SendAtSubscribe
                    && s.options.qos != QoS::AtMostOnce
            })
    }

    /// What a client that subscribed to everything at the end was sent of what is retained; returns how many topics
    /// had a certain value.
    pub(crate) fn audit(&self, incarnation: usize) -> usize {
        let auditor = &self.incarnations[incarnation];
        let mut found: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for receipt in &auditor.receipts {
            assert!(receipt.retain, "the auditor got a live message: {receipt}");
            let topic = &self.publications[receipt.publication as usize].topic;
            found.entry(topic).or_default().push(receipt.publication);
        }
        for (topic, ids) in &found {
            assert!(ids.len() == 1, "'{topic}' has {} retained messages: {ids:?}", ids.len());
        }
        let retained = self.retained();
        let certain = retained.iter().filter_map(|(topic, id)| Some((topic.as_str(), (*id)?)));
        let mut count = 0;
        for (topic, id) in certain {
            let publication = &self.publications[id as usize];
            assert_eq!(found.get(topic), Some(&vec![id]), "retained on '{topic}': {publication:?}");
            count += 1;
        }
        for (topic, ids) in found.iter().filter(|(topic, _)| topic.starts_with("d/")) {
            let last = self.last_of_each_publisher(topic);
            assert!(last.contains(&ids[0]), "{ids:?} on '{topic}', not one of {last:?}");
        }
        count
    }

    /// What may be retained on a topic of several publishers: the last certain message of each, or an uncertain one
    /// behind it.
    fn last_of_each_publisher(&self, topic: &str) -> Vec<u32> {
        let mut last: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for (id, publication) in self.publications.iter().enumerate() {
            if publication.topic != topic || !publication.retain || publication.is_denied {
                continue;
            }
            let ids = last.entry(publication.publisher).or_default();
            if publication.fate == Fate::Accepted {
                ids.clear();
            }
            ids.push(id as u32);
        }
        last.into_values().flatten().collect()
    }

    /// Receipts of a group's messages over all its members: each message once, where nothing was lost on its way.
    /// Returns how many were checked for that, and how many were given to another member as well.
    pub(crate) fn check_groups(&self) -> (usize, usize) {
        let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, incarnation) in self.incarnations.iter().enumerate() {
            for subscription in incarnation.subscriptions.iter().filter(|s| s.is_shared) {
                let members = groups.entry(&subscription.text).or_default();
                if members.last() != Some(&index) {
                    members.push(index);
                }
            }
        }
        groups
            .iter()
            .map(|(text, members)| self.check_group(text, members))
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    fn check_group(&self, text: &str, members: &[usize]) -> (usize, usize) {
        let members: Vec<_> = members.iter().map(|index| &self.incarnations[*index]).collect();
        let has_left = members.iter().any(|m| m.links.len() != 1 || m.ended_at.is_some());
        let is_steady = !has_left && members.iter().all(|m| m.links[0].closed_at.is_none());
        let (mut checked, mut given_again) = (0, 0);
        for (id, publication) in self.publications.iter().enumerate() {
            let topic = publication.topic.as_str();
            let mut matching = members.iter().flat_map(|m| m.shared(topic)).peekable();
            let is_for_them = matching.peek().is_some() && matching.all(|s| s.text == text);
            let is_plain = members.iter().any(|m| m.plain(topic).next().is_some());
            if is_plain || !is_for_them || publication.is_will {
                continue;
            }
            let places = members.iter().filter_map(|m| m.by_publication.get(&(id as u32)));
            let count = places.map(Vec::len).sum::<usize>();
            let most = sends(publication);
            // [MQTT-4.8.2-4]: what may go to another member may come twice, but never at QoS 2.
            let may_repeat = has_left && !is_all_qos2(&members, publication);
            assert!(
                count <= most || may_repeat,
                "a shared message came {count} times: {publication:?}"
            );
            given_again += usize::from(count > most);
            let is_owed = match is_steady {
                true => owes_steady(&members, publication),
                false => owes_leaving(&members, publication),
            };
            let may_be_skipped = members.iter().any(|m| self.skips(m, id));
            if is_owed && self.is_certain(publication) && !self.may_lose && !may_be_skipped {
                assert!(
                    count >= 1,
                    "a shared message came to nobody: {id} {publication:?}\n{:#?}",
                    members
                        .iter()
                        .map(|m| (m.client, &m.links, m.shared(topic).collect::<Vec<_>>()))
                        .collect::<Vec<_>>()
                );
                checked += 1;
            }
        }
        (checked, given_again)
    }
}

fn is_all_qos2(members: &[&Incarnation], publication: &Publication) -> bool {
    let topic = &publication.topic;
    publication.qos == QoS::ExactlyOnce
        && members.iter().all(|m| m.shared(topic).all(|s| s.options.qos == QoS::ExactlyOnce))
}

fn fits_all(members: &[&Incarnation], publication: &Publication) -> bool {
    let size = publication.payload.len() + publication.properties.len() + HEAD_SIZE_MAX;
    members.iter().all(|m| size <= m.packet_size_max)
}

/// While nobody leaves, every message goes to somebody.
fn owes_steady(members: &[&Incarnation], publication: &Publication) -> bool {
    let topic = &publication.topic;
    members.iter().all(|m| m.shared(topic).all(|s| s.end_sent_at.is_none()))
        && members.iter().any(|m| m.shared(topic).any(|s| s.is_definite(publication.sent_at)))
        && fits_all(members, publication)
}

/// When members leave, a message above QoS 0 goes to another; one that was sent at QoS 2 may go with its session.
fn owes_leaving(members: &[&Incarnation], publication: &Publication) -> bool {
    let topic = &publication.topic;
    let has_ended = members
        .iter()
        .any(|m| m.ended_at.is_some() && m.shared(topic).any(|s| s.end_sent_at.is_some()));
    let may_be_qos2 = publication.qos == QoS::ExactlyOnce
        && members.iter().any(|m| m.shared(topic).any(|s| s.options.qos == QoS::ExactlyOnce));
    let has_taken = may_be_qos2 && members.iter().any(|m| m.ended_at.is_some());
    let is_above_qos0 = publication.qos != QoS::AtMostOnce
        && members.iter().all(|m| m.shared(topic).all(|s| s.options.qos != QoS::AtMostOnce));
    let has_somebody = members.iter().any(|m| {
        m.ended_at.is_none() && m.shared(topic).any(|s| s.is_definite(publication.sent_at))
    });
    is_above_qos0 && has_somebody && !has_ended && !has_taken && fits_all(members, publication)
}

fn was_open(link: &Link, at: Step) -> bool {
    link.opened_at < at && link.closed_at.is_none()
}

fn describe(id: usize, publication: &Publication, incarnation: &Incarnation, qos: QoS) -> String {
    format!("client {} at {qos:?}: {id} {publication:?}", incarnation.client)
}

/// How often the publication reached the broker at most: only QoS 1 repeats itself.
fn sends(publication: &Publication) -> usize {
    match publication.sent.qos {
        QoS::AtLeastOnce if !publication.is_will => publication.send_count as usize,
        _ => 1,
    }
}

/// How often the message may come: live, through each shared subscription, and with each retained fetch.
fn most(incarnation: &Incarnation, publication: &Publication) -> usize {
    let plain = incarnation.plain(&publication.topic).count();
    let shared = incarnation.shared(&publication.topic).count();
    let live = if plain > 0 { sends(publication) } else { 0 };
    let pulled = if publication.retain { plain } else { 0 };
    live + pulled + shared * sends(publication)
}
