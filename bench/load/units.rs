//! Sizes and times of the bench's command line, read as those of the broker's configuration.

use ringmq::config::duration::{self, TimeUnit};
use ringmq::limits::Size;

/// More is no scenario's rate.
pub(crate) const RATE_MAX: f64 = 1e8;

/// The longest latency that is told from a longer one.
const LATENCY_MAX_US: f64 = 120e6;

/// Bytes: plain, or with a unit; what has no `B` is binary, as the broker's own message proposes.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let size = Size::parse(text).or_else(|| Size::parse(&Size::meant(text)?));
    size.and_then(|size| usize::try_from(size.0).ok())
        .ok_or_else(|| format!("{text:?} is no size: write bytes, or 4k, 64KiB, 1m"))
}

/// Seconds, plain and perhaps with a fraction, or a whole number of another unit.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    let plain = text.parse::<f64>().ok();
    let with_unit = || duration::parse(text, TimeUnit::Microseconds).map(|us| us as f64 / 1e6);
    plain
        .or_else(with_unit)
        .filter(|time| time.is_finite() && time.is_sign_positive())
        .ok_or_else(|| format!("{text:?} is no time: write seconds, or 500ms, 10s, 2m"))
}

/// Messages or connections per second: plain, or in thousands or millions.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let text = text.trim();
    let thousands = text.strip_suffix(['k', 'K']).map(|number| (number, 1e3));
    let millions = || text.strip_suffix(['m', 'M']).map(|number| (number, 1e6));
    let (number, unit) = thousands.or_else(millions).unwrap_or((text, 1.0));
    let number = number.replace('_', "").parse::<f64>().ok().map(|number| number * unit);
    number
        .filter(|rate| (0.0..=RATE_MAX).contains(rate) && rate.is_sign_positive())
        .ok_or_else(|| format!("{text:?} is no rate: write messages per second, or 500, 2.5k, 1m"))
}

/// Microseconds of a latency. A unit must be there: nobody means ten seconds by 10.
pub(crate) fn latency_us(text: &str) -> Result<f64, String> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
    let found = units.iter().find_map(|(unit, us)| Some((text.strip_suffix(unit)?, us)));
    let us = found.and_then(|(number, us)| Some(number.trim().parse::<f64>().ok()? * us));
    us.filter(|us| (1.0..=LATENCY_MAX_US).contains(us)).ok_or_else(|| {
        format!("{text:?} is no latency: write it with its unit, as 500us, 10ms, 1s")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let read =
            ["64", "4k", "4K", "4KiB", "4ki", "1m", "2 MiB", "1_000", "16b", "4kB"].map(size);
        let bytes = [64, 4096, 4096, 4096, 4096, 1 << 20, 2 << 20, 1000, 16, 4000];
        assert_eq!(read, bytes.map(Ok));
        for wrong in ["", "k", "-1", "1.5k", "4x", "4kk", "99999999999g", "18446744073709551616"] {
            assert!(size(wrong).is_err_and(|said| said.contains("is no size")), "{wrong}");
        }
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        let read = ["5", "0.3", "500ms", "10s", "2m", "1h"].map(seconds);
        assert_eq!(read, [5.0, 0.3, 0.5, 10.0, 120.0, 3600.0].map(Ok));
        for wrong in ["", "s", "-1", "1 week", "nan", "inf"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_are_read_as_people_write_them() {
        let read = ["0", "500", "1k", "2.5k", "2K", "1m", "1.2M", "10_000", "100m"].map(rate);
        let per_s = [0.0, 500.0, 1e3, 2.5e3, 2e3, 1e6, 1.2e6, 1e4, 1e8];
        assert_eq!(read, per_s.map(Ok));
        for wrong in ["", "k", "-1", "-0.0", "1g", "1kk", "101m", "nan", "inf", "1/s"] {
            assert!(rate(wrong).is_err_and(|said| said.contains("is no rate")), "{wrong}");
        }
    }

    #[test]
    fn a_latency_has_a_unit() {
        assert_eq!(["500us", "1.5ms", "2s"].map(latency_us), [500.0, 1.5e3, 2e6].map(Ok));
        for wrong in ["10", "0ms", "-1ms", "1.5", "", "ms", "soon", "nans", "10m"] {
            assert!(latency_us(wrong).is_err_and(|said| said.contains("unit")), "{wrong}");
        }
    }
}
