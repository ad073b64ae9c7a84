//! The search for the highest rate that holds. It doubles the rate until one does not hold, then halves the distance.

use crate::units::RATE_MAX;

/// The search begins here unless it is told a rate.
pub(super) const RATE_START: f64 = 1000.0;

/// The usual number of runs of a search, and the largest.
pub(super) const PROBE_COUNT_EXPECTED: u32 = 18;
pub(super) const PROBE_COUNT_MAX: u32 = 40;

/// The lowest rate that failed is at most this much above the highest that held.
const PRECISION: f64 = 1.03;

/// The search does not go below this rate.
const RATE_MIN: f64 = 1.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Holds,
    Fails,
    /// The rate does not hold, because of the generator.
    GeneratorLimit,
}

#[derive(Debug)]
pub(crate) struct Search {
    start: f64,
    /// The highest rate that held.
    held: Option<f64>,
    /// The lowest rate that failed twice.
    failed: Option<(f64, Verdict)>,
    /// A rate that failed once: other programs may have disturbed it.
    doubted: Option<(f64, Verdict)>,
    probe_count: u32,
}

impl Search {
    pub(crate) fn new(start: f64) -> Search {
        Search { start, held: None, failed: None, doubted: None, probe_count: 0 }
    }

    /// The rate to try; `None`: the search is over.
    pub(crate) fn next(&self) -> Option<f64> {
        let failed = self.failed.map(|(rate, _)| rate);
        let rate = match (self.doubted, self.held, failed) {
            (Some((rate, _)), ..) => Some(rate),
            (None, None, None) => Some(self.start),
            (None, Some(held), None) => {
                Some(rounded(2.0 * held).min(RATE_MAX)).filter(|rate| *rate > held)
            }
            (None, None, Some(failed)) => {
                Some(rounded(failed / 2.0).max(RATE_MIN)).filter(|rate| *rate < failed)
            }
            (None, Some(held), Some(failed)) => {
                let middle = rounded((held * failed).sqrt());
                let is_over = failed / held <= PRECISION || middle <= held || middle >= failed;
                (!is_over).then_some(middle)
            }
        };
        rate.filter(|_| self.probe_count < PROBE_COUNT_MAX)
    }

    pub(crate) fn note(&mut self, rate: f64, verdict: Verdict) {
        self.probe_count += 1;
        match (verdict, self.doubted.take()) {
            (Verdict::Holds, _) => self.held = Some(rate),
            (verdict, None) => self.doubted = Some((rate, verdict)),
            (_, Some((_, Verdict::GeneratorLimit))) => {
                self.failed = Some((rate, Verdict::GeneratorLimit));
            }
            (verdict, Some(_)) => self.failed = Some((rate, verdict)),
        }
    }

    pub(crate) fn held(&self) -> Option<f64> {
        self.held
    }

    pub(crate) fn failed(&self) -> Option<(f64, Verdict)> {
        self.failed
    }

    pub(crate) fn probe_count(&self) -> u32 {
        self.probe_count
    }

    /// Whether the search has ended by itself, with probes left and not early.
    pub(crate) fn is_over(&self) -> bool {
        self.probe_count < PROBE_COUNT_MAX && self.next().is_none()
    }
}

/// Rates are rounded to three digits: these are closer together than the precision.
fn rounded(rate: f64) -> f64 {
    let unit = 10f64.powf(rate.log10().floor() - 2.0);
    if unit >= 1.0 { (rate / unit).round() * unit } else { (rate * 100.0).round() / 100.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches a broker whose answer to the probe with a number is `verdict`. Returns the rates that were tried.
    fn search(start: f64, verdict: impl Fn(u32, f64) -> Verdict) -> (Search, Vec<f64>) {
        let mut search = Search::new(start);
        let mut tried = Vec::new();
        while let Some(rate) = search.next() {
            assert!(tried.len() < 100, "it ends: {tried:?}");
            search.note(rate, verdict(tried.len() as u32, rate));
            tried.push(rate);
        }
        (search, tried)
    }

    fn up_to(capacity: f64) -> impl Fn(u32, f64) -> Verdict {
        move |_, rate| if rate <= capacity { Verdict::Holds } else { Verdict::Fails }
    }

    #[test]
    fn the_highest_rate_is_found_within_the_precision() {
        for capacity in [1.0, 3.7, 95.0, 1000.0, 1999.0, 23_456.0, 700_000.0, 3e6, 9.9e7] {
            let (search, tried) = search(RATE_START, up_to(capacity));
            let held = search.held().expect("some rate holds");
            assert!(held <= capacity && held * 1.04 >= capacity, "{capacity}: {held}\n{tried:?}");
            assert!(search.is_over(), "{capacity}: {tried:?}");
            assert_eq!(tried.len() as u32, search.probe_count());
        }
    }

    #[test]
    fn a_usual_search_takes_as_many_probes_as_are_expected() {
        let counts = [20_000.0, 150_000.0, 900_000.0].map(|capacity| {
            let (search, _) = search(RATE_START, up_to(capacity));
            search.probe_count()
        });
        assert!(counts.iter().all(|count| count.abs_diff(PROBE_COUNT_EXPECTED) <= 5), "{counts:?}");
    }

    #[test]
    fn a_probe_that_fails_once_does_not_count() {
        let broker = up_to(50_000.0);
        let disturbed = |probe: u32, rate: f64| {
            if probe.is_multiple_of(3) { Verdict::Fails } else { broker(probe, rate) }
        };
        let (search, tried) = search(RATE_START, disturbed);
        let held = search.held().expect("some rate holds");
        assert!((48_000.0..=50_000.0).contains(&held), "{held}: {tried:?}");
    }

    #[test]
    fn a_rate_that_nothing_ends_is_no_endless_search() {
        let (search, _) = search(RATE_START, |_, _| Verdict::Holds);
        assert_eq!((search.held(), search.failed()), (Some(RATE_MAX), None));
        let (search, tried) = super::tests::search(RATE_START, |_, _| Verdict::Fails);
        assert_eq!(search.held(), None);
        assert!(search.failed().is_some_and(|(rate, _)| rate < 2.0), "{tried:?}");
    }

    #[test]
    fn that_the_generator_was_the_limit_once_is_enough() {
        let (search, _) = search(RATE_START, |probe, rate| match (rate > 5000.0, probe % 2) {
            (false, _) => Verdict::Holds,
            (true, 0) => Verdict::GeneratorLimit,
            (true, _) => Verdict::Fails,
        });
        assert_eq!(search.failed().map(|(_, verdict)| verdict), Some(Verdict::GeneratorLimit));
    }
}
