//! A broker as a child process on a free port of loopback.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long a broker may take to listen, or to end.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Broker {
    child: Child,
    pub address: SocketAddr,
    /// What it has written to stderr.
    log: Arc<Mutex<String>>,
}

#[allow(dead_code)] // the tests that include this file each use a part
impl Broker {
    /// Starts the program of this package with `arguments` behind `--listen 127.0.0.1:0`.
    ///
    /// With `RINGMQ_PEER="mosquitto -p PORT"` in the environment it is that program instead, to try the tests themselves on
    /// a broker that others wrote.
    pub(crate) fn start(arguments: &[&str]) -> Result<Broker, String> {
        if let Ok(peer) = std::env::var("RINGMQ_PEER") {
            return Broker::start_peer(&peer);
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq"));
        command.args(["--listen", "127.0.0.1:0"]).args(arguments);
        let (child, log) = spawn(command)?;
        let mut broker = Broker { child, address: SocketAddr::from(([127, 0, 0, 1], 0)), log };
        let began = Instant::now();
        loop {
            let told = broker.log();
            let line = told
                .lines()
                .find_map(|line| line.split_once("listening on ").map(|(_, rest)| rest));
            if let Some(address) =
                line.and_then(|line| line.split_whitespace().next()?.parse().ok())
            {
                broker.address = address;
                return Ok(broker);
            }
            if broker.child.try_wait().map_err(|e| e.to_string())?.is_some()
                || began.elapsed() > PATIENCE
            {
                // Its last words may still be on their way here.
                thread::sleep(Duration::from_millis(50));
                return Err(format!("the broker does not listen; it says:\n{}", broker.log()));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn start_peer(template: &str) -> Result<Broker, String> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.map_err(|e| e.to_string())?;
        let words = template.replace("PORT", &address.port().to_string());
        let mut words = words.split_whitespace();
        let mut command = Command::new(words.next().ok_or("RINGMQ_PEER is empty")?);
        command.args(words);
        let (child, log) = spawn(command)?;
        let broker = Broker { child, address, log };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if began.elapsed() > PATIENCE {
                return Err(format!("the peer does not listen; it says:\n{}", broker.log()));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(broker)
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name: `TERM`, `INT`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill -{name} {id}");
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// How it ended; an error when it does not end by itself.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus, String> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().map_err(|e| e.to_string())? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(2));
        }
        Err(format!("the broker does not end; it says:\n{}", self.log()))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(mut command: Command) -> Result<(Child, Arc<Mutex<String>>), String> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("{command:?}: {e}"))?;
    let stderr = child.stderr.take().unwrap();
    let log = Arc::new(Mutex::new(String::new()));
    let shared = Arc::clone(&log);
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut log = shared.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
    Ok((child, log))
}
