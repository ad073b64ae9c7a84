//! Topic names: what a PUBLISH or a will may be addressed to.

use std::fmt;

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
    // One pass without branches: this runs for every PUBLISH.
    let (mut separator_count, mut wildcard, mut null) = (0, false, false);
    for &byte in topic.as_bytes() {
        separator_count += usize::from(byte == b'/');
        wildcard |= (byte == b'+') | (byte == b'#');
        null |= byte == 0;
    }
    // [MQTT-4.7.0-1], [MQTT-4.7.3-2]
    match (wildcard, null) {
        (true, _) => Err(NameError::Wildcard),
        (_, true) => Err(NameError::Null),
        _ if separator_count >= levels_max => Err(NameError::TooManyLevels),
        _ => Ok(()),
    }
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
