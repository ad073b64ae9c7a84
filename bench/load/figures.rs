//! Figures as they are read: thousands apart, and the unit that fits.

/// A whole number with its thousands apart.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Microseconds with three digits and the unit that fits.
pub(crate) fn duration(us: f64) -> String {
    let (value, unit) = match us {
        us if us < 999.5 => (us, "us"),
        us if us < 999_500.0 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$}{unit}")
}

/// Bytes in the largest unit of which they are a whole number, as payloads are chosen: `64 B`, `4 KiB`.
pub(crate) fn size(bytes: usize) -> String {
    let units = [(1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    match unit {
        Some((unit, name)) => format!("{} {name}", bytes / unit),
        None => format!("{} B", grouped(bytes as f64)),
    }
}

/// Microseconds of processor time: three digits, and no more than three behind the point.
pub(crate) fn processor_time(us: f64) -> String {
    let digits = match us {
        us if us < 9.9995 => 3,
        us if us < 99.995 => 2,
        us => usize::from(us < 999.95),
    };
    format!("{us:.digits$}")
}

/// How many go together: one digit behind the point where it says something.
pub(crate) fn batch(messages: f64) -> String {
    if messages < 9.95 { format!("{messages:.1}") } else { grouped(messages) }
}

/// `None`: there are none.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_to_be_read() {
        assert_eq!(
            [0.0, 999.0, 1000.4, 1234567.0].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
        let times = [0.5, 9.99, 10.0, 123.4, 999.6, 12_345.0, 2.5e6].map(duration);
        assert_eq!(times, ["0.50us", "9.99us", "10.0us", "123us", "1.00ms", "12.3ms", "2.50s"]);
        let sizes = [64, 4096, 1500, 1536, 2 << 20].map(size);
        assert_eq!(sizes, ["64 B", "4 KiB", "1,500 B", "1,536 B", "2 MiB"]);
        let used = [0.0451, 7.0971, 17.716, 123.46, 1234.6].map(processor_time);
        assert_eq!(used, ["0.045", "7.097", "17.72", "123.5", "1235"]);
        assert_eq!([1.0, 5.04, 19.97, 1024.0].map(batch), ["1.0", "5.0", "20", "1,024"]);
    }
}
