//! Events of connections: all of them for a debug log, while one is kept; and notices, which an operator should hear in
//! any case, a few of each kind at a time.
//!
//! A shard tells five notices of a kind and limit within 10 s and counts the rest; of dropped messages it keeps one example
//! for each reason (`session::dropped`). The turn that tells of a connection asks for its address before the socket is
//! closed.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;

use super::ConnectionId;
use crate::printable::{Quoted, counted};
use crate::time::Instant;

/// How many events are kept until they are polled; the oldest go first.
const EVENTS_MAX: usize = 1024;

/// So many notices of a kind are told within this time; the rest is counted.
const NOTICES_MAX: u32 = 5;
const NOTICES_MS: u64 = 10_000;

/// The kind of a notice: its subject, and the keys that set the limit that was met (empty: there was none).
pub(super) type NoticeKind = (About, &'static str);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Connected { client_id: Box<str>, peer: Option<SocketAddr>, version: u8, is_resumed: bool },
    Refused { peer: Option<SocketAddr>, why: Box<str> },
    Disconnected { client_id: Box<str>, why: Box<str> },
    SessionEnded { client_id: Box<str> },
    Noticed(Box<Notice>),
}

/// A fact that an operator should hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub about: About,
    /// The keys that set the limit that was met; empty: there was none.
    pub keys: &'static str,
    /// `None`: the connection was never one of this shard, or is not known.
    pub connection: Option<ConnectionId>,
    /// Empty: there is no client id.
    pub client_id: Box<str>,
    pub user_name: Option<Box<str>>,
    pub peer: Option<SocketAddr>,
    pub what: Box<str>,
    /// How many notices of this kind were not told since the last one.
    pub held_back: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// A connection that does not speak MQTT, or that was refused before its CONNECT.
    Stranger,
    /// A CONNECT that was refused.
    Login,
    /// A subscription that was refused.
    Subscription,
    /// A connection that ended because of what its client did.
    Client,
    /// A message that a client sent and that went nowhere.
    Message,
    /// A retained message that was not kept.
    Retained,
    /// A message that did not reach a receiver.
    Delivery,
    /// A client that is not read for a while.
    Pause,
    /// Bytes of a client that were not read.
    Cut,
    /// A client that is a bridge.
    Bridge,
    /// A session that ended to make room for another.
    Session,
}

impl Notice {
    pub fn new(
        about: About,
        connection: impl Into<Option<ConnectionId>>,
        client_id: &str,
        what: &str,
    ) -> Notice {
        Notice {
            about,
            keys: "",
            connection: connection.into(),
            client_id: client_id.into(),
            user_name: None,
            peer: None,
            what: what.into(),
            held_back: 0,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.about {
            About::Stranger => "refused a connection",
            About::Login => "refused",
            About::Subscription => "refused a subscription of",
            About::Client => "closed",
            About::Message => "refused a message of",
            About::Retained => "did not keep a retained message of",
            About::Delivery => "dropped a message for",
            About::Pause => "paused",
            About::Cut => "cut off",
            About::Bridge => "bridge:",
            About::Session => "ended the session of",
        })?;
        match (&*self.client_id, self.about) {
            (_, About::Stranger) => {}
            ("", About::Retained | About::Delivery) => f.write_str(" some client")?,
            ("", _) => f.write_str(" a client without an id")?,
            (client_id, _) => write!(f, " client {}", Quoted(client_id))?,
        }
        if let Some(user_name) = &self.user_name {
            write!(f, " with user name {}", Quoted(user_name))?;
        }
        write!(f, "{}: {}", From(&self.peer), self.what)?;
        if !self.keys.is_empty() {
            write!(f, "; see {}", self.keys)?;
        }
        match self.held_back {
            0 => Ok(()),
            count => write!(f, " ({} since the last line)", counted(count, "more like it")),
        }
    }
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
            Event::Noticed(notice) => notice.fmt(f),
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
    /// Connections of notices that wait, whose addresses the world was not asked for yet.
    nameless: VecDeque<ConnectionId>,
    /// The notices told of each kind. There are no more kinds than pairs of a subject and a limit.
    told: Vec<(NoticeKind, Told)>,
}

/// How many notices of a kind were told, and since when.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    since: Instant,
    count: u32,
    held_back: u64,
}

impl Told {
    /// How many notices were held back before this one; `None`: this one is held back, too.
    fn ask(&mut self, now: Instant) -> Option<u64> {
        if now.ms_since(self.since) >= NOTICES_MS {
            (self.since, self.count) = (now, 0);
        }
        if self.count == NOTICES_MAX {
            self.held_back += 1;
            return None;
        }
        self.count += 1;
        Some(std::mem::take(&mut self.held_back))
    }
}

impl Events {
    pub(super) fn set(&mut self, is_on: bool) {
        self.is_on = is_on;
        self.waiting.clear();
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// `make` is called only while events are kept.
    pub(super) fn push(&mut self, make: impl FnOnce() -> Event) {
        if self.is_on {
            self.keep(make());
        }
    }

    /// `make` is called only if the notice is told.
    pub(super) fn notice(&mut self, now: Instant, kind: NoticeKind, make: impl FnOnce() -> Notice) {
        let place = self.told.iter().position(|(known, _)| *known == kind).unwrap_or_else(|| {
            self.told.push((kind, Told::default()));
            self.told.len() - 1
        });
        let Some(held_back) = self.told[place].1.ask(now) else { return };
        let notice = Notice { held_back, keys: kind.1, ..make() };
        debug_assert_eq!(notice.about, kind.0);
        if let (None, Some(connection)) = (notice.peer, notice.connection)
            && self.nameless.len() < EVENTS_MAX
        {
            self.nameless.push_back(connection);
        }
        self.keep(Event::Noticed(Box::new(notice)));
    }

    fn keep(&mut self, event: Event) {
        if self.waiting.len() >= EVENTS_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(event);
    }

    /// A connection whose address the world is to tell before it is closed.
    pub(super) fn poll_nameless(&mut self) -> Option<ConnectionId> {
        self.nameless.pop_front()
    }

    pub(super) fn name(&mut self, connection: ConnectionId, peer: Option<SocketAddr>) {
        for event in &mut self.waiting {
            if let Event::Noticed(notice) = event
                && notice.connection == Some(connection)
            {
                notice.peer = notice.peer.or(peer);
            }
        }
    }

    pub(super) fn poll(&mut self) -> Option<Event> {
        self.waiting.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(about: About, client_id: &str) -> Notice {
        let connection = ConnectionId { index: 1, generation: 1 };
        Notice::new(about, connection, client_id, "bad user name or password")
    }

    #[test]
    fn a_notice_is_told_a_few_times_then_counted() {
        let mut events = Events::default();
        let mut told = Vec::new();
        for at in [0, 1, 2, 3, 4, 5, 6, 9_999, 10_000] {
            let kind = (About::Login, "");
            events.notice(Instant(20_000 + at), kind, || notice(About::Login, "c"));
            while let Some(event) = events.poll() {
                told.push(event.to_string());
            }
        }
        assert_eq!(told.len(), 6, "{told:?}");
        assert_eq!(told[0], "refused client 'c': bad user name or password");
        assert!(told[5].ends_with("password (3 more like it since the last line)"), "{told:?}");
        // Another kind is counted apart, and so is another limit.
        for _ in 0..9 {
            events.notice(Instant(20_005), (About::Login, "sessions_max"), || {
                notice(About::Login, "d")
            });
        }
        for _ in 0..5 {
            let told = events.poll().expect("it is told").to_string();
            assert_eq!(told, "refused client 'd': bad user name or password; see sessions_max");
        }
        events.notice(Instant(20_005), (About::Client, ""), || notice(About::Client, ""));
        let event = events.poll().expect("it is told");
        assert_eq!(event.to_string(), "closed a client without an id: bad user name or password");
    }

    #[test]
    fn a_notice_gets_the_address_of_its_connection() {
        let mut events = Events::default();
        let notice = Notice { user_name: Some("bob".into()), ..notice(About::Login, "c") };
        let connection = notice.connection;
        events.notice(Instant(20_000), (About::Login, ""), || notice);
        assert_eq!(events.poll_nameless(), connection);
        let connection = connection.expect("it has one");
        events.name(connection, Some(([10, 0, 0, 1], 7).into()));
        let told = events.poll().expect("it is told").to_string();
        assert!(
            told.starts_with("refused client 'c' with user name 'bob' from 10.0.0.1:7: "),
            "{told}"
        );
    }
}
