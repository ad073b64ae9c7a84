//! The driver's connection to one agent: its last messages, its answers, and the reason for which it is given up.

use std::collections::VecDeque;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ringmq::printable::one_line;
use socket2::Socket;

use super::clock::{Ping, Reading, Track};
use super::handshake::{self, Offered};
use super::protocol::{
    FRAME_SIZE_MAX, FromAgent, Progress, ToAgent, decode, read_frame, write_frame,
};
use super::session;
use super::token::Token;
use crate::broker;
use crate::machine::{self, now_ns};

/// An agent that sends nothing for this long has stopped: it sends something every 200 ms.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// An agent whose last run has just ended is free within this time.
const BUSY_TIME_MAX: Duration = Duration::from_secs(2);

/// The pings of one reading, and the time that they may take: a slow connection gets fewer.
const PINGS: u32 = 120;
const PINGS_MIN: u32 = 10;
const PING_TIME_MAX: Duration = Duration::from_millis(400);
/// An agent that has not answered a ping by then will not answer it.
const PONG_TIME_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct State {
    failure: Option<String>,
    heard: Option<Instant>,
    progress: Progress,
    answers: VecDeque<FromAgent>,
    pong: Option<(u32, u64, u64, u64)>,
}

#[derive(Debug)]
pub(super) struct Link {
    /// The agent's name in the table.
    pub name: String,
    output: Mutex<Socket>,
    state: Mutex<State>,
    changed: Condvar,
    pub track: Mutex<Track>,
    /// The process, if it is the driver's own.
    child: Mutex<Option<Child>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connects to an agent and shows it the token.
pub(super) fn greet(agent: &str, token: Option<&Token>, only_asks: bool) -> Result<Socket, String> {
    let wrong = |error| format!("--agent {agent}: {error}; expected HOST:PORT");
    let addresses: Vec<SocketAddr> = agent.to_socket_addrs().map_err(wrong)?.collect();
    let address = broker::reach(&addresses).map_err(|reason| {
        format!(
            "--agent {agent}: no agent listens there ({reason}): start `ringmq-bench agent` there"
        )
    })?;
    let failed = |reason: String| format!("--agent {agent}: {reason}");
    let begin = Instant::now();
    loop {
        let stream = std::net::TcpStream::connect_timeout(&address, handshake::TIME_MAX);
        let socket = Socket::from(stream.map_err(|error| failed(error.to_string()))?);
        let offered =
            session::tune(&socket).and_then(|()| handshake::offer(&socket, token, only_asks));
        match offered.map_err(failed)? {
            Offered::Taken => return Ok(socket),
            Offered::Busy(reason) if begin.elapsed() > BUSY_TIME_MAX => return Err(failed(reason)),
            Offered::Busy(_) => thread::sleep(BUSY_TIME_MAX / 20),
        }
    }
}

impl Link {
    pub(super) fn new(
        name: String,
        socket: Socket,
        child: Option<Child>,
    ) -> Result<(Arc<Link>, Socket), String> {
        let input = socket.try_clone().map_err(|error| format!("{name}: {error}"))?;
        let link = Link {
            name,
            output: Mutex::new(socket),
            state: Mutex::default(),
            changed: Condvar::new(),
            track: Mutex::default(),
            child: Mutex::new(child),
        };
        lock(&link.state).heard = Some(Instant::now());
        Ok((Arc::new(link), input))
    }

    /// Reads the agent's messages until the connection ends. Its reports about publishers elsewhere, each with a count
    /// of messages, go to `note`, which returns an error if one is wrong.
    pub(super) fn listen(
        self: &Arc<Link>,
        index: usize,
        mut input: Socket,
        note: impl Fn(&[(u32, u64)]) -> Result<(), String> + Send + 'static,
    ) -> Result<(), String> {
        let link = self.clone();
        // The time that the other agents took before does not count as silence of this one.
        lock(&self.state).heard = Some(Instant::now());
        let read = move || {
            loop {
                let frame = read_frame(&mut input, FRAME_SIZE_MAX, || Ok(()));
                let came_ns = now_ns();
                let heard = frame
                    .and_then(|frame| decode(&frame))
                    .and_then(|said| link.hear(said, came_ns));
                match heard {
                    Ok(Some(reported)) => match note(&reported) {
                        Ok(()) => {}
                        Err(reason) => return link.fail(&reason),
                    },
                    Ok(None) => {}
                    Err(reason) => return link.fail(&reason),
                }
            }
        };
        let spawned = thread::Builder::new().name(format!("agent-{index}")).spawn(read);
        spawned.map(drop).map_err(|error| format!("thread: {error}"))
    }

    fn hear(&self, said: FromAgent, came_ns: u64) -> Result<Option<Vec<(u32, u64)>>, String> {
        let mut state = lock(&self.state);
        state.heard = Some(Instant::now());
        let mut reported = None;
        match said {
            FromAgent::Pong { number, got_ns, answered_ns } => {
                state.pong = Some((number, got_ns, answered_ns, came_ns));
            }
            FromAgent::Progress(mut progress) => {
                reported = Some(std::mem::take(&mut progress.reported));
                state.progress = progress;
            }
            FromAgent::Failed { reason } => return Err(one_line(&reason).into_owned()),
            answer if state.answers.len() < 4 => state.answers.push_back(answer),
            _ => return Err("it answers what it was not asked".to_string()),
        }
        drop(state);
        self.changed.notify_all();
        Ok(reported)
    }

    /// Gives the agent up; the first reason stays.
    pub(super) fn fail(&self, reason: &str) {
        lock(&self.state).failure.get_or_insert_with(|| format!("agent {}: {reason}", self.name));
        self.changed.notify_all();
    }

    /// The reason for which the agent was given up, if it was.
    pub(super) fn failure(&self) -> Option<String> {
        lock(&self.state).failure.clone()
    }

    /// Gives the agent up if it does not send anything any more.
    pub(super) fn check(&self) -> Result<(), String> {
        let is_silent = lock(&self.state).heard.is_some_and(|heard| heard.elapsed() > SILENCE_MAX);
        if is_silent {
            self.fail(&format!(
                "it has stopped: it has said nothing for {} s",
                SILENCE_MAX.as_secs()
            ));
        }
        self.failure().map_or(Ok(()), Err)
    }

    pub(super) fn progress(&self) -> Progress {
        lock(&self.state).progress.clone()
    }

    /// Sends a message, unless the agent is given up. An agent that does not take it is given up.
    pub(super) fn say(&self, said: &ToAgent) {
        if self.failure().is_none()
            && let Err(reason) = write_frame(&mut *lock(&self.output), said)
        {
            self.fail(&reason);
        }
    }

    /// The next answer that `pick` accepts. An agent that gives none in time, or another one, is given up.
    pub(super) fn answer<T>(
        &self,
        patience: Duration,
        mut check: impl FnMut() -> Result<(), String>,
        pick: impl FnOnce(FromAgent) -> Option<T>,
    ) -> Result<T, String> {
        let begin = Instant::now();
        let answer = loop {
            check()?;
            self.check()?;
            let mut state = lock(&self.state);
            if let Some(answer) = state.answers.pop_front() {
                break answer;
            }
            if begin.elapsed() > patience {
                drop(state);
                self.fail(&format!("it is slow: no answer within {} s", patience.as_secs()));
                continue;
            }
            drop(self.changed.wait_timeout(state, Duration::from_millis(50)));
        };
        pick(answer).ok_or_else(|| {
            self.fail("it answers what it was not asked");
            self.failure().unwrap_or_default()
        })
    }

    /// Notes the clock of a process of the driver's own, which is the machine's: it is known without pings.
    pub(super) fn share_clock(&self, (origin_ns, wrong_ns): (i64, u64)) {
        if lock(&self.child).is_some() {
            let (own_ns, own_wrong_ns) = machine::clock_origin_ns();
            let offset_ns = own_ns.saturating_sub(origin_ns);
            let round_trip_ns = own_wrong_ns.saturating_add(wrong_ns);
            let at_ns = now_ns() as i64;
            lock(&self.track).0.push(Reading { at_ns, offset_ns, round_trip_ns });
        }
    }

    /// Reads the clock of an agent elsewhere: the best of many pings. A slow connection gets fewer.
    pub(super) fn read_clock(&self) {
        if lock(&self.child).is_some() {
            return;
        }
        let begin = Instant::now();
        let mut best: Option<Reading> = None;
        for number in 0..PINGS {
            if number >= PINGS_MIN && begin.elapsed() > PING_TIME_MAX {
                break;
            }
            let Some(ping) = self.ping(number) else { return };
            let Some(reading) = ping.reading() else {
                self.fail("it reports nonsense: its clock does not go forward");
                return;
            };
            if best.is_none_or(|best| reading.round_trip_ns < best.round_trip_ns) {
                best = Some(reading);
            }
        }
        lock(&self.track).0.extend(best);
    }

    fn ping(&self, number: u32) -> Option<Ping> {
        lock(&self.state).pong = None;
        let (begin, sent_ns) = (Instant::now(), now_ns());
        self.say(&ToAgent::Ping { number });
        loop {
            self.check().ok()?;
            if begin.elapsed() > PONG_TIME_MAX {
                let patience_s = PONG_TIME_MAX.as_secs();
                self.fail(&format!("it has not answered a ping within {patience_s} s"));
                return None;
            }
            let state = lock(&self.state);
            if let Some((_, got_ns, answered_ns, came_ns)) =
                state.pong.filter(|pong| pong.0 == number)
            {
                return Some(Ping { sent_ns, got_ns, answered_ns, came_ns });
            }
            drop(self.changed.wait_timeout(state, Duration::from_millis(50)));
        }
    }

    /// Ends the connection, and with it the agent's run, or a process of the driver's own.
    pub(super) fn end(&self) {
        let _ = lock(&self.output).shutdown(std::net::Shutdown::Both);
        if let Some(mut child) = lock(&self.child).take() {
            let begin = Instant::now();
            while matches!(child.try_wait(), Ok(None)) {
                if begin.elapsed() > Duration::from_secs(2) {
                    let _ = child.kill();
                }
                thread::sleep(Duration::from_millis(2));
            }
        }
    }
}
