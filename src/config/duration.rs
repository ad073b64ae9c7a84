//! A time as people write it: `500ms`, `10s`, `7d`.

/// The unit that a key's number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    Microseconds,
    Milliseconds,
    Seconds,
}

/// Largest first, in microseconds.
const UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1000),
    ("us", 1),
];

impl TimeUnit {
    pub fn name(self) -> &'static str {
        match self {
            TimeUnit::Microseconds => "microseconds",
            TimeUnit::Milliseconds => "milliseconds",
            TimeUnit::Seconds => "seconds",
        }
    }

    pub(super) fn example(self) -> &'static str {
        match self {
            TimeUnit::Microseconds => "50us",
            TimeUnit::Milliseconds => "10s",
            TimeUnit::Seconds => "1h",
        }
    }

    fn microseconds(self) -> u64 {
        match self {
            TimeUnit::Microseconds => 1,
            TimeUnit::Milliseconds => 1000,
            TimeUnit::Seconds => 1_000_000,
        }
    }
}

/// Reads a plain number of `unit` or one with its own unit; `None` if that is no whole number of `unit`.
pub fn parse(text: &str, unit: TimeUnit) -> Option<u64> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let count: u64 = text[..digits_end].replace('_', "").parse().ok()?;
    let suffix = text[digits_end..].trim();
    if suffix.is_empty() {
        return Some(count);
    }
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == suffix)?;
    let microseconds = count.checked_mul(*factor)?;
    microseconds.is_multiple_of(unit.microseconds()).then(|| microseconds / unit.microseconds())
}

/// Writes the largest unit that divides the time.
pub fn text(count: u64, unit: TimeUnit) -> String {
    let factor = unit.microseconds();
    let own = UNITS.iter().find(|(_, size)| *size == factor).map_or("", |(name, _)| name);
    match count.checked_mul(factor) {
        Some(whole) if whole > 0 => UNITS
            .iter()
            .find(|(_, size)| whole.is_multiple_of(*size))
            .map_or_else(String::new, |(name, size)| format!("{}{name}", whole / size)),
        _ => format!("{count}{own}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{TimeUnit, parse, text};

    #[test]
    fn a_time_is_read_in_its_own_unit_or_in_the_keys() {
        use TimeUnit::{Microseconds, Milliseconds, Seconds};
        let cases = [
            ("10", Seconds, Some(10)),
            ("10", Milliseconds, Some(10)),
            ("10s", Milliseconds, Some(10_000)),
            ("7d", Seconds, Some(604_800)),
            ("2 h", Seconds, Some(7200)),
            ("5m", Seconds, Some(300)),
            ("500ms", Milliseconds, Some(500)),
            ("50us", Microseconds, Some(50)),
            ("1_000", Seconds, Some(1000)),
            ("500ms", Seconds, None),
            ("50us", Milliseconds, None),
            ("", Seconds, None),
            ("s", Seconds, None),
            ("-1s", Seconds, None),
            ("1.5s", Milliseconds, None),
            ("10 seconds", Seconds, None),
            ("999999999999999d", Seconds, None),
        ];
        for (written, unit, expected) in cases {
            assert_eq!(parse(written, unit), expected, "{written}");
        }
    }

    #[test]
    fn what_is_written_reads_back_as_the_same_time() {
        let cases = [
            (0, TimeUnit::Seconds, "0s"),
            (604_800, TimeUnit::Seconds, "7d"),
            (90, TimeUnit::Seconds, "90s"),
            (10_000, TimeUnit::Milliseconds, "10s"),
            (1_500, TimeUnit::Milliseconds, "1500ms"),
            (50, TimeUnit::Microseconds, "50us"),
            (u64::MAX, TimeUnit::Seconds, "18446744073709551615s"),
        ];
        for (count, unit, written) in cases {
            assert_eq!(text(count, unit), written);
            if count < u64::MAX {
                assert_eq!(parse(written, unit), Some(count));
            }
        }
    }
}
