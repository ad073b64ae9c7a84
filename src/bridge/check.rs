//! The rules of a bridge, checked before the bridge runs.

use super::rule::{Direction, Rule};
use crate::config::bridge::{BridgeSettings, RuleSettings};
use crate::config::table::Refusal;

/// All errors in the rules, each with its line.
pub fn check(settings: &BridgeSettings) -> Vec<Refusal> {
    let wrong = |(rules, direction): (&[RuleSettings], Direction)| -> Vec<Refusal> {
        let what = match direction {
            Direction::Forward => "forward",
            Direction::Subscribe => "subscribe",
        };
        let refusal = |rule: &RuleSettings| {
            let error = Rule::compile(rule, direction).err()?;
            let sentence = format!("[[bridge]] '{}': {what}: {error}", settings.name);
            Some(Refusal { line: rule.line, sentence })
        };
        rules.iter().filter_map(refusal).collect()
    };
    let directions = [
        (settings.forward.as_slice(), Direction::Forward),
        (settings.subscribe.as_slice(), Direction::Subscribe),
    ];
    directions.into_iter().flat_map(wrong).collect()
}
