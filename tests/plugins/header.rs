//! `ringmq_plugin.h` against its Rust side: every structure, member, type, signature and number.

use std::collections::BTreeMap;
use std::fs;
use std::mem::{align_of, offset_of, size_of};
use std::process::Command;

use ringmq::plugins::abi::layout::*;
use ringmq::plugins::abi::{HEADER, HEADER_RUST};

use super::build;

/// C structures whose Rust name is not that of the C one in camel case.
const RENAMED: [(&str, &str); 1] = [("ringmq_option", "PluginOption")];

/// Numbers of the header that are not of the ABI.
const NOT_NUMBERS: [&str; 2] = ["RINGMQ_PLUGIN_H", "RINGMQ_PLUGIN_HEAD"];

macro_rules! measure {
    ($out:ident, $($type:ident { $($member:ident)* })*) => {$(
        let name = stringify!($type);
        $out.push(format!("{name} {} {}", size_of::<$type>(), align_of::<$type>()));
        $($out.push(format!(
            "{name}.{} {} {}",
            stringify!($member),
            offset_of!($type, $member),
            member_size(|value: &$type| &value.$member),
        ));)*
    )*};
}

macro_rules! numbers {
    ($out:ident, $($name:ident)*) => {
        $($out.push(format!("{} {}", stringify!($name), i64::from($name)));)*
    };
}

fn member_size<T, M>(_: impl Fn(&T) -> &M) -> usize {
    size_of::<M>()
}

#[test]
fn structures_and_numbers_are_the_same_in_c_and_in_rust() {
    let mut rust = Vec::new();
    measure! { rust,
        View { bytes size }
        Call { token }
        PluginOption { name value }
        Address { ip port family reserved }
        Setup { size abi_major abi_minor shard reserved option_count options plugin_name broker_version }
        Client { size shard protocol reserved client_id user_name peer listener }
        Connect {
            size session_expiry_s keep_alive_s has_session_expiry clean_start has_will will_qos will_retain reserved
            password will_topic will_payload
        }
        Subscription { size qos reserved filter }
        Message { size qos retain reserved topic payload }
        Event { size kind is_resumed reserved why }
        Undelivered { size reserved client_id topic why }
        SessionLimit { limit reserved value }
        Api {
            size abi_major abi_minor log explain user_property property_text property_number set_topic set_payload
            set_qos set_retain set_property_text set_property_number remove_property add_user_property
            replace_user_property remove_user_property set_limit question answer
        }
        PluginTable {
            magic abi_major abi_minor size reserved create destroy connect authorize_subscribe authorize_publish
            publish deliver unsubscribed event dropped tick
        }
    }
    numbers! { rust,
        ABI_MAJOR ABI_MINOR MAGIC ALLOW OK SKIP LATER FAILED STALE BAD_ARGUMENT BAD_TEXT BAD_TOPIC TOO_LARGE NOT_HERE NONE
        BUSY SERVER_UNAVAILABLE
        UNSPECIFIED_ERROR IMPLEMENTATION_ERROR BAD_USER_NAME_OR_PASSWORD NOT_AUTHORIZED SERVER_BUSY BANNED
        TOPIC_NAME_INVALID QUOTA_EXCEEDED PAYLOAD_FORMAT_INVALID EVENT_CONNECTED EVENT_DISCONNECTED EVENT_TAKEN_OVER
        EVENT_SESSION_ENDED PAYLOAD_FORMAT MESSAGE_EXPIRY CONTENT_TYPE RESPONSE_TOPIC CORRELATION_DATA
        LIMIT_SESSION_EXPIRY_S LIMIT_KEEP_ALIVE_S LIMIT_INFLIGHT LIMIT_QUEUE_MESSAGES LIMIT_QUEUE_BYTES
        LIMIT_SUBSCRIPTIONS LOG_ERROR LOG_WARN LOG_INFO LOG_DEBUG
    }
    rust.sort();

    let mut c: Vec<String> = measured_by_c().lines().map(str::to_owned).collect();
    c.sort();
    assert!(c.len() > 100, "the header was not read: {c:?}");
    assert_eq!(c, rust);
}

#[test]
fn members_have_the_same_types_in_c_and_in_rust() {
    let header = without_comments(HEADER);
    let rust = rust_members();
    let mut seen = 0;
    for (structure, members) in c_structures(&header) {
        let in_rust = &rust[&rust_name(&structure)];
        let in_c: Vec<_> = members.iter().map(|member| member_in_rust(member)).collect();
        assert_eq!(in_c, *in_rust, "{structure}");
        seen += in_c.len();
    }
    assert!(seen > 80, "the header was not read: {seen} members");
}

#[test]
fn the_header_compiles_as_strict_c_and_as_cpp() {
    let hello = "#include \"ringmq_plugin.h\"\nextern int nothing;\n";
    for (language, standard, compiler) in
        [("c", "-std=c99", "cc"), ("c", "-std=c17", "cc"), ("c++", "-std=c++11", "c++")]
    {
        let source = build::fresh("include");
        fs::write(&source, hello).unwrap();
        let mut command = Command::new(compiler);
        command.args([
            "-fsyntax-only",
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Werror",
            standard,
            "-x",
        ]);
        command.args([language, "-I"]).arg(build::header_folder()).arg(source);
        if compiler == "c++" && Command::new(compiler).arg("--version").output().is_err() {
            println!("SKIPPED: there is no C++ compiler");
            continue;
        }
        build::run(&mut command);
    }
}

/// A C program that prints what `structures_and_numbers_...` wants, from what stands in the header.
fn measured_by_c() -> String {
    let header = without_comments(HEADER);
    let mut lines = String::new();
    for (structure, members) in c_structures(&header) {
        let rust = rust_name(&structure);
        lines += &format!(
            "printf(\"{rust} %zu %zu\\n\", sizeof({structure}), _Alignof({structure}));\n"
        );
        for member in members {
            let name = member_name(&member);
            lines += &format!(
                "printf(\"{rust}.{name} %zu %zu\\n\", offsetof({structure}, {name}), \
                 sizeof((({structure} *)0)->{name}));\n"
            );
        }
    }
    for line in header.lines().filter_map(|line| line.strip_prefix("#define RINGMQ_")) {
        let name = line.split_whitespace().next().unwrap();
        if name.contains('(') || NOT_NUMBERS.contains(&format!("RINGMQ_{name}").as_str()) {
            continue;
        }
        lines += &format!("printf(\"{name} %lld\\n\", (long long)RINGMQ_{name});\n");
    }
    let program = build::fresh("measure");
    let source = program.with_extension("c");
    let text = format!(
        "#include <stdio.h>\n#include \"ringmq_plugin.h\"\nint main(void) {{\n{lines}return 0;\n}}\n"
    );
    fs::write(&source, text).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-I"]).arg(build::header_folder());
    build::run(compiler.arg("-o").arg(&program).arg(&source));
    build::run(&mut Command::new(program))
}

fn without_comments(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, comment)) = rest.split_once("/*") {
        out.push_str(before);
        rest = comment.split_once("*/").unwrap().1;
    }
    out + rest
}

/// Each `typedef struct`, with the declarations of its members.
fn c_structures(header: &str) -> Vec<(String, Vec<String>)> {
    let bodies = header.split("typedef struct ").skip(1).map(|rest| {
        let (name, rest) = rest.split_once(" {").unwrap();
        let (body, rest) = rest.split_once("\n}").unwrap();
        assert!(
            rest.trim_start().starts_with(&format!("{name};")),
            "{name} ends with another name"
        );
        let members = body.split(';').map(str::trim).filter(|member| !member.is_empty());
        let one_line = |member: &str| member.split_whitespace().collect::<Vec<_>>().join(" ");
        (name.to_owned(), members.map(one_line).collect())
    });
    bodies.collect()
}

fn member_name(declaration: &str) -> &str {
    match declaration.split_once("(*") {
        Some((_, rest)) => rest.split_once(')').unwrap().0,
        None => split_declaration(declaration).1,
    }
}

/// Type and name of `const x *name` or `x name[n]`; an array's size is with neither.
fn split_declaration(declaration: &str) -> (&str, &str) {
    let declaration = declaration.split('[').next().unwrap();
    let name_at = declaration.rfind([' ', '*']).unwrap() + 1;
    (declaration[..name_at].trim(), &declaration[name_at..])
}

/// A member as Rust has it: `name: type`.
fn member_in_rust(declaration: &str) -> String {
    let name = member_name(declaration);
    let Some((result, rest)) = declaration.split_once("(*") else {
        let (written, _) = split_declaration(declaration);
        let one = type_in_rust(written);
        return match declaration.split_once('[') {
            Some((_, count)) => format!("{name}: [{one}; {}]", count.trim_end_matches(']')),
            None => format!("{name}: {one}"),
        };
    };
    let parameters = rest.split_once(")(").unwrap().1.trim_end_matches(')');
    let parameters: Vec<_> = parameters
        .split(", ")
        .map(|parameter| type_in_rust(split_declaration(parameter).0))
        .collect();
    let result = match result.trim() {
        "void" => String::new(),
        result => format!(" -> {}", type_in_rust(result)),
    };
    format!("{name}: fn({}){result}", parameters.join(", "))
}

fn type_in_rust(written: &str) -> String {
    if let Some(pointed) = written.strip_suffix('*') {
        let (kind, pointed) = match pointed.trim().strip_prefix("const ") {
            Some(pointed) => ("*const", pointed),
            None => ("*mut", pointed.trim()),
        };
        return format!("{kind} {}", type_in_rust(pointed));
    }
    match written {
        "void" => "c_void".to_owned(),
        "size_t" => "usize".to_owned(),
        "int32_t" => "i32".to_owned(),
        "uint8_t" => "u8".to_owned(),
        "uint16_t" => "u16".to_owned(),
        "uint32_t" => "u32".to_owned(),
        "uint64_t" => "u64".to_owned(),
        structure => rust_name(structure),
    }
}

fn rust_name(structure: &str) -> String {
    if let Some((_, rust)) = RENAMED.iter().find(|(c, _)| *c == structure) {
        return (*rust).to_owned();
    }
    let words = structure.strip_prefix("ringmq_").unwrap_or_else(|| panic!("type {structure}"));
    words.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

/// The members of each structure of the Rust side, as `member_in_rust` writes them.
fn rust_members() -> BTreeMap<String, Vec<String>> {
    let text = HEADER_RUST.split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, hook) = text.split_once("pub type Hook<T> = unsafe extern \"C-unwind\" ").unwrap();
    let (hook, _) = hook.split_once(';').unwrap();
    let structures = text.split("pub struct ").skip(1).map(|rest| {
        let (name, rest) = rest.split_once(" { ").unwrap();
        let (body, _) = rest.split_once(" }").unwrap();
        let members = body.split("pub ").filter(|member| !member.is_empty());
        let members = members.map(|member| {
            let (member, written) = member.trim().trim_end_matches(',').split_once(": ").unwrap();
            let mut written = written.replace("unsafe extern \"C-unwind\" ", "");
            written = written.replace("unsafe extern \"C\" ", "");
            if let Some(optional) = written.strip_prefix("Option<") {
                written =
                    optional.strip_suffix('>').unwrap().trim().trim_end_matches(',').to_owned();
            }
            if let Some(shown) = written.strip_prefix("Hook<") {
                let shown = shown.strip_suffix('>').unwrap();
                written = hook.replace("*const T)", &format!("*const {shown})"));
            }
            format!(
                "{member}: {}",
                written.replace("( ", "(").replace(", )", ")").replace(",)", ")")
            )
        });
        (name.to_owned(), members.collect())
    });
    structures.collect()
}
