//! Sizes and times of the bench's command line, read as those of the broker's configuration.

use ringmq::config::duration::{self, TimeUnit};
use ringmq::limits::Size;

/// Bytes: plain, or with a unit; what has no `B` is binary, as the broker's own message proposes.
pub fn size(text: &str) -> Result<usize, String> {
    let size = Size::parse(text).or_else(|| Size::parse(&Size::meant(text)?));
    size.and_then(|size| usize::try_from(size.0).ok())
        .ok_or_else(|| format!("{text:?} is no size: write bytes, or 4k, 64KiB, 1m"))
}

/// Seconds, plain and perhaps with a fraction, or a whole number of another unit.
pub fn seconds(text: &str) -> Result<f64, String> {
    let plain = text.parse::<f64>().ok();
    let with_unit = || duration::parse(text, TimeUnit::Microseconds).map(|us| us as f64 / 1e6);
    plain
        .or_else(with_unit)
        .filter(|time| time.is_finite() && time.is_sign_positive())
        .ok_or_else(|| format!("{text:?} is no time: write seconds, or 500ms, 10s, 2m"))
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
}
