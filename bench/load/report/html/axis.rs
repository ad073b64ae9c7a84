//! Axes: where values stand, and ticks that are read without counting zeros.

use crate::figures::{duration, grouped};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    Logarithmic,
}

/// From `from` to `to`, with a text for each tick.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub label: String,
    scale: Scale,
    from: f64,
    to: f64,
    pub ticks: Vec<(f64, String)>,
}

/// Ticks of an axis, about.
const TICKS: f64 = 5.0;

impl Axis {
    /// From zero to the largest value.
    pub(super) fn linear(
        label: &str,
        values: impl Iterator<Item = f64>,
        write: fn(f64) -> String,
    ) -> Axis {
        let largest = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        let largest = if largest > 0.0 { largest } else { 1.0 };
        let step = round_step(largest / TICKS);
        let count = (largest / step).ceil() as u32;
        let ticks = (0..=count).map(|index| f64::from(index) * step);
        Axis {
            label: label.to_string(),
            scale: Scale::Linear,
            from: 0.0,
            to: f64::from(count) * step,
            ticks: ticks.map(|tick| (tick, write(tick))).collect(),
        }
    }

    /// Times in microseconds: each tick is ten times the one before, or near to it.
    pub(super) fn times(label: &str, values: impl Iterator<Item = f64> + Clone) -> Axis {
        let values = values.filter(|value| *value > 0.0 && value.is_finite());
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let largest = values.fold(0.0, f64::max);
        let (least, largest) = if largest > 0.0 { (least, largest) } else { (1.0, 10.0) };
        let steps = |parts: &'static [f64]| {
            (-4..=9)
                .flat_map(move |exponent| parts.iter().map(move |part| part * 10f64.powi(exponent)))
        };
        let parts: &[f64] = if largest / least < 300.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let from = steps(parts).take_while(|tick| *tick <= least * 1.001).last().unwrap_or(least);
        let to = steps(parts).find(|tick| *tick >= largest * 0.999).unwrap_or(largest);
        let to = if to > from { to } else { from * 10.0 };
        let ticks = steps(parts).filter(|tick| (from * 0.999..=to * 1.001).contains(tick));
        Axis {
            label: label.to_string(),
            scale: Scale::Logarithmic,
            from,
            to,
            ticks: ticks.map(|tick| (tick, time(tick))).collect(),
        }
    }

    /// Percentiles by how many messages lie above them: 90, 99, 99.9 % are equally far apart. `count` messages there are.
    pub(super) fn percentiles(label: &str, count: f64) -> Axis {
        let to = count.max(100.0).log10();
        let marks = [
            (0.0, "0"),
            (50.0, "50"),
            (90.0, "90"),
            (99.0, "99"),
            (99.9, "99.9"),
            (99.99, "99.99"),
            (99.999, "99.999"),
            (99.9999, "99.9999"),
        ];
        let ticks = marks.map(|(percentile, text)| (nines(percentile), text.to_string()));
        Axis {
            label: label.to_string(),
            scale: Scale::Linear,
            from: 0.0,
            to,
            ticks: ticks.into_iter().filter(|(tick, _)| *tick <= to + 1e-9).collect(),
        }
    }

    /// Where a value stands between the ends: 0 to 1.
    pub(super) fn place(&self, value: f64) -> f64 {
        let along = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.max(self.from).log10(),
        };
        let (from, to) = (along(self.from), along(self.to));
        ((along(value) - from) / (to - from)).clamp(0.0, 1.0)
    }
}

/// How many nines a percentile has: 90 is 1, 99 is 2.
pub(super) fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).max(1e-9).log10()
}

/// 1, 2 or 5 times a power of ten, and no less than `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let part = [1.0, 2.0, 5.0].into_iter().find(|part| part * power >= step * 0.999);
    part.unwrap_or(10.0) * power
}

/// Microseconds in the unit that fits: `50 µs`, `2 ms`.
pub(super) fn time(us: f64) -> String {
    let (value, unit) = match us {
        us if us < 999.5 => (us, "µs"),
        us if us < 999_500.0 => (us / 1e3, "ms"),
        us => (us / 1e6, "s"),
    };
    format!("{} {unit}", plain(value))
}

/// Three digits of a time, with a unit of its own.
pub(super) fn exact_time(us: f64) -> String {
    let text = duration(us);
    let unit_at = text.find(|char: char| char.is_ascii_alphabetic()).unwrap_or(text.len());
    format!("{} {}", &text[..unit_at], text[unit_at..].replace("us", "µs"))
}

/// Without zeros at its end.
fn plain(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// A count as ticks show it: `250`, `40 k`, `1.5 M`.
pub(super) fn short(value: f64) -> String {
    match value {
        value if value >= 999_500.0 => format!("{} M", plain(value / 1e6)),
        value if value >= 9_999.5 => format!("{} k", plain(value / 1e3)),
        value if value >= 999.5 => grouped(value),
        value => plain(value),
    }
}

pub(super) fn decimal(value: f64) -> String {
    plain(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_around_the_values() {
        for values in [[0.0, 0.0], [0.1, 0.3], [1.0, 7.3], [3.0, 1234.0], [8e6, 9.99e6]] {
            let axis = Axis::linear("", values.into_iter(), short);
            assert!(axis.to >= values[1] && (3..=8).contains(&axis.ticks.len()), "{axis:?}");
            assert!(axis.ticks.iter().all(|(_, text)| !text.contains('e')), "{axis:?}");
            assert!(axis.place(0.0) == 0.0 && axis.place(axis.to) == 1.0, "{axis:?}");
        }
        for values in [[0.0, 0.0], [12.0, 12.0], [3.0, 8.0], [20.0, 9e4], [1.0, 1.2e8]] {
            let axis = Axis::times("", values.into_iter());
            let is_within = |value: &f64| *value <= 0.0 || (axis.from..=axis.to).contains(value);
            assert!(values.iter().all(is_within), "{axis:?}");
            assert!((2..=12).contains(&axis.ticks.len()), "{axis:?}");
        }
    }

    #[test]
    fn figures_have_units_and_no_exponents() {
        assert_eq!([0.5, 20.0, 5e3, 2e6].map(time), ["0.5 µs", "20 µs", "5 ms", "2 s"]);
        assert_eq!([0.45, 12_345.0].map(exact_time), ["0.45 µs", "12.3 ms"]);
        let counts = [0.0, 0.25, 250.0, 2500.0, 40_000.0, 1_500_000.0, 1e9].map(short);
        assert_eq!(counts, ["0", "0.25", "250", "2,500", "40 k", "1.5 M", "1000 M"]);
    }

    #[test]
    fn each_nine_is_as_far_as_the_one_before() {
        let axis = Axis::percentiles("", 100_000.0);
        let texts: Vec<&str> = axis.ticks.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["0", "50", "90", "99", "99.9", "99.99", "99.999"]);
        let place = |percentile: f64| axis.place(nines(percentile));
        assert!((place(99.0) - 2.0 * place(90.0)).abs() < 1e-9);
        assert_eq!(place(100.0), 1.0);
    }
}
