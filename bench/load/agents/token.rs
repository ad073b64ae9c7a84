//! The shared token, and the proofs by which driver and agent show each other that they have it. It does not cross the
//! wire, and is never printed.

use std::fmt;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The environment variable that holds the token.
pub(super) const VARIABLE: &str = "RINGMQ_BENCH_TOKEN";

/// Shorter tokens can be guessed.
const SIZE_MIN: usize = 16;
const SIZE_MAX: usize = 4096;

/// A number that is used once.
pub(super) type Nonce = [u8; 32];

pub(super) fn nonce() -> Result<Nonce, String> {
    let mut nonce = Nonce::default();
    let mut source =
        fs::File::open("/dev/urandom").map_err(|error| format!("/dev/urandom: {error}"))?;
    source.read_exact(&mut nonce).map_err(|error| format!("/dev/urandom: {error}"))?;
    Ok(nonce)
}

/// The role of the one that shows that it has the token. The proof of one role is of no use for the other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    Agent,
    Driver,
}

#[derive(Clone)]
pub(super) struct Token(Box<[u8]>);

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token")
    }
}

impl Token {
    /// The token in the file, or else in the environment; `None`: neither is named.
    pub(super) fn find(file: Option<&Path>) -> Result<Option<Token>, String> {
        match (file, std::env::var_os(VARIABLE)) {
            (Some(path), _) => Token::read(path).map(Some),
            (None, Some(text)) => Token::new(text.as_encoded_bytes())
                .map(Some)
                .map_err(|wrong| format!("${VARIABLE}: {wrong}")),
            (None, None) => Ok(None),
        }
    }

    fn read(path: &Path) -> Result<Token, String> {
        let name = path.display();
        let failed = |error| format!("--token-file {name}: {error}");
        let mut file = fs::File::open(path).map_err(failed)?;
        // The metadata are those of the opened file, even if the name stands for another one by now.
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(format!("--token-file {name}: it is no regular file"));
        }
        if metadata.mode() & 0o077 != 0 {
            return Err(format!(
                "--token-file {name}: others may read or change it (mode {:o}): chmod 600 it",
                metadata.mode() & 0o777
            ));
        }
        let mut text = Vec::new();
        (&mut file).take(SIZE_MAX as u64 + 1).read_to_end(&mut text).map_err(failed)?;
        Token::new(&text).map_err(|wrong| format!("--token-file {name}: {wrong}"))
    }

    fn new(text: &[u8]) -> Result<Token, String> {
        let text = text.trim_ascii();
        if !(SIZE_MIN..=SIZE_MAX).contains(&text.len()) {
            return Err(format!(
                "the token has {} bytes; it must have {SIZE_MIN} to {SIZE_MAX}, such as `openssl rand -hex 32` makes",
                text.len()
            ));
        }
        Ok(Token(text.into()))
    }

    fn mac(&self, role: Role, agent: &Nonce, driver: &Nonce) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key has any size");
        let label: &[u8] = match role {
            Role::Agent => b"ringmq-bench agent\0",
            Role::Driver => b"ringmq-bench driver\0",
        };
        for part in [label, agent, driver] {
            mac.update(part);
        }
        mac
    }

    /// The proof by which this side shows the other that it has the token.
    pub(super) fn proof(&self, role: Role, agent: &Nonce, driver: &Nonce) -> Vec<u8> {
        self.mac(role, agent, driver).finalize().into_bytes().to_vec()
    }

    /// Whether `role` has the token, in a time that does not depend on where the proof is wrong.
    pub(super) fn is_proved(
        &self,
        role: Role,
        agent: &Nonce,
        driver: &Nonce,
        proof: &[u8],
    ) -> bool {
        self.mac(role, agent, driver).verify_slice(proof).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_proof_is_good_for_its_side_and_its_nonces_only() {
        let token = Token::new(b"0123456789abcdef\n").expect("long enough");
        let (agent, driver) = (nonce().expect("random"), nonce().expect("random"));
        let proof = token.proof(Role::Driver, &agent, &driver);
        assert!(token.is_proved(Role::Driver, &agent, &driver, &proof));
        assert!(!token.is_proved(Role::Agent, &agent, &driver, &proof));
        assert!(!token.is_proved(Role::Driver, &driver, &agent, &proof));
        assert!(!token.is_proved(Role::Driver, &agent, &driver, &proof[..31]));
        let other = Token::new(b"0123456789abcdeg").expect("long enough");
        assert!(!other.is_proved(Role::Driver, &agent, &driver, &proof));
        assert_eq!(format!("{token:?}"), "Token");
    }

    #[test]
    fn a_token_file_is_for_its_owner_only() {
        let path = std::env::temp_dir().join(format!("ringmq-bench-token-{}", std::process::id()));
        fs::write(&path, "0123456789abcdef0123\n").expect("it can be written");
        for (mode, sentence) in [(0o644, "chmod 600"), (0o620, "chmod 600"), (0o600, "")] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
            let read = Token::read(&path).map_or_else(|wrong| wrong, |_| String::new());
            assert!(read.contains(sentence) && read.is_empty() == sentence.is_empty(), "{read}");
        }
        fs::write(&path, "short").expect("it can be written");
        assert!(Token::read(&path).is_err_and(|wrong| wrong.contains("it must have 16")));
        fs::remove_file(&path).expect("it is there");
        assert!(Token::read(Path::new("/tmp")).is_err());
    }
}
