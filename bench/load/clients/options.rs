//! The options of `conn`, `pub` and `sub`: those of emqtt-bench, with its letters, names, meanings and defaults.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use clap::{ArgAction, Args};

use crate::units;

/// A password: nothing prints it.
#[derive(Clone)]
pub(crate) struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Secret, Self::Err> {
        Ok(Secret(text.to_string()))
    }
}

/// Where a password may be that is not to stand on the command line, which others can read in /proc.
pub(crate) const PASSWORD_VARIABLE: &str = "RINGMQ_BENCH_PASSWORD";

/// What emqtt-bench takes for yes and no.
fn flag(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Ok(false),
        _ => Err("write true or false".to_string()),
    }
}

/// What all three have.
#[derive(Clone, Debug, Args)]
pub(crate) struct CommonOptions {
    /// Print this help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// The broker's host; several, separated by commas, take turns
    #[arg(
        short = 'h',
        long,
        value_name = "HOST",
        value_delimiter = ',',
        default_value = "localhost"
    )]
    pub host: Vec<String>,
    #[arg(short = 'p', long, value_name = "PORT", default_value_t = 1883)]
    pub port: u16,
    /// The protocol: 3 is 3.1, 4 is 3.1.1, 5 is 5.0
    #[arg(short = 'V', long = "version", value_name = "3|4|5", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u8).range(3..=5))]
    pub version: u8,
    /// How many clients
    #[arg(short = 'c', long, value_name = "N", default_value_t = 200)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub count: u32,
    /// Connections begun per second; 0: --interval says it
    #[arg(short = 'R', long, value_name = "RATE", default_value = "0", value_parser = units::rate)]
    pub connrate: f64,
    /// Milliseconds from one connection to the next; 0: as fast as they are accepted
    #[arg(short = 'i', long, value_name = "MS", default_value_t = 10)]
    pub interval: u32,
    /// Source addresses, separated by commas, that take turns: each has ports for some 28,000 connections
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    pub ifaddr: Vec<IpAddr>,
    /// In front of the client's number in its id, as PREFIX_bench_pub_N [default: HOSTNAME_bench_pub_RANDOM_N]
    #[arg(long, value_name = "TEXT")]
    pub prefix: Option<String>,
    /// Clients are numbered from the one behind this on
    #[arg(short = 'n', long, value_name = "N", default_value_t = 0)]
    pub startnumber: u32,
    /// How often a client that is not accepted tries again
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub num_retry_connect: u32,
    /// How often a client that has lost its connection connects again
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub reconnect: u32,
    #[arg(short = 'u', long, value_name = "NAME")]
    pub username: Option<String>,
    /// Better in the environment, as RINGMQ_BENCH_PASSWORD: others can read a command line
    #[arg(short = 'P', long, value_name = "PASSWORD")]
    pub password: Option<Secret>,
    /// Seconds
    #[arg(short = 'k', long, value_name = "S", default_value_t = 300)]
    pub keepalive: u16,
    /// Clean session, or clean start
    #[arg(short = 'C', long, value_name = "BOOL", num_args = 0..=1, value_parser = flag)]
    #[arg(default_value = "true", default_missing_value = "true", action = ArgAction::Set)]
    pub clean: bool,
    /// Seconds for which the broker keeps a session (MQTT 5)
    #[arg(short = 'x', long, value_name = "S", default_value_t = 0)]
    pub session_expiry: u32,
    /// Nothing to do here: clients are small
    #[arg(short = 'l', long, value_name = "BOOL", num_args = 0..=1, value_parser = flag)]
    #[arg(default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    #[arg(hide_default_value = true)]
    lowmem: bool,
    /// null: no line each second
    #[arg(
        long = "log_to",
        visible_alias = "log-to",
        value_name = "console|null",
        default_value = "console"
    )]
    #[arg(value_parser = ["console", "null"])]
    pub log_to: String,
    /// Ends after this time [default: with Ctrl-C, or when there is nothing left to do]
    #[arg(long, visible_alias = "duration", value_name = "TIME", value_parser = units::seconds)]
    pub seconds: Option<f64>,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
    /// Event loops [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: Option<u16>,
    #[command(flatten)]
    pub not_had: NotHad,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ConnOptions {
    #[command(flatten)]
    pub common: CommonOptions,
    /// The client's number is its id, behind --prefix if there is one
    #[arg(short = 's', long, value_name = "BOOL", num_args = 0..=1, value_parser = flag)]
    #[arg(default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub shortids: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct SubOptions {
    #[command(flatten)]
    pub common: CommonOptions,
    /// The client's number is its id, behind --prefix if there is one
    #[arg(short = 's', long, value_name = "BOOL", num_args = 0..=1, value_parser = flag)]
    #[arg(default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub shortids: bool,
    /// Topic filter with %i (client's number), %c (its id), %u (user name); may be repeated
    #[arg(short = 't', long, value_name = "FILTER", required = true)]
    pub topic: Vec<String>,
    #[arg(short = 'q', long, value_name = "0|1|2", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// Ends when so many messages have come; 0: does not
    #[arg(short = 'L', long, value_name = "N", default_value_t = 0)]
    pub limit: u64,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct PubOptions {
    #[command(flatten)]
    pub common: CommonOptions,
    /// The client's number is its id, behind --prefix if there is one
    #[arg(long, value_name = "BOOL", num_args = 0..=1, value_parser = flag)]
    #[arg(default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub shortids: bool,
    /// Milliseconds from one message of a client to its next; 0: as fast as they are taken
    #[arg(
        short = 'I',
        long = "interval_of_msg",
        visible_alias = "interval-of-msg",
        value_name = "MS"
    )]
    #[arg(default_value_t = 1000)]
    pub interval_of_msg: u32,
    /// With %i (client's number), %c (its id), %u (user name), %s (number of the message among those of all)
    #[arg(short = 't', long, value_name = "TOPIC", required_unless_present = "topics_payload")]
    pub topic: Option<String>,
    /// Payload: bytes, or 4k; from 24 on `ringmq-bench sub` verifies it
    #[arg(short = 's', long, value_name = "SIZE", default_value = "256")]
    #[arg(value_parser = units::size)]
    pub size: usize,
    /// This text is the payload
    #[arg(short = 'm', long, value_name = "TEXT", conflicts_with = "size")]
    pub message: Option<String>,
    #[arg(short = 'q', long, value_name = "0|1|2", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    #[arg(short = 'r', long, value_name = "BOOL", num_args = 0..=1, value_parser = flag)]
    #[arg(default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub retain: bool,
    /// Messages of all clients together; 0: no end
    #[arg(short = 'L', long, value_name = "N", default_value_t = 0)]
    pub limit: u64,
    /// Messages of QoS 1 and 2 that a client has under way; 0: as many as the broker allows
    #[arg(short = 'F', long, value_name = "N", default_value_t = 1)]
    pub inflight: u16,
    /// Publish only when all have connected, or tried to
    #[arg(short = 'w', long, value_name = "BOOL", num_args = 0..=1, value_parser = flag)]
    #[arg(default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub wait_before_publishing: bool,
    /// A client waits at least and at most so many milliseconds more before its first message, by chance
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub min_random_wait: u32,
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub max_random_wait: u32,
    #[arg(long, value_name = "FILE", hide = true)]
    pub topics_payload: Option<String>,
    #[arg(long, value_name = "S", hide = true, default_value_t = 0)]
    pub retry_interval: u32,
}

impl PubOptions {
    pub(crate) fn check(&self) -> Result<(), String> {
        let is_template = |text: &String| text.starts_with("template://");
        if self.topics_payload.is_some() {
            return Err(not_had(
                "--topics-payload",
                "topics in a file: run one `pub` for each topic",
            ));
        }
        if self.message.as_ref().is_some_and(is_template) {
            return Err(not_had("--message template://", "templates: give the text, or --size"));
        }
        if self.retry_interval > 0 {
            return Err(not_had(
                "--retry-interval",
                "resending: MQTT 5 forbids it on a connection",
            ));
        }
        if self.min_random_wait > self.max_random_wait {
            return Err("--min-random-wait is above --max-random-wait".to_string());
        }
        Ok(())
    }
}

fn not_had(option: &str, why: &str) -> String {
    format!("{option} is not had: ringmq-bench knows no {why}")
}

/// Options of emqtt-bench that are not had: each says so in a sentence.
#[derive(Clone, Debug, Args)]
pub(crate) struct NotHad {
    #[arg(short = 'S', long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    ssl: Option<String>,
    #[arg(long, hide = true)]
    ssl_version: Option<String>,
    #[arg(long, hide = true)]
    cacertfile: Option<String>,
    #[arg(long, hide = true)]
    certfile: Option<String>,
    #[arg(long, hide = true)]
    keyfile: Option<String>,
    #[arg(long, hide = true)]
    ciphers: Option<String>,
    #[arg(long, hide = true)]
    signature_algs: Option<String>,
    #[arg(long, hide = true)]
    keyex_algs: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    quic: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    ws: Option<String>,
    #[arg(long, hide = true)]
    load_qst: Option<String>,
    #[arg(short = 'd', long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    dist: Option<String>,
    #[arg(short = 'Q', long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    qoe: Option<String>,
    #[arg(long, hide = true)]
    qoelog: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    prometheus: Option<String>,
    #[arg(long, hide = true)]
    restapi: Option<String>,
    #[arg(long, hide = true)]
    payload_hdrs: Option<String>,
    /// Nothing to do here.
    #[arg(long, hide = true)]
    force_major_gc_interval: Option<String>,
}

impl NotHad {
    pub(crate) fn check(&self) -> Result<(), String> {
        let tls = "TLS: connect to a listener without it, or through a proxy";
        let other_transport = "transport but TCP";
        let metrics = "such metrics: --json prints a summary";
        let options = [
            ("--ssl", &self.ssl, tls),
            ("--ssl-version", &self.ssl_version, tls),
            ("--cacertfile", &self.cacertfile, tls),
            ("--certfile", &self.certfile, tls),
            ("--keyfile", &self.keyfile, tls),
            ("--ciphers", &self.ciphers, tls),
            ("--signature-algs", &self.signature_algs, tls),
            ("--keyex-algs", &self.keyex_algs, tls),
            ("--quic", &self.quic, other_transport),
            ("--ws", &self.ws, other_transport),
            ("--load-qst", &self.load_qst, other_transport),
            ("--dist", &self.dist, "distribution of Erlang"),
            ("--qoe", &self.qoe, metrics),
            ("--qoelog", &self.qoelog, metrics),
            ("--prometheus", &self.prometheus, metrics),
            ("--restapi", &self.restapi, metrics),
            (
                "--payload-hdrs",
                &self.payload_hdrs,
                "such headers: payloads from 24 bytes on carry sequence, time and checksum anyway",
            ),
        ];
        let given = |value: &Option<String>| {
            value.as_ref().is_some_and(|text| flag(text) != Ok(false) && !text.is_empty())
        };
        match options.iter().find(|(_, value, _)| given(value)) {
            Some((option, _, why)) => Err(not_had(option, why)),
            None => Ok(()),
        }
    }
}
