//! The agent: listens for drivers, and gives the accepted one a process of its own. So a run ends with its process, in
//! any case: the sockets of its clients, its memory, and a driver that went away.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::options::AgentCommand;
use super::protocol::CLOSED;
use super::token::{self, Token};
use super::{handshake, session};
use crate::{broker, interrupt};

/// How many connections may be there without having shown that they may have the agent: one more ends the oldest of
/// them.
const STRANGERS_MAX: usize = 32;

/// Strangers fill no log.
const LOG_INTERVAL: Duration = Duration::from_millis(500);

struct Agent {
    command: AgentCommand,
    token: Option<Token>,
    strangers: Mutex<VecDeque<(u64, Socket)>>,
    /// The driver that has the agent.
    driver: Mutex<Option<SocketAddr>>,
    logged: Mutex<Option<Instant>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves drivers until somebody interrupts.
pub(crate) fn run(command: AgentCommand) -> Result<ExitCode, String> {
    let token = Token::find(command.token_file.as_deref())?;
    command.cores.as_deref().map(broker::parse_cores).transpose()?;
    for target in &command.targets {
        target
            .to_socket_addrs()
            .map_err(|error| format!("--target {target}: {error}; expected HOST:PORT"))?;
    }
    let wrong = |error| format!("--listen {}: {error}; expected HOST:PORT", command.listen);
    let addresses: Vec<SocketAddr> = command.listen.to_socket_addrs().map_err(wrong)?.collect();
    if token.is_none() && addresses.iter().any(|address| !address.ip().is_loopback()) {
        return Err(format!(
            "--listen {}: beyond loopback drivers must have a token: --token-file FILE or ${}",
            command.listen,
            token::VARIABLE
        ));
    }
    let listener = TcpListener::bind(&addresses[..])
        .map_err(|error| format!("--listen {}: {error}", command.listen))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let targets = command.targets.join(", ");
    eprintln!("listening on {address}; targets: {targets}");
    let agent = Arc::new(Agent {
        command,
        token,
        strangers: Mutex::default(),
        driver: Mutex::default(),
        logged: Mutex::default(),
    });
    thread::spawn(move || agent.accept(&listener));
    while !interrupt::came() {
        thread::sleep(Duration::from_millis(50));
    }
    Ok(ExitCode::SUCCESS)
}

impl Agent {
    fn accept(self: Arc<Agent>, listener: &TcpListener) {
        for number in 0.. {
            let Ok((stream, peer)) = listener.accept() else {
                // Perhaps there are no file descriptors left. Some will become free.
                thread::sleep(Duration::from_millis(20));
                continue;
            };
            let socket = Socket::from(stream);
            let Ok(copy) = socket.try_clone() else { continue };
            let mut strangers = lock(&self.strangers);
            strangers.push_back((number, copy));
            if strangers.len() > STRANGERS_MAX
                && let Some((_, oldest)) = strangers.pop_front()
            {
                let _ = oldest.shutdown(std::net::Shutdown::Both);
            }
            drop(strangers);
            let agent = self.clone();
            let serve = move || {
                match agent.serve(socket, peer, number) {
                    // A connection that only looks whether the agent listens, as drivers do first.
                    Err(reason) if reason != CLOSED => agent.log(&format!("{peer}: {reason}")),
                    _ => {}
                }
            };
            let _ = thread::Builder::new().spawn(serve);
        }
    }

    fn log(&self, line: &str) {
        let mut logged = lock(&self.logged);
        if logged.is_none_or(|at| at.elapsed() > LOG_INTERVAL) {
            *logged = Some(Instant::now());
            eprintln!("{}", ringmq::printable::one_line(line));
        }
    }

    fn serve(&self, socket: Socket, peer: SocketAddr, number: u64) -> Result<(), String> {
        let taken = session::tune(&socket)
            .and_then(|()| handshake::receive(&socket, self.token.as_ref(), || self.take(peer)));
        lock(&self.strangers).retain(|(other, _)| *other != number);
        let Some(_taken) = taken? else { return Ok(()) };
        eprintln!("driver {peer} has the agent");
        let child = self.start(socket);
        let ended = child.and_then(|mut child| child.wait().map_err(|error| error.to_string()))?;
        eprintln!("driver {peer} has ended ({ended})");
        Ok(())
    }

    /// Gives the agent to one driver.
    fn take(&self, peer: SocketAddr) -> Result<Taken<'_>, String> {
        let mut driver = lock(&self.driver);
        if let Some(other) = *driver {
            return Err(format!("the agent has one plan at a time, and driver {other} has it now"));
        }
        *driver = Some(peer);
        Ok(Taken(self))
    }

    fn start(&self, socket: Socket) -> Result<Child, String> {
        let AgentCommand { targets, cores, clock_offset, clock_drift, .. } = &self.command;
        let start = session::Start {
            targets,
            cores: cores.as_deref(),
            clock: (*clock_offset, *clock_drift),
        };
        start.process(socket.into())
    }
}

/// While this value lives the agent is a driver's.
struct Taken<'a>(&'a Agent);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *lock(&self.0.driver) = None;
    }
}

impl session::Start<'_> {
    /// Starts the process of a run, which has `control` as its standard input.
    pub(crate) fn process(&self, control: OwnedFd) -> Result<Child, String> {
        let failed = |error: std::io::Error| format!("starting a process: {error}");
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args([session::RUN, &std::process::id().to_string(), self.cores.unwrap_or("-")]);
        command.args([self.clock.0, self.clock.1].map(|number| number.to_string()));
        command.args(self.targets).env_remove(token::VARIABLE);
        command.stdin(Stdio::from(control)).stdout(Stdio::null());
        // Ctrl-C is for the driver, which tells how the run ends.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.spawn().map_err(failed)
    }
}
