//! A client that publishes in order, some packets at a time, and waits for their acknowledgements.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::client::{Client, ack};
use crate::fields::Kind;
use crate::message::{Message, Source};
use crate::wire;

/// Messages on their way at once.
const BATCH: u64 = 24;

pub(crate) struct Publisher {
    client: Client,
    next_id: u16,
    output: Vec<u8>,
    /// By packet id: what is awaited.
    awaited: BTreeMap<u16, Kind>,
}

impl Publisher {
    pub(crate) fn new(client: Client) -> Publisher {
        Publisher { client, next_id: 0, output: Vec::new(), awaited: BTreeMap::new() }
    }

    /// Queues one message; `settle` sends it.
    pub(crate) fn publish(&mut self, message: &Message, qos: u8, retain: bool) {
        if qos > 0 {
            self.next_id = self.next_id % 60_000 + 1;
            let wanted = if qos == 1 { Kind::Puback } else { Kind::Pubrec };
            self.awaited.insert(self.next_id, wanted);
        }
        let flags = qos << 1 | u8::from(retain);
        self.output.extend(message.publish(self.client.version, flags, self.next_id));
    }

    /// Sends what is queued, and returns when every bit of it is acknowledged, for QoS 0 by a ping behind it.
    pub(crate) fn settle(&mut self) {
        self.output.extend([0xC0, 0]);
        self.client.send(&std::mem::take(&mut self.output));
        let mut is_pinged = false;
        while !is_pinged || !self.awaited.is_empty() {
            let frame = self.client.frame();
            let packet = wire::decode(&frame, self.client.version).unwrap();
            if packet.kind == Kind::Pingresp {
                is_pinged = true;
                continue;
            }
            let id = packet.number("id").unwrap_or_else(|| panic!("{packet}")) as u16;
            assert_eq!(self.awaited.remove(&id), Some(packet.kind), "{packet}");
            // 0x10, no matching subscribers, is no failure.
            assert!(packet.number("reason").unwrap_or(0) < 0x80, "{packet}");
            if packet.kind == Kind::Pubrec {
                self.awaited.insert(id, Kind::Pubcomp);
                self.client.send(&ack(Kind::Pubrel, id));
            }
        }
    }

    pub(crate) fn leave(self) {
        self.client.leave();
    }
}

/// Publishes message after message, their QoS going round, until `stop`; how many there were. `sent` is the next number,
/// advanced before its message leaves; nothing leaves while it is too far ahead, as `is_ahead` says.
pub(crate) fn publish_until(
    address: SocketAddr,
    source: &Source,
    sent: &AtomicU64,
    is_ahead: impl Fn(u64) -> bool,
    stop: &AtomicBool,
) -> u64 {
    let name = format!("publisher-{}-{}", source.topics[0], source.id);
    let mut publisher = Publisher::new(Client::join(address, source.version, &name, &[]));
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        if is_ahead(number) {
            thread::sleep(Duration::from_millis(1));
            continue;
        }
        sent.store(number + BATCH, Ordering::SeqCst);
        for _ in 0..BATCH {
            publisher.publish(&source.message(number), (number % 3) as u8, false);
            number += 1;
        }
        publisher.settle();
    }
    publisher.leave();
    number
}
