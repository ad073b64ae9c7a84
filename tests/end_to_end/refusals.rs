//! What the program refuses to start with: it says so in a sentence and ends with an exit code that is not 0.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use socket2::{Domain, Socket, Type};

use crate::broker::Broker;

/// Runs the program, which must end by itself, and returns what it says.
fn refusal(arguments: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command.args(["20", env!("CARGO_BIN_EXE_ringmq")]).args(arguments).stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code();
    assert!(code.is_some_and(|code| (1..100).contains(&code)), "{arguments:?}: {code:?}: {said}");
    said
}

#[test]
fn a_port_in_use_is_refused() {
    let first = Broker::start(&["--shards", "2"]).unwrap();
    let address = first.address.to_string();
    let said = refusal(&["--listen", &address, "--shards", "2"]);
    assert!(said.contains(&address) && said.contains("in use"), "{said}");

    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let said = refusal(&["--listen", &address]);
    assert!(said.contains(&address) && said.contains("in use"), "{said}");
}

#[test]
fn a_port_that_another_process_shares_is_refused() {
    // Half of the connections would go astray in silence.
    let other = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    other.set_reuse_port(true).unwrap();
    other.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    other.listen(16).unwrap();
    let address = other.local_addr().unwrap().as_socket().unwrap().to_string();
    let said = refusal(&["--listen", &address]);
    assert!(said.contains(&address) && said.contains("in use"), "{said}");
}

#[test]
fn a_core_that_does_not_exist_is_refused() {
    let said = refusal(&["--listen", "127.0.0.1:0", "--cores", "1000"]);
    assert!(said.contains("1000") && said.contains("core"), "{said}");
}

#[test]
fn an_unknown_option_is_refused() {
    let said = refusal(&["--no-such-option", "1"]);
    assert!(said.contains("--no-such-option"), "{said}");
}

#[test]
fn a_wrong_configuration_is_refused_with_file_line_and_key() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let cases = [
        ("receive_maxx = 5\n", "receive_maxx", 1),
        ("# a comment\nreceive_max = 0\n", "receive_max", 2),
        ("\n\nreceive_max = \"many\"\n", "receive_max", 3),
    ];
    for (index, (text, key, line)) in cases.into_iter().enumerate() {
        let path = folder.join(format!("wrong-{index}.toml"));
        fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap();
        let said = refusal(&["--config", path]);
        let place = format!("{path}:{line}");
        assert!(said.contains(&place) && said.contains(key), "wanted {place} and {key}: {said}");
    }
    let said = refusal(&["--config", "/nonexistent/ringmq.toml"]);
    assert!(said.contains("/nonexistent/ringmq.toml"), "{said}");
}
