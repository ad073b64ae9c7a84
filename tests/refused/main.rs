//! The program where io_uring is refused: it says so, runs on epoll, and needs no other call that is new.
#![cfg(feature = "shell")]

#[path = "../conformance/broker.rs"]
mod broker;
mod client;
mod filter;

use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use broker::Broker;
use client::Client;
use filter::Filter;

/// Runs `work` on a thread with a filter; processes that it starts have it, too.
fn under<T: Send>(filter: Filter, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            filter.apply().expect("a filter is taken");
            work()
        });
        thread.join().expect("what was run under the filter did not fail")
    })
}

fn ringmq(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringmq")).args(arguments).output().expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_refused_ring_is_told_with_its_cost_and_remedy_and_epoll_serves() {
    for filter in [Filter::Eperm, Filter::Enosys] {
        let broker = under(filter, || Broker::start(&["--shards", "2"])).expect("it starts");
        let said = broker.log();
        for words in ["WARN io", "seccomp", "epoll instead", "CPU", "io_uring_setup"] {
            assert!(said.contains(words), "{filter:?}: {words} is not in: {said}");
        }
        assert!(said.contains("(epoll)"), "{said}");
        let mut client = Client::connect(broker.address, "who-asks");
        client.subscribe("$SYS/broker/io/#");
        let mut told = vec![client.receive(), client.receive()];
        told.sort();
        assert_eq!(told[0], ("$SYS/broker/io".to_owned(), b"epoll".to_vec()));
        assert_eq!(told[1].0, "$SYS/broker/io/reason");
        assert!(text(&told[1].1).contains("seccomp"), "{told:?}");
        check_service(&broker);
        end(broker);
    }
}

/// Messages between clients of two shards, in order.
fn check_service(broker: &Broker) {
    let mut receivers: Vec<Client> =
        (0..4).map(|i| Client::connect(broker.address, &format!("receiver-{i}"))).collect();
    receivers.iter_mut().for_each(|receiver| receiver.subscribe("a/+"));
    let mut publisher = Client::connect(broker.address, "publisher");
    for number in 0..200u32 {
        publisher.publish("a/b", &number.to_be_bytes());
    }
    for receiver in &mut receivers {
        for number in 0..200u32 {
            assert_eq!(receiver.receive(), ("a/b".to_owned(), number.to_be_bytes().to_vec()));
        }
    }
}

fn end(mut broker: Broker) {
    broker.signal("TERM");
    let status = broker.wait().expect("it ends");
    assert!(status.success(), "{status}: {}", broker.log());
}

#[test]
fn a_ring_that_was_asked_for_is_not_replaced() {
    let output = under(Filter::Eperm, || ringmq(&["--io", "uring", "--listen", "127.0.0.1:0"]));
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("no io_uring") && said.contains("seccomp"), "{said}");
    assert!(said.contains("io = \"auto\""), "{said}");
}

#[test]
fn check_says_what_will_be_used_and_why() {
    let check = |io| {
        let output =
            under(Filter::Eperm, || ringmq(&["check", "--io", io, "--listen", "127.0.0.1:0"]));
        (output.status.code(), text(&output.stdout))
    };
    let (code, said) = check("auto");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("warn  io") && said.contains("epoll"), "{said}");
    let (code, said) = check("epoll");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("ok    io") && said.contains("as configured"), "{said}");
    let (code, said) = check("uring");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("FAIL  io"), "{said}");
}

/// Shards, a bridge, its log and its look-up of a name, without any call that came after Linux 5.0.
#[test]
fn epoll_needs_no_newer_calls() {
    under(Filter::NewerCalls, || {
        let folder = std::env::temp_dir().join(format!("ringmq-refused-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let north = Broker::start(&["--io", "epoll", "--shards", "1"]).expect("it starts");
        let file = folder.join("site.toml");
        let data_dir = folder.join("data");
        let port = north.address.port();
        let settings = format!(
            "data_dir = {data_dir:?}\n[[bridge]]\nname = \"north\"\naddresses = [\"localhost:{port}\"]\n\
             forward = [{{ filter = \"up/#\" }}]\n"
        );
        std::fs::write(&file, settings).expect("a file");
        let file = file.to_str().expect("a name");
        let site = Broker::start(&["--io", "epoll", "--shards", "2", "--config", file]);
        let site = site.expect("it starts");
        check_service(&site);
        let mut receiver = Client::connect(north.address, "receiver");
        receiver.subscribe("up/#");
        let mut publisher = Client::connect(site.address, "publisher");
        for number in 0..50u32 {
            publisher.publish_acked("up/x", &number.to_be_bytes(), number as u16 + 1);
        }
        for number in 0..50u32 {
            assert_eq!(receiver.receive(), ("up/x".to_owned(), number.to_be_bytes().to_vec()));
        }
        let began = Instant::now();
        end(site);
        end(north);
        assert!(began.elapsed() < Duration::from_secs(15));
        let _ = std::fs::remove_dir_all(&folder);
    });
}
