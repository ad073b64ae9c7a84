//! What the program writes to stderr: it needs nobody who takes it, and texts of others stay within their line.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::broker::Broker;

const PATIENCE: Duration = Duration::from_secs(20);

/// CONNECT of MQTT 3.1.1 with this client id, its CONNACK, and DISCONNECT, as soon as somebody listens.
fn come_and_go(address: SocketAddr, client_id: &str) {
    let began = Instant::now();
    while let Err(error) = try_to_come_and_go(address, client_id) {
        assert!(began.elapsed() < PATIENCE, "nobody takes a client: {error}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn try_to_come_and_go(address: SocketAddr, client_id: &str) -> io::Result<()> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let size = client_id.len() as u8;
    let fixed = [b"\x10", &[size + 12][..], b"\x00\x04MQTT\x04\x02\x00\x3c\x00", &[size]].concat();
    socket.write_all(&[&fixed, client_id.as_bytes()].concat())?;
    let mut connack = [0; 4];
    socket.read_exact(&mut connack)?;
    assert_eq!(connack, [0x20, 2, 0, 0]);
    socket.write_all(b"\xe0\x00")
}

/// A broker whose stderr is this, on a port that was free a moment ago.
fn start(stderr: Stdio) -> (Ended, SocketAddr) {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = free.unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmq"));
    command.args(["--shards", "1", "--log-level", "debug", "--listen", &address.to_string()]);
    (Ended(command.stdin(Stdio::null()).stderr(stderr).spawn().unwrap()), address)
}

/// Killed when dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_broker_serves_and_ends_in_order_where_stderr_cannot_be_written() {
    let full = || OpenOptions::new().write(true).open("/dev/full").map(Stdio::from).unwrap();
    // A pipe whose reader has gone.
    for stderr in [full(), Stdio::piped()] {
        let (mut broker, address) = start(stderr);
        drop(broker.0.stderr.take());
        come_and_go(address, "probe");
        let id = broker.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let began = Instant::now();
        let status = loop {
            if let Some(status) = broker.0.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < PATIENCE, "it does not end");
            thread::sleep(Duration::from_millis(5));
        };
        assert!(status.success(), "{status}");
    }
}

#[test]
fn a_client_id_cannot_forge_a_line_of_the_log() {
    let forged = "x\n2026-01-01T00:00:00.000000Z ERROR forged\r\u{1b}[2K\u{9b}' disconnected";
    for format in ["human", "json"] {
        let arguments = ["--shards", "1", "--log-level", "debug", "--log-format", format];
        let mut broker = Broker::start(&arguments).unwrap();
        come_and_go(broker.address, forged);
        broker.signal("TERM");
        assert!(broker.wait().unwrap().success());
        let began = Instant::now();
        let mut log = broker.log();
        while !log.contains("session of client") {
            assert!(began.elapsed() < PATIENCE, "{log}");
            thread::sleep(Duration::from_millis(5));
            log = broker.log();
        }
        assert!(log.matches("forged").count() >= 3, "{log}");
        for line in log.lines() {
            let unfit = |char: char| char.is_control() || char == '\u{9b}';
            assert!(!line.contains(unfit), "{line:?}");
            match format {
                "human" => {
                    let words: Vec<_> = line.split_whitespace().take(2).collect();
                    assert!(["ERROR", "WARN", "INFO", "DEBUG"].contains(&words[1]), "{line}");
                    assert!(!words[0].starts_with("2026-01-01T00:00:00.0"), "{line}");
                }
                _ => {
                    let object: serde_json::Value = serde_json::from_str(line).expect(line);
                    assert!(object["message"].is_string(), "{line}");
                }
            }
        }
        let quoted =
            r"'x\n2026-01-01T00:00:00.000000Z ERROR forged\r\u{1b}[2K\u{9b}\' disconnected'";
        let quoted =
            if format == "json" { quoted.replace('\\', "\\\\") } else { quoted.to_owned() };
        assert!(log.contains(&format!("client {quoted} connected with MQTT 3.1.1")), "{log}");
    }
}

/// What the broker says of a connection with these first bytes, from its address on.
fn told_of(broker: &Broker, bytes: &[u8], beginning: &str) -> String {
    let mut socket = TcpStream::connect(broker.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let own = socket.local_addr().unwrap();
    socket.write_all(bytes).unwrap();
    // Until it is closed.
    let _ = socket.read_to_end(&mut Vec::new());
    let (began, line) = (Instant::now(), format!("INFO {beginning} from {own}: "));
    loop {
        let log = broker.log();
        if let Some((_, told)) = log.split_once(&line) {
            return told.lines().next().unwrap_or_default().to_owned();
        }
        assert!(began.elapsed() < PATIENCE, "{line} in\n{log}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn who_is_refused_is_told_at_info() {
    for (shards, io) in [("1", "auto"), ("2", "auto"), ("2", "epoll")] {
        let broker = Broker::start(&["--shards", shards, "--io", io]).unwrap();
        let hello = b"\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03";
        let told = told_of(&broker, hello, "refused a connection");
        assert!(told.starts_with("this looks like TLS"), "{told}");
        let request = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:1883\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n";
        let told = told_of(&broker, request, "refused a connection");
        assert!(told.starts_with("this looks like HTTP"), "{told}");
        // Version 5.0 with an authentication method that there is not, of user `bob`.
        let login = b"\x10\x1a\x00\x04MQTT\x05\x82\x00\x3c\x06\x15\x00\x03xyz\x00\x02me\x00\x03bob";
        let told = told_of(&broker, login, "refused client 'me' with user name 'bob'");
        assert_eq!(told, "no authentication method is supported");
        // A second CONNECT.
        let connect = b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02me".repeat(2);
        let told = told_of(&broker, &connect, "closed client 'me'");
        assert_eq!(told, "a second CONNECT");
    }
}
