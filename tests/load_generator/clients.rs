//! `conn`, `pub` and `sub` against a RingMQ, and against doubles that treat them badly.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::BENCH;
use crate::double;
use crate::hostile::{self, Manner};
use crate::running::Running;

fn command(arguments: &str) -> Command {
    let mut command = Command::new(BENCH);
    command.args(arguments.split_whitespace()).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(arguments: &str) -> Output {
    command(arguments).output().expect("the bench starts")
}

/// The summary, and how the bench ended.
fn summary(arguments: &str) -> (Value, Option<i32>) {
    let output = run(&format!("{arguments} --json"));
    let said = String::from_utf8_lossy(&output.stderr);
    let summary = serde_json::from_slice(&output.stdout);
    (summary.unwrap_or_else(|_| panic!("{arguments}: {said}")), output.status.code())
}

fn port(address: &str) -> &str {
    address.rsplit(':').next().expect("a port")
}

/// A `sub` whose clients are connected, and granted what they subscribed to.
struct Subscriber(Child);

impl Subscriber {
    fn start(arguments: &str, clients: usize) -> Subscriber {
        let mut process = command(&format!("sub {arguments} --json")).spawn().expect("it starts");
        let mut lines = BufReader::new(process.stderr.take().expect("piped")).lines();
        let connected = format!("connected={clients} ");
        let mut said = Vec::new();
        let is_there = lines.by_ref().map_while(Result::ok).any(|line| {
            said.push(line);
            said.last().is_some_and(|line| line.contains(&connected))
        });
        assert!(is_there, "{arguments}: {said:?}");
        std::thread::spawn(move || lines.count());
        Subscriber(process)
    }

    fn end(mut self) -> (Value, Option<i32>) {
        let mut text = String::new();
        self.0.stdout.take().expect("piped").read_to_string(&mut text).expect("it ends");
        let code = self.0.wait().expect("it is a child").code();
        (serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}")), code)
    }
}

fn number(summary: &Value, name: &str) -> u64 {
    summary[name].as_u64().unwrap_or_else(|| panic!("{name} in {summary:#}"))
}

fn reasons(summary: &Value) -> String {
    summary["reasons"].to_string()
}

#[test]
fn all_clients_connect_and_stay() {
    let broker = Running::ringmq("");
    for version in [3, 4, 5] {
        let port = port(&broker.address);
        let arguments = format!("conn -h 127.0.0.1 -p {port} -V {version} -c 300 -i 0 --seconds 2");
        let (summary, code) = summary(&arguments);
        let found = ["accepted", "connected_at_end", "refused", "connections_lost"];
        assert_eq!(found.map(|name| number(&summary, name)), [300, 300, 0, 0], "{summary:#}");
        assert_eq!(number(&summary["connect_time"], "count"), 300, "{summary:#}");
        assert_eq!(code, Some(0), "{summary:#}");
    }
}

#[test]
fn what_pub_sends_sub_verifies_at_every_qos_and_version() {
    let broker = Running::ringmq("");
    let port = port(&broker.address);
    for (qos, version) in [(0, 5), (1, 5), (2, 5), (0, 3), (1, 4), (2, 3)] {
        let both = format!("-p {port} -V {version} -q {qos} -i 1");
        let subscriber = Subscriber::start(&format!("{both} -c 2 -t q/{qos}/# -L 400"), 2);
        let further = "-c 5 -I 1 -L 200 -s 64 -F 4 -w";
        let (sent, code) = summary(&format!("pub {both} {further} -t q/{qos}/%i"));
        assert_eq!([number(&sent, "sent"), number(&sent, "acknowledged")], [200, 200], "{sent:#}");
        assert_eq!(code, Some(0), "{sent:#}");
        let (got, code) = subscriber.end();
        let found = ["received", "verified", "lost", "duplicated", "reordered", "corrupt", "early"];
        assert_eq!(found.map(|name| number(&got, name)), [400, 400, 0, 0, 0, 0, 0], "{got:#}");
        assert_eq!(number(&got["latency"], "count"), 400, "{got:#}");
        assert_eq!(code, Some(0), "{got:#}");
    }
}

#[test]
fn topics_have_the_clients_number_id_and_name_and_the_messages_and_may_be_retained() {
    let broker = Running::ringmq("");
    let port = port(&broker.address);
    let clients = "-c 2 -n 10 --prefix p --shortids -u me";
    let topic = "x/%i/%c/%u/%s";
    let (sent, code) = summary(&format!("pub -p {port} {clients} -I 5 -L 6 -r -t {topic}"));
    assert_eq!((number(&sent, "sent"), code), (6, Some(0)), "{sent:#}");
    let mut found = 0;
    for client in ["11/p11", "12/p12"] {
        let all = format!("sub -p {port} -c 1 -t x/{client}/me/+ --seconds 1");
        let (got, code) = summary(&all);
        let kinds = ["retained", "verified", "lost"].map(|name| number(&got, name));
        assert_eq!(kinds, [number(&got, "received"), number(&got, "received"), 0], "{got:#}");
        assert!(kinds[0] > 0 && code == Some(0), "{got:#}");
        found += kinds[0];
    }
    assert_eq!(found, 6);
    // The subscriber's own number, id and name.
    let own = format!("sub -p {port} -c 2 -n 10 --prefix p -s -u me -t {} -L 6", "x/%i/%c/%u/+");
    let (got, _) = summary(&own);
    assert_eq!(number(&got, "received"), 6, "{got:#}");
}

#[test]
fn small_payloads_of_two_runs_are_no_duplicates() {
    let broker = Running::ringmq("");
    let port = port(&broker.address);
    for (size, verified) in [(16, 0), (23, 0), (24, 40)] {
        let topic = format!("small/{size}");
        let subscriber = Subscriber::start(&format!("-p {port} -c 1 -t {topic} -L 40"), 1);
        for _ in 0..2 {
            let (_, code) = summary(&format!("pub -p {port} -c 1 -I 1 -L 20 -s {size} -t {topic}"));
            assert_eq!(code, Some(0));
        }
        let (got, code) = subscriber.end();
        let found = ["received", "verified", "lost", "duplicated", "corrupt"];
        assert_eq!(found.map(|name| number(&got, name)), [40, verified, 0, 0, 0], "{got:#}");
        assert_eq!(code, Some(0), "{got:#}");
    }
}

#[test]
fn what_a_broker_loses_is_counted_and_ends_with_an_error() {
    let manner = double::Manner { counted_before: 0, unsaid: 0, loses: 100, counts: 0 };
    let address = double::start(manner).address;
    let port = port(&address);
    let subscriber = Subscriber::start(&format!("-p {port} -V 4 -c 1 -t any -L 300"), 1);
    let (sent, _) = summary(&format!("pub -p {port} -V 4 -c 1 -I 1 -L 400 -t any"));
    assert_eq!(number(&sent, "sent"), 400, "{sent:#}");
    let (got, code) = subscriber.end();
    let found = ["received", "lost", "duplicated"].map(|name| number(&got, name));
    assert_eq!((found, code), ([300, 100, 0], Some(1)), "{got:#}");
}

#[test]
fn refusals_are_counted_by_reason_and_do_not_end_the_run() {
    let port = hostile::start(Manner::RefusesThirds);
    let (got, code) = summary(&format!("conn -p {port} -V 4 -c 9 -i 1 --seconds 1"));
    assert_eq!(["accepted", "refused"].map(|name| number(&got, name)), [6, 3], "{got:#}");
    assert!(reasons(&got).contains("the broker refused the client: NotAuthorized"), "{got:#}");
    assert_eq!(code, Some(1), "{got:#}");
    // With as many tries as it takes all are accepted; the first refusals are no secret.
    let again = format!("conn -p {port} -V 4 -c 9 -i 1 --num-retry-connect 9 --seconds 4");
    let (got, _) = summary(&again);
    assert!(number(&got, "accepted") == 9 && number(&got, "refused") > 0, "{got:#}");
}

#[test]
fn a_connection_that_is_lost_is_made_again_as_often_as_is_asked() {
    let port = hostile::start(Manner::Closes);
    let publish = format!("pub -p {port} -V 4 -c 4 -i 1 -I 5 -q 1 -t t --seconds 20");
    let (got, code) = summary(&publish);
    let names = ["accepted", "connections_lost", "connected_at_end"];
    assert_eq!(names.map(|name| number(&got, name)), [4, 4, 0], "{got:#}");
    assert!(reasons(&got).contains("the broker closed the connection"), "{got:#}");
    assert_eq!(code, Some(1), "{got:#}");
    let (got, _) = summary(&format!("{publish} --reconnect 2"));
    assert_eq!(names.map(|name| number(&got, name)), [12, 12, 0], "{got:#}");
}

#[test]
fn a_broker_that_says_nothing_or_nonsense_is_named_as_that() {
    let begin = Instant::now();
    for (manner, words) in [
        (Manner::Silent, "no answer to CONNECT within 5 s"),
        (Manner::Babbles, "the broker sent what is no packet"),
    ] {
        let (got, code) = summary(&format!("conn -p {} -c 3 -i 1", hostile::start(manner)));
        assert!(reasons(&got).contains(words), "{got:#}");
        assert_eq!((number(&got, "refused"), code), (3, Some(1)), "{got:#}");
    }
    let (got, code) = summary("conn -p 1 -c 3 -i 1");
    assert!(reasons(&got).contains("Connection refused"), "{got:#}");
    assert_eq!(code, Some(1), "{got:#}");
    assert!(begin.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_broker_that_goes_away_is_counted() {
    let broker = Running::ringmq("");
    let both = format!("-p {} -c 3 -i 1", port(&broker.address));
    let subscriber = Subscriber::start(&format!("{both} -t a"), 3);
    drop(broker);
    let (got, code) = subscriber.end();
    assert_eq!(number(&got, "connections_lost"), 3, "{got:#}");
    assert_eq!(code, Some(1), "{got:#}");
}

#[test]
fn each_second_has_a_line_and_no_password_is_printed() {
    let broker = Running::ringmq("");
    let both = format!("pub -p {} -c 3 -i 1 -I 10 -t a -u me -P hush-hush", port(&broker.address));
    let output = run(&format!("{both} --seconds 1.5"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().next().expect("a line");
    assert!(line.starts_with("1s pub total=") && line.contains("/sec connected=3 "), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.contains("pub: 3 connections of 3 clients"), "{text}");
    let (got, _) = summary(&format!("{both} --seconds 0.5"));
    let command = got["command"].as_str().expect("a text");
    assert!(command.contains("-u me -P \"$SECRET\" "), "{command}");
    assert!(!text.contains("hush") && !got.to_string().contains("hush"), "{text}\n{got:#}");
}

#[test]
fn an_option_that_is_not_had_says_so_in_a_sentence() {
    let refused = [
        ("conn -S", "--ssl is not had"),
        ("conn --ssl true", "--ssl is not had"),
        ("sub -t a --ws true", "--ws is not had"),
        ("sub -t a --quic", "--quic is not had"),
        ("pub --topics-payload a.json", "--topics-payload is not had"),
        ("pub -t a -m template://a", "templates"),
        ("pub -t a --payload-hdrs cnt64,ts", "--payload-hdrs is not had"),
        ("pub -t a/+", "is no topic that one publishes to"),
        ("pub -t a/%u", "%u needs a --username"),
        ("sub -t a/%s", "%s is for messages"),
        ("sub -t a/#/b", "is no topic filter"),
        ("conn -V 4 -P hush", "a password needs a --username"),
        ("conn -c 0", "0 is not in 1..=1000000"),
    ];
    for (arguments, sentence) in refused {
        let output = run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(sentence) && !said.contains("hush"), "{arguments}: {said}");
        assert_eq!(output.status.code(), Some(2), "{arguments}: {said}");
    }
    for command in ["conn", "pub", "sub"] {
        let help = run(&format!("{command} --help"));
        let text = String::from_utf8_lossy(&help.stdout).into_owned();
        assert!(help.status.success() && text.contains("-h, --host"), "{text}");
    }
}
