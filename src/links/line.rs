//! One connection of a bridge: its link, its socket, and what goes between link, log and shards.

mod arrivals;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::or;
use tracing::{info, warn};

use super::feed::Feed;
use super::intake::Asked;
use super::outbound::Outbound;
use super::refusals::Told;
use super::signal::Signal;
use super::{BridgesError, Hub, unix_ms};
use crate::bridge::{InMessage, Keeping, Link, LinkEvent, UNLOGGED, Wanted};
use crate::codec::ReasonCode;
use crate::config::bridge::{BridgeSettings, RemoteAddress};
use crate::executor::net::{self, Reader, Writer};
use crate::executor::{sleep, spawn};
use crate::routing::bridge_mail::{FromBridges, InboundBatch};
use crate::shard::ShardId;
use crate::time::Instant;

const READ_SIZE: usize = 64 << 10;
/// Messages of the remote that wait for a shard's lane; above it the remote is not read.
const INBOUND_BYTES_MAX: usize = 1 << 20;
/// Between two looks whether something has room.
const PAUSE: Duration = Duration::from_millis(2);
/// How long a link is read that cannot be written to any more.
const READ_ON: Duration = Duration::from_millis(500);
/// The longest sleep of a link.
const SLEEP_MAX: Duration = Duration::from_secs(1);

pub(crate) struct Line {
    pub bridge: u16,
    pub index: u16,
    name: String,
    pub outbound: Rc<Outbound>,
    pub told: Told,
    pub told_postponed: Told,
    pub(super) link: Rc<RefCell<Link>>,
    /// By shard.
    inbound: RefCell<HashMap<ShardId, InboundBatch>>,
    /// Of `inbound` and `arrivals`.
    inbound_bytes: Cell<usize>,
    /// Messages of the remote, with their numbers, that may be echoes of what is not known yet.
    arrivals: RefCell<VecDeque<(u64, InMessage)>>,
    /// Whether the operator was told what the remote makes of hop marks.
    keeping_told: Cell<Keeping>,
    pub(super) feed: Feed,
    /// PUBRECs to record before PUBREL.
    received: RefCell<Vec<u64>>,
    /// The link came up and has not been resumed: nothing may be sent.
    is_new: Cell<bool>,
    has_asked_for_retained: Cell<bool>,
    is_stopping: Cell<bool>,
    /// When the process ends: what waits in memory for the remote, and since when that is the same.
    standing: Cell<Option<(Waiting, Instant)>>,
    /// The link has gone down since the socket was connected.
    is_down: Cell<bool>,
    pub(super) status: RefCell<Status>,
}

/// Messages that no log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    unsent: usize,
    unacknowledged: usize,
}

/// What a connection says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub state: &'static str,
    pub is_connected: bool,
    /// Milliseconds since 1970.
    pub since_ms: u64,
    pub address: String,
    pub last_error: String,
    pub sent: u64,
    pub received: u64,
    pub refused: u64,
    /// Refused for now, each topic's first.
    pub postponed: u64,
    pub postponed_reason: Option<ReasonCode>,
    /// In the file of messages that nobody sends.
    pub aside: u64,
    /// Larger than the remote takes, or of no rule.
    pub unfit: u64,
    /// Messages of the remote that were larger than this broker takes.
    pub oversized: u64,
}

/// The number of a message of the remote says whose it is: the connection in the upper 16 bits.
pub(super) fn line_of(number: u64) -> usize {
    (number >> 48) as usize
}

impl Line {
    pub(crate) fn new(
        bridge: u16,
        index: u16,
        settings: &BridgeSettings,
        outbound: Rc<Outbound>,
    ) -> Result<Line, BridgesError> {
        let link = Link::new(settings, index, fastrand::u64(..));
        let mut link =
            link.map_err(|wrong| BridgesError::Rule(super::wrong_rule(&wrong, &settings.name)))?;
        if let Some(spool) = outbound.spool() {
            // An earlier process may have sent all that is there.
            link.recovered(spool.committed());
        }
        let link = Rc::new(RefCell::new(link));
        let is_first = outbound.link.set(link.clone()).is_ok();
        assert!(is_first, "a log has one connection");
        let name = match settings.connections {
            1 => settings.name.clone(),
            _ => format!("{}/{index}", settings.name),
        };
        Ok(Line {
            bridge,
            index,
            name,
            outbound,
            told: Told::default(),
            told_postponed: Told::default(),
            link,
            inbound: RefCell::default(),
            inbound_bytes: Cell::new(0),
            arrivals: RefCell::default(),
            keeping_told: Cell::default(),
            feed: Feed::new(settings),
            received: RefCell::default(),
            is_new: Cell::new(false),
            has_asked_for_retained: Cell::new(false),
            is_stopping: Cell::new(false),
            standing: Cell::new(None),
            is_down: Cell::new(false),
            status: RefCell::new(Status {
                state: "disconnected",
                is_connected: false,
                since_ms: unix_ms(),
                address: String::new(),
                last_error: String::new(),
                sent: 0,
                received: 0,
                refused: 0,
                postponed: 0,
                postponed_reason: None,
                aside: 0,
                unfit: 0,
                oversized: 0,
            }),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn status(&self) -> Status {
        let mut status = self.status.borrow().clone();
        status.unfit += self.link.borrow().unmatched_count();
        status.oversized = self.link.borrow().oversized_count();
        status
    }

    /// Whether the process waits for the remote no longer: it has acknowledged what no log holds, or is not there, or nothing
    /// has changed for `stall_ms`.
    pub(crate) fn is_delivered(&self, now: Instant, stall_ms: u64) -> bool {
        let unacknowledged = self.feed.unacknowledged_count();
        let waiting = Waiting { unsent: self.outbound.direct_len(), unacknowledged };
        if waiting == (Waiting { unsent: 0, unacknowledged: 0 }) || !self.link.borrow().is_up() {
            return true;
        }
        let since = match self.standing.get() {
            Some((before, since)) if before == waiting => since,
            _ => now,
        };
        self.standing.set(Some((waiting, since)));
        now.ms_since(since) >= stall_ms
    }

    /// Messages above QoS 0 that no log holds and the remote has not acknowledged.
    pub(crate) fn unacknowledged_count(&self) -> usize {
        self.feed.unacknowledged_count() + self.outbound.direct_acknowledged_count()
    }

    /// Says goodbye and stays down.
    pub(crate) fn stop(&self) {
        self.is_stopping.set(true);
        self.link.borrow_mut().close();
        self.outbound.has_work.raise();
    }

    /// The shard has taken a message of the remote, or refuses it.
    pub(crate) fn acknowledge(&self, now: Instant, number: u64, reason: ReasonCode) {
        let number = number & ((1 << 48) - 1);
        self.link.borrow_mut().acked_inbound(now, number, reason);
        self.outbound.has_work.raise();
    }

    /// Gives memory back that was needed for what has passed.
    pub(crate) fn trim(&self) {
        self.outbound.trim();
        self.link.borrow_mut().trim();
        self.feed.trim();
    }

    fn set_state(&self, state: &'static str, is_connected: bool) {
        let mut status = self.status.borrow_mut();
        if status.state != state {
            status.state = state;
            status.is_connected = is_connected;
            status.since_ms = unix_ms();
        }
    }

    fn say_down(&self, why: &str) {
        self.set_state("disconnected", false);
        let mut status = self.status.borrow_mut();
        if status.last_error != why {
            warn!("bridge {}: {}: {why}", self.name, status.address);
            status.last_error = why.to_owned();
        }
    }
}

/// Keeps the link, as long as the process lives.
pub(super) async fn run(hub: Rc<Hub>, line: Rc<Line>) {
    loop {
        let now = hub.clock.now();
        line.link.borrow_mut().handle_timeout(now);
        line.take_events(&hub);
        let address = line.link.borrow_mut().poll_attempt(now).cloned();
        let Some(address) = address else {
            let due = line.link.borrow().poll_timeout();
            let pause = due.map_or(SLEEP_MAX, |due| Duration::from_millis(due.ms_since(now)));
            sleep(pause.clamp(PAUSE, SLEEP_MAX)).await;
            continue;
        };
        line.status.borrow_mut().address = address.to_string();
        line.set_state("connecting", false);
        let bridge = &hub.bridges[usize::from(line.bridge)];
        let timeout = Duration::from_millis(bridge.settings.connect_timeout_ms);
        match connect(address, timeout).await {
            Ok((reader, writer)) => serve(&hub, &line, reader, writer).await,
            Err(error) => {
                line.link.borrow_mut().handle_disconnected(hub.clock.now(), &error.to_string());
            }
        }
        line.take_events(&hub);
    }
}

/// Tries every address that the name stands for.
async fn connect(address: RemoteAddress, timeout: Duration) -> io::Result<(Reader, Writer)> {
    let RemoteAddress { host, port } = address;
    let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => net::resolve(host, port).await?,
    };
    let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    for address in addresses {
        outcome = net::connect(address, timeout).await;
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// From the connected socket to its end.
async fn serve(hub: &Rc<Hub>, line: &Rc<Line>, reader: Reader, writer: Writer) {
    line.link.borrow_mut().handle_connected();
    line.is_down.set(false);
    let sending = async {
        let ended = write(hub, line, writer).await;
        if line.link.borrow().is_up() {
            // Only our way is broken: what the remote sent before its end may be the last that is known of it.
            sleep(READ_ON).await;
        }
        ended
    };
    let ended = or(read(hub, line, reader), sending).await;
    let (why, is_closed) = match ended {
        Ok(()) => ("it closed the connection".to_string(), true),
        Err(error) => (error.to_string(), is_closing(&error)),
    };
    let mut link = line.link.borrow_mut();
    match is_closed {
        true => link.handle_closed(hub.clock.now(), &why),
        false => link.handle_disconnected(hub.clock.now(), &why),
    }
}

/// Whether the remote did it, not the way to it.
fn is_closing(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(error.kind(), ConnectionReset | ConnectionAborted | BrokenPipe)
}

async fn read(hub: &Rc<Hub>, line: &Rc<Line>, mut reader: Reader) -> io::Result<()> {
    let mut buffer = vec![0; READ_SIZE];
    loop {
        while !line.link.borrow().wants_bytes() || line.inbound_bytes.get() > INBOUND_BYTES_MAX {
            line.link.borrow_mut().handle_unread(hub.clock.now());
            line.take_events(hub);
            sleep(PAUSE).await;
        }
        let size = reader.read(&mut buffer).await?;
        if size == 0 {
            return Ok(());
        }
        hub.count_moved(size);
        line.link.borrow_mut().handle_bytes(hub.clock.now(), &buffer[..size]);
        line.outbound.has_work.raise();
    }
}

/// Does what the link asks for, and sends. Ends when the link is down and everything has left.
async fn write(hub: &Rc<Hub>, line: &Rc<Line>, mut writer: Writer) -> io::Result<()> {
    loop {
        let now = hub.clock.now();
        line.link.borrow_mut().handle_timeout(now);
        line.take_events(hub);
        // What is found out behind this is done in the next round.
        let is_down = line.is_down.get();
        line.resume().await?;
        line.record_received(now).await?;
        line.feed(hub).await?;
        line.take_events(hub);
        while let Some(bytes) = line.poll_transmit() {
            writer.write_all(&bytes).await?;
            hub.count_moved(bytes.len());
            line.link.borrow_mut().recycle(bytes);
        }
        if is_down || line.is_stopping.get() {
            writer.close().await?;
            return Err(io::Error::other(line.status.borrow().last_error.clone()));
        }
        let due = line.link.borrow().poll_timeout();
        let pause = due.map_or(SLEEP_MAX, |due| Duration::from_millis(due.ms_since(now)));
        let pause = pause.clamp(PAUSE, SLEEP_MAX);
        or(line.outbound.has_work.wait(), sleep(pause)).await;
    }
}

impl Line {
    fn poll_transmit(&self) -> Option<Vec<u8>> {
        self.link.borrow_mut().poll_transmit()
    }

    /// Does what the link tells.
    pub(super) fn take_events(self: &Rc<Self>, hub: &Rc<Hub>) {
        loop {
            let Some(event) = self.link.borrow_mut().poll_event() else { return };
            match event {
                LinkEvent::Up { session_present } => self.on_up(hub, session_present),
                LinkEvent::Down { why } => {
                    self.is_down.set(true);
                    self.is_new.set(false);
                    self.received.borrow_mut().clear();
                    self.feed.stop();
                    self.say_down(&why);
                    self.outbound.has_work.raise();
                }
                LinkEvent::Inbound { number, message } => self.on_inbound(hub, number, message),
                LinkEvent::Received { sequence } if sequence > UNLOGGED => {
                    self.link.borrow_mut().release(hub.clock.now(), sequence);
                }
                LinkEvent::Received { sequence } => self.received.borrow_mut().push(sequence),
                LinkEvent::Done { sequence } => self.on_done(sequence),
                LinkEvent::Refused { sequence, reason } => {
                    self.status.borrow_mut().refused += 1;
                    warn!("bridge {}: the remote refuses a message: {reason:?}", self.name);
                    self.on_done(sequence);
                }
                LinkEvent::Postponed { sequence: _, reason } => {
                    let mut status = self.status.borrow_mut();
                    status.postponed += 1;
                    status.postponed_reason = Some(reason);
                }
                LinkEvent::Due { sequence } => self.feed.on_due(sequence),
                LinkEvent::Again { from } => self.on_again(from),
                LinkEvent::SetAside { sequence, why } => self.feed.on_set_aside(sequence, why),
                LinkEvent::SubscribeRefused { filter, reason } => {
                    warn!("bridge {}: the remote refuses '{filter}': {reason:?}", self.name);
                    self.status.borrow_mut().last_error =
                        format!("the remote refuses the subscription '{filter}': {reason:?}");
                }
            }
        }
    }

    fn on_up(self: &Rc<Self>, hub: &Rc<Hub>, session_present: bool) {
        self.set_state("connected", true);
        {
            let mut status = self.status.borrow_mut();
            info!("bridge {}: connected to {}", self.name, status.address);
            status.last_error.clear();
        }
        self.tell_keeping();
        self.is_new.set(true);
        // A session that the remote still has got them when it began.
        if !session_present || !self.has_asked_for_retained.get() {
            let is_first = !self.has_asked_for_retained.replace(true);
            if is_first && !session_present {
                spawn(ask_for_retained(hub.clone(), self.clone()));
            }
        }
    }

    /// Says that the remote takes this bridge for a client, once.
    fn tell_keeping(&self) {
        let keeping = self.link.borrow().keeping();
        let is_new = self.keeping_told.replace(keeping) != keeping;
        if is_new && keeping == Keeping::Nothing && self.link.borrow().has_properties() {
            warn!(
                "bridge {}: {} does not believe what this bridge says of a message's way, so loops are recognised by content:                  name this broker's address in bridges_from there",
                self.name,
                self.status.borrow().address
            );
        }
    }

    /// What becomes of hop marks on this connection.
    pub(crate) fn keeping(&self) -> Keeping {
        self.link.borrow().keeping()
    }

    pub(super) fn on_done(&self, sequence: u64) {
        if sequence > UNLOGGED {
            self.feed.remove(sequence);
        } else if let Some(spool) = self.outbound.spool() {
            spool.done(sequence);
        }
        self.outbound.has_work.raise();
    }

    /// Begins a new connection with what the last one left.
    async fn resume(&self) -> io::Result<()> {
        if !self.is_new.get() {
            return Ok(());
        }
        if let Some(spool) = self.outbound.spool() {
            // The last connection may have ended while its PUBRECs were being recorded.
            if spool.has_unrecorded_received() {
                spool.commit().await.map_err(io::Error::other)?;
            }
            self.link.borrow_mut().resume(spool.received_unfinished());
            self.outbound.unsent.set(spool.floor());
        }
        self.feed.begin();
        self.is_new.set(false);
        Ok(())
    }

    /// Puts PUBRECs into the log, then lets PUBRELs leave.
    async fn record_received(&self, now: Instant) -> io::Result<()> {
        let received = std::mem::take(&mut *self.received.borrow_mut());
        let Some(spool) = self.outbound.spool().filter(|_| !received.is_empty()) else {
            return Ok(());
        };
        for &sequence in &received {
            spool.received(sequence);
        }
        spool.commit().await.map_err(io::Error::other)?;
        let mut link = self.link.borrow_mut();
        for sequence in received {
            link.release(now, sequence);
        }
        Ok(())
    }
}

/// Asks every shard for the retained messages that forward rules mean, one chunk at a time.
async fn ask_for_retained(hub: Rc<Hub>, line: Rc<Line>) {
    let rule_count = hub.index.rules(line.bridge).len() as u16;
    for rule in 0..rule_count {
        let wanted = Wanted { bridge: line.bridge, rule };
        let filter: Box<str> = hub.index.rule(wanted).match_filter().into();
        for shard in 0..hub.shard_count() {
            let mut after = None;
            loop {
                while !line.outbound.has_direct_room() {
                    sleep(PAUSE).await;
                }
                match hub.ask(&line, wanted, shard, &filter, after.take()).await {
                    Some(more) => after = Some(more),
                    None => break,
                }
            }
        }
    }
}

impl Hub {
    /// One question; where to go on, if there is more.
    async fn ask(
        &self,
        line: &Line,
        wanted: Wanted,
        shard: ShardId,
        filter: &str,
        after: Option<Box<str>>,
    ) -> Option<Box<str>> {
        let request = self.next_request.get() + 1;
        self.next_request.set(request);
        let answer = Rc::new(RefCell::new(None));
        let answered: Rc<Signal> = Rc::default();
        let asked =
            Asked { wanted, line: line.index, answer: answer.clone(), answered: answered.clone() };
        self.retained.borrow_mut().insert(request, asked);
        while !self.end.borrow_mut().shard(shard).has_news_room() {
            sleep(PAUSE).await;
        }
        let query = FromBridges::RetainedQuery { request, filter: filter.into(), after };
        self.end.borrow_mut().shard(shard).send(query);
        answered.wait().await;
        answer.take().flatten()
    }
}
