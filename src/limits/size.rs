//! A count of bytes as people write it: `64KiB`.

use std::fmt;

/// Prints the largest binary unit that divides the count, or plain bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

const UNITS: [(&str, u64); 4] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Read, and never printed.
const DECIMAL_UNITS: [(&str, u64); 4] =
    [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];

impl Size {
    /// Reads `65536`, `64KiB`, `64 kib`, and `10MB` as ten million; `None` if the text is no size or does not fit.
    pub fn parse(text: &str) -> Option<Size> {
        let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
        let count: u64 = text[..digits_end].replace('_', "").parse().ok()?;
        let unit = text[digits_end..].trim();
        if unit.is_empty() || unit.eq_ignore_ascii_case("B") {
            return Some(Size(count));
        }
        let mut units = UNITS.iter().chain(&DECIMAL_UNITS);
        let (_, factor) = units.find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
        count.checked_mul(*factor).map(Size)
    }

    /// What a text without a `B` may mean: `64K` is `64KiB` to some and `64kB` to others.
    pub fn meant(text: &str) -> Option<String> {
        let text = text.trim();
        let bare = text.strip_suffix(['i', 'I']).unwrap_or(text);
        let unit = bare.chars().last()?.to_ascii_uppercase();
        let known = UNITS.iter().find(|(name, _)| name.starts_with(unit))?;
        let meant = format!("{}{}", bare[..bare.len() - 1].trim(), known.0);
        Size::parse(&meant).map(|_| meant)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor)) {
            Some((name, factor)) => write!(out, "{}{name}", self.0 / factor),
            None => write!(out, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Size;

    #[test]
    fn a_size_is_read_with_and_without_a_unit() {
        let cases = [
            ("0", Some(0)),
            ("65536", Some(65_536)),
            ("1_000", Some(1000)),
            ("64KiB", Some(64 << 10)),
            ("16 mib", Some(16 << 20)),
            ("1GiB", Some(1 << 30)),
            ("2TiB", Some(2 << 40)),
            ("512B", Some(512)),
            ("", None),
            ("KiB", None),
            ("_", None),
            ("64KB", Some(64_000)),
            ("64kB", Some(64_000)),
            ("10 MB", Some(10_000_000)),
            ("2TB", Some(2_000_000_000_000)),
            ("64K", None),
            ("-1", None),
            ("1.5MiB", None),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("18014398509481984KiB", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Size::parse(text), expected.map(Size), "{text}");
        }
    }

    #[test]
    fn an_ambiguous_unit_is_completed_not_guessed() {
        let cases = [
            ("64K", Some("64KiB")),
            ("64k", Some("64KiB")),
            ("16 Mi", Some("16MiB")),
            ("1G", Some("1GiB")),
            ("K", None),
            ("64X", None),
            ("", None),
            ("ü", None),
        ];
        for (text, meant) in cases {
            assert_eq!(Size::meant(text).as_deref(), meant, "{text}");
        }
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same_size() {
        for (size, printed) in [
            (0, "0"),
            (1, "1"),
            (1000, "1000"),
            (1024, "1KiB"),
            (1536, "1536"),
            (16 << 20, "16MiB"),
        ] {
            assert_eq!(Size(size).to_string(), printed);
            assert_eq!(Size::parse(printed), Some(Size(size)));
        }
    }
}
