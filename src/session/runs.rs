//! Runs of messages that differ in their payloads alone: sent to one session, or encoded once for many.

use super::parcel::Parcel;
use super::queue::ENTRY_SIZE;
use super::{Connection, Context, Session};
use crate::arena::{COPIED_RUN_SIZE_MAX, Gauge, Run, Stored, stored_size};
use crate::codec::{self, PacketId, ProtocolVersion, QoS};
use crate::limits::Limits;

/// An encoded run of this size leaves by reference when it has several receivers at QoS 0.
const SHARED_SIZE_MIN: usize = 4 << 10;

/// A run that leaves by reference ends at this size, bytes, or at this part of an output, or just above. A receiver
/// without room for all of it is served message by message.
const SHARED_SIZE_MAX: usize = 32 << 10;
const OUTPUT_PART: usize = 4;

/// The most bytes that an encoded message has beside topic, properties and payload: a header, the lengths of topic and
/// properties, a packet id.
const HEAD_SIZE_MAX: usize = 13;

/// The size at which a run ends, if it goes to so many sessions.
#[inline]
pub fn size_max(qos: u8, receiver_count: usize, limits: &Limits) -> usize {
    match qos == 0 && receiver_count > 1 {
        true => (limits.output_size_max / OUTPUT_PART).clamp(COPIED_RUN_SIZE_MAX, SHARED_SIZE_MAX),
        false => COPIED_RUN_SIZE_MAX,
    }
}

/// A run in each form that its receivers get, encoded for the first receiver of that form.
#[derive(Debug, Default)]
pub struct EncodedRun {
    /// The encoding at QoS 0 for 3.x clients, and for 5.0 clients; empty: there is none yet.
    plain: [Vec<u8>; 2],
    /// The same encodings where they are so large that they leave by reference.
    shared: [Option<Stored>; 2],
    /// The encodings at QoS 1 and 2.
    acked: [AckedRun; 4],
    /// Copies of the run's messages, for flows that may be sent again; empty: there are none yet.
    stored: Vec<Stored>,
}

/// An encoded run that is the same for all its receivers but for the packet ids.
#[derive(Debug, Default)]
struct AckedRun {
    bytes: Vec<u8>,
    /// Where the packet ids stand.
    id_indices: Vec<usize>,
}

impl EncodedRun {
    pub(super) fn begin(&mut self) {
        self.plain.iter_mut().for_each(Vec::clear);
        self.acked.iter_mut().for_each(|run| {
            run.bytes.clear();
            run.id_indices.clear();
        });
    }

    pub(super) fn end(&mut self) {
        self.shared = [None, None];
        self.stored.clear();
    }

    /// Stored copies of all messages of a run. Until `end`, all receivers share them.
    fn store(&mut self, run: &Run<'_>, gauge: &Gauge) -> &[Stored] {
        if self.stored.is_empty() {
            let stored = run.messages().map(|message| Stored::from_message(&message, gauge));
            self.stored.extend(stored);
        }
        &self.stored
    }
}

impl Context<'_> {
    /// Whether the shard may keep each message of a run in one more flow.
    fn may_store_run(&self, run: &Run<'_>) -> bool {
        let size = match self.encoded.runs.stored.is_empty() {
            true => run.bytes().map(|bytes| stored_size(bytes.len())).sum(),
            false => 0,
        };
        let needed = size + run.count() * ENTRY_SIZE;
        self.stored.bytes() + needed <= self.limits.shard_stored_bytes_max
    }
}

impl Session {
    /// As `send_plain`, for each message of a run: all of them or none.
    #[inline]
    pub fn send_run(
        &self,
        connection: &mut Connection,
        context: &mut Context<'_>,
        run: &Run<'_>,
    ) -> bool {
        let is_sent = !self.has_waiting() && run.is_taken(connection, context.limits);
        if is_sent {
            append(connection, context, run);
        }
        is_sent
    }

    /// As `send_run`, at QoS 1 or 2.
    #[inline]
    pub fn send_acked_run(
        &mut self,
        connection: &mut Connection,
        context: &mut Context<'_>,
        run: &Run<'_>,
        qos: QoS,
    ) -> bool {
        let is_kept = self.is_resumable();
        let may_send = self.queue.is_empty()
            && run.is_taken(connection, context.limits)
            && (!is_kept || context.may_store_run(run))
            && self.inflight.has_room_for(run.count(), connection.quota);
        if !may_send {
            return false;
        }
        let first_id = if is_kept {
            let stored = context.encoded.runs.store(run, context.stored);
            self.inflight.send_run(qos, stored.iter().cloned().map(Some))
        } else {
            self.inflight.send_run(qos, (0..run.count()).map(|_| None))
        };
        append_acked(connection, context, run, qos, first_id);
        true
    }
}

impl Parcel for Run<'_> {
    #[inline(always)]
    fn fits(&self, connection: &Connection, limits: &Limits) -> bool {
        connection.has_room_for(encoded_size_max(self), limits)
            && self.largest() + HEAD_SIZE_MAX <= connection.packet_size_max as usize
    }
}

/// The most bytes that the encoded messages of a run take.
#[inline]
fn encoded_size_max(run: &Run<'_>) -> usize {
    run.size() + run.count() * HEAD_SIZE_MAX
}

/// Encodes a run at QoS 0, or copies what was encoded for another receiver of the same version.
#[inline]
fn append(connection: &mut Connection, context: &mut Context<'_>, run: &Run<'_>) {
    count(context, run);
    let (topic_size, properties_size) = run.front_sizes();
    let version = connection.version;
    let encode = |out: &mut Vec<u8>| {
        out.reserve(encoded_size_max(run));
        for bytes in run.bytes() {
            codec::encode_plain_publish(version, false, bytes, topic_size, properties_size, out);
        }
    };
    if !context.encoded.is_on() {
        connection.output.append(context.pool, encode);
        return;
    }
    let index = usize::from(version == ProtocolVersion::V5);
    let EncodedRun { plain, shared, .. } = &mut context.encoded.runs;
    let (encoded, shared) = (&mut plain[index], &mut shared[index]);
    if encoded.is_empty() {
        encode(encoded);
        let may_share = encoded.len() >= SHARED_SIZE_MIN
            && context.stored.bytes() + stored_size(encoded.len())
                <= context.limits.shard_stored_bytes_max;
        *shared = may_share.then(|| Stored::of_packets(encoded, context.stored));
    }
    match shared {
        Some(shared) => connection.output.append_payload(shared),
        None => {
            connection.output.append(context.pool, |out| out.extend_from_slice(encoded));
        }
    }
}

/// As `append`, at QoS 1 or 2. `first_id` is the packet id of the first message; the ids of the others follow.
#[inline]
fn append_acked(
    connection: &mut Connection,
    context: &mut Context<'_>,
    run: &Run<'_>,
    qos: QoS,
    first_id: PacketId,
) {
    count(context, run);
    let (topic_size, properties_size) = run.front_sizes();
    let version = connection.version;
    let encode = |message: &[u8], id: PacketId, out: &mut Vec<u8>| {
        let (topic, behind) = message.split_at_checked(topic_size).unwrap_or_default();
        let (properties, payload) = behind.split_at_checked(properties_size).unwrap_or_default();
        let asked = (qos, false, id);
        codec::encode_plain_acked_publish(version, asked, topic, properties, payload, out)
    };
    if !context.encoded.is_on() {
        connection.output.append(context.pool, |out| {
            out.reserve(encoded_size_max(run));
            for (message, id) in run.bytes().zip(first_id.from_here()) {
                encode(message, id, out);
            }
        });
        return;
    }
    let variant =
        usize::from(version == ProtocolVersion::V5) + 2 * usize::from(qos == QoS::ExactlyOnce);
    let AckedRun { bytes, id_indices } = &mut context.encoded.runs.acked[variant];
    if bytes.is_empty() {
        id_indices.extend(run.bytes().map(|message| encode(message, PacketId::MIN, bytes)));
    }
    connection.output.append(context.pool, |out| {
        let start = out.len();
        out.extend_from_slice(bytes);
        let out = &mut out[start..];
        for (place, id) in id_indices.iter().zip(first_id.from_here()) {
            out[*place..*place + 2].copy_from_slice(&id.get().to_be_bytes());
        }
    });
}

#[inline(always)]
fn count(context: &mut Context<'_>, run: &Run<'_>) {
    let (topic_size, properties_size) = run.front_sizes();
    let count = run.count();
    context.counters.publishes_sent += count as u64;
    context.counters.packets_sent += count as u64;
    context.counters.publish_bytes_sent +=
        (run.size() - count * (topic_size + properties_size)) as u64;
}
