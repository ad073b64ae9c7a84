//! A session's client: connected, or away for a time that has a bound.

use super::{ConnectionId, DeferredAck, Profile, Session, Ticket, Will};
use crate::codec::PacketId;
use crate::time::{Deadline, Instant};

impl Session {
    /// Notes that the client has connected: nothing of the session ends by time until the client leaves.
    pub fn connect(
        &mut self,
        id: ConnectionId,
        expiry_s: u32,
        will: Option<Box<Will>>,
        profile: Option<Box<Profile>>,
    ) {
        self.connection = Some(id);
        self.expiry_s = expiry_s;
        self.will = will;
        self.profile = profile;
        self.stop_clocks();
        self.recount();
    }

    /// Notes that the session's connection is gone. The session's time begins to run, and so does the will's.
    pub fn part(&mut self, now: Instant) {
        self.disconnect();
        let ends_at = (self.expiry_s != u32::MAX).then(|| now.plus_s(u64::from(self.expiry_s)));
        let will_at = self.will.as_ref().map(|will| now.plus_s(u64::from(will.delay_s)));
        self.ends_at = ends_at.into();
        self.will_at = will_at.into();
    }

    pub(super) fn disconnect(&mut self) {
        self.connection = None;
        self.inflight.disconnect();
        if let Some(acks) = &mut self.deferred_acks {
            acks.disconnect();
        }
        if let Some(fetch) = &mut self.fetch {
            fetch.disconnect();
        }
        if !self.is_resumable() || self.received_qos2.is_empty() {
            self.received_qos2.clear(self.inflight.budget());
        }
    }

    /// Stops the clocks of a session that ends.
    pub fn stop_clocks(&mut self) {
        self.ends_at = Deadline::NONE;
        self.will_at = Deadline::NONE;
    }

    /// The client's connection; `None`: the client is away.
    #[inline]
    pub fn connection(&self) -> Option<ConnectionId> {
        self.connection
    }

    /// How many seconds the session outlives its connection; 0: not at all; `u32::MAX`: for ever.
    pub fn expiry_s(&self) -> u32 {
        self.expiry_s
    }

    pub fn set_expiry_s(&mut self, expiry_s: u32) {
        self.expiry_s = expiry_s;
    }

    /// Whether anything of this session outlives its connection.
    pub fn is_resumable(&self) -> bool {
        self.expiry_s > 0
    }

    /// When the session ends or its will is published, whichever is first; `None`: the client is connected, or neither
    /// happens.
    pub fn deadline(&self) -> Option<Instant> {
        match (self.ends_at.get(), self.will_at.get()) {
            (Some(end), Some(will)) => Some(end.min(will)),
            (end, will) => end.or(will),
        }
    }

    /// The timer that is set for the session's deadline.
    pub fn timer_mut(&mut self) -> &mut Option<Instant> {
        &mut self.timer
    }

    /// Whether the time of the session has passed.
    pub fn is_over(&self, now: Instant) -> bool {
        self.ends_at.get().is_some_and(|at| at <= now)
    }

    pub fn will(&self) -> Option<&Will> {
        self.will.as_deref()
    }

    pub fn will_mut(&mut self) -> Option<&mut Will> {
        self.will.as_deref_mut()
    }

    /// Takes the will: the caller publishes it, or it is forgotten.
    pub fn take_will(&mut self) -> Option<Box<Will>> {
        self.will.take()
    }

    /// Takes the will if its time has come.
    pub fn take_due_will(&mut self, now: Instant) -> Option<Box<Will>> {
        self.will_at.get().filter(|at| *at <= now)?;
        self.will_at = Deadline::NONE;
        self.will.take()
    }

    /// Whether a QoS 2 message of the client is unfinished.
    #[inline(always)]
    pub fn has_received(&self, packet_id: PacketId) -> bool {
        self.received_qos2.contains(packet_id)
    }

    /// How many QoS 2 messages of the client are unfinished.
    #[inline(always)]
    pub fn received_count(&self) -> usize {
        self.received_qos2.len()
    }

    /// Remembers a QoS 2 message of the client. `may_receive_qos2` has found room for it.
    #[inline(always)]
    pub fn note_received(&mut self, packet_id: PacketId) {
        self.received_qos2.insert(packet_id);
    }

    /// Ends a QoS 2 message of the client; returns whether it was remembered.
    #[inline]
    pub fn end_received(&mut self, packet_id: PacketId) -> bool {
        self.received_qos2.remove(packet_id)
    }

    /// Whether answers to the client's publishes wait for a bridge's log.
    #[inline]
    pub fn has_deferred_acks(&self) -> bool {
        self.deferred_acks.as_ref().is_some_and(|acks| !acks.0.is_empty())
    }

    /// Whether the answer to a QoS 2 message waits for a bridge's log.
    pub fn defers_ack_of(&self, packet_id: PacketId) -> bool {
        self.deferred_acks.as_ref().is_some_and(|acks| acks.has_qos2(packet_id))
    }

    /// Lets an answer wait; returns whether the session is to be listed among those whose answers wait.
    pub fn defer_ack(&mut self, ack: DeferredAck) -> bool {
        let is_new = self.deferred_acks.is_none();
        self.deferred_acks.get_or_insert_default().0.push_back(ack);
        is_new
    }

    /// Whether the session is listed among those whose answers wait.
    pub fn is_ack_listed(&self) -> bool {
        self.deferred_acks.is_some()
    }

    /// Takes the first answer that waits, if its ticket `is_written`. When no answer waits any more, the session is no
    /// longer to be listed.
    pub fn next_deferred_ack(
        &mut self,
        is_written: impl FnOnce(Ticket) -> bool,
    ) -> Option<DeferredAck> {
        let acks = self.deferred_acks.as_mut()?;
        let Some(ack) = acks.0.front() else {
            self.deferred_acks = None;
            return None;
        };
        is_written(ack.ticket).then(|| acks.0.pop_front())?
    }

    /// How many answers wait.
    pub fn deferred_ack_count(&self) -> usize {
        self.deferred_acks.as_ref().map_or(0, |acks| acks.0.len())
    }
}
