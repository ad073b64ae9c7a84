//! Brokers as processes: on a port of their own, stopped, killed and started again by their process ids.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A port that nobody uses now.
pub(crate) fn free_address() -> SocketAddr {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    probe.local_addr().unwrap()
}

/// A folder of a test's own, empty at first.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bridges").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A broker, whichever: what to run, and where it listens.
pub(crate) struct Process {
    command: Vec<String>,
    pub address: SocketAddr,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// A RingMQ with this configuration behind its listener.
    pub(crate) fn ringmq(folder: &Path, name: &str, shards: u16, configuration: &str) -> Process {
        let address = free_address();
        let file = folder.join(format!("{name}.toml"));
        let text = format!(
            "listen = [\"{address}\"]\nshards = {shards}\ndata_dir = \"{name}-data\"\nsys_interval_ms = 200\n\
             queue_messages_max = 1000000\nqueue_bytes_max = \"256MiB\"\n{configuration}\n",
        );
        fs::write(&file, text).unwrap();
        let command =
            [env!("CARGO_BIN_EXE_ringmq"), "--config", file.to_str().unwrap()].map(str::to_owned);
        Process::start(command.to_vec(), address, folder.join(format!("{name}.log")))
    }

    /// A Mosquitto from `programs` that keeps its sessions on disk.
    pub(crate) fn mosquitto(programs: &str, folder: &Path, name: &str) -> Process {
        let address = free_address();
        let file = folder.join(format!("{name}.conf"));
        let text = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}/\n\
             persistence_file {name}.db\nautosave_interval 1\nautosave_on_changes false\n\
             max_inflight_messages 0\nmax_queued_messages 0\nuser root\n",
            address.port(),
            folder.display()
        );
        fs::write(&file, text).unwrap();
        let program = Path::new(programs).join("mosquitto");
        let program = match program.exists() {
            true => program,
            false => PathBuf::from("/usr/sbin/mosquitto"),
        };
        let command = [program.to_str().unwrap(), "-c", file.to_str().unwrap()].map(str::to_owned);
        Process::start(command.to_vec(), address, folder.join(format!("{name}.log")))
    }

    fn start(command: Vec<String>, address: SocketAddr, log: PathBuf) -> Process {
        let mut process = Process { command, address, log, child: None };
        process.run();
        process
    }

    /// Starts it, and waits until it answers.
    pub(crate) fn run(&mut self) {
        self.spawn();
        let deadline = Instant::now() + Duration::from_secs(20);
        while greet(self.address).is_err() {
            assert!(
                Instant::now() < deadline,
                "{:?} does not answer: {}",
                self.command,
                self.log()
            );
            let status = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(status.is_none(), "{:?} ended with {status:?}: {}", self.command, self.log());
            sleep(Duration::from_millis(10));
        }
    }

    /// Starts it.
    fn spawn(&mut self) {
        assert!(self.child.is_none());
        let log = File::options().append(true).create(true).open(&self.log).unwrap();
        let child = Command::new(&self.command[0])
            .args(&self.command[1..])
            // Where a relative folder of the configuration is.
            .current_dir(self.log.parent().unwrap())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// The same once more, with a log of its own, while this one may still run.
    pub(crate) fn successor(&self, name: &str) -> Process {
        let log = self.log.with_file_name(format!("{name}.log"));
        let (command, address) = (self.command.clone(), self.address);
        let mut successor = Process { command, address, log, child: None };
        successor.spawn();
        successor
    }

    /// SIGTERM, and nothing is waited for.
    pub(crate) fn ask_to_end(&self) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), Signal::TERM).unwrap();
    }

    /// How it ends by itself, within half a minute.
    pub(crate) fn await_end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.as_mut().expect("it ran").try_wait().unwrap() {
                self.child = None;
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end: {}", self.log());
            sleep(Duration::from_millis(5));
        }
    }

    /// Waits until its log has this.
    pub(crate) fn await_log(&mut self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.log().contains(text) {
            let status = self.child.as_mut().expect("it runs").try_wait().unwrap();
            assert!(status.is_none(), "it ended with {status:?}: {}", self.log());
            assert!(Instant::now() < deadline, "no '{text}': {}", self.log());
            sleep(Duration::from_millis(10));
        }
    }

    /// SIGTERM, and its end is awaited.
    pub(crate) fn stop(&mut self) {
        self.end(Signal::TERM);
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    fn end(&mut self, signal: Signal) {
        let Some(mut child) = self.child.take() else { return };
        // It may have ended by itself.
        let _ = kill_process(Pid::from_child(&child), signal);
        let deadline = Instant::now() + Duration::from_secs(60);
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                let _ = child.kill();
                panic!("{} does not end by {signal:?}", child.id());
            }
            sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Resident memory that is not a file's, bytes.
    pub(crate) fn anonymous_size(&self) -> u64 {
        let id = self.id();
        let text = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// A whole CONNECT and CONNACK: who looks whether a port is free listens there for a moment, too.
fn greet(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00")?;
    stream.read_exact(&mut [0; 4])
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(Signal::KILL);
    }
}
