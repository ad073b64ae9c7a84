//! Sizes and times as people write them on a command line: `4k`, `1MiB`, `500ms`, `10s`, `2m`.

const SIZES: [(&str, u64); 6] = [
    ("ki", 1 << 10),
    ("k", 1 << 10),
    ("mi", 1 << 20),
    ("m", 1 << 20),
    ("gi", 1 << 30),
    ("g", 1 << 30),
];

const TIMES: [(&str, f64); 6] =
    [("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("min", 60.0), ("m", 60.0), ("h", 3600.0)];

/// A whole number of bytes, plain or with a unit: k, m and g are powers of 1024, with or without `iB`.
pub fn size(text: &str) -> Result<usize, String> {
    let wrong = || format!("{text:?} is no size: write bytes, or 4k, 64KiB, 1m");
    let (number, unit) = split(text);
    let number: u64 = number.replace('_', "").parse().map_err(|_| wrong())?;
    let unit = unit.to_ascii_lowercase();
    let bare = unit.strip_suffix('b').unwrap_or(&unit);
    if bare.len() == 1 && unit.len() == 2 {
        let (letter, of_ten) = (bare.to_ascii_uppercase(), unit.to_uppercase());
        return Err(format!(
            "{text:?}: {of_ten} is 1000 to some and 1024 to others: write {number}{letter}iB"
        ));
    }
    let factor = match bare {
        "" => Some(1),
        _ => SIZES.iter().find(|(name, _)| *name == bare).map(|(_, factor)| *factor),
    };
    let bytes = factor.and_then(|factor| number.checked_mul(factor)).ok_or_else(wrong)?;
    usize::try_from(bytes).map_err(|_| wrong())
}

/// Seconds, plain or with a unit, not negative.
pub fn seconds(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is no time: write seconds, or 500ms, 10s, 2m");
    let (number, unit) = split(text);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let factor = match unit {
        "" => Some(1.0),
        _ => TIMES.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor),
    };
    factor.map(|factor| number * factor).filter(|time| time.is_finite()).ok_or_else(wrong)
}

/// The number, and what stands behind it.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let is_number = |c: char| c.is_ascii_digit() || c == '.' || c == '_';
    let end = text.find(|c| !is_number(c)).unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let read = ["64", "4k", "4K", "4KiB", "4ki", "1m", "2 MiB", "1_000", "16b"].map(size);
        let bytes = [64, 4096, 4096, 4096, 4096, 1 << 20, 2 << 20, 1000, 16];
        assert_eq!(read, bytes.map(Ok));
        for wrong in ["", "k", "-1", "1.5k", "4x", "4kk", "99999999999g", "18446744073709551616"] {
            assert!(size(wrong).is_err_and(|said| said.contains("is no size")), "{wrong}");
        }
        assert!(size("4kB").is_err_and(|said| said.contains("4KiB")));
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        let read = ["5", "0.3", "500ms", "10s", "2m", "1.5 h"].map(seconds);
        assert_eq!(read, [5.0, 0.3, 0.5, 10.0, 120.0, 5400.0].map(Ok));
        for wrong in ["", "s", "-1", "1 week", "nan", "inf", "1e5"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
