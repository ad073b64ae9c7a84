//! A remote that refuses messages for a time: what a whole broker makes of it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
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
                if let Some(answer) = self.take(Packet::decode(&frame, V5).unwrap()) {
                    answer.encode(V5, &mut answers);
                }
            }
            received.drain(..used);
            if stream.write_all(&answers).is_err() {
                return;
            }
        }
    }

    /// The answer, if there is one.
    fn take(&self, packet: Packet<'_>) -> Option<Packet<'static>> {
        let publish = match packet {
            Packet::Connect(_) => return Some(Packet::Connack(Connack::default())),
            Packet::Pingreq => return Some(Packet::Pingresp),
            Packet::Publish(publish) => publish,
            _ => return None,
        };
        let mut book = self.0.lock().unwrap();
        let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
        let mut reason = ReasonCode::Success;
        if payload.starts_with("busy") && book.refusals > 0 {
            book.refusals -= 1;
            reason = ReasonCode::QuotaExceeded;
        } else {
            book.accepted.push((publish.topic.to_owned(), payload));
        }
        publish.packet_id.map(|id| Packet::Puback(Ack::new(id, reason)))
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
