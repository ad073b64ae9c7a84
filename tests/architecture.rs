//! The shape of the source, checked: layer order, where `unsafe` may stand, what the core may not touch, sizes, layout.

#[path = "architecture/circles.rs"]
mod circles;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file before its tests: more than the first is reported, more than the second fails.
const FILE_LINES: (usize, usize) = (500, 700);
/// Lines of a function: more than the first is reported, more than the second fails.
const FUNCTION_LINES: (usize, usize) = (70, 120);

/// Where `unsafe` may stand: the ring, system calls that no library has, the ABI of plugins, and the example of a plugin in Rust, which is no part of RingMQ.
const UNSAFE_ISLANDS: [&str; 4] =
    ["src/net/uring", "src/system/calls", "src/plugins/abi", "tests/plugins/rust"];

/// Where the crates that run executors may be named: everything else uses the facade over them.
const EXECUTORS: &str = "src/executor";

/// The rooms above the line: the only ones that may touch the operating system.
const WORLD: [&str; 8] = ["system", "executor", "net", "mesh", "disk", "plugins", "links", "shell"];

const CORE_FORBIDDEN: [(&str, &str); 20] = [
    ("std::time", "a clock: time is a parameter"),
    ("SystemTime", "a clock: time is a parameter"),
    ("std::thread", "threads belong to the world"),
    ("std::fs", "files belong to the world"),
    ("std::io", "I/O belongs to the world"),
    ("std::env", "the environment belongs to the world"),
    ("std::process", "processes belong to the world"),
    ("std::sync::mpsc", "mail leaves through poll_mail"),
    ("Mutex", "nothing is shared between shards"),
    ("RwLock", "nothing is shared between shards"),
    ("TcpStream", "sockets belong to the world"),
    ("TcpListener", "sockets belong to the world"),
    ("UdpSocket", "sockets belong to the world"),
    ("glommio", "the core builds without it"),
    ("io_uring", "the core builds without it"),
    ("async fn", "a handle_* runs to its end"),
    (".await", "a handle_* runs to its end"),
    ("println!", "the core does not print"),
    ("eprintln!", "the core does not print"),
    ("dbg!", "the core does not print"),
];

const TOP_LEVEL: [&str; 18] = [
    "Cargo.toml",
    "Cargo.lock",
    "src",
    "bench",
    "scripts",
    "tests",
    "flamegraphs",
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE",
    ".git",
    ".gitignore",
    ".ci",
    "rustfmt.toml",
    "clippy.toml",
    ".cargo",
];

/// Made by builds and tests, and ignored by git.
const GENERATED: [&str; 2] = ["target", ".cache"];

struct Source {
    /// Relative to the package, with `/`.
    path: String,
    text: String,
    /// `text` with comments and the contents of literals blanked; the lines stay where they were.
    code: String,
}

impl Source {
    fn read(path: &Path) -> Source {
        let text = fs::read_to_string(path).unwrap();
        let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let code = blank_comments_and_literals(&text);
        Source { path, text, code }
    }

    /// The code in front of the module of tests.
    fn code_before_tests(&self) -> &str {
        let mut tests = self.code.match_indices("#[cfg(test)]\nmod ").map(|(at, _)| at);
        let begin = tests.find(|&at| {
            let declared = self.code[at..].lines().nth(1);
            declared.is_some_and(|line| line.ends_with('{'))
        });
        &self.code[..begin.unwrap_or(self.code.len())]
    }

    /// The top-level module this file belongs to: `codec` for `src/codec/reader.rs`.
    fn layer(&self) -> &str {
        let inner = self.path.strip_prefix("src/").unwrap();
        let first = inner.split('/').next().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn is_in(&self, islands: &[&str]) -> bool {
        islands.iter().any(|island| {
            let rest = self.path.strip_prefix(island);
            rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/') || rest.starts_with('_'))
        })
    }
}

#[test]
fn each_module_uses_only_those_above_it_in_lib_rs() {
    let layers = layers();
    for room in WORLD {
        assert!(layers.contains_key(room), "src/lib.rs lists no {room}: {layers:?}");
    }
    let mut wrong = Vec::new();
    let mut paths_seen = 0;
    for source in sources("src") {
        let Some(&own) = layers.get(source.layer()) else {
            assert!(
                matches!(source.path.as_str(), "src/lib.rs" | "src/main.rs"),
                "{}",
                source.path
            );
            continue;
        };
        for (line, used) in modules_used(&source.code) {
            paths_seen += 1;
            let Some(&other) = layers.get(used.as_str()) else { continue };
            let is_submodule = root().join(format!("src/{}/{used}.rs", source.layer())).exists();
            if other > own && !is_submodule {
                wrong.push(format!("{}:{line} uses {used}, a layer above its own", source.path));
            }
        }
    }
    assert!(paths_seen > 0, "no path was found: the check sees nothing");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_stands_only_in_its_islands_and_says_why_it_is_sound() {
    let mut wrong = Vec::new();
    for source in ["src", "bench", "tests"].into_iter().flat_map(sources) {
        let allowed = source.is_in(&UNSAFE_ISLANDS);
        let lines: Vec<&str> = source.text.lines().collect();
        for (index, line) in source.code.lines().enumerate() {
            if !has_word(line, "unsafe") {
                continue;
            }
            if !allowed {
                wrong.push(format!("{}:{} has unsafe outside its islands", source.path, index + 1));
            } else if line.contains("unsafe {") || line.contains("unsafe impl") {
                let above = &lines[index.saturating_sub(8)..=index];
                if !above.iter().any(|line| line.contains("SAFETY:") || line.contains("Sound:")) {
                    wrong.push(format!("{}:{} has unsafe without SAFETY:", source.path, index + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_core_touches_no_clock_thread_file_or_socket() {
    let mut wrong = Vec::new();
    for source in sources("src") {
        if WORLD.contains(&source.layer()) || source.path == "src/main.rs" {
            continue;
        }
        for (index, line) in source.code_before_tests().lines().enumerate() {
            for (word, why) in CORE_FORBIDDEN {
                if has_word(line, word) {
                    wrong.push(format!("{}:{} has {word}: {why}", source.path, index + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_gate_runs_the_unit_tests_of_every_room_of_the_world_under_address_sanitizer() {
    let gate = fs::read_to_string(root().join(".ci/run")).unwrap();
    let rooms = format!("\nworld=({})\n", WORLD.join(" "));
    assert!(gate.contains(&rooms), ".ci/run does not have this line: {rooms}");
}

#[test]
fn executors_stand_behind_their_facade() {
    let mut wrong = Vec::new();
    for source in sources("src").iter().filter(|source| !source.is_in(&[EXECUTORS])) {
        for (index, line) in source.code.lines().enumerate() {
            for word in ["glommio", "tokio"] {
                if has_word(line, word) {
                    wrong.push(format!("{}:{} names {word}", source.path, index + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Admission belongs to one function: what it counts and marks would else be forgotten somewhere.
#[test]
fn only_the_flow_of_a_shard_admits_messages_to_the_arena() {
    let mut admitting = Vec::new();
    for source in sources("src").iter().filter(|source| !source.is_in(&["src/arena"])) {
        let code: String = source.code_before_tests().split_whitespace().collect();
        let is_test = source.path.ends_with("/tests.rs");
        if !is_test && (code.contains("arena.admit(") || code.contains("arena.admit_")) {
            admitting.push(source.path.clone());
        }
    }
    assert_eq!(admitting, ["src/shard/flow.rs"], "the others call Flow::admit");
}

#[test]
fn each_file_begins_with_what_it_is() {
    let mut wrong = Vec::new();
    for source in ["src", "bench", "tests"].into_iter().flat_map(sources) {
        if !source.text.starts_with("//! ") {
            wrong.push(format!("{} does not begin with a `//!` sentence", source.path));
        }
        if source.path.ends_with("/mod.rs") {
            wrong.push(format!("{}: a module is `foo.rs` + `foo/`", source.path));
        }
        for word in ["todo!", "unimplemented!"] {
            if has_word(&source.code, word) {
                wrong.push(format!("{} has {word}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_and_functions_are_short() {
    let mut wrong = Vec::new();
    let mut judge = |what: String, lines: usize, (wanted, most): (usize, usize)| {
        if lines > most {
            wrong.push(format!("{what}: {lines} lines, at most {most}"));
        } else if lines > wanted {
            println!("long: {what}: {lines} lines, {wanted} are wanted");
        }
    };
    for source in ["src", "bench", "tests"].into_iter().flat_map(sources) {
        let code = source.code_before_tests();
        judge(source.path.clone(), code.lines().count(), FILE_LINES);
        for (line, name, lines) in functions(code) {
            judge(format!("{}:{line} fn {name}", source.path), lines, FUNCTION_LINES);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_top_level_holds_only_what_the_layout_names() {
    let mut wrong = Vec::new();
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !TOP_LEVEL.contains(&name.as_str()) && !GENERATED.contains(&name.as_str()) {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "not in the layout: {}", wrong.join(", "));
}

/// Tools without a service, which whoever is root already may get from the distribution.
const INSTALLED_TOOLS: [&str; 2] = ["valgrind", "qemu-system-x86"];

#[test]
fn no_script_becomes_root_or_installs_a_service() {
    let mut folders = vec![root().join("scripts"), root().join(".ci")];
    let mut wrong = Vec::new();
    let mut simulated_count = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // What Python compiled is no text.
            let Ok(text) = fs::read_to_string(&path) else { continue };
            for (index, line) in text.lines().enumerate() {
                let words: Vec<_> =
                    line.split(|char: char| !char.is_alphanumeric() && char != '-').collect();
                let installs = line.contains("apt-get install") && !line.contains("--simulate");
                simulated_count += usize::from(line.contains("--simulate"));
                let is_tool = INSTALLED_TOOLS.iter().any(|tool| line.contains(tool));
                // A message may say what to do.
                let is_said = line.contains("is missing:");
                if words.contains(&"sudo") || installs && !is_tool && !is_said {
                    wrong.push(format!("{}:{}: {}", path.display(), index + 1, line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(simulated_count, 2, "what scripts/interop and scripts/compare fetch is not seen");
}

#[test]
fn the_checks_see_through_comments_and_literals() {
    let code = blank_comments_and_literals(
        "let a = \"unsafe \\\" { \"; // unsafe\nlet b = 'u'; /* unsafe */ fn f<'a>() {}\nr#\"unsafe\"#",
    );
    assert!(!has_word(&code, "unsafe"), "{code}");
    assert!(code.contains("fn f<'a>() {}"), "{code}");
    assert_eq!(code.lines().count(), 3);
    assert!(has_word("unsafe { x }", "unsafe") && !has_word("not_unsafe()", "unsafe"));

    let used: Vec<String> =
        modules_used("use crate::{codec::Packet, topic};\ncrate::arena::A; super::shard::S")
            .into_iter()
            .map(|(_, name)| name)
            .collect();
    assert_eq!(used, ["codec", "topic", "arena", "shard"]);

    let found = functions("fn a() {\n    b();\n}\n\nimpl X {\n    pub fn c(\n    ) {\n    }\n}\n");
    assert_eq!(found, [(1, "a".to_owned(), 3), (6, "c".to_owned(), 3)]);
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The modules that src/lib.rs declares, with their height.
fn layers() -> BTreeMap<String, usize> {
    let lib = Source::read(&root().join("src/lib.rs"));
    let declared = lib.code.lines().filter_map(|line| {
        let line = line.trim();
        line.strip_prefix("pub ").unwrap_or(line).strip_prefix("mod ")
    });
    declared.map(|name| name.trim_end_matches(';').to_owned()).zip(0..).collect()
}

/// Every Rust file under `folder` of the package, those of fuzz targets' builds left out.
fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && name != "target" && name != "node_modules" {
                folders.push(path);
            } else if name.ends_with(".rs") {
                found.push(Source::read(&path));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// `text` with the same length in lines, in which comments and the inside of literals are blank.
fn blank_comments_and_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        if end > at {
            out.extend(bytes[at..end].iter().map(|&b| if b == b'\n' { b'\n' } else { b' ' }));
            at = end;
        } else {
            out.push(if bytes[at].is_ascii() { bytes[at] } else { b'?' });
            at += 1;
        }
    }
    String::from_utf8(out).unwrap()
}

/// Where the comment or literal that begins at `at` ends; `at` when none begins there.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let until = |needle: &[u8], from: usize| {
        let found = rest[from..].windows(needle.len()).position(|window| window == needle);
        at + found.map_or(rest.len(), |index| from + index + needle.len())
    };
    let after_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    if rest.starts_with(b"//") {
        return until(b"\n", 2) - 1;
    }
    if rest.starts_with(b"/*") {
        return until(b"*/", 2);
    }
    if rest[0] == b'r' && !after_word {
        let hashes = rest[1..].iter().take_while(|&&b| b == b'#').count();
        if rest.get(1 + hashes) == Some(&b'"') {
            let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
            return until(&close, 2 + hashes);
        }
    }
    if rest[0] == b'"'
        || (rest[0] == b'\'' && (rest.get(1) == Some(&b'\\') || rest.get(2) == Some(&b'\'')))
    {
        let mut index = 1;
        while index < rest.len() && rest[index] != rest[0] {
            index += if rest[index] == b'\\' { 2 } else { 1 };
        }
        return at + (index + 1).min(rest.len());
    }
    at
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether `word` stands in `code` with no letter, digit or underscore against its ends.
fn has_word(code: &str, word: &str) -> bool {
    let bytes = code.as_bytes();
    code.match_indices(word).any(|(at, _)| {
        let before = at == 0 || !is_word_byte(bytes[at - 1]) || !is_word_byte(word.as_bytes()[0]);
        let end = at + word.len();
        let last = *word.as_bytes().last().unwrap();
        before && (end == bytes.len() || !is_word_byte(bytes[end]) || !is_word_byte(last))
    })
}

/// The first names behind `crate::` and `super::`, with their lines; those of a `{..}` group each.
fn modules_used(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for prefix in ["crate::", "super::"] {
        for (at, _) in code.match_indices(prefix) {
            let line = code[..at].lines().count().max(1);
            let rest = &code[at + prefix.len()..];
            match rest.strip_prefix('{') {
                None => found.push((line, first_name(rest))),
                Some(group) => {
                    let mut depth = 0;
                    let mut item_begins = true;
                    for (index, character) in group.char_indices() {
                        match character {
                            '{' => depth += 1,
                            '}' if depth == 0 => break,
                            '}' => depth -= 1,
                            ',' if depth == 0 => item_begins = true,
                            c if item_begins && !c.is_whitespace() => {
                                found.push((line, first_name(&group[index..])));
                                item_begins = false;
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
    }
    found
}

fn first_name(code: &str) -> String {
    code.chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect()
}

/// Each function's first line, name and count of lines, in formatted code.
fn functions(code: &str) -> Vec<(usize, String, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let words = line.trim_start();
        let Some(at) = words.find("fn ") else { continue };
        let is_item = words[..at].split_whitespace().all(|word| {
            word.starts_with("pub")
                || matches!(word, "const" | "unsafe" | "extern" | "async" | "in")
        });
        if !is_item || line.trim_end().ends_with([';', '}']) {
            continue;
        }
        let is_end = |line: &&&str| line.trim_end().ends_with(['{', ';']);
        if lines[index..].iter().find(is_end).is_some_and(|line| line.trim_end().ends_with(';')) {
            // A signature without a body, over several lines.
            continue;
        }
        let close = format!("{}}}", " ".repeat(indent));
        let end = lines[index..].iter().position(|line| line.trim_end() == close);
        if let Some(end) = end {
            found.push((index + 1, first_name(&words[at + 3..]), end + 1));
        }
    }
    found
}
