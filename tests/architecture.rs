//! The shape of the source, checked: layer order, where `unsafe` may stand, what the core may not touch, sizes, layout.

#[path = "architecture/circles.rs"]
mod circles;
#[path = "architecture/source.rs"]
mod source;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use source::{Function, Source};

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

/// What `clippy.toml` cannot ban: whole modules and crates. Types, methods and macros stand there.
const CORE_FORBIDDEN_PATHS: [(&[&str], &str); 9] = [
    (&["std", "time"], "a clock: time is a parameter"),
    (&["std", "thread"], "threads belong to the world"),
    (&["std", "fs"], "files belong to the world"),
    (&["std", "io"], "I/O belongs to the world"),
    (&["std", "env"], "the environment belongs to the world"),
    (&["std", "process"], "processes belong to the world"),
    (&["std", "sync", "mpsc"], "mail leaves through poll_mail"),
    (&["glommio"], "the core builds without it"),
    (&["io_uring"], "the core builds without it"),
];

/// The same of keywords.
const CORE_FORBIDDEN_WORDS: [(&str, &str); 2] =
    [("async", "a handle_* runs to its end"), ("await", "a handle_* runs to its end")];

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

#[test]
fn each_module_uses_only_those_above_it_in_lib_rs() {
    let layers = layers();
    for room in WORLD {
        assert!(layers.contains_key(room), "src/lib.rs lists no {room}: {layers:?}");
    }
    let mut wrong = Vec::new();
    let mut paths_seen = 0;
    for source in sources(&["src"]) {
        let Some(&own) = layers.get(source.room()) else {
            assert!(
                matches!(source.path.as_str(), "src/lib.rs" | "src/main.rs"),
                "{}",
                source.path
            );
            continue;
        };
        for (line, used) in rooms_used(source) {
            paths_seen += 1;
            let Some(&other) = layers.get(&used) else { continue };
            if other > own {
                wrong.push(format!("{}:{line} uses {used}, a layer above its own", source.path));
            }
        }
    }
    assert!(paths_seen > 1_000, "{paths_seen} paths were found: the check sees too few");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_room_is_seen_through_groups_and_from_inner_modules() {
    let text =
        "use crate::{codec::Packet, topic};\nfn f(a: super::super::shard::S, b: super::own::T) {}
mod inner {\n    fn g(a: super::super::super::net::N, b: super::super::own::U) {}\n}\n";
    let source = Source::of("src/session/queue.rs", text.to_owned());
    let used: Vec<String> = rooms_used(&source).into_iter().map(|(_, room)| room).collect();
    assert_eq!(used, ["codec", "topic", "shard", "session", "net", "session"]);
}

/// Each use of `unsafe` in a crate of the package has its reason by the lint `undocumented_unsafe_blocks`.
#[test]
fn unsafe_stands_only_in_its_islands() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for source in sources(&["src", "bench", "tests"]) {
        for (line, _) in source.words.iter().filter(|(_, word)| word == "unsafe") {
            seen += 1;
            if !source.is_in(&UNSAFE_ISLANDS) {
                wrong.push(format!("{}:{line} has unsafe outside its islands", source.path));
            }
        }
    }
    assert!(seen > 50, "{seen} were found: the check sees too few");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_core_touches_no_clock_thread_file_or_socket() {
    let (mut wrong, mut in_the_world) = (Vec::new(), Vec::new());
    for source in sources(&["src"]) {
        let is_of_world = WORLD.contains(&source.room()) || source.path == "src/main.rs";
        let found = if is_of_world { &mut in_the_world } else { &mut wrong };
        found.extend(forbidden_in_the_core(source));
    }
    for what in ["std::fs", "std::thread", "std::io", "std::time", "glommio", "async", "await"] {
        let is_seen = in_the_world.iter().any(|line| line.contains(&format!(" has {what}:")));
        assert!(is_seen, "the world has no {what}: the check sees nothing");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn forbidden_in_the_core(source: &Source) -> Vec<String> {
    let own_paths = source.paths.iter().filter(|path| !source.is_of_tests(path.line));
    let paths = own_paths.flat_map(|path| {
        let begins = |names: &&(&[&str], &str)| {
            names.0.len() <= path.names.len() && names.0.iter().eq(&path.names[..names.0.len()])
        };
        let found = CORE_FORBIDDEN_PATHS.iter().filter(begins);
        found.map(|(names, why)| (path.line, names.join("::"), *why))
    });
    let own_words = source.words.iter().filter(|(line, _)| !source.is_of_tests(*line));
    let words = own_words.flat_map(|(line, word)| {
        let found = CORE_FORBIDDEN_WORDS.iter().filter(move |(forbidden, _)| forbidden == word);
        found.map(|(forbidden, why)| (*line, (*forbidden).to_owned(), *why))
    });
    // Another name for the whole library would hide what is used of it.
    let renames = source.words.windows(2).filter(|pair| pair[0].1 == "std" && pair[1].1 == "as");
    let renames = renames.map(|pair| (pair[0].0, "std as".to_owned(), "each use names its path"));
    let found = paths.chain(words).chain(renames);
    found.map(|(line, what, why)| format!("{}:{line} has {what}: {why}", source.path)).collect()
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
    let mut seen = 0;
    for source in sources(&["src"]) {
        for (line, word) in &source.words {
            if !matches!(word.as_str(), "glommio" | "tokio") {
                continue;
            }
            seen += 1;
            if !source.is_in(&[EXECUTORS]) {
                wrong.push(format!("{}:{line} names {word}", source.path));
            }
        }
    }
    assert!(seen > 5, "{seen} were found: the check sees too few");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Admission belongs to one function: what it counts and marks would else be forgotten somewhere.
#[test]
fn only_the_flow_of_a_shard_admits_messages_to_the_arena() {
    let mut admitting = Vec::new();
    for source in sources(&["src"]).filter(|source| !source.is_in(&["src/arena"])) {
        let is_admission = |pair: &[(usize, String)]| {
            let [(_, on), (line, call)] = pair else { unreachable!("windows of two") };
            on == "arena"
                && (call == "admit" || call.starts_with("admit_"))
                && !source.is_of_tests(*line)
        };
        let is_test = source.path.ends_with("/tests.rs");
        if !is_test && source.words.windows(2).any(is_admission) {
            admitting.push(source.path.clone());
        }
    }
    assert_eq!(admitting, ["src/shard/flow.rs"], "the others call Flow::admit");
}

#[test]
fn each_file_begins_with_what_it_is() {
    let mut wrong = Vec::new();
    for source in sources(&["src", "bench", "tests"]) {
        if !source.text.starts_with("//! ") {
            wrong.push(format!("{} does not begin with a `//!` sentence", source.path));
        }
        if source.path.ends_with("/mod.rs") {
            wrong.push(format!("{}: a module is `foo.rs` + `foo/`", source.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_and_functions_are_short() {
    let (mut wrong, mut long_count) = (Vec::new(), 0);
    let mut judge = |what: String, lines: usize, (wanted, most): (usize, usize)| {
        if lines > most {
            wrong.push(format!("{what}: {lines} lines, at most {most}"));
        } else if lines > wanted {
            long_count += 1;
            println!("long: {what}: {lines} lines, {wanted} are wanted");
        }
    };
    for source in sources(&["src", "bench", "tests"]) {
        judge(source.path.clone(), source.line_count, FILE_LINES);
        for Function { line, name, line_count } in &source.functions {
            if !source.is_of_tests(*line) {
                judge(format!("{}:{line} fn {name}", source.path), *line_count, FUNCTION_LINES);
            }
        }
    }
    assert!(long_count > 0, "nothing is long: the check sees nothing");
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

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The modules that src/lib.rs declares, with their height.
fn layers() -> BTreeMap<String, usize> {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let items = syn::parse_file(&text).unwrap().items.into_iter();
    let declared = items.filter_map(|item| match item {
        syn::Item::Mod(module) => Some(module.ident.to_string()),
        _ => None,
    });
    declared.zip(0..).collect()
}

/// The rooms of src that a file of src names, with their lines.
fn rooms_used(source: &Source) -> Vec<(usize, String)> {
    let file = source.path.strip_prefix("src/").unwrap().strip_suffix(".rs").unwrap();
    let room_of = |path: &source::NamedPath| {
        let mut at: Vec<&str> = file.split('/').collect();
        at.extend(source.modules_at(path.line));
        let (mut is_relative, mut names) = (false, path.names.iter().map(String::as_str));
        let first = names.find(|name| {
            match *name {
                "crate" => at.clear(),
                "super" => drop(at.pop()),
                "self" => {}
                _ => return true,
            }
            is_relative = true;
            false
        });
        at.extend(first);
        is_relative.then(|| (path.line, at.first().copied().unwrap_or("").to_owned()))
    };
    source.paths.iter().filter_map(room_of).collect()
}

/// Every Rust file under these folders of the package, those of fuzz targets' builds left out.
fn sources<'a>(folders: &'a [&'a str]) -> impl Iterator<Item = &'static Source> + use<'a> {
    static ALL: LazyLock<Vec<Source>> = LazyLock::new(read_all);
    ALL.iter().filter(|source| source.is_in(folders))
}

fn read_all() -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = ["src", "bench", "tests"].map(|folder| root().join(folder)).to_vec();
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
