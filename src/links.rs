//! The connections to other brokers: one executor beside the shards, on which each connection of a bridge has its log and
//! its link.
//!
//! ```text
//!  shards --- lane: Messages, Retained, Taken ------------> intake --> outbound: log, or memory
//!    ^                                                                    |  commits (a task)
//!    |<-- lane: Written, Block, RetainedQuery, Status -------- intake <----+
//!    |<-- lane: Publish -------------------- line (a task) <--> link <--> remote
//! ```
//! All tasks run on one thread. Intake takes the mail of the shards and tells them how far the logs have come. Each
//! connection has one task that commits its log and one that keeps its link. News of the logs have a lane of their own,
//! so they are never behind messages that a shard cannot take. A waker wakes the executor.
//!
//! A topic goes to the connection `hash(remote topic) % connections`, so order per topic holds. The link keeps no
//! message: it says `Done`, and messages that are not done are read from the log again after a lost link. While the
//! bridge itself does not read, the remote's time does not run.
//!
//! The remote is answered when a shard has its message. SIGTERM loses none of these messages, because from then on none
//! is taken; SIGKILL loses those that the shard had not delivered. A bridge that ends still gives its remotes the
//! messages that no log has. A RingMQ remote that ends does the same for its connected clients, and hears only their
//! acknowledgements meanwhile; when it is back it has forgotten its sessions.

pub(crate) mod aside;
mod deletions;
mod feed;
mod identity;
mod intake;
mod line;
mod opening;
mod outbound;
mod record;
mod refusals;
mod returns;
mod signal;
mod status;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_lite::future::or;

use crate::bridge::{BrokerId, Direction, Echo, ForwardIndex, WrongRule};
use crate::codec::ReasonCode;
use crate::config::bridge::BridgeSettings;
use crate::disk::SpoolError;
use crate::executor::{self, Handle, sleep};
use crate::mesh::BridgeEnd;
use crate::mesh::shutdown::{Order, Orders, Phase};
use crate::routing::bridge_mail::FromBridges;
use crate::system::clock::Clock;
use crate::system::io::Io;
use crate::time::Instant;
use aside::Aside;
use intake::{Asked, Ledger};
use line::Line;
use opening::Opener;
use outbound::Outbound;
use returns::Drops;
use signal::Signal;

pub(crate) use identity::system_seed;
pub(crate) use opening::Patience;

/// How often orders are looked at, and what could not be done is tried again.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
const LOOK_INTERVAL_ENDING: Duration = Duration::from_millis(5);

/// How often memory is given back that only a busier time needed.
const TRIM_INTERVAL: Duration = Duration::from_secs(1);

/// What one bridge is and has.
pub(crate) struct Bridge {
    pub id: u16,
    pub settings: BridgeSettings,
    pub lines: Vec<Rc<Line>>,
    /// What was sent and may come back; `None`: nobody looks.
    echo: Option<RefCell<Echo>>,
    /// Dropped for their content, their way, and the length of it.
    pub echoes: Drops,
    pub loops: Drops,
    pub paths_too_long: Drops,
    /// What the remote does not take.
    pub aside: Aside,
}

impl Bridge {
    fn acknowledge(&self, now: Instant, numbers: &[u64], reason: ReasonCode) {
        for number in numbers {
            if let Some(line) = self.lines.get(line::line_of(*number)) {
                line.acknowledge(now, *number, reason);
            }
        }
    }
}

/// What all tasks share.
pub(crate) struct Hub {
    bridges: Vec<Bridge>,
    /// What this broker is called in hop marks.
    broker_id: BrokerId,
    /// What clients that are bridges were given, and may come back over one of ours.
    given: RefCell<Echo>,
    /// Since when a shard has more to tell than its lane takes, and when that was seen last.
    behind: Cell<Option<(Instant, Instant)>>,
    index: Arc<ForwardIndex>,
    clock: Clock,
    end: RefCell<BridgeEnd>,
    ledger: RefCell<Ledger>,
    /// Questions for retained messages, by number.
    retained: RefCell<HashMap<u64, Asked>>,
    next_request: std::cell::Cell<u64>,
    /// A topic being made.
    scratch: RefCell<String>,
    /// Something was committed, or could not be.
    has_committed: Rc<Signal>,
    said: RefCell<BTreeMap<String, String>>,
    /// Mail of the shards was taken elsewhere than in `serve`.
    has_moved: std::cell::Cell<bool>,
    /// The process is ending: nothing more comes in.
    is_ending: std::cell::Cell<bool>,
    moved: Arc<AtomicU64>,
    shutdown_stall_ms: u64,
    /// Messages above QoS 0 that ended with the process.
    left: Arc<AtomicU64>,
}

/// What the bridges need of the process.
pub(crate) struct Setup {
    pub io: Io,
    pub settings: Vec<BridgeSettings>,
    /// What this broker is called in hop marks.
    pub broker_id: BrokerId,
    /// The largest packet of a remote that the shards have room for.
    pub packet_size_max: usize,
    pub index: Arc<ForwardIndex>,
    pub end: BridgeEnd,
    pub clock: Clock,
    pub orders: Arc<Orders>,
    /// Where logs are kept whose bridge names no other place.
    pub data_dir: PathBuf,
    pub patience: Patience,
    pub sys_interval_ms: u64,
    /// Time without progress after which a remote is waited for no longer when the process ends.
    pub shutdown_stall_ms: u64,
    /// Bytes sent to remotes and received from them.
    pub moved: Arc<AtomicU64>,
    /// Messages above QoS 0 that no log has and no remote has acknowledged, when the process ends.
    pub left: Arc<AtomicU64>,
}

/// Starts the executor, opens all logs, and begins to connect.
pub(crate) fn start(setup: Setup) -> Result<Handle, BridgesError> {
    let (opened, outcome) = mpsc::channel();
    let handle = executor::run_side(setup.io, "bridges", move || run(setup, opened))
        .map_err(BridgesError::Executor)?;
    match outcome.recv() {
        Ok(Ok(())) => Ok(handle),
        Ok(Err(error)) => {
            // It has ended with it.
            let _ = handle.join();
            Err(error)
        }
        Err(_) => Err(BridgesError::Executor("it ended at once".to_string())),
    }
}

async fn run(setup: Setup, opened: Sender<Result<(), BridgesError>>) {
    let orders = setup.orders.clone();
    let sys_interval_ms = setup.sys_interval_ms;
    let hub = match open(setup).await {
        Ok(hub) => Rc::new(hub),
        Err(error) => {
            // If nobody listens, the process is ending anyway.
            let _ = opened.send(Err(error));
            return;
        }
    };
    let _ = opened.send(Ok(()));
    for line in hub.bridges.iter().flat_map(|bridge| &bridge.lines) {
        executor::spawn(line.outbound.clone().run_commits());
        executor::spawn(line::run(hub.clone(), line.clone()));
        executor::spawn(feed::set_aside(hub.clone(), line.clone()));
    }
    if sys_interval_ms > 0 {
        executor::spawn(status::run(hub.clone(), sys_interval_ms));
    }
    executor::spawn(trim(hub.clone()));
    for bridge in 0..hub.bridges.len() {
        executor::spawn(aside::back::run(hub.clone(), bridge));
    }
    serve(&hub, &orders).await;
}

async fn trim(hub: Rc<Hub>) {
    loop {
        sleep(TRIM_INTERVAL).await;
        hub.given.borrow_mut().trim(hub.clock.now());
        for bridge in &hub.bridges {
            if let Some(echo) = &bridge.echo {
                echo.borrow_mut().trim(hub.clock.now());
            }
            for line in &bridge.lines {
                line.trim();
                line.tell_oversized(hub.clock.now(), bridge.settings.packet_size_max);
                line.tell_postponed(hub.clock.now());
            }
        }
    }
}

async fn open(setup: Setup) -> Result<Hub, BridgesError> {
    let Setup { settings, packet_size_max, index, end, clock, data_dir, .. } = setup;
    let has_committed: Rc<Signal> = Rc::default();
    let shard_count = end.shard_count();
    let mut opener = Opener::new(setup.patience);
    let mut bridges = Vec::new();
    for (id, mut settings) in (0u16..).zip(settings) {
        settings.packet_size_max = settings.packet_size_max.min(packet_size_max);
        let rules = index.rules(id);
        let stores = settings.forward.iter().any(|rule| rule.store) && !rules.is_empty();
        let folder = log_directory(&settings, &data_dir);
        identity::settle(&mut settings, &folder, stores)?;
        let mut lines = Vec::new();
        for line in 0..settings.connections {
            let spool = match stores {
                true => Some(opener.open(&settings, &folder.join(line.to_string())).await?),
                false => None,
            };
            let outbound = Outbound::new(&settings, spool, shard_count, has_committed.clone());
            lines.push(Rc::new(Line::new(id, line, &settings, Rc::new(outbound))?));
        }
        let echo = settings.echo_detection.then(|| RefCell::new(Echo::new(fastrand::u64(..))));
        let aside = aside::back::open(&settings, &lines, &folder).await;
        bridges.push(Bridge {
            id,
            settings,
            lines,
            echo,
            echoes: Drops::default(),
            loops: Drops::default(),
            paths_too_long: Drops::default(),
            aside,
        });
    }
    Ok(Hub {
        bridges,
        broker_id: setup.broker_id,
        given: RefCell::new(Echo::new(fastrand::u64(..))),
        behind: Cell::new(None),
        index,
        clock,
        end: RefCell::new(end),
        ledger: RefCell::default(),
        retained: RefCell::default(),
        next_request: Default::default(),
        scratch: RefCell::default(),
        has_committed,
        said: RefCell::default(),
        has_moved: Default::default(),
        is_ending: Default::default(),
        moved: setup.moved,
        shutdown_stall_ms: setup.shutdown_stall_ms,
        left: setup.left,
    })
}

/// Where a bridge keeps what lasts: its client id, and the logs of its connections, each in a directory with its number.
pub(crate) fn log_directory(settings: &BridgeSettings, data_dir: &Path) -> PathBuf {
    let directory = match settings.spool_dir.as_os_str().is_empty() {
        true => data_dir.join("bridges").join(&settings.name),
        false => settings.spool_dir.clone(),
    };
    // The executor opens no relative paths.
    std::path::absolute(&directory).unwrap_or(directory)
}

/// Takes what comes from the shards until the end.
async fn serve(hub: &Rc<Hub>, orders: &Orders) {
    let mut carried_out = Order::START;
    let mut has_moved = true;
    loop {
        has_moved |= hub.take_mail() | hub.has_moved.take();
        hub.take_arrivals();
        let is_all_told = hub.tell_shards();
        has_moved |= hub.flush_inbound();
        let order = orders.current();
        if order != carried_out {
            hub.is_ending.set(order.phase >= Phase::Drain);
            if order.phase != carried_out.phase && order.phase >= Phase::Disconnect {
                hub.stop().await;
            }
            carried_out = order;
            let is_quiet = !std::mem::take(&mut has_moved) && is_all_told;
            let is_done = match order.phase {
                Phase::Start | Phase::Run => true,
                Phase::Drain => is_quiet && hub.is_settled(),
                Phase::Deliver => is_quiet && hub.is_delivered(),
                Phase::Disconnect => hub.is_settled(),
                Phase::End => true,
            };
            orders.report(order, is_done);
            if order.phase == Phase::End {
                return;
            }
            continue;
        }
        let pause = match (order.phase, is_all_told) {
            (Phase::Start | Phase::Run, true) => LOOK_INTERVAL,
            _ => LOOK_INTERVAL_ENDING,
        };
        let arrival = poll_fn(|context| hub.poll_arrival(context));
        or(or(arrival, hub.has_committed.wait()), sleep(pause)).await;
    }
}

impl Hub {
    /// Ready when a shard's lane holds something.
    fn poll_arrival(&self, context: &mut std::task::Context<'_>) -> Poll<()> {
        self.end.borrow().poll_arrival(context)
    }

    /// Looks again at messages of the remotes that may be echoes.
    fn take_arrivals(&self) {
        self.bridges.iter().flat_map(|bridge| &bridge.lines).for_each(|line| {
            line.take_arrivals(self);
        });
    }

    /// Hands messages of the remotes to the shards, as far as their lanes have room; whether any were.
    fn flush_inbound(&self) -> bool {
        let mut end = self.end.borrow_mut();
        let mut has_sent = false;
        for bridge in &self.bridges {
            for line in &bridge.lines {
                for mut lanes in end.shards() {
                    if !lanes.has_room() {
                        continue;
                    }
                    if let Some(messages) = line.take_inbound(lanes.shard()) {
                        lanes.send(FromBridges::Publish { bridge: bridge.id, messages });
                        has_sent = true;
                    }
                }
            }
        }
        has_sent
    }

    /// Nobody is waited for any more.
    fn is_delivered(&self) -> bool {
        let now = self.clock.now();
        let lines = self.bridges.iter().flat_map(|bridge| &bridge.lines);
        // Each is looked at, for its time runs from the first look on.
        lines.filter(|line| !line.is_delivered(now, self.shutdown_stall_ms)).count() == 0
    }

    /// Says goodbye to the remotes and puts everything into the logs.
    async fn stop(&self) {
        let lines = self.bridges.iter().flat_map(|bridge| &bridge.lines);
        let left: usize = lines.map(|line| line.unacknowledged_count()).sum();
        self.left.store(left as u64, Ordering::Relaxed);
        for line in self.bridges.iter().flat_map(|bridge| &bridge.lines) {
            line.stop();
            if let Some(spool) = line.outbound.spool() {
                line.outbound.commit(spool).await;
            }
        }
        // The last bytes of the links.
        sleep(Duration::from_millis(50)).await;
    }

    fn count_moved(&self, size: usize) {
        self.moved.fetch_add(size as u64, Ordering::Relaxed);
    }

    fn shard_count(&self) -> u16 {
        self.end.borrow().shard_count()
    }
}

/// A sentence for the operator.
pub(crate) fn wrong_rule(wrong: &WrongRule, bridge: &str) -> String {
    let direction = match wrong.direction {
        Direction::Forward => "forward",
        Direction::Subscribe => "subscribe",
    };
    let WrongRule { rule, error, .. } = wrong;
    format!("bridge {bridge}: {direction} rule {}: key '{}': {}", rule + 1, error.key, error.what)
}

/// Milliseconds since 1970.
fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Why the bridges could not start: a sentence for the operator.
#[derive(Debug)]
pub enum BridgesError {
    Spool {
        bridge: String,
        error: SpoolError,
    },
    /// The client id of its own cannot be read or kept.
    ClientId {
        bridge: String,
        file: PathBuf,
        what: String,
    },
    /// A rule that cannot be.
    Rule(String),
    Executor(String),
    /// The process was told to end before they could start.
    Ended,
}

impl fmt::Display for BridgesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BridgesError::Spool { bridge, error } => write!(f, "bridge {bridge}: {error}"),
            BridgesError::ClientId { bridge, file, what } => {
                let file = file.display();
                write!(f, "bridge {bridge}: its client id in {file}: {what}; or set client_id")
            }
            BridgesError::Rule(what) => f.write_str(what),
            BridgesError::Executor(error) => {
                write!(f, "the executor of the bridges cannot run: {error}")
            }
            BridgesError::Ended => f.write_str("the process was told to end"),
        }
    }
}

impl std::error::Error for BridgesError {}
