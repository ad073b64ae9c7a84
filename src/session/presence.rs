//! A session's client: connected, or away for a time that has a bound.

use super::{ConnectionId, HeldAck, Profile, Session, Ticket, Will};
use crate::codec::PacketId;
use crate::time::{Deadline, Instant};

impl Session {
    /// Its client has connected: nothing of it ends by time until the client leaves.
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

    /// The session's connection is gone. Its time begins to run, and so does that of its will.
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
        if let Some(acks) = &mut self.held_acks {
            acks.disconnect();
        }
        if let Some(fetch) = &mut self.fetch {
            fetch.disconnect();
        }
        if !self.is_resumable() || self.received_qos2.is_empty() {
            self.received_qos2.clear(self.inflight.budget());
        }
    }

    /// The session ends: nothing of it waits for its time.
    pub fn stop_clocks(&mut self) {
        self.ends_at = Deadline::NONE;
        self.will_at = Deadline::NONE;
    }

    /// `None`: its client is away.
    #[inline]
    pub fn connection(&self) -> Option<ConnectionId> {
        self.connection
    }

    /// Seconds the session outlives its connection; 0: not at all; `u32::MAX`: for ever.
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

    /// When it ends or its will is published, whatever is first; `None`: its client is there, or nothing ever comes.
    pub fn deadline(&self) -> Option<Instant> {
        match (self.ends_at.get(), self.will_at.get()) {
            (Some(end), Some(will)) => Some(end.min(will)),
            (end, will) => end.or(will),
        }
    }

    /// The timer that is set for its deadline.
    pub fn timer_mut(&mut self) -> &mut Option<Instant> {
        &mut self.timer
    }

    /// Its time has passed.
    pub fn is_over(&self, now: Instant) -> bool {
        self.ends_at.get().is_some_and(|at| at <= now)
    }

    pub fn will(&self) -> Option<&Will> {
        self.will.as_deref()
    }

    pub fn will_mut(&mut self) -> Option<&mut Will> {
        self.will.as_deref_mut()
    }

    /// The will, which is published by whoever takes it, or is forgotten.
    pub fn take_will(&mut self) -> Option<Box<Will>> {
        self.will.take()
    }

    /// The will, if its time has come.
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

    /// QoS 2 messages of the client that are unfinished.
    #[inline(always)]
    pub fn received_count(&self) -> usize {
        self.received_qos2.len()
    }

    /// Remembers a QoS 2 message of the client, for which `may_receive_qos2` has found room.
    #[inline(always)]
    pub fn note_received(&mut self, packet_id: PacketId) {
        self.received_qos2.insert(packet_id);
    }

    /// A QoS 2 message of the client is finished; whether it was known.
    #[inline]
    pub fn end_received(&mut self, packet_id: PacketId) -> bool {
        self.received_qos2.remove(packet_id)
    }

    /// Answers to its publishes wait for a bridge's log.
    #[inline]
    pub fn has_held_acks(&self) -> bool {
        self.held_acks.as_ref().is_some_and(|acks| !acks.0.is_empty())
    }

    /// The answer to a QoS 2 message waits for a bridge's log.
    pub fn holds_ack_of(&self, packet_id: PacketId) -> bool {
        self.held_acks.as_ref().is_some_and(|acks| acks.has_qos2(packet_id))
    }

    /// Lets an answer wait; whether the session is to be listed among those with answers that wait.
    pub fn hold_ack(&mut self, ack: HeldAck) -> bool {
        let is_new = self.held_acks.is_none();
        self.held_acks.get_or_insert_default().0.push_back(ack);
        is_new
    }

    /// The session is listed among those with answers that wait.
    pub fn is_ack_listed(&self) -> bool {
        self.held_acks.is_some()
    }

    /// The first answer that waits, if `is_written` says so of its ticket. Where none waits any more, the session is no longer to be
    /// listed.
    pub fn next_held_ack(&mut self, is_written: impl FnOnce(Ticket) -> bool) -> Option<HeldAck> {
        let acks = self.held_acks.as_mut()?;
        let Some(ack) = acks.0.front() else {
            self.held_acks = None;
            return None;
        };
        is_written(ack.ticket).then(|| acks.0.pop_front())?
    }

    /// How many answers wait.
    pub fn held_ack_count(&self) -> usize {
        self.held_acks.as_ref().map_or(0, |acks| acks.0.len())
    }
}
