//! The process of one run in an agent: follows the driver's messages on its standard input, and ends at once when the
//! driver has gone away.
//!
//! The driver hears every few milliseconds how far messages have got, and tells the agent of their publisher. That agent
//! keeps its window by these reports, as the threads of one process do by their shared memory. So a window means the same
//! wherever the subscribers are. Flat out it goes round no faster than the reports; at a fixed rate it hardly matters.

use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ringmq::printable::one_line;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use socket2::Socket;

use super::control::Control;
use super::protocol::{FromAgent, Mark, Order, Prepare, Rhythm, ToAgent, Used};
use super::reporter::Reporter;
use super::window::Window;
use super::{merge, split};
use crate::broker;
use crate::client::Target;
use crate::engine::control::Pace;
use crate::engine::far::FarOrders;
use crate::engine::{Counts, Engine};
use crate::machine::{self, ProcessorTime, Skew, now_ns};
use crate::plan::Plan;
use crate::recorder::Recording;
use crate::scenario::Scenario;

/// The hidden first argument with which this program is the process of a run. Behind it stand the process that started
/// it, its cores, the error of its clock, and its targets.
pub(crate) const RUN: &str = "__agent";

/// The arguments with which such a process is started.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    pub targets: &'a [String],
    pub cores: Option<&'a str>,
    /// Nanoseconds of offset and millionths of drift.
    pub clock: (i64, i64),
}

const WRITE_TIME_MAX: Duration = Duration::from_secs(5);
const READ_STEP: Duration = Duration::from_millis(200);

/// How many orders may wait. A driver waits for the answer to each.
const ORDERS_MAX: usize = 8;

/// Publishers times subscribers of a plan: as many numbers are kept.
const PAIRS_MAX: usize = 100_000_000;

/// A run that waits for its start looks again after this.
const WAIT_STEP: Duration = Duration::from_millis(1);

/// Sets the options of a control connection.
pub(crate) fn tune(socket: &Socket) -> Result<(), String> {
    let tuned = socket
        .set_read_timeout(Some(READ_STEP))
        .and_then(|()| socket.set_write_timeout(Some(WRITE_TIME_MAX)))
        // A pair of local sockets does not have this option.
        .map(|()| drop(socket.set_tcp_nodelay(true)));
    tuned.map_err(|error| format!("socket: {error}"))
}

/// Runs as the process of a run.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    match begin(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("the run ends: {}", one_line(&reason));
            ExitCode::from(1)
        }
    }
}

fn begin(arguments: &[OsString]) -> Result<(), String> {
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    let [parent, cores, offset, drift, targets @ ..] = &words[..] else {
        return Err("this is no command for people".to_string());
    };
    let number = |text: &str| text.parse::<i64>().map_err(|error| format!("{text}: {error}"));
    // If the agent is killed, its processes do not stay behind.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    if i64::from(Pid::as_raw(getppid())) != number(parent)? {
        return Err("the agent has ended".to_string());
    }
    let skew = Skew { offset_ns: number(offset)?, drift_ppm: number(drift)? };
    if skew != Skew::default() {
        machine::set_clock_wrong(skew);
    }
    let cores = if *cores == "-" { None } else { Some(broker::parse_cores(cores)?) };
    let input = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| format!("socket: {error}"))?;
    let socket = Socket::from(input);
    tune(&socket)?;
    let control = Arc::new(Control::new(&socket)?);
    let targets = targets.iter().map(ToString::to_string).collect();
    let (sender, orders) = sync_channel(ORDERS_MAX);
    let reading = control.clone();
    thread::spawn(move || {
        let reason = reading.read(socket, &sender);
        if reading.has_answered() {
            std::process::exit(0);
        }
        // The sockets of all clients close, and no thread goes on.
        eprintln!("the run ends: the driver: {}", one_line(&reason));
        std::process::exit(1);
    });
    Session { control, targets, cores, running: None }.serve(&orders)
}

struct Session {
    control: Arc<Control>,
    targets: Vec<String>,
    cores: Option<Vec<usize>>,
    running: Option<Running>,
}

struct Running {
    engine: Engine,
    split: split::Split,
    agent: u16,
    agent_count: usize,
    far: Arc<FarOrders>,
    reporter: Arc<Reporter>,
    mark: Reading,
}

/// The meters at one moment.
struct Reading {
    at: Instant,
    used: Option<ProcessorTime>,
    counts: Counts,
}

impl Reading {
    fn take(engine: &Engine) -> Reading {
        let used = ProcessorTime::of_process(std::process::id()).ok();
        Reading { at: Instant::now(), used, counts: engine.counts(0) }
    }
}

impl Session {
    fn serve(mut self, orders: &Receiver<ToAgent>) -> Result<(), String> {
        loop {
            let order = match orders.recv_timeout(READ_STEP) {
                Ok(order) => order,
                Err(_) => {
                    if let Some(Err(reason)) =
                        self.running.as_ref().map(|running| running.engine.check())
                    {
                        return self.fail(reason);
                    }
                    continue;
                }
            };
            let is_last = matches!(order, ToAgent::Finish(_));
            let answer = match self.follow(order) {
                Ok(answer) => answer,
                Err(reason) => return self.fail(reason),
            };
            self.control.say(&answer)?;
            if is_last {
                self.control.linger();
                return Ok(());
            }
        }
    }

    fn fail(&self, reason: String) -> Result<(), String> {
        self.control.say(&FromAgent::Failed { reason: reason.clone() })?;
        eprintln!("the run ends: {}", one_line(&reason));
        self.control.linger();
        Ok(())
    }

    fn follow(&mut self, order: ToAgent) -> Result<FromAgent, String> {
        if let ToAgent::Prepare(prepare) = order {
            return self.prepare(*prepare);
        }
        let running = self.running.as_mut().ok_or("nothing is prepared")?;
        match order {
            ToAgent::Order(order) => running.order(order),
            ToAgent::Mark => Ok(FromAgent::Marked(running.mark())),
            ToAgent::Close => Ok(FromAgent::Closed { sent: running.sent() }),
            ToAgent::Finish(finish) => {
                let Running { engine, far, agent_count, .. } =
                    self.running.take().ok_or("nothing is prepared")?;
                merge::finish(engine, &far, agent_count, &finish)
            }
            _ => Err("the order came twice".to_string()),
        }
    }

    fn prepare(&mut self, prepare: Prepare) -> Result<FromAgent, String> {
        if self.running.is_some() {
            return Err("there is a plan already".to_string());
        }
        // A large plan takes long, and meanwhile the driver hears that this agent is there.
        let reporter = Reporter::start(self.control.clone())?;
        let Prepare { scenario, split, agent, agent_count, broker, threads } = prepare;
        check(&scenario)?;
        let address = self.target(&broker)?;
        let target = Target { address, keep_alive_s: scenario.keep_alive_s };
        let mut plan = Plan::new(&scenario);
        if agent >= agent_count || !split.fits(&plan, agent_count.into()) {
            return Err("the plan's clients are not split as they may be".to_string());
        }
        let part = split.localize(&mut plan, agent);
        let own = |agents: &[u16]| agents.iter().filter(|of| **of == agent).count();
        machine::raise_open_files(own(&split.publishers) + own(&split.subscribers))?;
        let cores = match &self.cores {
            Some(cores) => cores.clone(),
            None => machine::cores_of(0).map_err(|error| format!("cores: {error}"))?,
        };
        let threads = threads.unwrap_or(cores.len()).clamp(1, 64);
        let engine = Engine::start(plan, &target, &cores, threads)?;
        let window = Window::new(&part, engine.shared());
        *self.control.window.lock().unwrap_or_else(PoisonError::into_inner) = Some(window);
        reporter.watch(engine.shared(), part.reported);
        let mark = Reading::take(&engine);
        let far = Arc::new(FarOrders::default());
        let agent_count = agent_count.into();
        self.running = Some(Running { engine, split, agent, agent_count, far, reporter, mark });
        Ok(FromAgent::Ready { threads, origin_ns: machine::clock_origin_ns() })
    }

    /// The address of the driver's broker, if the targets of the command line allow it. The name is never looked up: it
    /// is one of the targets, or an address that one of the targets has.
    fn target(&self, broker: &str) -> Result<SocketAddr, String> {
        let look_up = |target: &String| -> Vec<SocketAddr> {
            target.to_socket_addrs().map(Iterator::collect).unwrap_or_default()
        };
        if let Some(target) = self.targets.iter().find(|target| target.eq_ignore_ascii_case(broker))
        {
            return broker::reach(&look_up(target))
                .map_err(|reason| format!("no broker listens at {target} ({reason})"));
        }
        let address = broker.parse::<SocketAddr>().ok();
        let known = |address: &SocketAddr| {
            self.targets.iter().any(|target| look_up(target).contains(address))
        };
        address.filter(known).ok_or_else(|| {
            format!(
                "this agent may not connect to {broker}: its command line names {} (--target)",
                self.targets.join(", ")
            )
        })
    }
}

/// Checks a scenario that came over the wire.
fn check(scenario: &Scenario) -> Result<(), String> {
    scenario.check().map_err(|wrong| format!("scenario {}: {wrong}", scenario.name))?;
    if !super::can_run(scenario) {
        return Err("agents have plain scenarios of publishers and subscribers only".to_string());
    }
    if scenario.publishers * scenario.subscribers > PAIRS_MAX {
        return Err(format!("publishers times subscribers are {PAIRS_MAX} at most"));
    }
    Ok(())
}

impl Running {
    fn order(&mut self, order: Order) -> Result<FromAgent, String> {
        if order.recorded_ns.len() != self.agent_count || order.offset_ns.len() != self.agent_count
        {
            return Err("the order is for another number of agents".to_string());
        }
        let pace = match order.rhythm {
            Rhythm::Still => Pace::Still,
            Rhythm::Window => Pace::Window,
            Rhythm::Rate { interval_ns } if interval_ns >= 1.0 && interval_ns.is_finite() => {
                Pace::Rate { from_ns: order.from_ns, interval_ns }
            }
            Rhythm::Rate { interval_ns } => return Err(format!("{interval_ns} ns is no interval")),
        };
        // Threads on schedule wait for the time themselves.
        while pace == Pace::Window && now_ns() < order.from_ns {
            thread::sleep(WAIT_STEP);
        }
        let far = Arc::new(FarOrders {
            agents: self.split.publishers.clone(),
            own: self.agent,
            offset_ns: order.offset_ns,
            slice_ns: order.slice_ns.max(1_000_000),
            recorded_ns: order.recorded_ns.clone(),
            slices: Mutex::default(),
        });
        let records = order.recorded_ns.iter().any(|time| !time.is_empty());
        if records {
            self.far = far;
        }
        let own = order.recorded_ns[usize::from(self.agent)].clone();
        self.engine.order(|orders| {
            orders.paces[0] = pace;
            if records {
                let from_ns = own.start;
                orders.recording = Recording { due_ns: own, from_ns, interval_ns: 0 };
                orders.far = Some(self.far.clone());
            }
        })?;
        self.engine.take_idle_ns();
        self.reporter.followed();
        let late_ns = if order.from_ns == 0 { 0 } else { now_ns().saturating_sub(order.from_ns) };
        Ok(FromAgent::Ordered { late_ns })
    }

    fn mark(&mut self) -> Mark {
        let now = Reading::take(&self.engine);
        let before = std::mem::replace(&mut self.mark, now);
        let now = &self.mark;
        let threads = self.engine.thread_ids();
        let both = now.used.as_ref().zip(before.used.as_ref());
        let used = both.map(|(now, before)| {
            now.since(before, |thread| threads.contains(&thread)).fold(
                Used::default(),
                |used, time| Used {
                    ran_ns: used.ran_ns + time.ran,
                    busiest_ns: used.busiest_ns.max(time.busy()),
                    waited_longest_ns: used.waited_longest_ns.max(time.waited),
                },
            )
        });
        Mark {
            elapsed_ns: (now.at - before.at).as_nanos() as u64,
            used,
            idle_ns: self.engine.take_idle_ns(),
            counts: now.counts.since(&before.counts),
        }
    }

    /// How many messages the publishers here have sent.
    fn sent(&self) -> Vec<(u32, u64)> {
        let shared = self.engine.shared();
        let sent = shared.sent.iter().map(|sent| sent.load(Relaxed));
        (0..).zip(sent).filter(|(_, sent)| *sent > 0).collect()
    }
}
