//! One listening socket and how it goes on when the process has run out of descriptors.

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;

use socket2::SockRef;

use crate::time::Instant;

/// The first wait after a failed accept; each further failure doubles it.
const PAUSE_MIN_MS: u64 = 50;
const PAUSE_MAX_MS: u64 = 1_600;

pub(super) struct Acceptor {
    pub fd: OwnedFd,
    state: State,
    pause_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be begun with the next wait.
    Due,
    /// The kernel holds a multishot accept, or tells when somebody connects.
    Armed,
    /// Failed; tried again at this time.
    Paused(Instant),
    /// The kernel holds an accept that was cancelled, or holds none.
    Stopped,
}

impl Acceptor {
    pub(super) fn new(fd: OwnedFd) -> Acceptor {
        Acceptor { fd, state: State::Due, pause_ms: PAUSE_MIN_MS }
    }

    /// `true` when accepting is to begin, or to go on, now.
    pub(super) fn arm(&mut self, now: Instant) -> bool {
        let due = match self.state {
            State::Due => true,
            State::Paused(until) => until <= now,
            State::Armed | State::Stopped => false,
        };
        if due {
            self.state = State::Armed;
        }
        due
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Paused(until) => Some(until),
            _ => None,
        }
    }

    pub(super) fn accepted(&mut self) {
        self.pause_ms = PAUSE_MIN_MS;
    }

    /// The accept has ended by itself.
    pub(super) fn ended(&mut self) {
        if self.state == State::Armed {
            self.state = State::Due;
        }
    }

    /// The accept has failed. `true` when it pauses: for a connection that was reset in the queue there is no need.
    pub(super) fn failed(&mut self, now: Instant, error: &io::Error) -> bool {
        if self.state == State::Stopped {
            return false;
        }
        if error.raw_os_error() == Some(libc::ECONNABORTED) {
            self.state = State::Due;
            return false;
        }
        self.state = State::Paused(now.plus_ms(self.pause_ms));
        self.pause_ms = (self.pause_ms * 2).min(PAUSE_MAX_MS);
        true
    }

    /// From here on nobody connects: whoever tries is refused at once, and may go elsewhere. `true` when the kernel's accept
    /// has to be cancelled.
    pub(super) fn stop(&mut self) -> bool {
        let _ = SockRef::from(&self.fd).shutdown(Shutdown::Read);
        std::mem::replace(&mut self.state, State::Stopped) == State::Armed
    }

    /// Begun, neither paused nor stopped.
    pub(super) fn is_armed(&self) -> bool {
        self.state == State::Armed
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.state == State::Stopped
    }
}
