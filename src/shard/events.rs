//! What happened to connections, for a debug log; kept only while somebody asks for it.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;

use crate::printable::Quoted;

/// Events kept until they are polled; the oldest go first.
const EVENTS_MAX: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Connected { client_id: Box<str>, peer: Option<SocketAddr>, version: u8, is_resumed: bool },
    Refused { peer: Option<SocketAddr>, why: Box<str> },
    Disconnected { client_id: Box<str>, why: Box<str> },
    SessionEnded { client_id: Box<str> },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Connected { client_id, peer, version, is_resumed } => {
                let how = if *is_resumed { "resumed its session" } else { "connected" };
                let version =
                    ["3.1", "3.1.1", "5.0"][usize::from(version.saturating_sub(3)).min(2)];
                write!(f, "client {} {how} with MQTT {version}{}", Quoted(client_id), From(peer))
            }
            Event::Refused { peer, why } => write!(f, "refused a connection{}: {why}", From(peer)),
            Event::Disconnected { client_id, why } => {
                write!(f, "client {} disconnected: {why}", Quoted(client_id))
            }
            Event::SessionEnded { client_id } => {
                write!(f, "session of client {} ended", Quoted(client_id))
            }
        }
    }
}

struct From<'a>(&'a Option<SocketAddr>);

impl fmt::Display for From<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => write!(f, " from {address}"),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Events {
    is_on: bool,
    waiting: VecDeque<Event>,
}

impl Events {
    pub fn set(&mut self, is_on: bool) {
        self.is_on = is_on;
        self.waiting.clear();
    }

    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// `make` is called only when somebody asks for events.
    pub fn push(&mut self, make: impl FnOnce() -> Event) {
        if !self.is_on {
            return;
        }
        if self.waiting.len() >= EVENTS_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(make());
    }

    pub fn poll(&mut self) -> Option<Event> {
        self.waiting.pop_front()
    }
}
