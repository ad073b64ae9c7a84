//! The beginning of a connection between driver and agent: versions, and proofs that both have the token.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use super::protocol::{
    GREETING_SIZE_MAX, Greeting, Hello, VERSION, Welcome, decode, read_frame, version_mismatch,
    write_frame,
};
use super::token::{self, Role, Token};

/// The bound holds however slowly the bytes arrive.
pub(super) const TIME_MAX: Duration = Duration::from_secs(5);

/// The agent's side. `take` says whether a driver that has the token may have the agent; without one it only asks.
/// Returns what `take` made, unless the driver only asked.
pub(super) fn receive<T>(
    mut stream: impl Read + Write,
    token: Option<&Token>,
    take: impl FnOnce() -> Result<T, String>,
) -> Result<Option<T>, String> {
    let own = token::nonce()?;
    let version = env!("CARGO_PKG_VERSION").to_string();
    let asks_for_token = token.is_some();
    write_frame(&mut stream, &Greeting { protocol: VERSION, version, nonce: own, asks_for_token })?;
    let hello: Hello = next(&mut stream)?;
    if let Err(reason) = judge(&hello, token, &own) {
        let _ = write_frame(&mut stream, &Welcome::Refused { reason: reason.clone() });
        return Err(reason);
    }
    let taken = match take() {
        // A driver that only asks does not keep the agent: it is free again before the driver hears of it.
        Ok(taken) => (!hello.only_asks).then_some(taken),
        Err(reason) => {
            let _ = write_frame(&mut stream, &Welcome::Busy { reason: reason.clone() });
            return Err(reason);
        }
    };
    let proof = token.map(|token| token.proof(Role::Agent, &own, &hello.nonce));
    write_frame(&mut stream, &Welcome::Accepted { proof })?;
    Ok(taken)
}

fn judge(hello: &Hello, token: Option<&Token>, own: &token::Nonce) -> Result<(), String> {
    if hello.protocol != VERSION {
        return Err(version_mismatch(VERSION, hello.protocol));
    }
    let Some(token) = token else { return Ok(()) };
    let wrong = format!(
        "the driver does not have this agent's token: --token-file or ${}",
        token::VARIABLE
    );
    match &hello.proof {
        Some(proof) if token.is_proved(Role::Driver, own, &hello.nonce, proof) => Ok(()),
        _ => Err(wrong),
    }
}

/// An agent's answer to a driver that wants it.
#[derive(Debug)]
pub(super) enum Offered {
    Taken,
    /// Another driver has it.
    Busy(String),
}

/// The driver's side.
pub(super) fn offer(
    mut stream: impl Read + Write,
    token: Option<&Token>,
    only_asks: bool,
) -> Result<Offered, String> {
    let greeting: Greeting = next(&mut stream)?;
    if greeting.protocol != VERSION {
        return Err(version_mismatch(greeting.protocol, VERSION));
    }
    if token.is_some() && !greeting.asks_for_token {
        return Err("it has no token, so it cannot show that it is yours: start it with the token"
            .to_string());
    }
    let nonce = token::nonce()?;
    let proof = token.map(|token| token.proof(Role::Driver, &greeting.nonce, &nonce));
    write_frame(&mut stream, &Hello { protocol: VERSION, nonce, proof, only_asks })?;
    match next(&mut stream)? {
        Welcome::Refused { reason } => Err(format!("it refuses: {reason}")),
        Welcome::Busy { reason } => Ok(Offered::Busy(reason)),
        Welcome::Accepted { proof } => match (token, proof) {
            (None, _) => Ok(Offered::Taken),
            (Some(token), Some(proof))
                if token.is_proved(Role::Agent, &greeting.nonce, &nonce, &proof) =>
            {
                Ok(Offered::Taken)
            }
            _ => Err("it does not have the token".to_string()),
        },
    }
}

fn next<T: serde::de::DeserializeOwned>(stream: &mut impl Read) -> Result<T, String> {
    let begin = Instant::now();
    let frame = read_frame(stream, GREETING_SIZE_MAX, || match begin.elapsed() > TIME_MAX {
        true => Err(format!("it did not say who it is within {TIME_MAX:?}")),
        false => Ok(()),
    })?;
    decode(&frame)
}
