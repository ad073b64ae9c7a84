//! How a run ends: an auditor reads all retained messages, then all clients go, or the broker shuts down.

use crate::client::Client;
use crate::memory::counted;
use crate::world::{ROUNDS_MAX, World};

impl World {
    /// A client that comes last finds the newest retained message of every topic, once.
    pub(crate) fn audit(&mut self) {
        if !self.env.scenario.is_ample {
            return;
        }
        self.clients.push(Client::auditor(self.clients.len(), &mut self.env.dice));
        self.settle();
        let auditor = self.clients.last().and_then(Client::incarnation);
        let found = self.env.ledger.audit(auditor.expect("the auditor is connected"));
        self.env.coverage.audited += found as u64;
        // More than a shard hands out at once.
        self.env.coverage.fetched_in_chunks += u64::from(found > 64 * self.hosts.len());
    }

    /// The broker goes: nothing is read any more, 5.0 clients are told, no will is published.
    pub(crate) fn shut_down(&mut self) {
        self.env.is_shutting_down = true;
        for client in &mut self.clients {
            client.withdraw_will(&mut self.env);
        }
        for host in &mut self.hosts {
            counted(|| host.shard.begin_shutdown(self.env.now));
        }
        self.settle();
        for host in &mut self.hosts {
            let is_over = counted(|| host.shard.part_from_clients(self.env.now));
            self.env.coverage.delivered_at_the_end += u64::from(is_over);
        }
        self.settle();
        for host in &mut self.hosts {
            counted(|| host.shard.disconnect_all(self.env.now));
        }
        self.settle();
        self.env.ledger.check_counts();
        for client in &self.clients {
            assert!(client.has_left(), "{} stays:\n{}", client.describe(), self.describe());
        }
        for host in &self.hosts {
            let gauges = host.shard.gauges();
            assert!(!host.has_sockets(), "{:?}", host.sockets());
            assert_eq!((gauges.connections, gauges.connected_sessions), (0, 0), "{gauges:?}");
            assert_eq!((gauges.output_bytes, gauges.frame_bytes), (0, 0), "{gauges:?}");
            assert_eq!((gauges.arena_held, gauges.arena_used), (0, 0), "{gauges:?}");
        }
        self.env.coverage.shutdowns += 1;
    }

    /// All clients go; then all time that anything waits for passes.
    pub(crate) fn leave(&mut self) {
        for client in &mut self.clients {
            client.leave(&mut self.env);
        }
        self.lose_abandoned();
        let limits = &self.env.scenario.limits;
        let end = self.env.now.plus_s(u64::from(limits.session_expiry_max_s) + 60);
        let mut rounds = 0;
        loop {
            self.round();
            rounds += 1;
            assert!(rounds < ROUNDS_MAX, "it does not end:\n{}", self.describe());
            if !self.is_at_rest() {
                continue;
            }
            let next = self.hosts.iter().filter_map(|host| host.shard.poll_timeout()).min();
            let has_sessions = self.hosts.iter().any(|host| {
                let gauges = host.shard.gauges();
                gauges.sessions + gauges.connections > 0
            });
            match next {
                Some(next) if next <= end && has_sessions => {
                    assert!(self.env.now <= end, "what was due is not done");
                    // Periodic work goes on for ever: in long strides.
                    let stride = self.env.now.plus_ms(30_000);
                    self.env.now = next.max(stride);
                    rounds = 0;
                }
                _ => return,
            }
        }
    }

    pub(crate) fn check_nothing_is_left(&mut self) {
        self.env.ledger.check_counts();
        for host in &mut self.hosts {
            assert!(!host.has_sockets(), "{:?}", host.sockets());
            let gauges = host.shard.gauges();
            let left = [
                ("connections", gauges.connections),
                ("sessions", gauges.sessions),
                ("connected", gauges.connected_sessions),
                ("subscriptions", gauges.subscriptions),
                ("groups", gauges.shared_groups),
                ("backlog", gauges.group_backlog),
                ("stored", gauges.stored_bytes),
                ("output", gauges.output_bytes),
                ("frames", gauges.frame_bytes),
                ("wills", gauges.will_bytes),
                ("arena", gauges.arena_used),
                ("interest", gauges.interest_filters),
            ];
            for (name, count) in left {
                assert_eq!(count, 0, "{name} are left: {gauges:?}");
            }
            assert_eq!(host.shard.counters().stale_reads, 0);
        }
    }
}
