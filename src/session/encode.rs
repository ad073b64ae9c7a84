//! Encodes messages into a connection's output.

use super::parcel::Parcel;
use super::runs::EncodedRun;
use super::{BufferPool, Connection, Context, Envelope};
use crate::arena::{Gauge, Message, Stored};
use crate::bridge::{BrokerId, Trail};
use crate::codec::{self, PacketId, ProtocolVersion, PublishHead, QoS, ReasonCode};
use crate::limits::Limits;
use crate::time::Instant;
use crate::topic::OutboundAlias;

/// Encodings of one message to copy from, one for each protocol version, QoS and retain flag, and the message's stored
/// copy.
#[derive(Debug, Default)]
pub struct EncodedOnce {
    is_on: bool,
    /// Whether the payload is in `stored` and leaves by reference.
    is_shared: bool,
    stored: Option<Stored>,
    bytes: Vec<u8>,
    variants: [Option<Variant>; VARIANT_COUNT],
    pub(super) runs: EncodedRun,
}

const VARIANT_COUNT: usize = 12;

/// A payload of this size leaves by reference when it has several receivers: the kernel reads it from one place in the
/// cache, and it is not copied before.
const SHARED_PAYLOAD_MIN: usize = 2 << 10;

#[inline]
pub fn leaves_by_reference(message: &Message<'_>) -> bool {
    message.payload.len() >= SHARED_PAYLOAD_MIN
}

#[derive(Clone, Copy, Debug)]
struct Variant {
    start: usize,
    end: usize,
    /// The index of the packet id in the encoding.
    packet_id_index: usize,
}

impl Variant {
    /// Appends this encoding's part of `encoded`, with another packet id.
    #[inline(always)]
    fn copy(
        &self,
        encoded: &[u8],
        connection: &mut Connection,
        pool: &mut BufferPool,
        packet_id: Option<PacketId>,
    ) {
        let bytes = &encoded[self.start..self.end];
        let Some(id) = packet_id else {
            connection.output.append(pool, |out| out.extend_from_slice(bytes));
            return;
        };
        let id_index = self.packet_id_index;
        connection.output.append(pool, |out| {
            let at = out.len() + id_index;
            out.extend_from_slice(bytes);
            out[at..at + 2].copy_from_slice(&id.get().to_be_bytes());
        });
    }
}

impl EncodedOnce {
    /// Begins a message with several receivers. The caller knows whether there is room to store it.
    pub fn begin(&mut self, message: &Message<'_>, gauge: &Gauge, has_room: bool) {
        self.is_on = true;
        self.is_shared = has_room && leaves_by_reference(message);
        if self.is_shared {
            self.store(message, gauge);
        }
        self.bytes.clear();
        self.variants = [None; VARIANT_COUNT];
    }

    #[inline(never)]
    fn add_variant(
        &mut self,
        version: ProtocolVersion,
        now: Instant,
        message: &Message<'_>,
        envelope: &Envelope,
        packet_id: Option<PacketId>,
    ) -> Variant {
        let head = head(version, now, message, envelope, packet_id, false);
        let start = self.bytes.len();
        let packet_id_index = head.encode(version, &mut self.bytes).unwrap_or(0);
        if !self.is_shared {
            self.bytes.extend_from_slice(message.payload);
        }
        let variant = Variant { start, end: self.bytes.len(), packet_id_index };
        self.variants[variant_index(version, envelope.qos, envelope.retain)] = Some(variant);
        variant
    }

    /// Begins a run with several receivers.
    pub fn begin_run(&mut self) {
        self.is_on = true;
        self.runs.begin();
    }

    /// Whether the present message or run has several receivers.
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    pub fn end(&mut self) {
        self.is_on = false;
        self.stored = None;
    }

    pub fn end_run(&mut self) {
        self.is_on = false;
        self.runs.end();
    }

    /// Whether the message has been stored.
    pub fn has_copy(&self) -> bool {
        self.stored.is_some()
    }

    /// Stores the message; all its receivers share one copy.
    pub fn store(&mut self, message: &Message<'_>, gauge: &Gauge) -> Stored {
        if !self.is_on {
            return Stored::from_message(message, gauge);
        }
        self.stored.get_or_insert_with(|| Stored::from_message(message, gauge)).clone()
    }
}

/// The index of a variant.
#[inline]
fn variant_index(version: ProtocolVersion, qos: QoS, retain: bool) -> usize {
    usize::from(version == ProtocolVersion::V5) * 6 + qos as usize * 2 + usize::from(retain)
}

/// How many whole seconds are left, rounded up; 0: the message has expired.
fn expiry_left_s(message: &Message<'_>, now: Instant) -> Option<u32> {
    // [MQTT-3.3.2-6]
    message.meta.expires_at.map(|at| at.seconds_left(now))
}

fn head<'a>(
    version: ProtocolVersion,
    now: Instant,
    message: &Message<'a>,
    envelope: &'a Envelope,
    packet_id: Option<PacketId>,
    dup: bool,
) -> PublishHead<'a> {
    let is_v5 = version == ProtocolVersion::V5;
    PublishHead {
        dup,
        qos: envelope.qos,
        retain: envelope.retain,
        topic: message.topic,
        packet_id,
        message_expiry_s: if is_v5 { expiry_left_s(message, now) } else { None },
        topic_alias: None,
        subscription_ids: envelope.ids.as_deref().unwrap_or(&[]),
        properties: if is_v5 { message.properties } else { &[] },
        payload_size: message.payload.len(),
    }
}

/// Whether a message without identifiers is within what the client takes, even with everything that may go with it.
#[inline]
pub fn fits_surely(connection: &Connection, message: &Message<'_>) -> bool {
    // The bound is generous: a header, a packet id, an alias, an expiry and the lengths.
    message.size() + 32 <= connection.packet_size_max as usize
}

/// Whether the encoded message is within what the client takes.
#[inline]
pub fn fits(
    connection: &Connection,
    now: Instant,
    message: &Message<'_>,
    envelope: &Envelope,
) -> bool {
    if envelope.ids.is_none() && fits_surely(connection, message) {
        return true;
    }
    let id = (envelope.qos != QoS::AtMostOnce).then(|| PacketId::new(1)).flatten();
    let head = head(connection.version, now, message, envelope, id, false);
    head.size(connection.version) <= connection.packet_size_max as usize
}

/// Encodes a PUBLISH that `fits`.
#[inline]
pub fn publish(
    connection: &mut Connection,
    context: &mut Context<'_>,
    message: &Message<'_>,
    envelope: &Envelope,
    packet_id: Option<PacketId>,
    dup: bool,
) {
    count(context, message);
    if !dup && envelope.ids.is_none() && connection.aliases_out.is_none() {
        if context.encoded.is_on && message.stored.is_none() {
            return copy_variant(connection, context, message, envelope, packet_id);
        }
        // A message from a queue is encoded like one that is sent at once, unless its payload leaves by reference.
        let is_whole = message.meta.expires_at.is_none()
            && message.payload.len() < context.limits.large_message_size;
        match packet_id {
            Some(id) if is_whole => {
                let asked = (envelope.qos, envelope.retain);
                return append_acked(connection, context.pool, message, asked, id);
            }
            // The trail stands in front of the payload.
            None if is_whole && !message.meta.from_bridge => {
                return append_plain(connection, context.pool, message, envelope.retain);
            }
            _ => {}
        }
    }
    let version = connection.version;
    if let Some(own) = connection.open().and_then(|open| open.marks.as_ref()) {
        let own = **own;
        let head = head(version, context.now, message, envelope, packet_id, dup);
        return append_marked(own, connection, context, message, &head);
    }
    let head = head(version, context.now, message, envelope, packet_id, dup);
    append_whole(connection, context, message, head);
}

/// Encodes a PUBLISH for a bridge, with a mark that names the brokers where the message has been. The mark is left out
/// if the message would be too large with it; the bridge then knows that it does not know them.
#[cold]
#[inline(never)]
fn append_marked(
    own: BrokerId,
    connection: &mut Connection,
    context: &mut Context<'_>,
    message: &Message<'_>,
    head: &PublishHead<'_>,
) {
    let mut properties = message.properties.to_vec();
    Trail::of(message.trail()).put_mark(own, &mut properties);
    let marked = PublishHead { properties: &properties, ..*head };
    let fits = marked.size(connection.version) <= connection.packet_size_max as usize;
    append_whole(connection, context, message, if fits { marked } else { *head });
}

/// Encodes a PUBLISH with everything that it may have, and defines or uses an alias.
#[inline(always)]
fn append_whole(
    connection: &mut Connection,
    context: &mut Context<'_>,
    message: &Message<'_>,
    mut head: PublishHead<'_>,
) {
    let version = connection.version;
    if let Some(aliases) = &mut connection.aliases_out {
        // The message has room for the alias property, whose size `fits` did not count exactly.
        if head.size(version) + 4 <= connection.packet_size_max as usize {
            let topic = std::str::from_utf8(message.topic).unwrap_or_default();
            match aliases.alias(topic) {
                OutboundAlias::None => {}
                OutboundAlias::New(alias) => head.topic_alias = Some(alias),
                OutboundAlias::Known(alias) => {
                    head.topic_alias = Some(alias);
                    head.topic = b"";
                }
            }
        }
    }
    match message.stored {
        Some(stored) if message.payload.len() >= context.limits.large_message_size => {
            connection.output.append(context.pool, |out| {
                head.encode(version, out);
            });
            connection.output.append_payload(stored);
        }
        _ => {
            connection.output.append(context.pool, |out| {
                head.encode(version, out);
                out.extend_from_slice(message.payload);
            });
        }
    }
}

impl Parcel for Message<'_> {
    #[inline(always)]
    fn fits(&self, connection: &Connection, limits: &Limits) -> bool {
        connection.has_room(limits) && fits_surely(connection, self)
    }
}

/// Whether `plain` may send a message to a receiver that gets nothing of its own with it.
#[inline]
pub fn is_plain(message: &Message<'_>) -> bool {
    // The trail stands in front of the payload.
    message.stored.is_none() && message.meta.expires_at.is_none() && !message.meta.from_bridge
}

/// As `publish`, for a message that `is_plain` and `fits`, at QoS 0, without identifiers and to a connection without
/// aliases.
#[inline(always)]
pub fn plain(
    connection: &mut Connection,
    context: &mut Context<'_>,
    message: &Message<'_>,
    retain: bool,
) {
    count(context, message);
    if context.encoded.is_on {
        return plain_variant(connection, context, message, (QoS::AtMostOnce, retain), None);
    }
    append_plain(connection, context.pool, message, retain);
}

/// Encodes a whole PUBLISH at QoS 0 that has nothing optional but its properties, and no trail.
#[inline(never)]
fn append_plain(
    connection: &mut Connection,
    pool: &mut BufferPool,
    message: &Message<'_>,
    retain: bool,
) {
    let version = connection.version;
    let Message { bytes, topic, properties, .. } = *message;
    connection.output.append(pool, |out| {
        codec::encode_plain_publish(version, retain, bytes, topic.len(), properties.len(), out);
    });
}

/// As `plain`, at QoS 1 or 2.
#[inline(always)]
pub fn plain_acked(
    connection: &mut Connection,
    context: &mut Context<'_>,
    message: &Message<'_>,
    (qos, retain): (QoS, bool),
    packet_id: PacketId,
) {
    count(context, message);
    if context.encoded.is_on {
        return plain_variant(connection, context, message, (qos, retain), Some(packet_id));
    }
    append_acked(connection, context.pool, message, (qos, retain), packet_id);
}

/// Encodes a whole PUBLISH at QoS 1 or 2 that has nothing optional but its properties.
#[inline(never)]
fn append_acked(
    connection: &mut Connection,
    pool: &mut BufferPool,
    message: &Message<'_>,
    (qos, retain): (QoS, bool),
    packet_id: PacketId,
) {
    let version = connection.version;
    let Message { topic, properties, payload, .. } = *message;
    connection.output.append(pool, |out| {
        let asked = (qos, retain, packet_id);
        codec::encode_plain_acked_publish(version, asked, topic, properties, payload, out);
    });
}

#[inline(always)]
fn count(context: &mut Context<'_>, message: &Message<'_>) {
    context.counters.publishes_sent += 1;
    context.counters.packets_sent += 1;
    context.counters.publish_bytes_sent += message.payload.len() as u64;
}

/// As `copy_variant`, inlined for all receivers but the first.
#[inline(always)]
fn plain_variant(
    connection: &mut Connection,
    context: &mut Context<'_>,
    message: &Message<'_>,
    (qos, retain): (QoS, bool),
    packet_id: Option<PacketId>,
) {
    let encoded = &*context.encoded;
    let Some(variant) = encoded.variants[variant_index(connection.version, qos, retain)]
        .filter(|_| !encoded.is_shared)
    else {
        let envelope = Envelope { qos, retain, ..Envelope::default() };
        return copy_variant(connection, context, message, &envelope, packet_id);
    };
    variant.copy(&encoded.bytes, connection, context.pool, packet_id);
}

#[inline(never)]
fn copy_variant(
    connection: &mut Connection,
    context: &mut Context<'_>,
    message: &Message<'_>,
    envelope: &Envelope,
    packet_id: Option<PacketId>,
) {
    let version = connection.version;
    let encoded = &mut *context.encoded;
    let variant = match encoded.variants[variant_index(version, envelope.qos, envelope.retain)] {
        Some(variant) => variant,
        None => encoded.add_variant(version, context.now, message, envelope, packet_id),
    };
    variant.copy(&encoded.bytes, connection, context.pool, packet_id);
    if encoded.is_shared
        && let Some(stored) = &encoded.stored
    {
        connection.output.append_payload(stored);
    }
}

/// Encodes a PUBREL.
pub fn pubrel(connection: &mut Connection, context: &mut Context<'_>, id: PacketId) {
    context.counters.packets_sent += 1;
    let version = connection.version;
    connection
        .output
        .append(context.pool, |out| codec::encode_pubrel(version, id, ReasonCode::Success, out));
}
