//! Plugins as shared libraries: built from the sources beside this file, loaded, and held to what the header says; then in
//! brokers of their own, driven from outside.
#![cfg(feature = "shell")]

#[allow(dead_code, reason = "the conformance suite uses other parts of it")]
#[path = "../conformance/broker.rs"]
mod broker;
#[allow(dead_code, reason = "the regressions use other parts of it")]
#[path = "../regressions/client.rs"]
mod client;
#[allow(dead_code, reason = "the conformance suite uses other parts of it")]
#[path = "../conformance/fields.rs"]
mod fields;
#[allow(dead_code, reason = "the regressions use other parts of it")]
#[path = "../regressions/message.rs"]
mod message;
#[allow(dead_code, reason = "the conformance suite uses other parts of it")]
#[path = "../conformance/wire.rs"]
mod wire;

mod astray;
mod build;
mod guide;
mod header;
mod hooks;
mod loading;
mod served;
