//! A process that stands still while its remote answers: no timer of its own ends the link afterwards.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::{self, sleep};
use std::time::Duration;

use ringmq::codec::{Connack, Packet, next_frame};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::{Process, folder};
use crate::{V5, forwarding};

/// Longer than the bridge waits for PINGRESP with a keep alive of a second.
const PAUSE: Duration = Duration::from_millis(2_500);
const ROUNDS: u32 = 2;

/// The next packet that is CONNECT or PINGREQ, answered; whether it was PINGREQ. `None`: closed.
fn answer(stream: &mut TcpStream, received: &mut Vec<u8>, before: impl FnOnce()) -> Option<bool> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(frame) = next_frame(received, usize::MAX).unwrap() {
            let (answer, is_ping) = match Packet::decode(&frame, V5).unwrap() {
                Packet::Connect(_) => (Packet::Connack(Connack::default()), false),
                Packet::Pingreq => (Packet::Pingresp, true),
                other => panic!("{other:?}"),
            };
            let size = frame.size;
            let mut bytes = Vec::new();
            answer.encode(V5, &mut bytes);
            received.drain(..size);
            if is_ping {
                before();
            }
            stream.write_all(&bytes).unwrap();
            return Some(is_ping);
        }
        match stream.read(&mut buffer) {
            Ok(size @ 1..) => received.extend_from_slice(&buffer[..size]),
            _ => return None,
        }
    }
}

#[test]
fn a_pause_of_the_process_ends_no_link_whose_remote_has_answered() {
    thread::scope(|scope| {
        for io in ["auto", "epoll"] {
            scope.spawn(move || check(io));
        }
    });
}

fn check(io: &str) {
    let folder = folder(&format!("paused-{io}"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let bridge = forwarding(listener.local_addr().unwrap(), "keep_alive_s = 1");
    let (tell, told) = mpsc::channel::<i32>();
    let remote = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = Vec::new();
        assert_eq!(answer(&mut stream, &mut received, || {}), Some(false));
        let process = Pid::from_raw(told.recv().unwrap()).unwrap();
        for round in 0..ROUNDS {
            // It stands still from before the answer comes until it is long too late.
            let stop = || kill_process(process, Signal::STOP).unwrap();
            let answered = answer(&mut stream, &mut received, stop);
            sleep(PAUSE);
            kill_process(process, Signal::CONT).unwrap();
            assert_eq!(answered, Some(true), "round {round}");
        }
        // The next ping comes over the same connection.
        answer(&mut stream, &mut received, || {})
    });
    let local = Process::ringmq(&folder, "local", 1, &format!("io = \"{io}\"\n{bridge}"));
    tell.send(local.id() as i32).unwrap();
    assert_eq!(remote.join().unwrap(), Some(true), "{io}: {}", local.log());
}
