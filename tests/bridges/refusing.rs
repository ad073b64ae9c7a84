//! A remote that refuses messages for a time, or closes over one: what a whole broker makes of it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use ringmq::codec::{Ack, Connack, Packet, PacketId, Publish, QoS, ReasonCode, next_frame};

use crate::client::Client;
use crate::process::{Process, folder};
use crate::{V5, forwarding};

/// What the remote does, and what it has.
#[derive(Default)]
struct Book {
    /// It closes over a payload with this in it.
    poison: Option<String>,
    /// So often a payload that begins with `busy` is refused.
    refusals: u32,
    accepted: Vec<(String, String)>,
    connections: u32,
}

#[derive(Clone, Default)]
struct Remote(Arc<Mutex<Book>>);

impl Remote {
    /// Ends with its process.
    fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let remote = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                remote.0.lock().unwrap().connections += 1;
                remote.serve(stream.unwrap());
            }
        });
        address
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut received = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let Ok(size @ 1..) = stream.read(&mut buffer) else { return };
            received.extend_from_slice(&buffer[..size]);
            let mut used = 0;
            let mut answers = Vec::new();
            while let Some(frame) = next_frame(&received[used..], usize::MAX).unwrap() {
                used += frame.size;
                match self.take(Packet::decode(&frame, V5).unwrap()) {
                    Ok(Some(answer)) => answer.encode(V5, &mut answers),
                    Ok(None) => {}
                    // What was answered before it still leaves.
                    Err(()) => return drop(stream.write_all(&answers)),
                }
            }
            received.drain(..used);
            if stream.write_all(&answers).is_err() {
                return;
            }
        }
    }

    /// The answer, if there is one; an error: it closes.
    fn take(&self, packet: Packet<'_>) -> Result<Option<Packet<'static>>, ()> {
        let publish = match packet {
            Packet::Connect(_) => return Ok(Some(Packet::Connack(Connack::default()))),
            Packet::Pingreq => return Ok(Some(Packet::Pingresp)),
            Packet::Publish(publish) => publish,
            _ => return Ok(None),
        };
        let mut book = self.0.lock().unwrap();
        let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
        if book.poison.as_ref().is_some_and(|poison| payload.contains(poison)) {
            return Err(());
        }
        let mut reason = ReasonCode::Success;
        if payload.starts_with("busy") && book.refusals > 0 {
            book.refusals -= 1;
            reason = ReasonCode::QuotaExceeded;
        } else {
            book.accepted.push((publish.topic.to_owned(), payload));
        }
        Ok(publish.packet_id.map(|id| Packet::Puback(Ack::new(id, reason))))
    }

    fn await_that(&self, what: &str, is_so: impl Fn(&Book) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_so(&self.0.lock().unwrap()) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.0.lock().unwrap().accepted);
            sleep(Duration::from_millis(10));
        }
    }

    fn payloads(&self) -> Vec<String> {
        let book = self.0.lock().unwrap();
        book.accepted.iter().map(|(_, payload)| payload.clone()).collect()
    }
}

fn publish(address: SocketAddr, messages: &[(&str, &str)]) {
    let mut client = Client::connect(address, "publisher", V5, false).unwrap();
    for ((topic, payload), id) in messages.iter().zip(1..) {
        client.publish(Publish {
            qos: QoS::AtLeastOnce,
            topic,
            packet_id: PacketId::new(id),
            payload: payload.as_bytes(),
            ..Publish::default()
        });
    }
    client.flush().unwrap();
    let mut acked = 0;
    while acked < messages.len() {
        acked += client.read(Duration::from_millis(100)).unwrap().len();
    }
}

fn ringmq_aside(folder: &std::path::Path, more: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ringmq"))
        .current_dir(folder)
        .args(["aside", "north", "--config", "local.toml"])
        .args(more)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_message_that_the_remote_closes_over_is_set_aside_and_can_be_sent_again() {
    thread::scope(|scope| {
        for io in ["auto", "epoll"] {
            scope.spawn(move || check_poison(io));
        }
    });
}

fn check_poison(io: &str) {
    {
        let folder = folder(&format!("poison-{io}"));
        let remote = Remote::default();
        remote.0.lock().unwrap().poison = Some("poison".to_owned());
        let bridge = forwarding(remote.start(), "poison_closes_max = 3");
        let configuration = format!("io = \"{io}\"\n{bridge}");
        let local = Process::ringmq(&folder, "local", 1, &configuration);
        let messages = [
            ("t/a", "1"),
            ("t/b", "2"),
            ("t/a", "poison"),
            ("t/a", "3"),
            ("t/b", "4"),
            ("t/c", "5"),
        ];
        publish(local.address, &messages);
        remote.await_that("the others arrive", |book| {
            book.accepted.iter().any(|(_, payload)| payload == "5")
        });
        let connections = remote.0.lock().unwrap().connections;
        assert!((3..=12).contains(&connections), "{connections}");
        // What was answered when the connection closed may come again.
        let payloads = remote.payloads();
        let is_first = |place: &usize| !payloads[..*place].contains(&payloads[*place]);
        let first: Vec<_> = (0..payloads.len()).filter(is_first).map(|at| &payloads[at]).collect();
        assert_eq!(first, ["1", "2", "3", "4", "5"]);
        let log = local.log();
        let told = log.contains("made the remote close") && log.contains("its topic has a gap");
        assert!(told, "{log}");
        let file = folder.join("local-data/bridges/north/aside");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let shown = ringmq_aside(&folder, &[]);
        assert!(shown.contains("from/here/a") && shown.contains("1 message in"), "{shown}");
        remote.0.lock().unwrap().poison = None;
        ringmq_aside(&folder, &["--send"]);
        remote.await_that("it arrives at last", |book| {
            book.accepted.last().unwrap() == &("from/here/a".to_owned(), "poison".to_owned())
        });
        let deadline = Instant::now() + Duration::from_secs(20);
        while folder.join("local-data/bridges/north/aside.again").exists() {
            assert!(Instant::now() < deadline, "{}", local.log());
            sleep(Duration::from_millis(10));
        }
        assert!(ringmq_aside(&folder, &[]).contains("No message is set aside"));
        let count = remote.payloads().iter().filter(|payload| *payload == "poison").count();
        assert_eq!(count, 1);
    }
}

#[test]
fn what_cannot_be_set_aside_is_dropped_and_told_and_the_rest_goes_on() {
    thread::scope(|scope| {
        for (is_writable, reason) in [(true, "is full"), (false, "cannot be written")] {
            scope.spawn(move || check_no_room(is_writable, reason));
        }
    });
}

fn check_no_room(is_writable: bool, reason: &str) {
    let folder = folder(&format!("no-room-{is_writable}"));
    let aside = folder.join("local-data/bridges/north/aside");
    if !is_writable {
        std::fs::create_dir_all(&aside).unwrap();
    }
    let remote = Remote::default();
    remote.0.lock().unwrap().poison = Some("poison".to_owned());
    let more = "poison_closes_max = 1\naside_bytes_max = \"64KiB\"\nwhen_full = \"drop-oldest\"";
    let local = Process::ringmq(&folder, "local", 1, &forwarding(remote.start(), more));
    let large = "poison".repeat(7000);
    publish(local.address, &[("t/a", &large), ("t/b", "1"), ("t/a", &large), ("t/b", "2")]);
    remote.await_that("the others arrive", |book| {
        book.accepted.iter().any(|(_, payload)| payload == "2")
    });
    let log = local.log();
    let line = log.lines().find(|line| line.contains("it is dropped, so its topic has a gap"));
    assert!(line.is_some_and(|line| line.contains(reason)), "{log}");
    let count = log.matches("is set aside in").count();
    assert_eq!((count, aside.is_file()), (usize::from(is_writable), is_writable), "{log}");
}

#[test]
fn a_message_refused_for_long_is_set_aside_and_goes_back_after_a_restart() {
    thread::scope(|scope| {
        for (io, is_stored) in [("auto", true), ("epoll", true), ("auto", false)] {
            scope.spawn(move || check_given_up(io, is_stored));
        }
    });
}

fn check_given_up(io: &str, is_stored: bool) {
    let folder = folder(&format!("given-up-{io}-{is_stored}"));
    let remote = Remote::default();
    remote.0.lock().unwrap().refusals = u32::MAX;
    let bridge = forwarding(remote.start(), "refused_max_s = 1");
    let configuration = format!("io = \"{io}\"\n{bridge}store = {is_stored}\n");
    let mut local = Process::ringmq(&folder, "local", 1, &configuration);
    publish(local.address, &[("t/a", "busy 1")]);
    remote.await_that("it is refused", |book| book.refusals < u32::MAX);
    publish(local.address, &[("t/a", "behind it")]);
    remote.await_that("what is behind it arrives", |book| !book.accepted.is_empty());
    let log = local.log();
    assert!(log.contains("was refused for") && log.contains("its topic has a gap"), "{log}");
    local.kill();
    let shown = ringmq_aside(&folder, &[]);
    assert!(shown.contains("refused, QuotaExceeded") && shown.contains("1 message in"), "{shown}");
    ringmq_aside(&folder, &["--send"]);
    remote.0.lock().unwrap().refusals = 0;
    local.run();
    // The log had not heard yet that the other one was done, maybe.
    remote.await_that("it arrives at last", |book| {
        book.accepted.iter().any(|(_, payload)| payload == "busy 1")
    });
    sleep(Duration::from_millis(100));
    let count = remote.payloads().iter().filter(|payload| *payload == "busy 1").count();
    assert_eq!(count, 1);
}

#[test]
fn a_message_refused_for_now_holds_up_its_topic_only_and_the_link_stays() {
    thread::scope(|scope| {
        for (io, more) in [("auto", ""), ("epoll", ""), ("auto", "inflight_max = 1")] {
            scope.spawn(move || check_refused(io, more));
        }
    });
}

fn check_refused(io: &str, more: &str) {
    let folder = folder(&format!("refused-{io}-{}", more.len()));
    let remote = Remote::default();
    remote.0.lock().unwrap().refusals = u32::MAX;
    let bridge = forwarding(remote.start(), more);
    let configuration = format!("io = \"{io}\"\n{bridge}");
    let mut local = Process::ringmq(&folder, "local", 1, &configuration);
    publish(local.address, &[("t/a", "busy 1")]);
    remote.await_that("it is refused", |book| book.refusals < u32::MAX);
    let messages = [("t/a", "busy 2"), ("t/b", "other"), ("t/a", "busy 3")];
    publish(local.address, &messages);
    remote.await_that("the other one arrives", |book| !book.accepted.is_empty());
    sleep(Duration::from_millis(300));
    assert_eq!(remote.payloads(), ["other"]);
    assert_eq!(remote.0.lock().unwrap().connections, 1, "{}", local.log());
    remote.await_that("it is told", |_| local.log().contains("QuotaExceeded"));
    // What waits survives the process, in order.
    local.kill();
    remote.0.lock().unwrap().refusals = 1000;
    local.run();
    remote.await_that("it is refused", |book| book.refusals <= 997);
    sleep(Duration::from_millis(100));
    remote.0.lock().unwrap().refusals = 1;
    remote.await_that("all arrive", |book| {
        book.accepted.last().is_some_and(|(_, payload)| payload == "busy 3")
    });
    // The log had not heard yet that one was done, maybe.
    let mut payloads = remote.payloads();
    payloads.dedup();
    assert_eq!(payloads, ["other", "busy 1", "busy 2", "busy 3"]);
    let book = remote.0.lock().unwrap();
    assert_eq!((book.connections, book.refusals), (2, 0), "{}", local.log());
}
