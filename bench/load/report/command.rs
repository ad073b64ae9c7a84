//! The command that repeats a measurement, as it can be pasted into a shell.

use std::ffi::OsString;

/// Options whose value is nobody's business, and what stands for it. The shell that the command is pasted into knows it.
const SECRETS: [&str; 3] = ["--password", "--token", "-P"];
const HIDDEN: &str = "\"$SECRET\"";

/// Parts of the keys of a broker's options whose value is nobody's business.
const SECRET_KEYS: [&str; 3] = ["password", "secret", "token"];

/// The arguments of this process.
pub(crate) fn own() -> String {
    text(std::env::args_os())
}

fn text(arguments: impl Iterator<Item = OsString>) -> String {
    let mut words = Vec::new();
    let mut is_secret = false;
    for argument in arguments {
        let argument = argument.to_string_lossy();
        let word = match shown(&argument) {
            _ if is_secret => HIDDEN.to_string(),
            Some(shown) => format!("{shown}{HIDDEN}"),
            None => quoted(&argument),
        };
        let asks = SECRETS.contains(&&*argument) || bundle(&argument).is_some_and(str::is_empty);
        is_secret = !is_secret && asks;
        words.push(word);
    }
    words.join(" ")
}

/// What may be shown of an argument that holds a secret: what stands in front of it.
fn shown(argument: &str) -> Option<&str> {
    if let Some((name, _)) = argument.split_once('=') {
        let key = name.to_ascii_lowercase();
        let is_secret =
            SECRETS.contains(&name) || SECRET_KEYS.iter().any(|part| key.contains(part));
        let is_plain = quoted(name) == name;
        return is_secret.then(|| if is_plain { &argument[..=name.len()] } else { "" });
    }
    let value = bundle(argument).filter(|value| !value.is_empty())?;
    Some(&argument[..argument.len() - value.len()])
}

/// What stands behind the P of short options that are written together, as `-lPsecret`.
fn bundle(argument: &str) -> Option<&str> {
    let letters = argument.strip_prefix('-').filter(|letters| !letters.starts_with('-'))?;
    let (front, value) = letters.split_once('P')?;
    front.chars().all(|letter| letter.is_ascii_alphabetic()).then_some(value)
}

fn quoted(word: &str) -> String {
    shlex::try_quote(word).map_or_else(|_| format!("{word:?}"), |quoted| quoted.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[&str], expected: &str) {
        assert_eq!(text(arguments.iter().map(OsString::from)), expected);
    }

    #[test]
    fn what_a_shell_would_take_apart_is_quoted() {
        check(&["bench", "--scenario", "p2p-qos0"], "bench --scenario p2p-qos0");
        check(&["a b/bench", "--set", "x=$(y)"], "'a b/bench' --set 'x=$(y)'");
        check(&["bench", "it's", "", "a;b\n"], "bench \"it's\" '' 'a;b\n'");
    }

    #[test]
    fn a_secret_is_not_shown() {
        check(&["bench", "-u", "me", "-P", "pw", "-q", "1"], "bench -u me -P \"$SECRET\" -q 1");
        check(&["bench", "-Ppw", "--password=a b"], "bench -P\"$SECRET\" --password=\"$SECRET\"");
        check(
            &["bench", "-lPpw", "-lP", "pw", "-P", "-P"],
            "bench -lP\"$SECRET\" -lP \"$SECRET\" -P \"$SECRET\"",
        );
        check(
            &["bench", "-P=pw", "-p", "1883", "--prefix", "P"],
            "bench -P=\"$SECRET\" -p 1883 --prefix P",
        );
        check(&["bench", "--token", "--password", "--json"], "bench --token \"$SECRET\" --json");
        check(
            &["bench", "--set", "bridge-password=pw", "--set", "shards=2"],
            "bench --set bridge-password=\"$SECRET\" --set 'shards=2'",
        );
    }
}
