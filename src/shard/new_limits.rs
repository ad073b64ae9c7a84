//! New limits for a shard that runs, taken between two turns.
//!
//! A limit holds from the next look at it on. What is above a limit that fell stays until it goes by itself, or loses by
//! the means that a full budget has in any case: the store sheds the absent and makes publishers wait, packets of which a
//! part has arrived lose the slowest, unfinished CONNECTs lose the oldest. The other budgets only do not grow. What waits
//! because of a limit that rose goes on.
//!
//! A 5.0 client relies on what its CONNACK said, and is closed for passing it. So a connection keeps the limits of
//! `Announced` that held when it was opened, as far as new ones are lower. What a client was granted at its CONNECT (keep
//! alive, session expiry, topic aliases, window) stays its own until its next CONNECT.

use super::{ConnectionId, Shard};
use crate::limits::Limits;
use crate::session::{Connection, ConnectionState, Park};
use crate::time::Instant;

/// The limits of which CONNACK speaks and whose breach ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    pub packet_size_max: usize,
    pub receive_max: u16,
    pub qos_max: u8,
    pub retain_available: bool,
    pub wildcard_available: bool,
    pub subscription_ids_available: bool,
    pub shared_available: bool,
}

impl Announced {
    fn of(limits: &Limits) -> Announced {
        Announced {
            packet_size_max: limits.packet_size_max,
            receive_max: limits.receive_max,
            qos_max: limits.qos_max,
            retain_available: limits.retain_available(),
            wildcard_available: limits.wildcard_available,
            subscription_ids_available: limits.subscription_ids_available,
            shared_available: limits.shared_available,
        }
    }

    /// Of each limit the laxer one.
    fn or(self, other: Announced) -> Announced {
        Announced {
            packet_size_max: self.packet_size_max.max(other.packet_size_max),
            receive_max: self.receive_max.max(other.receive_max),
            qos_max: self.qos_max.max(other.qos_max),
            retain_available: self.retain_available || other.retain_available,
            wildcard_available: self.wildcard_available || other.wildcard_available,
            subscription_ids_available: self.subscription_ids_available
                || other.subscription_ids_available,
            shared_available: self.shared_available || other.shared_available,
        }
    }
}

impl Shard {
    /// Takes new limits, from which all that depends on limits is derived again. While the process is short of memory they
    /// hold as far as the shortage allows. Panics where the limits contradict each other or the sizes of the shard: whoever
    /// reads them from an operator asks `Limits::contradictions` before.
    pub fn set_limits(&mut self, now: Instant, limits: Limits) {
        assert_eq!(limits.contradiction(&self.sizes), None, "limits hold together");
        // What was admitted goes by the limits of that moment, and nothing that is derived stands for it any more.
        self.run_stages(now);
        let is_memory_short = self.is_memory_short();
        let before = match self.memory.limits_with_memory.take() {
            Some(configured) => *configured,
            None => self.limits.clone(),
        };
        if is_memory_short {
            self.memory.limits_with_memory = Some(Box::new(limits.clone()));
        }
        self.limits = limits;
        self.keep_announced(&before);
        self.derive_guards(&before);
        self.flow.arena.set_large_message_size(self.limits.large_message_size);
        self.flow.router.set_bytes_max(self.limits.metadata_routes_max());
        if is_memory_short {
            self.lower_limits();
        }
        self.memory.metadata.set_bounds(&self.limits, self.peers.count());
        self.bound_held();
        if before.sys_interval_ms != self.limits.sys_interval_ms {
            self.schedule_sys(now);
        }
        if before.packet_time_max_ms != self.limits.packet_time_max_ms {
            self.restart_packet_timer();
        }
        self.check_input(now);
        self.check_store(now);
        self.wake_parked(now, &before);
    }

    /// Connections that are open keep what they were told, or would have been.
    fn keep_announced(&mut self, before: &Limits) {
        let (old, new) = (Announced::of(before), Announced::of(&self.limits));
        if old.or(new) == new {
            return;
        }
        let kept = self.connections.announced.map_or(old, |kept| kept.or(old));
        for id in self.clients.connection_ids() {
            if let Some(open) = self.clients.live_connection(id).open_mut() {
                let was_older = std::mem::replace(&mut open.is_older_than_limits, true);
                self.connections.older_count += usize::from(!was_older);
            }
        }
        self.connections.announced = (self.connections.older_count > 0).then_some(kept);
    }

    /// An open connection that keeps what it was told has ended. With the last one nothing is kept any more.
    pub(super) fn end_older(&mut self) {
        self.connections.older_count -= 1;
        if self.connections.older_count == 0 {
            self.connections.announced = None;
        }
    }

    /// What a connection was told of limits, or may do by now.
    #[cold]
    pub(super) fn announced_to(&mut self, id: ConnectionId) -> Announced {
        let new = Announced::of(&self.limits);
        let open = self.clients.connection(id).and_then(Connection::open_mut);
        let is_older = open.is_some_and(|open| open.is_older_than_limits);
        match self.connections.announced {
            Some(kept) if is_older => kept.or(new),
            _ => new,
        }
    }

    #[inline(always)]
    pub(super) fn packet_size_max_of(&mut self, id: ConnectionId) -> usize {
        match self.connections.announced {
            None => self.limits.packet_size_max,
            Some(_) => self.announced_to(id).packet_size_max,
        }
    }

    #[inline(always)]
    pub(super) fn receive_max_of(&mut self, id: ConnectionId) -> usize {
        match self.connections.announced {
            None => usize::from(self.limits.receive_max),
            Some(_) => usize::from(self.announced_to(id).receive_max),
        }
    }

    fn derive_guards(&mut self, before: &Limits) {
        let limits = &self.limits;
        if rates_of(before) != rates_of(limits) {
            self.guards.rates.begin_anew(limits);
        }
        if limits.flapping_connects_max == 0 {
            self.guards.flapping.forget_all();
        }
        if before.turn_time_max_ms != limits.turn_time_max_ms {
            self.guards.lag = Default::default();
        }
    }

    /// Connections that wait because of a limit are looked at in the next turn. Those that wait for mail, for a store or for a
    /// word of another shard are looked at in each turn anyway.
    fn wake_parked(&mut self, now: Instant, before: &Limits) {
        let has_new_rates = rates_of(before) != rates_of(&self.limits);
        let output_size_max = self.limits.output_size_max;
        let has_more_output = before.output_size_max < output_size_max;
        if self.shutdown.has_begun || !(has_new_rates || has_more_output) {
            return;
        }
        for id in self.clients.connection_ids() {
            let Some(connection) = self.clients.connection(id) else { continue };
            if !matches!(connection.state, ConnectionState::Open(_)) {
                continue;
            }
            match connection.park {
                // Its pause is over, and a timer is done within the bounds of a turn.
                Some(Park::Rate) if has_new_rates => self.set_connection_timer(id, Some(now)),
                Some(Park::Output)
                    if has_more_output && connection.output.size() < output_size_max =>
                {
                    self.park(id, Park::Turn);
                }
                _ => {}
            }
        }
    }
}

fn rates_of(limits: &Limits) -> (u32, u32) {
    (limits.message_rate_max, limits.byte_rate_max)
}
