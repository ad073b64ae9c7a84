//! What is loaded and what is refused, and the sentence that an operator gets.

use std::fs;
use std::path::{Path, PathBuf};

use ringmq::plugin::HookSet;
use ringmq::plugins::PluginFactory;
use ringmq::plugins::abi::LibraryFactory;

use super::build;

#[test]
fn what_is_not_a_plugin_is_refused_with_a_remedy() {
    let text = build::fresh("text");
    fs::write(&text, "this is not a library\n").unwrap();
    let head = "RINGMQ_MAGIC, RINGMQ_ABI_MAJOR, RINGMQ_ABI_MINOR";
    let cases: [(PathBuf, &str, &str); 10] = [
        (
            PathBuf::from("/nowhere/plugin.so"),
            "/nowhere/plugin.so",
            "name the plugin's shared library",
        ),
        (PathBuf::from("no-such-plugin.so"), "/no-such-plugin.so", "with its whole path"),
        (build::folder(), "is not a file", "name the plugin's shared library itself"),
        (text, "cannot be loaded here", "cc -shared -fPIC"),
        (variant("int nothing;"), "no symbol 'ringmq_plugin'", "`ringmq plugin-header`"),
        (
            variant("int missing(void); int ringmq_plugin(void) { return missing(); }"),
            "missing",
            "all that it needs installed",
        ),
        (
            variant("const char ringmq_plugin[64] = \"something else\";"),
            "is not a table",
            "RINGMQ_PLUGIN_HEAD",
        ),
        (
            table("RINGMQ_MAGIC, 2, 7, 128, 0"),
            "version 2.7 of the plugin ABI, this broker has 1.1",
            "build it with",
        ),
        (table(&format!("{head}, 20, 0")), "size of 20 bytes", "RINGMQ_PLUGIN_HEAD"),
        (table(&format!("{head}, 36, 0")), "size of 36 bytes", "RINGMQ_PLUGIN_HEAD"),
    ];
    for (path, what, remedy) in cases {
        let refused = LibraryFactory::load("p", &path, Vec::new()).unwrap_err().to_string();
        assert!(refused.contains(what), "{}: {refused}", path.display());
        assert!(refused.contains(remedy), "{}: {refused}", path.display());
        assert!(!refused.contains('\n'), "{refused}");
    }
}

#[test]
fn a_plugin_with_an_older_table_loads_with_the_hooks_it_has() {
    let factory = LibraryFactory::load("older", &build::c("older"), Vec::new()).unwrap();
    assert_eq!(factory.hooks(), HookSet::AUTHORIZE_PUBLISH);
    assert_eq!(factory.make(0).unwrap().hooks(), HookSet::AUTHORIZE_PUBLISH);
}

#[test]
fn a_plugin_with_a_newer_table_loads_unless_it_uses_what_is_not_known() {
    let newer = |hook: &str| {
        variant(&format!(
            "#include \"ringmq_plugin.h\"\n#include <stdlib.h>\n\
             static int32_t tick(void *i, const ringmq_api *a, ringmq_call c) {{ (void)i, (void)a, (void)c; return 0; }}\n\
             const struct {{ ringmq_plugin_table known; void (*later)(void); }} newer = {{\n\
             .known = {{ RINGMQ_MAGIC, 1, 99, sizeof newer, 0, .tick = tick }}, .later = {hook} }};\n\
             extern __attribute__((alias(\"newer\"))) const ringmq_plugin_table ringmq_plugin;\n"
        ))
    };
    let factory = LibraryFactory::load("newer", &newer("0"), Vec::new()).unwrap();
    assert_eq!(factory.hooks(), HookSet::TICK);
    let refused =
        LibraryFactory::load("newer", &newer("abort"), Vec::new()).unwrap_err().to_string();
    assert!(refused.contains("1.99") && refused.contains("does not have"), "{refused}");
    assert!(refused.contains("update the broker, or build"), "{refused}");
}

#[test]
fn a_library_without_a_hook_loads() {
    let path =
        table("RINGMQ_MAGIC, RINGMQ_ABI_MAJOR, RINGMQ_ABI_MINOR, sizeof(ringmq_plugin_table), 0");
    let factory = LibraryFactory::load("idle", &path, Vec::new()).unwrap();
    assert_eq!(factory.hooks(), HookSet::EMPTY);
    factory.make(0).unwrap();
}

/// A library whose table begins with these values.
fn table(head: &str) -> PathBuf {
    variant(&format!(
        "#include \"ringmq_plugin.h\"\nconst ringmq_plugin_table ringmq_plugin = {{ {head} }};"
    ))
}

/// A library of this one file.
fn variant(text: &str) -> PathBuf {
    let source = build::fresh("variant").with_extension("c");
    fs::write(&source, text).unwrap();
    build::c_source(Path::new(&source), &["-Wno-missing-field-initializers"])
}
