//! Topic filters: how a SUBSCRIBE names topics, and whether a filter means a topic.

use std::fmt;

use memchr::{memchr, memchr2};

/// A topic filter as it was subscribed to: on its own or with a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribed<'a> {
    /// The share name of `$share/NAME/filter`.
    pub share: Option<&'a str>,
    pub filter: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterError {
    Empty,
    /// A wildcard that is not a whole level, or a `#` that is not the last one.
    Wildcard,
    /// U+0000.
    Null,
    TooLong,
    TooManyLevels,
    Share(ShareError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShareError {
    NameEmpty,
    NameWildcard,
    /// Nothing follows the share name.
    FilterMissing,
}

/// Takes `$share/NAME/filter` apart and checks the parts. `size_max` counts the bytes of the whole text, `levels_max`
/// the levels of the filter alone.
pub fn parse_filter(
    text: &str,
    size_max: usize,
    levels_max: usize,
) -> Result<Subscribed<'_>, FilterError> {
    // [MQTT-4.7.3-1]
    if text.is_empty() {
        return Err(FilterError::Empty);
    }
    // [MQTT-4.7.3-3]
    if text.len() > size_max {
        return Err(FilterError::TooLong);
    }
    // [MQTT-4.7.3-2]
    if memchr(0, text.as_bytes()).is_some() {
        return Err(FilterError::Null);
    }
    let subscribed = match text.strip_prefix("$share/") {
        Some(shared) => split_share(shared).map_err(FilterError::Share)?,
        None => Subscribed { share: None, filter: text },
    };
    check_levels(subscribed.filter, levels_max)?;
    Ok(subscribed)
}

/// Whether `filter` means `topic`. Both are valid; neither is normalized [MQTT-4.7.3-4].
pub fn matches(filter: &str, topic: &str) -> bool {
    // [MQTT-4.7.2-1]
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        // `a/#` means `a` as well: no further level is needed.
        if wanted == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if wanted == "+" || wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

pub fn has_wildcards(filter: &str) -> bool {
    memchr2(b'+', b'#', filter.as_bytes()).is_some()
}

/// The filter without the names of its levels.
pub fn pattern(filter: &str) -> String {
    filter.chars().filter(|sign| matches!(sign, '/' | '+' | '#')).collect()
}

// [MQTT-4.8.2-1], [MQTT-4.8.2-2]
/// The topic filter of a valid `$share/NAME/filter`.
pub fn filter_of(shared: &str) -> &str {
    shared.splitn(3, '/').nth(2).unwrap_or_default()
}

fn split_share(shared: &str) -> Result<Subscribed<'_>, ShareError> {
    let (name, filter) = match shared.split_once('/') {
        Some((name, filter)) => (name, filter),
        None => (shared, ""),
    };
    if name.is_empty() {
        return Err(ShareError::NameEmpty);
    }
    if has_wildcards(name) {
        return Err(ShareError::NameWildcard);
    }
    if filter.is_empty() {
        return Err(ShareError::FilterMissing);
    }
    Ok(Subscribed { share: Some(name), filter })
}

fn check_levels(filter: &str, levels_max: usize) -> Result<(), FilterError> {
    let mut levels = filter.split('/');
    let mut level_count = 0;
    while let Some(level) = levels.next() {
        level_count += 1;
        if level_count > levels_max {
            return Err(FilterError::TooManyLevels);
        }
        // [MQTT-4.7.1-2]
        if has_wildcards(level) && level.len() != 1 {
            return Err(FilterError::Wildcard);
        }
        // [MQTT-4.7.1-1]
        if level == "#" && levels.next().is_some() {
            return Err(FilterError::Wildcard);
        }
    }
    Ok(())
}

impl fmt::Display for FilterError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            FilterError::Empty => "the topic filter is empty",
            FilterError::Wildcard => "the topic filter has a misplaced wildcard",
            FilterError::Null => "the topic filter contains U+0000",
            FilterError::TooLong => "the topic filter is too long",
            FilterError::TooManyLevels => "the topic filter has too many levels",
            FilterError::Share(ShareError::NameEmpty) => "the share name is empty",
            FilterError::Share(ShareError::NameWildcard) => "the share name contains a wildcard",
            FilterError::Share(ShareError::FilterMissing) => {
                "no topic filter follows the share name"
            }
        })
    }
}

impl std::error::Error for FilterError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(filter: &str) -> Result<Subscribed<'_>, FilterError> {
        Ok(Subscribed { share: None, filter })
    }

    fn shared<'a>(name: &'a str, filter: &'a str) -> Result<Subscribed<'a>, FilterError> {
        Ok(Subscribed { share: Some(name), filter })
    }

    #[test]
    fn filters_are_taken_apart_or_refused_for_the_reason_that_applies() {
        use FilterError::*;
        let long = "x".repeat(31);
        for (text, want) in [
            ("#", plain("#")),
            ("+", plain("+")),
            ("/", plain("/")),
            ("+/+/#", plain("+/+/#")),
            ("a/+/c", plain("a/+/c")),
            ("$share", plain("$share")),
            ("$shared/x", plain("$shared/x")),
            ("$SYS/#", plain("$SYS/#")),
            ("", Err(Empty)),
            ("a+", Err(Wildcard)),
            ("+a/b", Err(Wildcard)),
            ("a/b#", Err(Wildcard)),
            ("++", Err(Wildcard)),
            ("+#", Err(Wildcard)),
            ("#/", Err(Wildcard)),
            ("a/#/b", Err(Wildcard)),
            ("a\0", Err(Null)),
            ("1/2/3/4", plain("1/2/3/4")),
            ("1/2/3/4/", Err(TooManyLevels)),
            (&long[..30], plain(&long[..30])),
            (&long, Err(TooLong)),
            ("$share/g/a", shared("g", "a")),
            ("$share/g/1/2/3/4", shared("g", "1/2/3/4")),
            ("$share/g//", shared("g", "/")),
            ("$share/g/#", shared("g", "#")),
            ("$share/g/a/#/b", Err(Wildcard)),
            ("$share/", Err(Share(ShareError::NameEmpty))),
            ("$share//a", Err(Share(ShareError::NameEmpty))),
            ("$share/g", Err(Share(ShareError::FilterMissing))),
            ("$share/g/", Err(Share(ShareError::FilterMissing))),
            ("$share/+/a", Err(Share(ShareError::NameWildcard))),
            ("$share/g#/a", Err(Share(ShareError::NameWildcard))),
        ] {
            assert_eq!(parse_filter(text, 30, 4), want, "{text:?}");
        }
    }

    #[test]
    fn the_examples_of_the_specification_match_as_it_says() {
        for (filter, topic, want) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/tennis/player1/#", "sport/tennis/player10", false),
            ("sport/#", "sport", true),
            ("#", "sport", true),
            ("#", "/", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/monitor/Clients", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/monitor/Clients", true),
            ("$SYS/#", "$SYS", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("a/+", "a/$b", true),
            ("a/#", "a/$b", true),
            ("+/#", "a", true),
            ("a", "A", false),
            ("a/b", "a", false),
            ("a", "a/b", false),
        ] {
            assert_eq!(matches(filter, topic), want, "{filter:?} {topic:?}");
        }
    }
}
