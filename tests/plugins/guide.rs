//! The guide beside this file, word for word: its plugin is built with its commands and runs with its configuration.

use std::fs;
use std::process::Command;

use crate::broker::Broker;
use crate::build;
use crate::client::{Client, PATIENCE};
use crate::fields::Kind;
use crate::message::Message;
use crate::served::next_user_properties;
use crate::wire::Version;

#[test]
fn the_plugin_of_the_guide_does_what_the_guide_says() {
    let guide = fs::read_to_string(build::folder().join("README.md")).unwrap();
    let blocks = blocks(&guide);
    let of = |language: &str| -> Vec<&str> {
        blocks.iter().filter(|(own, _)| *own == language).map(|(_, text)| *text).collect()
    };
    let ([header, compile, check], [plugin], [config]) =
        (&of("sh")[..], &of("c")[..], &of("toml")[..])
    else {
        panic!("the guide has other blocks: {blocks:?}");
    };

    let folder = build::fresh("guide");
    fs::create_dir(&folder).unwrap();
    let shell = |command: &str| {
        let binaries = std::path::Path::new(env!("CARGO_BIN_EXE_ringmq")).parent().unwrap();
        let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        build::run(shell.args(["-ec", command]).current_dir(&folder).env("PATH", path))
    };
    shell(header);
    fs::write(folder.join("sender.c"), plugin).unwrap();
    shell(compile);
    // The port may be somebody's here: the only word that is changed.
    assert!(config.contains("127.0.0.1:1883"), "{config}");
    fs::write(folder.join("ringmq.toml"), config.replace(":1883", ":0")).unwrap();
    let said = shell(check);
    assert!(said.contains("RingMQ can run here."), "{said}");

    let library = folder.join("sender.so");
    let config = config.replace("./sender.so", library.to_str().unwrap());
    fs::write(folder.join("ringmq.toml"), config).unwrap();
    let file = folder.join("ringmq.toml");
    let broker = Broker::start(&["--config", file.to_str().unwrap(), "--shards", "1"]).unwrap();
    let mut receiver = Client::join(broker.address, Version::V5, "receiver", &[]);
    receiver.subscribe(&["#@0"]);
    let mut sender = Client::join(broker.address, Version::V5, "kitchen-1", &[]);
    let mut publish = |topic: &str, properties: &[u8]| {
        let message =
            Message { topic: topic.to_owned(), properties: properties.to_vec(), payload: vec![] };
        sender.send(&message.publish(Version::V5, 0b010, 1));
        sender.answer(Kind::Puback).number("reason").unwrap_or(0)
    };
    assert_eq!(publish("sensors/kitchen", b""), 0);
    assert_eq!(publish("elsewhere", b""), 0);
    assert_eq!(publish("sensors/kitchen", b"\x26\x00\x06sender\x00\x01x"), 0x87);
    let properties = next_user_properties(&mut receiver);
    assert_eq!(properties, [b"sender:kitchen-1".to_vec()]);
    assert!(next_user_properties(&mut receiver).is_empty());
    assert!(receiver.receive(PATIENCE / 100) == crate::client::Received::Nothing);
}

/// The fenced blocks of a page: language and text.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    page.split("```")
        .skip(1)
        .step_by(2)
        .map(|block| block.split_once('\n').expect("a language and lines"))
        .collect()
}
