//! Mosquitto's clients: versions 3.1, 3.1.1 and 5, their sessions, properties, files and wills.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::broker::Broker;
use crate::peer;

const VERSIONS: [&str; 3] = ["mqttv31", "mqttv311", "mqttv5"];

struct Clients {
    folder: PathBuf,
    broker: Broker,
}

#[test]
fn mosquittos_clients_publish_and_subscribe() {
    each_shard_count(|clients| {
        for publisher in VERSIONS {
            for subscriber in VERSIONS {
                for qos in ["0", "1", "2"] {
                    let topic = format!("live/{publisher}/{subscriber}/{qos}");
                    let mut child = clients.subscriber(subscriber, qos, &topic);
                    let payload = format!("hello from {publisher}");
                    clients.publish(publisher, &["-t", &topic, "-m", &payload, "-q", qos]);
                    let got = finish(&mut child);
                    assert!(got.contains(&format!("{topic} {payload} {qos} 0\n")), "{got}");
                }
            }
        }
    });
}

#[test]
fn mosquittos_clients_resume_their_sessions() {
    each_shard_count(|clients| {
        for version in VERSIONS {
            let id = format!("away-{version}");
            let expiry: &[&str] = if version == "mqttv5" { &["-x", "100"] } else { &[] };
            let session = [&["-c", "-i", &id, "-q", "2", "-t", "away/#"], expiry].concat();
            clients.run("mosquitto_sub", version, &[&session[..], &["-E"]].concat());
            for number in 0..5 {
                clients.publish(version, &["-q", "2", "-t", "away/t", "-m", &number.to_string()]);
            }
            let got = clients.run(
                "mosquitto_sub",
                version,
                &[&session[..], &["-C", "5", "-W", "10"]].concat(),
            );
            assert_eq!(got, "0\n1\n2\n3\n4\n");
            clients.run("mosquitto_sub", version, &["-i", &id, "-t", "other", "-E"]);
        }
    });
}

#[test]
fn mosquittos_clients_see_retained_messages() {
    each_shard_count(|clients| {
        for version in VERSIONS {
            clients.publish(version, &["-t", "kept/1", "-m", "one", "-r", "-q", "1"]);
            clients.publish(version, &["-t", "kept/2", "-m", "two", "-r", "-q", "1"]);
            clients.publish(version, &["-t", "kept/1", "-n", "-r", "-q", "1"]);
            let seen = ["-t", "kept/#", "-C", "1", "-W", "10", "-F", "%t %p %r"];
            assert_eq!(clients.run("mosquitto_sub", version, &seen), "kept/2 two 1\n");
            // A second one does not come: the client ends by its own clock.
            let output =
                clients.output("mosquitto_sub", version, &["-t", "kept/1", "-C", "1", "-W", "1"]);
            assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(27), &b""[..]));
            clients.publish(version, &["-t", "kept/2", "-n", "-r", "-q", "1"]);
        }
    });
}

#[test]
fn mosquittos_clients_forward_properties() {
    each_shard_count(|clients| {
        let session = ["-c", "-x", "100", "-i", "props", "-q", "1", "-t", "props"];
        clients.run("mosquitto_sub", "mqttv5", &[&session[..], &["-E"]].concat());
        let mut publish = vec!["-t", "props", "-m", "x", "-q", "1"];
        for pair in [["b", "1"], ["a", "2"], ["b", "3"]] {
            publish.extend(["-D", "publish", "user-property", pair[0], pair[1]]);
        }
        publish.extend(["-D", "publish", "content-type", "text/plain"]);
        publish.extend(["-D", "publish", "response-topic", "re/ply"]);
        publish.extend(["-D", "publish", "correlation-data", "abc"]);
        publish.extend(["-D", "publish", "message-expiry-interval", "60"]);
        clients.publish("mqttv5", &publish);
        let receive = ["-C", "1", "-W", "10", "-F", "%C|%R|%D|%P"];
        let got = clients.run("mosquitto_sub", "mqttv5", &[&session[..], &receive].concat());
        assert_eq!(got, "text/plain|re/ply|abc|b:1 a:2 b:3\n");
    });
}

#[test]
fn mosquittos_clients_move_files() {
    each_shard_count(|clients| {
        let bytes: Vec<u8> =
            (0..900_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let file = clients.folder.join("file");
        fs::write(&file, &bytes).unwrap();
        clients.publish("mqttv5", &["-t", "file", "-f", file.to_str().unwrap(), "-r", "-q", "2"]);
        let receive = ["-t", "file", "-q", "2", "-C", "1", "-N", "-W", "20"];
        let output = clients.output("mosquitto_sub", "mqttv311", &receive);
        assert!(output.status.success() && output.stdout == bytes, "{} bytes", output.stdout.len());
    });
}

#[test]
fn a_will_of_mosquittos_client_is_published() {
    each_shard_count(|clients| {
        for version in VERSIONS {
            let topic = format!("wills/{version}");
            let mut watcher = clients.subscriber(version, "1", &topic);
            let will = ["--will-topic", &topic, "--will-payload", "gone", "--will-qos", "1"];
            let mut lost = clients.command(
                "mosquitto_sub",
                version,
                &[&["-d", "-t", "x"], &will[..]].concat(),
            );
            let mut lost = lost.stdout(Stdio::piped()).spawn().unwrap();
            wait_for_suback(&mut lost);
            lost.kill().unwrap();
            lost.wait().unwrap();
            let got = finish(&mut watcher);
            assert!(got.contains(&format!("{topic} gone 1 0\n")), "{got}");
        }
    });
}

#[test]
fn mosquittos_users_find_their_sys_topics() {
    each_shard_count(|clients| {
        let names = [
            "version",
            "uptime",
            "clients/connected",
            "clients/total",
            "messages/received",
            "messages/sent",
            "bytes/received",
            "bytes/sent",
            "publish/messages/received",
            "publish/messages/sent",
            "subscriptions/count",
            "retained messages/count",
            "messages/stored",
            "messages/inflight",
            "store/messages/count",
            "store/messages/bytes",
            "heap/current",
            "heap/maximum",
            "timestamp",
            "load/messages/received/1min",
            "load/messages/sent/15min",
        ];
        let message = |name: &str| {
            let topic = format!("$SYS/broker/{name}");
            let receive = ["-t", &topic, "-C", "1", "-W", "15", "-F", "%r %p"];
            clients.run("mosquitto_sub", "mqttv311", &receive)
        };
        // The first of a young broker comes live; from then on they are retained.
        for name in names {
            message(name);
        }
        for name in names {
            let got = message(name);
            assert!(got.starts_with("1 ") && got.len() > 3, "{name}: {got}");
        }
    });
}

/// Runs `test` against brokers of 1 and 2 shards.
fn each_shard_count(test: impl Fn(&Clients)) {
    let Some(folder) = peer("mosquitto") else { return };
    for shards in ["1", "2"] {
        let broker = Broker::start(&["--shards", shards, "--sys-interval-ms", "1000"]).unwrap();
        let id = broker.id();
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mosquitto-{id}"));
        fs::create_dir_all(&place).unwrap();
        test(&Clients { folder: place.clone(), broker });
        fs::remove_dir_all(place).unwrap();
    }
    assert!(Path::new(&folder).join("mosquitto_pub").exists());
}

impl Clients {
    fn command(&self, program: &str, version: &str, arguments: &[&str]) -> Command {
        // Into a pipe they would hold their lines back until they end.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", program]);
        let port = self.broker.address.port().to_string();
        command
            .args(["-h", "127.0.0.1", "-p", &port, "-V", version])
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    fn output(&self, program: &str, version: &str, arguments: &[&str]) -> std::process::Output {
        self.command(program, version, arguments).output().unwrap()
    }

    /// What a program prints that ends well.
    fn run(&self, program: &str, version: &str, arguments: &[&str]) -> String {
        let output = self.output(program, version, arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {}: {errors}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    fn publish(&self, version: &str, arguments: &[&str]) {
        self.run("mosquitto_pub", version, arguments);
    }

    /// A subscriber for one message, whose subscription has been granted.
    fn subscriber(&self, version: &str, qos: &str, topic: &str) -> Child {
        let arguments = ["-d", "-t", topic, "-q", qos, "-C", "1", "-W", "10", "-F", "%t %p %q %r"];
        let mut child = self
            .command("mosquitto_sub", version, &arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for_suback(&mut child);
        child
    }
}

/// Reads what a subscriber prints up to its SUBACK.
fn wait_for_suback(child: &mut Child) {
    let stdout = child.stdout.as_mut().unwrap();
    let mut line = Vec::new();
    let mut byte = [0];
    while std::io::Read::read(stdout, &mut byte).unwrap() == 1 {
        line.push(byte[0]);
        if byte[0] == b'\n' {
            if String::from_utf8_lossy(&line).contains("received SUBACK") {
                return;
            }
            line.clear();
        }
    }
    panic!("the subscriber ended without SUBACK");
}

/// What a subscriber prints to its end.
fn finish(child: &mut Child) -> String {
    let mut got = String::new();
    std::io::Read::read_to_string(child.stdout.as_mut().unwrap(), &mut got).unwrap();
    for _ in 0..1000 {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}: {got}");
            return got;
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    panic!("the subscriber does not end: {got}");
}
