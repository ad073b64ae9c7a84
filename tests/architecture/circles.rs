//! Circles: no modules of a room use each other in turn. A room is a module with modules of its own, and what tests use
//! does not count.

use std::collections::{BTreeMap, BTreeSet};

use super::sources;
use crate::source::Source;

/// Rooms whose modules still use each other in circles, and why.
const NOT_YET: [(&str, &str); 2] = [
    ("bench/load", "what a run is asked and what came of it know the modules of each kind of run"),
    ("src/links", "a line owns its feed, and what it sets aside goes back through the line"),
];

/// Re-exports of re-exports that are followed.
const FOLLOWED_MAX: usize = 8;

#[test]
fn no_modules_of_a_room_use_each_other_in_circles() {
    let mut wrong = Vec::new();
    let mut edge_count = 0;
    for base in ["src", "bench/load"] {
        let tree = Tree::read(base);
        for room in tree.rooms() {
            let edges = tree.edges_within(&room);
            edge_count += edges.values().map(BTreeSet::len).sum::<usize>();
            let place = format!("{base}/{room}");
            let place = place.trim_end_matches('/');
            let is_known = NOT_YET.iter().any(|(known, _)| *known == place);
            match find_circle(&edges) {
                Some(circle) if !is_known => {
                    wrong.push(format!("{place}: {}", circle.join(" -> ")))
                }
                None if is_known => wrong.push(format!("{place} has no circle any more")),
                _ => {}
            }
        }
    }
    assert!(edge_count > 300, "{edge_count} arrows were found: the check sees too few");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_circle_is_seen_through_groups_and_re_exports() {
    let source = |path: &str, code: &str| Source::of(&format!("src/{path}.rs"), code.to_owned());
    let tree = Tree::of(
        "src",
        vec![
            source("lib", "mod room;"),
            source(
                "room",
                "mod a;\nmod b;\nmod c;\npub use b::{B, inner::Deep as D};\npub use c::C;",
            ),
            source("room/a", "use super::{\n    B,\n    c,\n};\n"),
            source(
                "room/b",
                "use crate::room::c::{self, C};\n#[cfg(test)]\nmod tests {\n    use super::super::a::A;\n}\n",
            ),
            source("room/b/inner", "use crate::room::C;"),
            source("room/c", "fn f() {}"),
        ],
    );
    let edges = tree.edges_within("room");
    let text = |from: &str| edges[from].iter().map(String::as_str).collect::<Vec<_>>().join(" ");
    assert_eq!((text("a"), text("b")), ("b c".to_owned(), "c".to_owned()));
    assert_eq!(find_circle(&edges), None);

    let mut sources = tree.sources;
    *sources.last_mut().unwrap() = source("room/c", "fn f(a: super::a::A) {}");
    let circle = find_circle(&Tree::of("src", sources).edges_within("room")).unwrap();
    assert_eq!(circle, ["a", "b", "c", "a"]);
}

/// A crate's modules.
struct Tree {
    sources: Vec<Source>,
    /// Each source's module as its path below the crate's root, in the order of `sources`.
    names: Vec<String>,
    /// By module: the paths behind the names that it re-exports.
    exports: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

impl Tree {
    fn read(base: &str) -> Tree {
        Tree::of(base, sources(&[base]).cloned().collect())
    }

    fn of(base: &str, mut sources: Vec<Source>) -> Tree {
        sources.retain(|source| !source.path.contains("tests"));
        let name = |source: &Source| {
            let inner = source.path.strip_prefix(base).and_then(|path| path.strip_suffix(".rs"));
            let inner = inner.expect("it is a file below the base").trim_start_matches('/');
            if matches!(inner, "lib" | "main") { String::new() } else { inner.to_owned() }
        };
        let names: Vec<String> = sources.iter().map(name).collect();
        let exports = sources.iter().map(|source| source.exports.iter().cloned().collect());
        let exports = names.iter().cloned().zip(exports).collect();
        Tree { sources, names, exports }
    }

    /// The modules that have modules of their own.
    fn rooms(&self) -> BTreeSet<String> {
        let parent = |name: &String| name.rsplit_once('/').map_or("", |(room, _)| room).to_owned();
        self.names.iter().map(parent).collect()
    }

    /// Which modules directly in `room` use which others of them, each with all that is below it.
    fn edges_within(&self, room: &str) -> BTreeMap<String, BTreeSet<String>> {
        let member = |module: &str| {
            let inner = if room.is_empty() {
                module
            } else {
                module.strip_prefix(room)?.strip_prefix('/')?
            };
            let first = inner.split('/').next()?;
            (!first.is_empty()).then(|| first.to_owned())
        };
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (source, name) in self.sources.iter().zip(&self.names) {
            let Some(from) = member(name) else { continue };
            let used = edges.entry(from.clone()).or_default();
            for path in source.paths.iter().filter(|path| !source.is_of_tests(path.line)) {
                if !matches!(path.names[0].as_str(), "crate" | "super" | "self") {
                    continue;
                }
                let at = [&[name.as_str()], &source.modules_at(path.line)[..]].concat().join("/");
                let module = self.module_of(&at, &path.names, FOLLOWED_MAX);
                used.extend(member(&module).filter(|to| *to != from));
            }
        }
        edges
    }

    /// The module that has what `path`, as it stands in `module`, leads to.
    fn module_of(&self, module: &str, path: &[String], follow_max: usize) -> String {
        let mut at: Vec<&str> = module.split('/').filter(|name| !name.is_empty()).collect();
        let mut rest = path;
        while let [first, after @ ..] = rest {
            match first.as_str() {
                "crate" => at.clear(),
                "super" => drop(at.pop()),
                "self" => {}
                _ => break,
            }
            rest = after;
        }
        while let [first, after @ ..] = rest {
            at.push(first);
            if !self.exports.contains_key(&at.join("/")) {
                at.pop();
                break;
            }
            rest = after;
        }
        let found = at.join("/");
        let exported = rest.first().and_then(|name| self.exports.get(&found)?.get(name));
        match exported {
            Some(behind) if follow_max > 0 => {
                let path = [behind.as_slice(), &rest[1..]].concat();
                self.module_of(&found, &path, follow_max - 1)
            }
            _ => found,
        }
    }
}

/// Modules that use each other in turn, the first of them again at the end.
fn find_circle(edges: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    let mut done = BTreeSet::new();
    edges.keys().find_map(|module| walk(module, edges, &mut Vec::new(), &mut done))
}

fn walk(
    module: &str,
    edges: &BTreeMap<String, BTreeSet<String>>,
    way: &mut Vec<String>,
    done: &mut BTreeSet<String>,
) -> Option<Vec<String>> {
    if let Some(begin) = way.iter().position(|other| other == module) {
        way.push(module.to_owned());
        return Some(way.split_off(begin));
    }
    if !done.insert(module.to_owned()) {
        return None;
    }
    way.push(module.to_owned());
    let mut used = edges.get(module).into_iter().flatten();
    let circle = used.find_map(|next| walk(next, edges, way, done));
    way.pop();
    circle
}
