//! The broker under test: a RingMQ that the bench starts itself, or any other.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use ringmq::config::kind;
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use serde::Serialize;

use crate::client::{Client, KEEP_ALIVE_S, Target};
use crate::options::{Options, Subject};
use crate::scenario::Scenario;
use crate::{fitness, limits, machine, relay};

/// The hidden first argument with which this program is the broker: one program is enough, and what is measured is never
/// older than what measures it. Behind it stand the broker's cores and its command line.
pub(crate) const SERVE: &str = "__serve";

/// Is the broker of the bench whose process is named first, on the cores named next, until it is told to end.
pub(crate) fn serve(arguments: &[OsString]) -> ExitCode {
    let bench = arguments.first().and_then(|id| id.to_str()?.parse::<i32>().ok());
    let arguments = arguments.get(1..).unwrap_or_default();
    let cores = arguments.first().and_then(|list| list.to_str()).map(parse_cores);
    let (Some(bench), Some(Ok(cores))) = (bench, cores) else { return ExitCode::from(2) };
    // The bench keeps itself off these cores, and what it starts inherits that.
    if let Err(error) = machine::pin(&cores) {
        eprintln!("cores {cores:?}: {error}");
        return ExitCode::from(2);
    }
    // Should the bench be killed, its broker does not stay behind.
    let _ = set_parent_process_death_signal(Some(Signal::TERM));
    if Pid::as_raw(getppid()) != bench {
        // It was killed before.
        return ExitCode::from(2);
    }
    let program = OsString::from("ringmq");
    let command_line = std::iter::once(program).chain(arguments[1..].iter().cloned());
    ringmq::shell::cli::run(command_line, ringmq::shell::launcher::run)
}

/// Where the bench's own broker listens: a free port, which it names.
const ADDRESS: &str = "127.0.0.1:0";

const START_TIME_MAX: Duration = Duration::from_secs(10);
const LAST_WORDS_COUNT: usize = 30;
const STOP_TIME_MAX: Duration = Duration::from_secs(10);

/// A broker that runs.
#[derive(Debug)]
pub(crate) struct Broker {
    pub target: Target,
    /// `None`: not known, so neither processor time nor memory are measured.
    pub pid: Option<u32>,
    pub said: Said,
    /// The bench's own, and what it says on stderr.
    child: Option<(Child, Receiver<String>)>,
}

/// What a broker says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Said {
    /// Of a broker that is not the bench's own.
    #[serde(rename = "broker_version")]
    pub version: Option<String>,
    pub io: Option<String>,
    /// Why it does not ask for input and output as it was made to.
    #[serde(rename = "io_warning")]
    pub warning: Option<String>,
}

/// How long a broker that does not say all this may keep us waiting.
const SAID_PATIENCE: Duration = Duration::from_millis(200);

/// For any of the addresses of a name: where nobody listens is known within a second.
const REACH_TIME_MAX: Duration = Duration::from_millis(900);
/// For an answer to CONNECT.
const GREET_TIME_MAX: Duration = Duration::from_secs(5);

/// A broker that is not the bench's own, as it has been found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub target: Target,
    pub said: Said,
    /// The largest packet that it takes, if it says so.
    pub packet_size_max: Option<usize>,
}

/// The broker that the command line names, once it has accepted a client; `None`: the bench starts its own.
pub(crate) fn find(options: &Options, mqtt: u8) -> Result<Option<Found>, String> {
    let Some(broker) = &options.broker else { return Ok(None) };
    let wrong = |error| format!("--broker {broker}: {error}; expected HOST:PORT");
    let addresses: Vec<SocketAddr> = broker.to_socket_addrs().map_err(wrong)?.collect();
    let address = reach(&addresses).map_err(|reason| {
        format!("--broker {broker}: no broker listens there ({reason}): start it, or name another address")
    })?;
    let target = Target { address, keep_alive_s: KEEP_ALIVE_S };
    let greet = |mqtt| {
        let client_id = ("ringmq-bench-asks", mqtt, 0);
        Client::connect_within(GREET_TIME_MAX, &target, client_id, None)
    };
    let mut client = greet(mqtt).map_err(|reason| format!("--broker {broker}: {reason}"))?;
    let said = ask(&mut client).unwrap_or_default();
    // Only 5.0 has a word for it; a broker that does not speak it may close.
    let packet_size_max = match client.packet_size_max {
        None if mqtt < 5 => {
            drop(client);
            greet(5).ok().and_then(|client| client.packet_size_max)
        }
        told => told,
    };
    Ok(Some(Found { target, said, packet_size_max }))
}

/// The first address at which somebody listens.
pub(crate) fn reach(addresses: &[SocketAddr]) -> Result<SocketAddr, String> {
    let begin = Instant::now();
    let mut reason = "the name has no address".to_string();
    for (tried, address) in addresses.iter().enumerate() {
        let left = REACH_TIME_MAX.saturating_sub(begin.elapsed());
        let share = (left / (addresses.len() - tried) as u32).max(Duration::from_millis(1));
        match TcpStream::connect_timeout(address, share) {
            Ok(_) => return Ok(*address),
            Err(error) => reason = format!("{address}: {error}"),
        }
    }
    Err(reason)
}

const VERSION_TOPIC: &str = "$SYS/broker/version";
const IO_TOPIC: &str = "$SYS/broker/io";

/// The longest of what a broker says of itself that is kept, characters.
const SAID_LENGTH_MAX: usize = 64;

/// Many brokers name their version below `$SYS`, and a RingMQ how it asks for input and output.
fn ask(client: &mut Client) -> Result<Said, String> {
    client.subscribe(&[VERSION_TOPIC, IO_TOPIC].map(str::to_string), 0)?;
    let (begin, mut said) = (Instant::now(), Said::default());
    while said.version.is_none() || said.io.is_none() {
        let Some(patience) = SAID_PATIENCE.checked_sub(begin.elapsed()) else { break };
        let Some((topic, text)) = client.next_publish(patience)? else { break };
        let text = Some(text.chars().take(SAID_LENGTH_MAX).collect());
        match topic.as_str() {
            VERSION_TOPIC => said.version = text,
            IO_TOPIC => said.io = text,
            _ => {}
        }
    }
    Ok(said)
}

/// Which cores the broker has and which the generator.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    pub broker: Vec<usize>,
    pub generator: Vec<usize>,
    /// The broker may run on the generator's cores too.
    pub shared: bool,
}

impl Placement {
    /// The bench's own broker gets the core that suits best, or those asked for; another keeps those that it has. The
    /// generator gets what shares no hardware with them, as long as there is any.
    pub(crate) fn choose(options: &Options) -> Result<Placement, String> {
        let all = machine::cores_of(0).map_err(|error| format!("cores: {error}"))?;
        let broker = match (options.pid, &options.cores) {
            (Some(pid), _) => {
                Some(machine::cores_of(pid).map_err(|error| format!("process {pid}: {error}"))?)
            }
            (None, Some(list)) => Some(parse_cores(list)?),
            (None, None) if options.broker.is_some() => Some(Vec::new()),
            (None, None) => None,
        };
        if let Some(missing) =
            broker.iter().flatten().find(|core| options.broker.is_none() && !all.contains(core))
        {
            return Err(format!(
                "core {missing} is not among those that this process may use: {all:?}"
            ));
        }
        let choice = match broker {
            Some(broker) => fitness::cores_beside(&all, broker),
            None => fitness::choose_cores(&all, 1),
        };
        let fitness::Choice { broker, generator } = choice;
        let shared = generator.is_empty() || broker.is_empty();
        Ok(Placement {
            generator: if generator.is_empty() { all } else { generator },
            broker,
            shared,
        })
    }

    pub(crate) fn choice(&self) -> fitness::Choice {
        fitness::Choice { broker: self.broker.clone(), generator: self.generator.clone() }
    }
}

/// A list as `0-1,3`, each once; an error says what is expected.
pub(crate) fn parse_cores(list: &str) -> Result<Vec<usize>, String> {
    let cores = kind::parse_cores(list).filter(|cores| !cores.is_empty());
    cores.ok_or_else(|| {
        let below = kind::CORE_COUNT_MAX;
        format!("--cores {list}: expected cores as 0-1,3, each once and below {below}")
    })
}

impl Broker {
    /// Starts a RingMQ for a scenario, or names the broker that was `found`.
    pub(crate) fn start(
        options: &Options,
        found: Option<&Found>,
        placement: &Placement,
        scenario: &Scenario,
    ) -> Result<Broker, String> {
        let aim = |address| Target { address, keep_alive_s: scenario.keep_alive_s };
        if let Some(Found { target, said, .. }) = found {
            let (target, said) = (aim(target.address), said.clone());
            return Ok(Broker { target, pid: options.pid, said, child: None });
        }
        let program =
            std::env::current_exe().map_err(|error| format!("this program's own path: {error}"))?;
        let cores: Vec<String> = placement.broker.iter().map(ToString::to_string).collect();
        let mut command = Command::new(program);
        let cores = cores.join(",");
        match options.subject {
            Subject::Broker => {
                let bench = std::process::id().to_string();
                command
                    .args([SERVE, &bench, &cores, "serve", "--listen", ADDRESS, "--cores", &cores]);
                command.args(["--shards", &options.shards.to_string(), "--io", &options.io]);
                for (name, value) in limits::wanted(options, scenario)? {
                    command.args([format!("--{name}"), value]);
                }
            }
            Subject::Relay => {
                command.args([relay::SERVE, &cores, ADDRESS, &options.io]);
            }
        }
        // Ctrl-C is for the bench: it ends its broker itself, once it has measured.
        command.process_group(0);
        let spawned =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|error| format!("starting the broker: {error}"))?;
        let lines = read_lines(child.stderr.take().expect("stderr is piped"));
        match wait_for_address(&lines) {
            Ok((address, said)) => {
                let (target, pid) = (aim(address), Some(child.id()));
                Ok(Broker { target, pid, said, child: Some((child, lines)) })
            }
            Err(reason) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(reason)
            }
        }
    }

    /// The bench has started it.
    pub(crate) fn is_own(&self) -> bool {
        self.child.is_some()
    }

    /// Ends the bench's own broker, and says if it did not end well.
    pub(crate) fn stop(mut self) -> Result<(), String> {
        let Some((mut child, lines)) = self.child.take() else { return Ok(()) };
        kill_process(Pid::from_child(&child), Signal::TERM)
            .map_err(|error| format!("stopping the broker: {error}"))?;
        let begin = Instant::now();
        while begin.elapsed() < STOP_TIME_MAX {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    return Err(format!("the broker ended with {status}{}", last_words(&lines)));
                }
                _ => thread::sleep(Duration::from_millis(5)),
            }
        }
        let _ = child.kill();
        let _ = child.wait();
        Err(format!("the broker did not end within {STOP_TIME_MAX:?} of SIGTERM and was killed"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn read_lines(stderr: ChildStderr) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            // Once nobody asks for them, reading on only keeps the pipe empty.
            let _ = sender.send(line);
        }
    });
    receiver
}

/// Of what the broker has said, the lines that may explain its end: from a panic on, or the last.
fn last_words(lines: &Receiver<String>) -> String {
    let said: Vec<String> = lines.try_iter().collect();
    let panic = said.iter().position(|line| line.contains("panicked"));
    let from = panic.unwrap_or(said.len().saturating_sub(LAST_WORDS_COUNT));
    let words: String =
        said[from..].iter().take(LAST_WORDS_COUNT).map(|line| format!("\n  {line}")).collect();
    if words.is_empty() { words } else { format!("; it said:{words}") }
}

/// The broker says `listening on ADDRESS (IO)` when it is ready; what else it says explains why it did not become so.
fn wait_for_address(lines: &Receiver<String>) -> Result<(SocketAddr, Said), String> {
    let begin = Instant::now();
    let mut warning = None;
    let mut said = String::new();
    loop {
        let wait = START_TIME_MAX.saturating_sub(begin.elapsed());
        match lines.recv_timeout(wait) {
            Ok(line) => {
                if let Some((_, rest)) = line.split_once("listening on ") {
                    let mut words = rest.split_whitespace();
                    let address = words.next().and_then(|text| text.parse().ok());
                    let io = words.next().map(|word| word.trim_matches(['(', ')']).to_string());
                    return address
                        .map(|address| (address, Said { io, warning, version: None }))
                        .ok_or_else(|| {
                            format!("the broker listens on no address that can be read: {line}")
                        });
                }
                if let Some((_, words)) = line.split_once("WARN io: ") {
                    warning = Some(words.to_string());
                }
                said += &format!("\n  {line}");
            }
            Err(error) => {
                let what = match error {
                    RecvTimeoutError::Timeout => "did not say that it listens",
                    RecvTimeoutError::Disconnected => "ended at once",
                };
                return Err(format!("the broker {what}; it said:{said}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_cores_has_ranges() {
        assert_eq!(parse_cores("0-2,5"), Ok(vec![0, 1, 2, 5]));
        for wrong in ["0-x", "3-1", "", "0-18446744073709551615"] {
            assert!(parse_cores(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_is_reached_where_anyone_listens() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let nobody = "127.0.0.1:1".parse().expect("address");
        assert_eq!(reach(&[nobody, address]), Ok(address));
        assert!(reach(&[nobody]).is_err_and(|reason| reason.contains("127.0.0.1:1: ")));
        assert!(reach(&[]).is_err());
    }

    #[test]
    fn the_address_is_found_among_what_the_broker_says() {
        let (sender, lines) = channel();
        let warning = "2001-02-03T04:05:06Z  WARN io: no io_uring: a filter forbids it";
        for line in [warning, "2001-02-03T04:05:06Z  INFO listening on 127.0.0.1:1884 (epoll)"] {
            sender.send(line.to_string()).expect("open");
        }
        let address = "127.0.0.1:1884".parse().expect("address");
        let said = Said {
            io: Some("epoll".to_string()),
            warning: Some("no io_uring: a filter forbids it".to_string()),
            version: None,
        };
        assert_eq!(wait_for_address(&lines), Ok((address, said)));
        sender.send("io_uring is forbidden here".to_string()).expect("open");
        drop(sender);
        assert!(
            wait_for_address(&lines).expect_err("ended").contains("io_uring is forbidden here")
        );
    }
}
