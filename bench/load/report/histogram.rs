//! Histograms as texts: a table of percentiles, and the encoding that HdrHistogram's tools read.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use serde::Serialize;

/// This many percent of the messages came within `us` microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Percentile {
    pub percentile: f64,
    pub us: f64,
}

/// As far as a run of some hours can tell.
const PERCENTILES: [f64; 33] = [
    0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 75.0, 80.0, 85.0, 90.0, 92.5, 95.0, 97.0, 98.0,
    99.0, 99.3, 99.5, 99.7, 99.8, 99.9, 99.93, 99.95, 99.97, 99.98, 99.99, 99.995, 99.998, 99.999,
    99.9995, 99.9999, 99.99999,
];

/// The percentiles that lie below at least one message, and the maximum.
pub(crate) fn percentiles(histogram: &Histogram<u64>) -> Vec<Percentile> {
    if histogram.is_empty() {
        return Vec::new();
    }
    let count = histogram.len() as f64;
    let is_shown = |percentile: &f64| count * (100.0 - percentile) / 100.0 >= 1.0;
    let at = |percentile: f64, ns: u64| Percentile { percentile, us: ns as f64 / 1000.0 };
    let shown = PERCENTILES.into_iter().filter(is_shown);
    let shown = shown.map(|percentile| at(percentile, histogram.value_at_percentile(percentile)));
    shown.chain([at(100.0, histogram.max())]).collect()
}

/// The whole histogram: V2, compressed, base64.
pub(crate) fn encoded(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    let written = V2DeflateSerializer::new().serialize(histogram, &mut bytes);
    written.expect("a vector takes what is written");
    STANDARD.encode(bytes)
}

/// A histogram that was encoded, by this bench or another tool.
pub(crate) fn decoded(text: &str) -> Result<Histogram<u64>, String> {
    let bytes = STANDARD.decode(text.trim()).map_err(|error| error.to_string())?;
    let read = Deserializer::new().deserialize(&mut &bytes[..]);
    read.map_err(|error| format!("{error:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::new_histogram;

    fn uniform(count: u64) -> Histogram<u64> {
        let mut histogram = new_histogram();
        (1..=count).for_each(|ms| histogram.record(ms * 1_000_000).expect("within bounds"));
        histogram
    }

    #[test]
    fn an_encoded_histogram_is_read_back_whole() {
        for histogram in [new_histogram(), uniform(1), uniform(2000)] {
            let text = encoded(&histogram);
            let read = decoded(&text).expect(&text);
            assert_eq!(read, histogram);
            assert_eq!(percentiles(&read), percentiles(&histogram));
        }
        for wrong in ["", "AAAA", "not base64!"] {
            assert!(decoded(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_percentile_is_shown_that_no_message_lies_above() {
        let last = |count| {
            let shown = percentiles(&uniform(count));
            assert!(shown.is_sorted_by(|one, next| one.us <= next.us), "{shown:?}");
            shown[shown.len().saturating_sub(2)..]
                .iter()
                .map(|percentile| percentile.percentile)
                .collect::<Vec<_>>()
        };
        assert_eq!(last(1), [0.0, 100.0]);
        assert_eq!(last(100), [99.0, 100.0]);
        assert_eq!(last(10_000), [99.99, 100.0]);
        assert!(percentiles(&new_histogram()).is_empty());
    }
}
