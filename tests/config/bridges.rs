//! `[[bridge]]` tables: read, printed, refused.

use super::{check_refused, entries, file, ringmq, stderr, stdout};

const BRIDGE: &str = "\
[[bridge]]
name = \"north\"
addresses = [\"localhost:1884\"]
";

#[test]
fn a_bridge_table_is_printed_as_it_holds_and_loads_again() {
    let text = r#"
shards = 2
[[bridge]]
name = "north"
addresses = ["broker.example", "[::1]:1884"]
protocol = "3.1.1"
user_name = "u"
password = "hush"
reconnect_max_ms = "2m"
spool_sync = "interval"
when_full = "hold"
[[bridge.forward]]
filter = "sensors/+/temp/#"
to = "site-7/$1/t/$2"
qos_max = 1
except = ["sensors/test/#"]
[[bridge.forward]]
filter = "log/#"
prefix = "site-7/"
retain = "clear"
store = false
[[bridge]]
name = "south"
addresses = ["10.0.0.1:1"]
message_properties = [{ name = "via", value = "tab\there" }]
subscribe = [{ filter = "$share/g/c/#", qos = 0, retain = "set" }]
"#;
    let path = file("bridges", text);
    let first = ringmq(&["config", "--config", path.to_str().unwrap()]);
    assert_eq!(stderr(&first), "");
    let printed = stdout(&first);
    assert!(!printed.contains("hush"), "{printed}");
    let bridges = printed.split_once("\n[[bridge]]\n").expect("the bridges are printed").1;
    for line in [
        r#"addresses = ["broker.example:1883", "[::1]:1884"]"#,
        "protocol = \"3.1.1\"",
        "user_name = \"u\"",
        "reconnect_max_ms = 120000",
        "spool_sync = \"interval\"",
        "when_full = \"hold\"",
        r#"    { filter = "sensors/+/temp/#", to = "site-7/$1/t/$2", qos_max = 1, retain = "keep", except = ["sensors/test/#"], store = true },"#,
        r#"    { filter = "log/#", prefix = "site-7/", retain = "clear", store = false },"#,
        r#"    { name = "via", value = "tab\there" },"#,
        r#"    { filter = "$share/g/c/#", qos = 0, retain = "set" },"#,
    ] {
        assert!(bridges.lines().any(|printed| printed == line), "{line} in\n{bridges}");
    }
    assert!(printed.contains(&format!("# Set by {}:3.\n", path.display())), "{printed}");
    let again = file("bridges_again", &printed);
    let second = ringmq(&["config", "--config", again.to_str().unwrap()]);
    assert_eq!(stderr(&second), "");
    assert_eq!(entries(&stdout(&second)), entries(&printed));
}

#[test]
fn the_printed_example_of_a_bridge_loads_without_its_comment_signs() {
    let printed = stdout(&ringmq(&["config"]));
    let example = printed.split_once("# [[bridge]]\n").expect("there is an example").1;
    let lines = example.lines().filter_map(|line| line.strip_prefix("#   "));
    let lines: Vec<_> = lines.filter(|line| !line.starts_with('#')).collect();
    assert!(lines.len() > 30, "{lines:?}");
    let path = file("bridge_example", &format!("[[bridge]]\n{}\n", lines.join("\n")));
    let output = ringmq(&["config", "--config", path.to_str().unwrap()]);
    assert_eq!(stderr(&output), "");
    assert!(stdout(&output).contains("{ name = \"via\", value = \"site-7\" },"));
}

#[test]
fn what_is_wrong_with_a_bridge_is_told_with_its_line_name_and_key() {
    let forward = "forward = [{ filter = \"#\" }]\n";
    let cases = [
        (
            "keep_alive = 5\nforward = [{ filter = \"#\" }]\n",
            4,
            "key 'keep_alive': there is no such key; did you mean 'keep_alive_s'?; allowed: name, addresses, protocol, ",
        ),
        (
            "",
            1,
            "key 'forward': there is no rule: the bridge would do nothing; allowed: 1 to 4096 tables of filter, ",
        ),
        (
            "forward = [{ filter = \"a/#/b\" }]\n",
            4,
            "forward: key 'filter': 'a/#/b': the topic filter has a misplaced wildcard",
        ),
        (
            "forward = [\n  { filter = \"a/+\" },\n  { filter = \"b\", to = \"$1\" },\n]\n",
            6,
            "forward: key 'to': '$1': $1 is used, and the filter has 0 wildcards",
        ),
        (
            "forward = [{ filter = \"a\", to = \"b\", prefix = \"c\" }]\n",
            4,
            "forward: key 'prefix': there is a 'to' as well; allowed: one of the two",
        ),
        (
            "subscribe = [{ filter = \"a\", store = true }]\n",
            4,
            "subscribe: key 'store': there is no such key; allowed: filter, to, prefix, ",
        ),
        (
            "reconnect_min_ms = \"2m\"\nforward = [{ filter = \"#\" }]\n",
            4,
            "key 'reconnect_min_ms': 120000 is more than reconnect_max_ms; allowed: at most reconnect_max_ms, 60000",
        ),
        (
            "protocol = \"3.1.1\"\npassword = \"x\"\nforward = [{ filter = \"#\" }]\n",
            5,
            "key 'password': 3.1.1 has no password without a user name; allowed: ",
        ),
        (
            "inflight_max = 5001\nforward = [{ filter = \"#\" }]\n",
            4,
            "key 'inflight_max': 5001 is out of bounds; allowed: a number from 1 to 5000",
        ),
    ];
    for (index, (lines, line, expected)) in cases.into_iter().enumerate() {
        let path = file(&format!("bridge_wrong_{index}"), &format!("{BRIDGE}{lines}"));
        for command in ["config", "check"] {
            let output = ringmq(&[command, "--config", path.to_str().unwrap()]);
            let seen = stderr(&output).replace(path.to_str().unwrap(), "FILE");
            let expected = format!("error: FILE:{line}: [[bridge]] 'north': {expected}");
            assert!(seen.starts_with(&expected) && seen.lines().count() == 1, "{seen}\n{expected}");
            assert_eq!(output.status.code(), Some(2));
        }
    }
    check_refused(
        "bridge_twice",
        &format!("{BRIDGE}{forward}{BRIDGE}{forward}"),
        &[
            "error: FILE:6: [[bridge]] 'north': key 'name': another bridge has this name; allowed: a text in quotes, 1 to 64 bytes",
        ],
    );
    check_refused(
        "bridge_address",
        "[[bridge]]\nname = \"a\"\naddresses = [\"mqtts://b\"]\nforward = [{ filter = \"#\" }]\n",
        &[
            "error: FILE:3: [[bridge]] 'a': key 'addresses': 'mqtts://b' is no host with a port: there is no TLS yet; allowed: such as \
           \"broker.example:1883\", \"10.0.0.2\" or \"[::1]:1883\"",
        ],
    );
}
