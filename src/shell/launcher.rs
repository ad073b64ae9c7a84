//! Starts one worker a shard, each pinned to its core, watches over them, and ends them in order.

mod ending;
mod remainder;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::fmt;
use std::io::Read;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};
use tracing::{debug, error, info, warn};

use crate::bridge::{BrokerId, ForwardIndex};
use crate::config::kind::cores_text;
use crate::config::{LogFormat, Settings, StallAction};
use crate::executor::{self, Handle};
use crate::links::{self, BridgesError, Patience};
use crate::mesh::bridge_lanes::{self, BridgeEnd};
use crate::mesh::gate::Gate;
use crate::mesh::shutdown::{Order, Orders, Phase};
use crate::mesh::side::{self, Bounds, SideEnd};
use crate::mesh::{self, Door, Port};
use crate::net::epoll::Epoll;
use crate::net::listener::{self, Bound, ListenError, Listeners};
use crate::net::uring::{Ring, RingSettings};
use crate::net::{Network, NetworkError};
use crate::plugin::{Answer, HookSet, Hooks};
use crate::plugins::abi::crash;
use crate::plugins::{self, Answers, Chain, Installed, PluginError};
use crate::printable::counted;
use crate::shard::{Mail, Shard, ShardId, ShardSettings};
use crate::shell::build_time;
use crate::shell::calm::Calm;
use crate::shell::memory::MemoryWatch;
use crate::shell::standstill::{Stall, Standstills};
use crate::shell::waiter::Waiter;
use crate::shell::watch::{Report, Watch};
use crate::shell::worker::Worker;
use crate::shell::world::NetWorld;
use crate::system::calls::give_back_free_memory;
use crate::system::clock::Clock;
use crate::system::io::{self, Choice, Io};
use crate::system::process::Process;
use crate::system::rings::Refusal;

/// How often the reports of the shards are looked at, and how often the memory of the process.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
const MEMORY_INTERVAL: Duration = Duration::from_millis(100);

/// What a broker that ends takes at most beside `shutdown_max_ms`, as far as its successor waits for it.
const PREDECESSOR_SLACK: Duration = Duration::from_secs(2);

/// The broker cannot run here.
pub const EXIT_FAILED: u8 = 1;
/// A shard stands still.
pub const EXIT_STALLED: u8 = 3;

/// A worker runs, or cannot.
type Start = (ShardId, Result<(), LaunchError>);

/// What every worker gets a copy of.
#[derive(Clone)]
struct Shared {
    io: Io,
    settings: Arc<Settings>,
    clock: Clock,
    gate: Arc<Gate>,
    orders: Arc<Orders>,
    /// What is said of this process below $SYS.
    facts: Vec<(&'static str, String)>,
    plugins: Arc<[Installed]>,
    seed: u64,
    /// What the broker is called in hop marks.
    broker_id: BrokerId,
    /// By shard: what it is to listen on once everything runs.
    listeners: Arc<[Mutex<Vec<OwnedFd>>]>,
    /// What bridges want of the shards' messages.
    forward: Option<Arc<ForwardIndex>>,
}

/// Runs the broker until SIGTERM or SIGINT. `settings.cores` is filled in.
pub fn run(settings: Settings) -> Result<(), LaunchError> {
    let mut signals = watch_signals().map_err(LaunchError::System)?;
    crash::install(settings.log_format == LogFormat::Json);
    let broker = match Broker::start_until(settings, Vec::new(), signals.is_ending.clone()) {
        Err(LaunchError::Bridges(BridgesError::Ended)) => {
            info!("shutting down before the start was over");
            return Ok(());
        }
        started => started?,
    };
    for address in broker.addresses() {
        info!("listening on {address} ({})", broker.shared.io);
    }
    let settings = &broker.shared.settings;
    let shards = counted(settings.shard_count().into(), "shards");
    info!("{shards} on cores {}", cores_text(&settings.cores));
    let mut watch = Watch::new(&broker.reports);
    match supervise(&mut signals, &broker, &mut watch).map_err(LaunchError::System)? {
        Ended::BySignal => {
            info!("shutting down");
            broker.end(watch)
        }
        Ended::ByStall => Err(LaunchError::Stalled),
    }
}

/// A broker that runs on threads of its own.
pub struct Broker {
    shared: Shared,
    addresses: Vec<SocketAddr>,
    doors: Arc<[Door]>,
    reports: Vec<Arc<Report>>,
    /// Bytes between the bridges and their remotes.
    bridges_moved: Arc<AtomicU64>,
    /// Messages that no log has and no remote has acknowledged, when the bridges have ended.
    bridges_left: Arc<AtomicU64>,
    workers: Vec<Handle>,
}

impl Broker {
    /// Listens, and runs a worker for each shard. On an error, workers that run already do so until the process ends.
    pub fn start(settings: Settings) -> Result<Broker, LaunchError> {
        Broker::start_with(settings, Vec::new())
    }

    /// As `start`, with plugins of the caller's behind those of the settings.
    pub fn start_with(settings: Settings, plugins: Vec<Installed>) -> Result<Broker, LaunchError> {
        Broker::start_until(settings, plugins, Arc::default())
    }

    /// Waits for nobody any more once `is_ending` is raised.
    fn start_until(
        settings: Settings,
        plugins: Vec<Installed>,
        is_ending: Arc<AtomicBool>,
    ) -> Result<Broker, LaunchError> {
        let configured = settings.plugins.iter().map(plugins::install);
        let configured: Vec<_> =
            configured.collect::<Result<_, _>>().map_err(LaunchError::Plugin)?;
        let plugins: Arc<[Installed]> = configured.into_iter().chain(plugins).collect();
        plugins::check_names(&plugins).map_err(LaunchError::Plugin)?;
        let choice = io::choose(settings.io, &Process::read()).map_err(LaunchError::Io)?;
        let shard_count = settings.shard_count();
        let bound = settings.listen.iter().map(|address| listener::bind(*address, settings.tcp));
        let bound: Result<Vec<Bound>, ListenError> = bound.collect();
        let bound = bound.map_err(LaunchError::Listen)?;
        let addresses = bound.iter().map(|bound| bound.address).collect();
        let ports = mesh::connect(shard_count, settings.sizes.mail_bytes_mark)
            .map_err(LaunchError::System)?;
        let doors = ports[0].doors();
        let (mut ports, bridging) = connect_bridges(&settings, ports, &doors)?;
        let shared = Shared {
            clock: Clock::new(),
            io: choice.io,
            facts: facts(&choice),
            gate: Arc::new(Gate::new(
                settings.connections_max,
                settings.connections_per_address_max,
                settings.connect_rate_per_address_max,
                shard_count,
            )),
            plugins,
            orders: Arc::new(Orders::new(
                usize::from(shard_count) + usize::from(bridging.is_some()),
            )),
            forward: bridging.as_ref().map(|bridging| bridging.index.clone()),
            seed: fastrand::u64(..),
            broker_id: BrokerId::from_number(links::system_seed()),
            listeners: (0..shard_count).map(|_| Mutex::default()).collect(),
            settings: Arc::new(settings),
        };
        let reports: Vec<_> = (0..shard_count).map(|_| Arc::new(Report::default())).collect();
        let (started, starts) = mpsc::channel();
        let mut workers = Vec::new();
        for (port, report) in ports.drain(..).zip(&reports) {
            workers.push(spawn(shared.clone(), port, report.clone(), started.clone())?);
        }
        drop(started);
        let mut workers = await_start(workers, &starts, &reports, shared.clock)?;
        let bridges_moved: Arc<AtomicU64> = Arc::default();
        let bridges_left: Arc<AtomicU64> = Arc::default();
        if let Some(Bridging { index, end }) = bridging {
            let settings: &Settings = &shared.settings;
            let setup = links::Setup {
                io: shared.io,
                settings: settings.bridges.clone(),
                broker_id: shared.broker_id,
                packet_size_max: settings.sizes.bridge_packet_size_max(),
                index,
                end,
                clock: shared.clock,
                orders: shared.orders.clone(),
                data_dir: settings.data_dir.clone(),
                patience: Patience {
                    time_max: Duration::from_millis(settings.shutdown_max_ms) + PREDECESSOR_SLACK,
                    is_ending,
                },
                sys_interval_ms: settings.limits.sys_interval_ms,
                shutdown_stall_ms: settings.limits.shutdown_stall_ms,
                moved: bridges_moved.clone(),
                left: bridges_left.clone(),
            };
            workers.push(links::start(setup).map_err(LaunchError::Bridges)?);
        }
        // Last of all: whoever connects is not reset by a start that fails.
        for bound in bound {
            let Listeners { address, sockets } =
                bound.listen(shard_count).map_err(LaunchError::Listen)?;
            debug!("{} on {address}, one for each shard", counted(sockets.len() as u64, "sockets"));
            for (listeners, socket) in shared.listeners.iter().zip(sockets) {
                listeners.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
            }
        }
        shared.orders.begin_run(&doors);
        Ok(Broker { shared, addresses, doors, reports, bridges_moved, bridges_left, workers })
    }

    /// Where clients connect; port 0 has become a port.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Bytes that were received and sent, and those of messages that wait.
    fn bytes(&self) -> (u64, u64) {
        let bridges = self.bridges_moved.load(Ordering::Relaxed);
        let shards = self.reports.iter().map(|report| report.bytes());
        shards.fold((bridges, 0), |sums, of| (sums.0 + of.0, sums.1 + of.1))
    }
}

/// What is said of this process below `$SYS/broker/`.
fn facts(choice: &Choice) -> Vec<(&'static str, String)> {
    let mut facts = vec![("io", choice.io.to_string())];
    facts.extend(build_time::of_this_program().map(|time| ("timestamp", time)));
    facts.extend(choice.refusal.as_ref().map(|refusal| ("io/reason", refusal.what.clone())));
    facts
}

/// What the executor of the bridges gets.
struct Bridging {
    index: Arc<ForwardIndex>,
    end: BridgeEnd,
}

/// Gives each port its lanes with the bridges, if there are any.
fn connect_bridges(
    settings: &Settings,
    mut ports: Vec<Port<Mail>>,
    doors: &Arc<[Door]>,
) -> Result<(Vec<Port<Mail>>, Option<Bridging>), LaunchError> {
    if settings.bridges.is_empty() {
        return Ok((ports, None));
    }
    let index = ForwardIndex::compile(&settings.bridges).map_err(|wrong| {
        let name = &settings.bridges[wrong.bridge].name;
        LaunchError::Rule(links::wrong_rule(&wrong, name))
    })?;
    let (lanes, end) = bridge_lanes::connect(doors, settings.sizes.mail_bytes_mark);
    for (port, lanes) in ports.iter_mut().zip(lanes) {
        port.set_bridges(lanes);
    }
    Ok((ports, Some(Bridging { index: Arc::new(index), end })))
}

/// Waits until all workers run. One that cannot start ends the process, the others with it.
fn await_start(
    workers: Vec<Handle>,
    starts: &Receiver<Start>,
    reports: &[Arc<Report>],
    clock: Clock,
) -> Result<Vec<Handle>, LaunchError> {
    let mut is_running = vec![false; workers.len()];
    let mut watch = Watch::new(reports);
    loop {
        match starts.recv_timeout(WATCH_INTERVAL) {
            Ok((shard, start)) => {
                start?;
                is_running[shard as usize] = true;
            }
            // A plugin may take its time to be made, but not in silence.
            Err(RecvTimeoutError::Timeout) => {
                watch.look_at_calls(clock.now()).iter().for_each(|warning| warn!("{warning}"));
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    // Those who said nothing have ended before they came to it.
    let mut running = Vec::new();
    for (worker, is_running) in workers.into_iter().zip(is_running) {
        if is_running {
            running.push(worker);
        } else {
            worker.join().map_err(LaunchError::Executor)?;
        }
    }
    Ok(running)
}

fn spawn(
    shared: Shared,
    port: Port<Mail>,
    report: Arc<Report>,
    started: Sender<Start>,
) -> Result<Handle, LaunchError> {
    let core = shared.settings.core_of(port.own());
    let (io, name) = (shared.io, format!("shard-{}", port.own()));
    let work = move || work(shared, port, report, started);
    executor::run_shard(io, &name, core, work).map_err(LaunchError::Executor)
}

/// A shard's life, on its own thread.
fn work(shared: Shared, port: Port<Mail>, report: Arc<Report>, started: Sender<Start>) {
    let settings = shared.settings.clone();
    let refuse = |error| {
        // If nobody listens, the process is ending anyway.
        let _ = started.send((port.own(), Err(LaunchError::Network(error))));
    };
    match shared.io {
        Io::Uring => match Ring::new(RingSettings::from(&*settings)) {
            Ok(ring) => work_on(shared, ring, port, report, started),
            Err(error) => refuse(error),
        },
        Io::Epoll => match Epoll::new(settings.receive_buffer_size as usize) {
            Ok(epoll) => work_on(shared, epoll, port, report, started),
            Err(error) => refuse(error),
        },
    }
}

/// Answers of plugins that wait for one shard.
const ANSWERS: Bounds = Bounds { items: 1_024, bytes_max: usize::MAX };

/// Hands answers of plugins to a shard, from whatever thread.
fn answers_of(end: SideEnd<Infallible, Answer>) -> Answers {
    let end = Mutex::new(end);
    Answers::new(move |answer| {
        let mut end = end.lock().unwrap_or_else(PoisonError::into_inner);
        if !end.has_room() {
            return Err(answer);
        }
        end.send(answer);
        Ok(())
    })
}

fn work_on<N: Network>(
    shared: Shared,
    mut net: N,
    mut port: Port<Mail>,
    report: Arc<Report>,
    started: Sender<Start>,
) {
    let settings: &Settings = &shared.settings;
    let _witness = crash::Witness::new(port.own(), report.presence.clone());
    net.watch(port.bell());
    let shard_settings = ShardSettings {
        id: port.own(),
        shard_count: settings.shard_count(),
        sizes: settings.sizes.clone(),
        limits: settings.limits.clone(),
        seed: shared.seed,
    };
    let mut shard = Shard::new(shard_settings, shared.clock.now());
    if !shared.plugins.is_empty() {
        match Chain::new(&shared.plugins, port.own(), &report.presence) {
            Ok(mut chain) => {
                if chain.hooks().contains(HookSet::CONNECT) {
                    let (answers, end) = side::pair(&port.doors(), port.own(), ANSWERS);
                    chain.set_answers(&answers_of(end));
                    port.set_answers(answers);
                }
                shard.set_hooks(shared.clock.now(), Box::new(chain));
            }
            Err(error) => {
                let _ = started.send((port.own(), Err(LaunchError::Plugin(error))));
                return;
            }
        }
    }
    shard.set_broker_id(shared.broker_id);
    if let Some(rules) = &shared.forward {
        shard.set_bridges(rules.clone());
    }
    shard.set_facts(shared.facts.clone());
    shard.set_events(tracing::enabled!(tracing::Level::DEBUG));
    let waiter = Waiter::new(settings.wait, settings.spin_us);
    let gate = shared.gate.clone();
    let linger_bounds = (settings.limits.linger_ms, settings.limits.lingering_max);
    let rto_max_ms = settings.tcp.rto_max_ms;
    let world = NetWorld::new(net, port, gate, linger_bounds, rto_max_ms, shared.clock.now());
    let mut worker = Worker::new(shard, world, shared.clock, waiter, report);
    let _ = started.send((worker.id(), Ok(())));
    drop(started);
    serve(&mut worker, &shared);
    worker.report_remainder();
    // Cancels what is in flight and waits for the last completions.
    let order = shared.orders.current();
    drop(worker);
    shared.orders.report(order, true);
}

/// Turns until the order to end, which it leaves to be reported.
fn serve<N: Network>(worker: &mut Worker<N>, shared: &Shared) {
    let orders = &*shared.orders;
    let mut carried_out = Order::START;
    loop {
        let order = orders.current();
        if order.phase == Phase::End {
            return;
        }
        let is_new = order != carried_out;
        if order.phase != carried_out.phase {
            if carried_out.phase == Phase::Start {
                // Those of a broker that ends before it has begun are closed, too.
                let listeners = &shared.listeners[usize::from(worker.id())];
                let mut listeners = listeners.lock().unwrap_or_else(PoisonError::into_inner);
                worker.listen(std::mem::take(&mut *listeners));
            }
            match order.phase {
                Phase::Drain => worker.stop(),
                Phase::Disconnect => worker.disconnect_all(),
                Phase::Start | Phase::Run | Phase::Deliver | Phase::End => {}
            }
        }
        carried_out = order;
        let is_delivered = is_new && order.phase == Phase::Deliver && worker.part_from_clients();
        // The bell that told of the order is spent: there may be nothing more to wait for.
        worker.turn(!is_new);
        if is_new {
            let had_no_mail = worker.had_no_mail();
            let is_done = match order.phase {
                Phase::Drain => had_no_mail,
                Phase::Deliver => had_no_mail && is_delivered,
                _ => worker.was_quiet() && worker.is_empty(),
            };
            orders.report(order, is_done);
        }
    }
}

/// What came to this process.
struct Signals {
    /// Becomes readable with each signal.
    reader: UnixStream,
    is_ending: Arc<AtomicBool>,
    has_hung_up: Arc<AtomicBool>,
}

/// SIGTERM and SIGINT ask for the end; the second of them ends the process at once. SIGHUP asks for nothing that there is.
fn watch_signals() -> std::io::Result<Signals> {
    let (reader, writer) = UnixStream::pair()?;
    reader.set_read_timeout(Some(MEMORY_INTERVAL))?;
    let is_ending = Arc::new(AtomicBool::new(false));
    let has_hung_up = Arc::new(AtomicBool::new(false));
    flag::register(SIGHUP, has_hung_up.clone())?;
    low_level::pipe::register(SIGHUP, writer.try_clone()?)?;
    for signal in [SIGTERM, SIGINT] {
        // In this order: the first signal finds the flag down and raises it.
        flag::register_conditional_shutdown(signal, 128 + signal, is_ending.clone())?;
        flag::register(signal, is_ending.clone())?;
        low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(Signals { reader, is_ending, has_hung_up })
}

/// Why nobody watches any more.
enum Ended {
    BySignal,
    ByStall,
}

/// Looks at the shards' reports until a signal asks for the end, or a shard stands still and that is to end the process.
fn supervise(signals: &mut Signals, broker: &Broker, watch: &mut Watch) -> std::io::Result<Ended> {
    let mut calm = Calm::default();
    let mut standstills =
        Standstills::new(broker.reports.len(), broker.shared.settings.stall_max_ms);
    let mut memory = MemoryWatch::begin(broker.shared.settings.memory_max);
    let mut slept_from = Instant::now();
    let mut looked_at = slept_from;
    // The first shard publishes it.
    broker.reports[0].heap.measure();
    loop {
        match signals.reader.read(&mut [0]) {
            Ok(_) if signals.is_ending.load(Ordering::SeqCst) => return Ok(Ended::BySignal),
            Ok(_) => {
                if signals.has_hung_up.swap(false, Ordering::SeqCst) {
                    info!("SIGHUP: the broker goes on; it reads its configuration at start only");
                }
                continue;
            }
            Err(error) => match error.kind() {
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {}
                std::io::ErrorKind::Interrupted => continue,
                _ => return Err(error),
            },
        }
        let now = broker.shared.clock.now();
        let slept = slept_from.elapsed();
        slept_from = Instant::now();
        memory.look(&broker.reports);
        let beats = broker.reports.iter().map(|report| &report.beat);
        for stall in standstills.look(beats, millis(MEMORY_INTERVAL), millis(slept)) {
            if tell_stall(stall, broker) == StallAction::End {
                return Ok(Ended::ByStall);
            }
        }
        if slept_from - looked_at < WATCH_INTERVAL {
            continue;
        }
        broker.reports[0].heap.measure();
        looked_at = slept_from;
        for warning in watch.look(now) {
            warn!("{warning}");
        }
        let (moved, waiting) = broker.bytes();
        if calm.look(now, moved, waiting) {
            give_back_free_memory();
            debug!("free memory is given back, in {} ms", broker.shared.clock.now().ms_since(now));
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Names the shard and what it does, and says what is to follow.
fn tell_stall(stall: Stall, broker: &Broker) -> StallAction {
    let action = broker.shared.settings.stall_action;
    match stall {
        Stall::Begun { shard, still_ms } => {
            let follows = match action {
                StallAction::End => "the process ends (stall_action)",
                StallAction::Continue => "the others go on (stall_action)",
            };
            let doing = broker.reports[shard].occupation();
            error!("shard {shard} has not turned for {} s: {doing}; {follows}", still_ms / 1000);
            action
        }
        Stall::Over { shard, still_ms } => {
            warn!("shard {shard} turns again, after {} s", still_ms / 1000);
            StallAction::Continue
        }
    }
}

/// Why the broker could not start, or not end: a sentence for the operator.
#[derive(Debug)]
pub enum LaunchError {
    Listen(ListenError),
    /// What was asked for cannot be had.
    Io(Refusal),
    Network(NetworkError),
    Plugin(PluginError),
    Executor(String),
    Bridges(BridgesError),
    /// A bridge's rule that cannot be.
    Rule(String),
    System(std::io::Error),
    /// A shard stands still, so the process cannot end in order.
    Stalled,
}

impl LaunchError {
    /// What the process tells its supervisor.
    pub fn exit_code(&self) -> u8 {
        match self {
            LaunchError::Stalled => EXIT_STALLED,
            _ => EXIT_FAILED,
        }
    }
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LaunchError::Listen(error) => error.fmt(f),
            LaunchError::Io(refusal) => write!(f, "no io_uring: {refusal}"),
            LaunchError::Network(error) => error.fmt(f),
            LaunchError::Plugin(error) => error.fmt(f),
            LaunchError::Executor(error) => {
                write!(
                    f,
                    "cannot run a worker on its core: {error}; `ringmq check` looks for the reason"
                )
            }
            LaunchError::Bridges(error) => error.fmt(f),
            LaunchError::Rule(what) => f.write_str(what),
            LaunchError::System(error) => write!(f, "cannot set up the process: {error}"),
            LaunchError::Stalled => f.write_str("a shard stands still; the process ends at once"),
        }
    }
}

impl std::error::Error for LaunchError {}
