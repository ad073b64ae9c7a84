//! Routes: to whom a publisher's packets go, found at its first publish, and what clients wait for before they begin.

use ringmq::codec::{Packet, ProtocolVersion, Publish, next_frame};
use ringmq::topic;
use slab::Slab;

use super::link::Link;
use super::route::Route;
use crate::message::write_size;

const CONNECT: u8 = 1;
const SUBSCRIBE: u8 = 8;
const PINGREQ: u8 = 12;

const DUP_OR_RETAIN: u8 = 0b1001;

/// Looks for the subscribers of a publish.
pub(super) fn find(
    links: &mut Slab<Link>,
    subscriptions: u32,
    from: usize,
    packet: &[u8],
) -> Result<(), String> {
    let version = links[from].version;
    let Packet::Publish(publish) = decode(packet, version)? else {
        return Err("a publish was expected".to_string());
    };
    let first = packet[0];
    if first & DUP_OR_RETAIN != 0 {
        return Err(
            "a client has published with a flag, DUP or RETAIN: the relay keeps no messages"
                .to_string(),
        );
    }
    if publish.topic_alias.is_some() {
        return Err("a client has published with a topic alias: the relay knows none".to_string());
    }
    let mut takers = Vec::new();
    for (index, link) in links.iter_mut() {
        let matching =
            link.filters.iter().filter(|(filter, _)| topic::matches(filter, publish.topic));
        let Some(granted) = matching.map(|(_, qos)| *qos).max() else { continue };
        check(link, granted, &publish, version)?;
        takers.push(index);
    }
    links[from].route = Route::new(takers, subscriptions, first);
    Ok(())
}

/// A packet is passed on as it is, but for its id.
fn check(
    link: &mut Link,
    granted: u8,
    publish: &Publish<'_>,
    version: ProtocolVersion,
) -> Result<(), String> {
    let qos = publish.qos as u8;
    if granted < qos {
        return Err(format!(
            "a message at QoS {qos} is for a subscriber that was granted {granted}: the relay changes no QoS"
        ));
    }
    if (link.version == ProtocolVersion::V5) != (version == ProtocolVersion::V5) {
        return Err("publisher and subscriber speak different versions of MQTT: the relay passes packets on as they are"
            .to_string());
    }
    if qos > 0 {
        if ![0, qos].contains(&link.ids.qos) {
            return Err("a subscriber gets messages at QoS 1 and at QoS 2: the relay has one order of ids for each"
                .to_string());
        }
        link.ids.qos = qos;
    }
    Ok(())
}

pub(super) fn decode(bytes: &[u8], version: ProtocolVersion) -> Result<Packet<'_>, String> {
    let frame = next_frame(bytes, usize::MAX).ok().flatten().ok_or("a packet is not whole")?;
    Packet::decode(&frame, version).map_err(|error| format!("a client sent no packet: {error}"))
}

/// The answer to what a client sends before it begins, and in between.
pub(super) fn answer(
    link: &mut Link,
    subscriptions: &mut u32,
    packet: &[u8],
) -> Result<Vec<u8>, String> {
    let mut answer = Vec::new();
    match (packet[0] >> 4, decode(packet, link.version)?) {
        (CONNECT, Packet::Connect(connect)) => {
            if connect.will.is_some() {
                return Err("a client has a will: the relay keeps none".to_string());
            }
            link.version = connect.version;
            link.ids.in_flight_max = connect.receive_max.unwrap_or(u16::MAX).into();
            let properties: &[u8] = if connect.version == ProtocolVersion::V5 { &[0] } else { &[] };
            answer.extend([0x20, 2 + properties.len() as u8, 0, 0]);
            answer.extend_from_slice(properties);
        }
        (SUBSCRIBE, Packet::Subscribe(subscribe)) => {
            if subscribe.subscription_id.is_some() {
                return Err(
                    "a subscription has an identifier: the relay adds none to messages".to_string()
                );
            }
            *subscriptions += 1;
            let mut granted = Vec::new();
            for (filter, options) in subscribe.filters.iter() {
                if filter.starts_with("$share/") {
                    return Err(format!("{filter}: the relay has no shared subscriptions"));
                }
                link.filters.push((filter.to_string(), options.qos as u8));
                granted.push(options.qos as u8);
            }
            let properties = usize::from(link.version == ProtocolVersion::V5);
            answer.push(0x90);
            write_size(&mut answer, 2 + properties + granted.len());
            answer.extend(subscribe.packet_id.get().to_be_bytes());
            answer.resize(answer.len() + properties, 0);
            answer.extend(granted);
        }
        (PINGREQ, _) => answer.extend([0xd0, 0]),
        (kind, _) => {
            return Err(format!(
                "a client sent a packet of type {kind}, which the relay does not answer"
            ));
        }
    }
    Ok(answer)
}
