//! The topics to which a built-in plugin applies.

use crate::topic::{matches, parse_filter};

#[derive(Clone, Debug)]
pub(super) struct Filters {
    filters: Vec<String>,
    /// Whether `#` is among the filters.
    is_all: bool,
}

impl Filters {
    /// The filters, or an error for each that is invalid.
    pub(super) fn new(filters: &[String]) -> Result<Filters, Vec<String>> {
        let wrong: Vec<_> = filters.iter().filter_map(|filter| check(filter)).collect();
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Filters { filters: filters.to_vec(), is_all: filters.iter().any(|one| one == "#") })
    }

    #[inline]
    pub(super) fn contains(&self, topic: &str) -> bool {
        // Most topics are matched without a search.
        let is_ordinary = topic.as_bytes().first() != Some(&b'$');
        self.is_all && is_ordinary || self.filters.iter().any(|filter| matches(filter, topic))
    }
}

/// The error in a filter; `None`: it is valid.
fn check(filter: &str) -> Option<String> {
    const ALLOWED: &str = "allowed: topic filters, such as \"a/+/c\" or \"a/#\"";
    match parse_filter(filter, usize::MAX, usize::MAX) {
        Ok(subscribed) if subscribed.share.is_none() => None,
        Ok(_) => Some(format!("'{filter}' is a shared subscription; {ALLOWED}")),
        Err(error) => Some(format!("'{filter}': {error}; {ALLOWED}")),
    }
}

#[cfg(test)]
mod tests {
    use super::Filters;

    fn filters(texts: &[&str]) -> Result<Filters, Vec<String>> {
        Filters::new(&texts.iter().map(|text| text.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn a_topic_is_meant_by_any_of_the_filters() {
        let some = filters(&["a/+", "b/#"]).unwrap();
        for (topic, want) in [("a/x", true), ("a/x/y", false), ("b", true), ("c", false)] {
            assert_eq!(some.contains(topic), want, "{topic}");
        }
        let all = filters(&["#"]).unwrap();
        assert!(all.contains("a/b") && !all.contains("$a/b"));
    }

    #[test]
    fn every_filter_that_is_none_is_told() {
        let wrong = filters(&["a", "b/#/c", "$share/g/a", "d+"]).unwrap_err();
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        assert!(wrong[0].starts_with("'b/#/c': the topic filter has a misplaced wildcard"));
        assert!(wrong[1].starts_with("'$share/g/a' is a shared subscription"));
    }
}
