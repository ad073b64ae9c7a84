//! What is a topic or a filter, against the definition level by level.

use proptest::prelude::*;
use ringmq::topic::{check_name, has_wildcards, matches, parse_filter};

use crate::texts;

proptest! {
    #[test]
    fn a_filter_is_accepted_if_and_only_if_it_is_one(text in texts::filter_or_not()) {
        let parsed = parse_filter(&text, 20, 4);
        let (share, filter) = match text.strip_prefix("$share/") {
            Some(rest) => match rest.split_once('/') {
                Some((share, filter)) => (Some(share), filter),
                None => (Some(rest), ""),
            },
            None => (None, &text[..]),
        };
        let levels: Vec<&str> = filter.split('/').collect();
        let valid = text.len() <= 20
            && !text.contains('\0')
            && !filter.is_empty()
            && share.is_none_or(|share| !share.is_empty() && !share.contains(['+', '#']))
            && levels.len() <= 4
            && levels.iter().all(|&level| level == "+" || level == "#" || !has_wildcards(level))
            && !levels[..levels.len() - 1].contains(&"#");
        prop_assert_eq!(parsed.is_ok(), valid, "{:?}", parsed);
        if let Ok(parsed) = parsed {
            prop_assert_eq!((parsed.share, parsed.filter), (share, filter));
        }
    }

    #[test]
    fn a_name_is_a_filter_that_means_itself_alone(
        text in texts::filter_or_not(),
        other in texts::topic(),
    ) {
        let valid = check_name(&text, 20, 4).is_ok();
        let filter = text.len() <= 20 && parse_filter(&text, 20, 4).is_ok_and(|it| it.share.is_none());
        prop_assert_eq!(valid && !text.starts_with("$share/"), filter && !has_wildcards(&text));
        if valid {
            prop_assert!(matches(&text, &text));
            prop_assert_eq!(matches(&text, &other), text == other);
        }
    }
}
