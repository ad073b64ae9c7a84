//! The timers of a link: connecting, the answer to CONNECT, the keep alive.
//!
//! A process that stood still finds its timers due and the remote's answers in its socket. So a timer that would end the
//! connection first lets the socket be read.

use super::attempts::Failure;
use super::{Link, LinkEvent, Phase};
use crate::codec::{ReasonCode, encode_pingreq};
use crate::time::Instant;

/// A link whose time has passed is given up after this time, and this many calls, in which no byte arrived.
const LATE_MS: u64 = 100;
const LATE_CALLS: u32 = 10;

/// The keep alive of a link that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alive {
    pub since: Instant,
    /// The keep alive in ms; 0: none.
    pub keep_alive_ms: u64,
    pub sent_at: Instant,
    pub received_at: Instant,
    pub ping_at: Option<Instant>,
    /// Whether some message reached its end.
    pub was_of_use: bool,
}

/// How long the socket has been read after the remote's time had passed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lateness {
    since: Instant,
    calls: u32,
}

impl Link {
    /// Handles timers that are due. While `poll_timeout` names a time that has passed, the caller calls this again
    /// soon, and reads the socket between two calls.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.is_up() {
            self.suspicion.handle_timeout(now);
            while let Some(sequence) = self.postponed.poll_due(now) {
                self.events.push_back(LinkEvent::Due { sequence });
            }
        }
        let phase = self.phase;
        match phase {
            Phase::Connecting { deadline } | Phase::Greeting { deadline }
                if deadline <= now && self.is_given_up(now) =>
            {
                self.go_down(now, Failure::Passing, "it did not answer in time".to_owned());
            }
            Phase::Up(mut alive) if alive.due().is_some_and(|due| due <= now) => {
                if alive.ping_at.is_none() {
                    // [MQTT-3.1.2-20]
                    encode_pingreq(&mut self.output);
                    alive.ping_at = Some(now);
                    alive.sent_at = now;
                    self.phase = Phase::Up(alive);
                } else if self.is_given_up(now) {
                    let why = "it did not answer a ping in time";
                    self.fail(now, ReasonCode::KeepAliveTimeout, why);
                }
            }
            _ => {}
        }
    }

    /// The socket is not read just now, so the remote's silence says nothing.
    pub fn handle_unread(&mut self, now: Instant) {
        self.late = None;
        if let Phase::Up(alive) = &mut self.phase
            && let Some(ping_at) = &mut alive.ping_at
        {
            *ping_at = now;
        }
    }

    /// When `handle_timeout` or `poll_attempt` has work to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting => Some(self.attempts.next().1),
            Phase::Connecting { deadline } | Phase::Greeting { deadline } => Some(deadline),
            Phase::Up(alive) => {
                let others = [self.postponed.next_due(), self.suspicion.due()];
                alive.due().into_iter().chain(others.into_iter().flatten()).min()
            }
            Phase::Closed => None,
        }
    }

    fn is_given_up(&mut self, now: Instant) -> bool {
        let late = self.late.get_or_insert(Lateness { since: now, calls: 0 });
        late.calls += 1;
        late.calls > LATE_CALLS && now.ms_since(late.since) >= LATE_MS
    }
}

impl Alive {
    pub(super) fn due(&self) -> Option<Instant> {
        if self.keep_alive_ms == 0 {
            return None;
        }
        Some(match self.ping_at {
            Some(at) => at.plus_ms((self.keep_alive_ms / 2).max(1000)),
            // The ping leaves early enough for the remote's keep alive, and often enough to notice that the remote is
            // gone.
            None => self.sent_at.min(self.received_at).plus_ms(self.keep_alive_ms * 3 / 4),
        })
    }
}
