//! The binary's configuration, end to end: what it prints, what it refuses, and what it finds wrong with a machine.
#![cfg(feature = "shell")]

mod bridges;
mod memory;

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// Runs the broker's binary to its end.
fn ringmq(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringmq"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the binary was built with the tests")
}

/// A file of the configuration, below the target folder; `name` is the test's own.
fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.toml"));
    fs::write(&path, text).unwrap();
    path
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What a printed configuration sets, without its comments.
fn entries(printed: &str) -> Vec<&str> {
    printed.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// Runs `ringmq config` with a file of this text and expects it to be refused with exactly these lines, `FILE` standing
/// for its path.
fn check_refused(name: &str, text: &str, lines: &[&str]) {
    let path = file(name, text);
    let output = ringmq(&["config", "--config", path.to_str().unwrap()]);
    let seen = stderr(&output).replace(path.to_str().unwrap(), "FILE");
    assert_eq!(seen.lines().collect::<Vec<_>>(), lines, "{text}");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stdout(&output), "");
}

#[test]
fn the_printed_configuration_loads_again_as_it_is() {
    let changed = [
        "config",
        "--listen",
        "[::1]:1883",
        "--listen",
        "1884",
        "--cores",
        "0",
        "--wait",
        "adaptive",
        "--queue-bytes-max",
        "3000000",
        "--session-expiry-max-s",
        "30d",
        "--queue-qos0-offline",
        "true",
        "--queue-policy",
        "drop-oldest",
    ];
    for (name, arguments) in [("printed_default", &changed[..1]), ("printed_changed", &changed)] {
        let first = ringmq(arguments);
        assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
        let printed = stdout(&first);
        let path = file(name, &printed);
        let second = ringmq(&["config", "--config", path.to_str().unwrap()]);
        assert_eq!(stderr(&second), "");
        assert_eq!(entries(&stdout(&second)), entries(&printed));
        assert!(entries(&printed).len() > 40);
    }
    let printed = stdout(&ringmq(&changed));
    for entry in [
        "listen = [\"[::1]:1883\", \"127.0.0.1:1884\"]",
        "cores = \"0\"",
        "wait = \"adaptive\"",
        "queue_bytes_max = 3000000",
        "session_expiry_max_s = 2592000",
        "queue_qos0_offline = true",
        "queue_policy = \"drop-oldest\"",
    ] {
        assert!(entries(&printed).contains(&entry), "{entry}");
    }
}

#[test]
fn each_printed_key_says_its_default_and_what_is_allowed() {
    let printed = stdout(&ringmq(&["config"]));
    let lines: Vec<_> = printed.lines().collect();
    let mut key_count = 0;
    for (index, line) in lines.iter().enumerate() {
        if !line.is_empty() && !line.starts_with('#') {
            assert!(lines[index - 1].starts_with("# Default: "), "{line}");
            assert!(lines[index - 1].contains(" Allowed: "), "{line}");
            assert!(lines[index - 2].starts_with("# "), "{line}");
            key_count += 1;
        }
    }
    assert!(key_count > 40);
}

#[test]
fn the_command_line_wins_over_the_file_and_the_file_over_the_default() {
    let path = file("precedence", "shards = 3\nspin_us = 70\n");
    let path = path.to_str().unwrap();
    for arguments in [
        ["config", "--config", path, "--shards", "5"],
        ["--config", path, "--shards", "5", "config"],
    ] {
        let printed = stdout(&ringmq(&arguments));
        for line in ["shards = 5", "spin_us = 70", "ring_entries = 1024"] {
            assert!(entries(&printed).contains(&line), "{line} in {printed}");
        }
        assert!(printed.contains("Set by --shards."), "{printed}");
        assert!(printed.contains(&format!("Set by {path}:2.")), "{printed}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_the_one_that_was_meant() {
    let known = "allowed: the keys that `ringmq config` prints";
    check_refused(
        "unknown",
        "# a comment\n\nqueue_message_max = 5\nqueue-bytes-max = 5\nwebsocket = true\n",
        &[
            &format!(
                "error: FILE:3: key 'queue_message_max': there is no such key; did you mean 'queue_messages_max'?; {known}"
            ),
            &format!(
                "error: FILE:4: key 'queue-bytes-max': there is no such key; did you mean 'queue_bytes_max'?; {known}"
            ),
            &format!("error: FILE:5: key 'websocket': there is no such key; {known}"),
        ],
    );
    check_refused(
        "section",
        "shards = 1\n[limits]\nreceive_max = 5\n",
        &[
            "error: FILE:2: key 'limits': there is no such section; allowed: keys without a section, as `ringmq config` prints them",
        ],
    );
}

#[test]
fn a_wrong_type_or_value_is_refused_with_file_line_key_and_what_is_allowed() {
    let number = "allowed: a number from 1 to 65535";
    let size = "allowed: bytes from 256 to 268435460, plain or such as \"64KiB\"";
    let cases = [
        ("receive_max = \"5\"", format!("key 'receive_max': '5' is a text in quotes, not a number; {number}")),
        ("receive_max = 0", format!("key 'receive_max': 0 is out of bounds; {number}")),
        ("receive_max = 65_536", format!("key 'receive_max': 65536 is out of bounds; {number}")),
        ("receive_max = -1", format!("key 'receive_max': -1 is out of bounds; {number}")),
        ("receive_max = 1.5", format!("key 'receive_max': a value of type float is of the wrong type; {number}")),
        (
            "receive_max = 99999999999999999999",
            format!("key 'receive_max': 99999999999999999999 is out of bounds; {number}"),
        ),
        ("packet_size_max = \"1GiB\"", format!("key 'packet_size_max': '1GiB' is out of bounds; {size}")),
        ("packet_size_max = \"1M\"", format!("key 'packet_size_max': '1M' is no size; did you mean \"1MiB\"?; {size}")),
        (
            "queue_qos0_offline = \"yes\"",
            "key 'queue_qos0_offline': 'yes' is a text in quotes; allowed: true or false".to_owned(),
        ),
        (
            "wait = \"snooze\"",
            "key 'wait': 'snooze' is not taken; allowed: \"sleep\", \"spin\", \"adaptive\"".to_owned(),
        ),
        (
            "arena_slots = 1000",
            "key 'arena_slots': 1000 is not a power of two; allowed: a power of two from 64 to 16777216"
                .to_owned(),
        ),
        (
            "connect_timeout_ms = \"50us\"",
            "key 'connect_timeout_ms': '50us' is no whole number of milliseconds; allowed: milliseconds \
             from 100 to 600000, plain or such as \"10s\""
                .to_owned(),
        ),
        (
            "listen = [\"localhost:1883\"]",
            "key 'listen': 'localhost:1883' is no address with a port; did you mean \"127.0.0.1:1883\"?; allowed: 1 to 64 addresses with a \
             port, such as \"0.0.0.0:1883\" or \"[::]:1883\", or a port alone for 127.0.0.1"
                .to_owned(),
        ),
    ];
    for (entry, sentence) in cases {
        check_refused("values", &format!("\n{entry}\n"), &[&format!("error: FILE:2: {sentence}")]);
    }
}

#[test]
fn a_file_that_is_no_toml_or_not_there_is_refused_with_its_line() {
    let path = file("syntax", "shards = 1\nwait = \n");
    let output = ringmq(&["config", "--config", path.to_str().unwrap()]);
    let prefix = format!("error: {}:2: this is not TOML: ", path.display());
    assert!(stderr(&output).starts_with(&prefix), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(2));

    let path = file("twice", "shards = 1\nshards = 2\n");
    let output = ringmq(&["config", "--config", path.to_str().unwrap()]);
    assert!(stderr(&output).contains(":2: this is not TOML: duplicate key"), "{}", stderr(&output));

    let output = ringmq(&["--config", "/nowhere/ringmq.toml"]);
    assert_eq!(
        stderr(&output),
        "error: /nowhere/ringmq.toml: no such file or directory: name an existing file with --config\n"
    );
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_contradiction_is_refused_with_where_its_keys_come_from() {
    let path = file("contradiction", "packet_size_max = \"8MiB\"\n");
    let path = path.to_str().unwrap();
    for command in ["config", "serve"] {
        let output = ringmq(&[command, "--config", path, "--arena-size", "16MiB"]);
        assert_eq!(
            stderr(&output),
            format!(
                "error: arena_size (16MiB) must be at least 4 times packet_size_max (8MiB): raise the first to \
                 32MiB or lower the second (arena_size: --arena-size, packet_size_max: {path}:1)\n"
            )
        );
        assert_eq!(output.status.code(), Some(2));
    }
    let output = ringmq(&["check", "--config", path, "--listen", "0"]);
    assert!(stdout(&output).contains("\nFAIL  configuration"), "{}", stdout(&output));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_wrong_option_is_refused_with_what_is_allowed() {
    let cases: [(&[&str], &str); 5] = [
        (
            &["--shards", "1000"],
            "error: --shards: '1000' is out of bounds; allowed: a number from 0 to 128\n",
        ),
        (
            &["--shards", "-1"],
            "error: --shards: '-1' is not taken; allowed: a number from 0 to 128\n",
        ),
        (
            &["--queue-qos0-offline", "yes"],
            "error: --queue-qos0-offline: 'yes' is not taken; allowed: true or false\n",
        ),
        (
            &["--cores", "3-1"],
            "error: --cores: '3-1' is not taken; allowed: \"all\", or core numbers from 0 to 1023 such as \"0-3,6\"\n",
        ),
        (
            &["--spin-us", "1ns"],
            "error: --spin-us: '1ns' is no whole number of microseconds; allowed: microseconds from 0 to 1000000, plain or such as \"50us\"\n",
        ),
    ];
    for (arguments, sentence) in cases {
        let output = ringmq(arguments);
        assert_eq!(stderr(&output), sentence);
        assert_eq!(output.status.code(), Some(2));
    }
    let output = ringmq(&["--shard", "2"]);
    assert!(stderr(&output).contains("'--shards'"), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_help_names_every_key_of_the_printed_configuration() {
    let help = stdout(&ringmq(&["--help"]));
    for entry in entries(&stdout(&ringmq(&["config"]))) {
        let option = format!("--{}", entry.split(' ').next().unwrap().replace('_', "-"));
        assert!(help.split_whitespace().any(|word| word == option), "{option}");
    }
    let version = stdout(&ringmq(&["--version"]));
    assert_eq!(version, format!("ringmq {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_check_prints_a_line_for_each_subject_and_fails_if_one_fails() {
    let output = ringmq(&["check", "--listen", "0"]);
    let printed = stdout(&output);
    for subject in [
        "kernel",
        "io",
        "locked memory",
        "open files",
        "cores",
        "memory",
        "configuration",
        "listen",
    ] {
        let found = printed.lines().any(|line| {
            let rest =
                ["ok    ", "warn  ", "FAIL  "].iter().find_map(|level| line.strip_prefix(level));
            rest.is_some_and(|rest| rest.starts_with(subject))
        });
        assert!(found, "{subject} in\n{printed}");
    }
    let has_failed = printed.lines().any(|line| line.starts_with("FAIL"));
    assert_eq!(output.status.code(), Some(has_failed.into()), "{printed}");
}

#[test]
fn a_port_in_use_is_found_by_the_check_and_refused_by_serve() {
    let owner = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = owner.local_addr().unwrap().to_string();
    let output = ringmq(&["check", "--listen", &address]);
    let line = format!("FAIL  listen         {address} is in use\n");
    assert!(stdout(&output).contains(&line), "{}", stdout(&output));
    assert_eq!(output.status.code(), Some(1));

    let output = ringmq(&["--listen", &address]);
    let sentence = format!("listen: {address} is in use; end who has it");
    assert!(stderr(&output).contains(&sentence), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_core_that_does_not_exist_is_refused() {
    let output = ringmq(&["serve", "--listen", "0", "--cores", "1023"]);
    assert!(stderr(&output).contains("this machine has no core 1023"), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_log_in_json_has_one_object_a_line() {
    let owner = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = owner.local_addr().unwrap().to_string();
    let output = ringmq(&["--listen", &address, "--log-format", "json", "--log-level", "debug"]);
    let mut levels = Vec::new();
    for line in stderr(&output).lines() {
        let object: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(object["message"].is_string() && object["timestamp"].is_string(), "{line}");
        levels.push(object["level"].as_str().unwrap().to_owned());
    }
    assert!(levels.contains(&"DEBUG".to_owned()) && levels.contains(&"ERROR".to_owned()));

    let quiet = ringmq(&["--listen", &address, "--log-level", "error"]);
    assert!(stderr(&quiet).lines().all(|line| line.contains("ERROR")), "{}", stderr(&quiet));
    assert!(!stderr(&quiet).is_empty());
}

const ENRICH: &str = "\
[[plugin]]
name = \"enrich\"
kind = \"user-property\"
properties = [{ name = \"from\", value = \"${client_id}\" }]
";

#[test]
fn a_plugin_table_is_printed_as_it_holds_and_loads_again() {
    let text = r#"
shards = 2
[[plugin]]
name = "enrich"
kind = "user-property"
on_error = "pass"
slow_ms = "2s"
filters = ["a/#", "b \" \\ c"]
[[plugin.properties]]
name = "site"
value = "tab\there"
[[plugin.properties]]
name = "from"
value = "${client_id}"
replace = true
[[plugin]]
name = "renamed"
kind = "topic-rewrite"
rules = [{ pattern = '^old/(\d+)$', to = "new/$1" }, { filter = "x/#", pattern = "x", to = "y" }]
"#;
    let path = file("plugins", text);
    let first = ringmq(&["config", "--config", path.to_str().unwrap()]);
    assert_eq!(stderr(&first), "");
    let printed = stdout(&first);
    let plugins = printed.split_once("\n[[plugin]]\n").expect("the plugins are printed").1;
    for line in [
        "on_error = \"pass\"",
        "slow_ms = 2000",
        r#"filters = ["a/#", "b \" \\ c"]"#,
        r#"    { name = "site", value = "tab\there", replace = false },"#,
        r#"    { name = "from", value = "${client_id}", replace = true },"#,
        r#"    { filter = "\#", pattern = "^old/(\\d+)$", to = "new/$1" },"#.replace("\\#", "#").as_str(),
        r#"    { filter = "x/#", pattern = "x", to = "y" },"#,
    ] {
        assert!(plugins.lines().any(|printed| printed == line), "{line} in\n{plugins}");
    }
    assert!(printed.contains(&format!("# Set by {}:3.\n", path.display())), "{printed}");
    let again = file("plugins_again", &printed);
    let second = ringmq(&["config", "--config", again.to_str().unwrap()]);
    assert_eq!(stderr(&second), "");
    assert_eq!(entries(&stdout(&second)), entries(&printed));
}

#[test]
fn the_printed_example_of_a_plugin_has_every_key_and_loads_without_its_comment_signs() {
    let printed = stdout(&ringmq(&["config"]));
    let example = printed.split_once("# [[plugin]]\n").expect("there is an example").1;
    let example = example.split("\n\n").next().unwrap();
    let mut names = Vec::new();
    let mut table = "[[plugin]]\n".to_owned();
    for line in example.lines().filter_map(|line| line.strip_prefix("#   ")) {
        if let Some((name, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            names.push(name.to_owned());
            // The keys of one kind only.
            if !matches!(name, "rules" | "path" | "options") {
                table.push_str(&format!("{line}\n"));
            }
        }
    }
    let known = [
        "name",
        "kind",
        "on_error",
        "slow_ms",
        "filters",
        "properties",
        "rules",
        "path",
        "options",
    ];
    assert_eq!(names, known);
    let path = file("example", &table);
    let output = ringmq(&["config", "--config", path.to_str().unwrap()]);
    assert_eq!(stderr(&output), "", "{table}");
}

#[test]
fn what_is_wrong_with_a_plugin_is_told_with_its_line_name_and_key() {
    let allowed = "allowed: tables that each begin with [[plugin]]";
    check_refused(
        "plugin_number",
        "plugin = 5\n",
        &[&format!("error: FILE:1: key 'plugin': 5 is no list of tables; {allowed}")],
    );
    check_refused(
        "plugin_section",
        "[plugin]\nname = \"a\"\n",
        &[&format!(
            "error: FILE:1: key 'plugin': a value of type table is no list of tables; {allowed}"
        )],
    );
    check_refused(
        "plugin_word",
        "[[plugins]]\nname = \"a\"\n",
        &[
            "error: FILE:1: key 'plugins': there is no such key; did you mean 'plugin'?; allowed: the keys that \
           `ringmq config` prints",
        ],
    );
    let names = "name, kind, on_error, slow_ms, filters, properties, rules, path, options";
    let deny = "allowed: \"deny\", \"pass\"";
    let name = "allowed: a text in quotes, 1 to 64 bytes";
    let properties = "allowed: 1 to 64 tables of name, value, replace";
    let cases = [
        ("on_eror = 1", format!("key 'on_eror': there is no such key; did you mean 'on_error'?; allowed: {names}")),
        ("on_error = \"ignore\"", format!("key 'on_error': 'ignore' is not taken; {deny}")),
        ("on_error = true", format!("key 'on_error': true is of the wrong type; {deny}")),
        (
            "slow_ms = 0",
            "key 'slow_ms': 0 is out of bounds; allowed: milliseconds from 1 to 60000, plain or such as \"10s\"".to_owned(),
        ),
        (
            "filters = []",
            "key 'filters': 0 texts are out of bounds; allowed: 1 to 256 texts in quotes, 1 to 4096 bytes each, such as \
             [\"one\", \"two\"]"
                .to_owned(),
        ),
        (
            "rules = []",
            "key 'rules': it is for kind = \"topic-rewrite\"; allowed: with \"user-property\": filters, properties".to_owned(),
        ),
    ];
    for (line, sentence) in cases {
        check_refused(
            "plugin_keys",
            &format!("# first\n{ENRICH}{line}\n"),
            &[&format!("error: FILE:6: [[plugin]] 'enrich': {sentence}")],
        );
    }
    check_refused(
        "plugin_names",
        &format!("{ENRICH}{ENRICH}[[plugin]]\nname = \"a/b\"\nkind = \"library\"\n[[plugin]]\n"),
        &[
            &format!(
                "error: FILE:6: [[plugin]] 'enrich': key 'name': another plugin has this name; {name}"
            ),
            "error: FILE:9: [[plugin]] 'a/b': key 'path': it is missing; allowed: a text in quotes, 1 to 4096 bytes",
            &format!(
                "error: FILE:10: [[plugin]] 'a/b': key 'name': 'a/b' has other characters than letters, digits, - and _; {name}"
            ),
            "error: FILE:12: [[plugin]]: key 'kind': it is missing; allowed: \"user-property\", \"topic-rewrite\", \
             \"library\"",
            &format!("error: FILE:12: [[plugin]]: key 'name': it is missing; {name}"),
        ],
    );
    check_refused(
        "plugin_properties",
        "[[plugin]]\nname = \"p\"\nkind = \"user-property\"\nproperties = [\n  { name = \"a\", valu = \"b\" },\n  5\n]\n",
        &[
            &format!(
                "error: FILE:4: [[plugin]] 'p': key 'properties': 5 is no table; {properties}"
            ),
            "error: FILE:5: [[plugin]] 'p': properties: key 'valu': there is no such key; did you mean 'value'?; \
             allowed: name, value, replace",
            "error: FILE:5: [[plugin]] 'p': properties: key 'value': it is missing; allowed: a text in quotes, at most \
             4096 bytes",
        ],
    );
}

#[test]
fn what_a_plugin_cannot_work_with_is_told_with_its_line_and_key() {
    let filters = "allowed: topic filters, such as \"a/+/c\" or \"a/#\"";
    let rewrite = "[[plugin]]\nname = \"r\"\nkind = \"topic-rewrite\"\nrules = [\n";
    check_refused(
        "plugin_filters",
        &format!("{ENRICH}filters = [\"a\", \"a/#/b\", \"$share/g/a\"]\n"),
        &[
            &format!(
                "error: FILE:1: [[plugin]] 'enrich': key 'filters': '$share/g/a' is a shared subscription; {filters}"
            ),
            &format!(
                "error: FILE:1: [[plugin]] 'enrich': key 'filters': 'a/#/b': the topic filter has a misplaced \
                 wildcard; {filters}"
            ),
        ],
    );
    check_refused(
        "plugin_rules",
        &format!(
            "{rewrite}  {{ pattern = \"a(b\", to = \"x\" }},\n  {{ pattern = \"a\", to = \"$1\" }},\n]\n"
        ),
        &[
            "error: FILE:5: [[plugin]] 'r': key 'pattern': 'a(b' is no regular expression: unclosed group; allowed: \
             the syntax of Rust's regex crate",
            "error: FILE:6: [[plugin]] 'r': key 'to': '$1' is no capture of the pattern; allowed: $0 to $0",
        ],
    );
    let path = file("plugin_template", &ENRICH.replace("client_id", "clientid"));
    let output = ringmq(&["check", "--config", path.to_str().unwrap()]);
    let said = stderr(&output);
    let begins = format!(
        "error: {}:4: [[plugin]] 'enrich': key 'value': '${{clientid}}' is not known; did you mean 'client_id'?; ",
        path.display()
    );
    assert!(said.starts_with(&begins), "{said}");
    assert!(said.contains("${time_ms}") && said.contains("$$ for a dollar"), "{said}");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_check_names_each_plugin() {
    let path = file("plugin_check", ENRICH);
    let output = ringmq(&["check", "--listen", "0", "--config", path.to_str().unwrap()]);
    let line = "ok    plugins        enrich (user-property) can run\n";
    assert!(stdout(&output).contains(line), "{}", stdout(&output));

    let library = "[[plugin]]\nname = \"lib\"\nkind = \"library\"\npath = \"/nowhere/lib.so\"\n";
    let path = file("plugin_library", library);
    let path = path.to_str().unwrap();
    let output = ringmq(&["check", "--listen", "0", "--config", path]);
    let printed = stdout(&output);
    assert!(printed.contains("FAIL  plugins "), "{printed}");
    assert!(printed.contains("/nowhere/lib.so"), "{printed}");
    assert_eq!(output.status.code(), Some(1));
    // And so says the broker itself, which does not begin.
    let output = ringmq(&["--listen", "0", "--config", path]);
    assert!(stderr(&output).contains("/nowhere/lib.so"), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn people_are_met_half_way_on_the_command_line() {
    let help = ringmq(&["help"]);
    assert!(stdout(&help).contains("Usage: ringmq [COMMAND] [OPTIONS]"), "{}", stderr(&help));
    assert_eq!(help.status.code(), Some(0));
    let path = file("half_way", "shards = 2\n");
    let printed = stdout(&ringmq(&["config", "-c", path.to_str().unwrap(), "-p", "1884", "-v"]));
    for entry in ["shards = 2", "listen = [\"127.0.0.1:1884\"]", "log_level = \"debug\""] {
        assert!(entries(&printed).contains(&entry), "{entry} in\n{printed}");
    }
    let printed = stdout(&ringmq(&["-p", "1", "config", "--listen", "0.0.0.0:2"]));
    let both = "listen = [\"0.0.0.0:2\", \"127.0.0.1:1\"]";
    assert!(entries(&printed).contains(&both), "{printed}");
    let printed =
        stdout(&ringmq(&["config", "--queue-bytes-max", "10MB", "--listen", "mqtt://[::]:3"]));
    for entry in ["queue_bytes_max = 10000000", "listen = [\"[::]:3\"]"] {
        assert!(entries(&printed).contains(&entry), "{entry} in\n{printed}");
    }
    for (arguments, told) in [
        (&["-p", "70000"][..], "70000 is not in 0..=65535"),
        (&["-v", "--log-level", "info"], "cannot be used with"),
        (&["--arena-size", "64M"], "'64M' is no size; did you mean \"64MiB\"?"),
        (&["--listen", "*:1883"], "did you mean \"0.0.0.0:1883\"?"),
        (&["--listen", "mqtts://[::]:8883"], "there is no TLS yet"),
    ] {
        let output = ringmq(arguments);
        assert!(stderr(&output).contains(told), "{told} in\n{}", stderr(&output));
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn people_are_met_half_way_in_the_file() {
    for (text, told) in [
        (
            "# mine\nlistener 1883\nallow_anonymous true\n",
            &[
                ":2: this looks like a configuration of Mosquitto, and RingMQ reads TOML: `ringmq config`",
                ":2: 'listener' is here: listen = [\"0.0.0.0:1883\"]",
                ":3: 'allow_anonymous' has no counterpart yet",
            ][..],
        ),
        (
            "shards = 1\nlisten = 0.0.0.0:1883\n",
            &[":2: this is not TOML: ", "listen = \"0.0.0.0:1883\""],
        ),
        (
            "[[bridge]]\nname = \"north\"\naddresses = [\"mqtts://a:8883\"]\nforward = [{ filter = \"#\" }]\n",
            &[
                ":3: ",
                "'mqtts://a:8883' is no host with a port: there is no TLS yet; allowed: such as",
            ],
        ),
    ] {
        let path = file("half_way_file", text);
        let output = ringmq(&["config", "--config", path.to_str().unwrap()]);
        for told in told {
            assert!(stderr(&output).contains(told), "{told} in\n{}", stderr(&output));
        }
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn a_plugin_is_looked_for_beside_its_file() {
    let text = "[[plugin]]\nname = \"own\"\nkind = \"library\"\npath = \"plugins/own.so\"\n";
    let path = file("beside", text);
    let expected = path.with_file_name("plugins/own.so");
    let printed = stdout(&ringmq(&["config", "--config", path.to_str().unwrap()]));
    let entry = format!("path = \"{}\"", expected.display());
    assert!(printed.lines().any(|line| line == entry), "{entry} in\n{printed}");
}
