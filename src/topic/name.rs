//! Topic names, to which a PUBLISH or a will is addressed.

use std::fmt;

use memchr::{memchr_iter, memchr3};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    Empty,
    /// `+` or `#`.
    Wildcard,
    /// U+0000.
    Null,
    TooLong,
    TooManyLevels,
}

/// Whether a message can be published to `topic`. Sizes are in bytes.
pub fn check_name(topic: &str, size_max: usize, levels_max: usize) -> Result<(), NameError> {
    // [MQTT-4.7.3-1]
    if topic.is_empty() {
        return Err(NameError::Empty);
    }
    // [MQTT-4.7.3-3]
    if topic.len() > size_max {
        return Err(NameError::TooLong);
    }
    // [MQTT-4.7.0-1], [MQTT-4.7.3-2]
    let bytes = topic.as_bytes();
    match memchr3(b'+', b'#', 0, bytes).map(|at| bytes[at]) {
        Some(0) => return Err(NameError::Null),
        Some(_) => return Err(NameError::Wildcard),
        None => {}
    }
    // A topic of n bytes has n + 1 levels at most, so few topics need the count.
    if bytes.len() >= levels_max && memchr_iter(b'/', bytes).count() >= levels_max {
        return Err(NameError::TooManyLevels);
    }
    Ok(())
}

/// Topics that only the broker publishes.
pub fn is_system(topic: &str) -> bool {
    topic == "$SYS" || topic.starts_with("$SYS/")
}

impl fmt::Display for NameError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            NameError::Empty => "the topic name is empty",
            NameError::Wildcard => "the topic name contains a wildcard",
            NameError::Null => "the topic name contains U+0000",
            NameError::TooLong => "the topic name is too long",
            NameError::TooManyLevels => "the topic name has too many levels",
        })
    }
}

impl std::error::Error for NameError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_refused_for_the_reason_that_applies() {
        let long = "x".repeat(21);
        for (topic, want) in [
            ("a", Ok(())),
            ("/", Ok(())),
            ("//", Ok(())),
            ("a/b c/ü", Ok(())),
            ("$SYS/x", Ok(())),
            ("x/x/x/x", Err(NameError::TooManyLevels)),
            ("///", Err(NameError::TooManyLevels)),
            ("", Err(NameError::Empty)),
            ("a/+", Err(NameError::Wildcard)),
            ("a#b", Err(NameError::Wildcard)),
            ("a\0", Err(NameError::Null)),
            (&long[..20], Ok(())),
            (&long, Err(NameError::TooLong)),
        ] {
            assert_eq!(check_name(topic, 20, 3), want, "{topic:?}");
        }
    }
}
