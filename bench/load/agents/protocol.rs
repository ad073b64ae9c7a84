//! The messages of driver and agent: frames of JSON behind their size, each of a bounded size.
//!
//! The connection is neither encrypted nor, beyond the proofs at its beginning, authenticated: an attacker that can change
//! packets on the way can take it over, and is still held to the targets that the agent's command line names.

use std::io::{ErrorKind, Read, Write};
use std::ops::Range;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::split::Split;
use super::token::Nonce;
use crate::engine::Counts;
use crate::scenario::Scenario;
use crate::tally::Faults;

/// The version changes with every change of a message, or of how a plan is made of a scenario.
pub(super) const VERSION: u32 = 1;

/// This bound holds until the other side has shown that it may speak.
pub(super) const GREETING_SIZE_MAX: usize = 4 << 10;
pub(super) const FRAME_SIZE_MAX: usize = 16 << 20;

/// The agent speaks first.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Greeting {
    pub protocol: u32,
    #[serde(default)]
    pub version: String,
    #[serde(default)]
    pub nonce: Nonce,
    /// Whether it wants to see that the driver has its token.
    #[serde(default)]
    pub asks_for_token: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub protocol: u32,
    #[serde(default)]
    pub nonce: Nonce,
    #[serde(default)]
    pub proof: Option<Vec<u8>>,
    /// Whether the driver only asks if it would be taken.
    #[serde(default)]
    pub only_asks: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Welcome {
    Accepted {
        proof: Option<Vec<u8>>,
    },
    Refused {
        reason: String,
    },
    /// The driver may try later.
    Busy {
        reason: String,
    },
}

/// The reason for which this side refuses the other one's version.
pub(super) fn version_mismatch(agent: u32, driver: u32) -> String {
    format!(
        "the agent speaks version {agent} of the protocol and the driver version {driver}: use the same ringmq-bench on both"
    )
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToAgent {
    Ping {
        number: u32,
    },
    /// The driver is still there.
    Alive,
    Prepare(Box<Prepare>),
    Order(Order),
    /// How far the agent's own publishers have got with all subscribers elsewhere.
    Delivered(Vec<(u32, u64)>),
    /// Asks for usage and work since the last time.
    Mark,
    /// Asks how many messages were sent; no more are sent.
    Close,
    Finish(Box<Finish>),
}

/// Connect your part of the clients.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Prepare {
    pub scenario: Scenario,
    pub split: Split,
    pub agent: u16,
    pub agent_count: u16,
    /// The broker as one of the agent's targets names it.
    pub broker: String,
    pub threads: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Rhythm {
    Still,
    Window,
    Rate { interval_ns: f64 },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub rhythm: Rhythm,
    /// When the publishers begin, by the agent's own clock; 0: at once.
    pub from_ns: u64,
    /// For each agent: the time of its clock in which due messages have their latency recorded.
    pub recorded_ns: Vec<Range<u64>>,
    /// For each agent: by how much the clock of the receiver of this order is ahead of it.
    pub offset_ns: Vec<i64>,
    pub slice_ns: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Finish {
    /// The publishers elsewhere that have sent anything.
    pub sent: Vec<(u32, u64)>,
    /// For each agent: by how much the clock of the receiver of this is ahead, as points of a line over its own times.
    pub clocks: Vec<Vec<(i64, i64)>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromAgent {
    Pong {
        number: u32,
        got_ns: u64,
        answered_ns: u64,
    },
    Progress(Progress),
    /// The origin of the agent's clock by that of its machine, and how wrong it may be.
    Ready {
        threads: usize,
        origin_ns: (i64, u64),
    },
    /// The order is followed, and how much later than it was to be.
    Ordered {
        late_ns: u64,
    },
    Marked(Mark),
    Closed {
        sent: Vec<(u32, u64)>,
    },
    Finished(Box<Finished>),
    Failed {
        reason: String,
    },
}

/// The progress, sent whenever it has changed, and from time to time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Progress {
    /// How many orders have been followed.
    pub orders: u32,
    /// Whether all messages from here have been acknowledged and delivered.
    pub at_rest: bool,
    #[serde(default)]
    pub counts: Counts,
    /// How far publishers elsewhere have got with all subscribers here.
    pub reported: Vec<(u32, u64)>,
}

/// Usage and work of generator threads.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Mark {
    pub elapsed_ns: u64,
    /// `None`: not measured.
    pub used: Option<Used>,
    /// The time in which the busiest thread had nothing to do, on schedule.
    pub idle_ns: u64,
    pub counts: Counts,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Used {
    pub ran_ns: u64,
    pub busiest_ns: u64,
    pub waited_longest_ns: u64,
}

/// Latencies: a value, nanoseconds, and how often it was. All lie in buckets of the same bounds.
pub(super) type LatencyPairs = Vec<(u64, u64)>;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Finished {
    pub counts: Counts,
    pub faults: Faults,
    pub latency: LatencyPairs,
    /// How many of these messages came from other agents.
    pub crossed: u64,
    /// How many of those came before they were sent, by these clocks.
    pub negative: u64,
}

/// Writes a frame in one go.
pub(super) fn write_frame(to: &mut impl Write, said: &impl Serialize) -> Result<(), String> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, said).map_err(|error| format!("a frame: {error}"))?;
    let size = frame.len() - 4;
    if size > FRAME_SIZE_MAX {
        return Err(format!("a frame of {size} bytes is larger than any may be"));
    }
    frame[..4].copy_from_slice(&(size as u32).to_be_bytes());
    to.write_all(&frame).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => CLOSED.to_string(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            "it does not take what it is sent".to_string()
        }
        _ => format!("send: {error}"),
    })
}

/// The reason that no frame came.
pub(super) const CLOSED: &str = "it closed the connection";

/// Reads a frame of `size_max` bytes at most. `patience` is asked whenever no byte has come for a while, and after each
/// part of a frame.
pub(super) fn read_frame(
    from: &mut impl Read,
    size_max: usize,
    mut patience: impl FnMut() -> Result<(), String>,
) -> Result<Vec<u8>, String> {
    let mut size = [0; 4];
    read_exact(from, &mut size, &mut patience)?;
    let size = u32::from_be_bytes(size) as usize;
    if size > size_max {
        return Err(format!("it sent a frame of {size} bytes, and {size_max} are the most"));
    }
    let mut frame = Vec::new();
    while frame.len() < size {
        // A sender that only announces many bytes takes no memory.
        let begin = frame.len();
        frame.resize((begin + (64 << 10)).min(size), 0);
        read_exact(from, &mut frame[begin..], &mut patience)?;
    }
    Ok(frame)
}

fn read_exact(
    from: &mut impl Read,
    mut rest: &mut [u8],
    patience: &mut impl FnMut() -> Result<(), String>,
) -> Result<(), String> {
    while !rest.is_empty() {
        match from.read(rest) {
            Ok(0) => return Err(CLOSED.to_string()),
            Ok(size) => rest = &mut rest[size..],
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => continue,
                ErrorKind::ConnectionReset => return Err(CLOSED.to_string()),
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {}
                _ => return Err(format!("receive: {error}")),
            },
        }
        if !rest.is_empty() {
            patience()?;
        }
    }
    Ok(())
}

pub(super) fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, String> {
    serde_json::from_slice(frame)
        .map_err(|error| format!("it sent what is not understood: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut bytes: &[u8], size_max: usize) -> Result<Vec<u8>, String> {
        read_frame(&mut bytes, size_max, || Ok(()))
    }

    #[test]
    fn frames_are_bounded_and_whole() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &ToAgent::Ping { number: 7 }).expect("it is small");
        let frame = read(&bytes, 64).expect("it is whole");
        assert!(matches!(decode(&frame), Ok(ToAgent::Ping { number: 7 })));
        for size in 0..bytes.len() {
            assert_eq!(read(&bytes[..size], 64), Err(CLOSED.to_string()));
        }
        let wrong = read(&bytes, 3).expect_err("it is larger");
        assert!(wrong.contains("and 3 are the most"), "{wrong}");
        // So much memory is never allocated.
        assert!(read(&[0xff; 64], FRAME_SIZE_MAX).is_err());
    }

    #[test]
    fn bytes_of_strangers_are_refused_without_a_panic() {
        let mut seed = fastrand::Rng::with_seed(12);
        let said = ToAgent::Order(Order {
            rhythm: Rhythm::Rate { interval_ns: 1e6 },
            from_ns: 5,
            recorded_ns: vec![1..2, 3..4],
            offset_ns: vec![-3, 0],
            slice_ns: 4,
        });
        let good = serde_json::to_vec(&said).expect("plain data");
        assert!(decode::<ToAgent>(&good).is_ok());
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..seed.usize(1..6) {
                let at = seed.usize(..bytes.len());
                bytes[at] = seed.u8(..);
            }
            bytes.truncate(seed.usize(..=bytes.len()));
            let _ =
                (decode::<ToAgent>(&bytes), decode::<FromAgent>(&bytes), decode::<Hello>(&bytes));
            let _ = read(&bytes, 1 << 20);
        }
        let deep = "[".repeat(100_000);
        assert!(decode::<ToAgent>(deep.as_bytes()).is_err());
    }
}
