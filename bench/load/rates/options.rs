//! What the command line says of rates and of the latencies that must hold.

use std::time::Duration;

use clap::Args;
use ringmq::printable::counted;
use serde::Serialize;

use super::search::{PROBE_COUNT_EXPECTED, PROBE_COUNT_MAX, RATE_START};
use crate::figures::duration;
use crate::options::Options;
use crate::outcome::Latency;
use crate::scenario::{Kind, Scenario};
use crate::units;

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct RateOptions {
    /// Run at each of these rates in turn, as 1k,2k,5k, on the same connections, and show a line for each
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = units::rate)]
    #[arg(conflicts_with_all = ["rate", "find_max"])]
    rates: Vec<f64>,
    /// Look for the highest rate that is kept, loses nothing and holds --p99 or another latency, from --rate (or 1k) on
    #[arg(long)]
    find_max: bool,
    /// Half of the messages must take no longer: with --find-max or --rates
    #[arg(long, value_name = "TIME", value_parser = units::latency_us)]
    p50: Option<f64>,
    #[arg(long, value_name = "TIME", value_parser = units::latency_us)]
    p90: Option<f64>,
    /// 99 of 100 messages must take no longer, as 10ms
    #[arg(long, value_name = "TIME", value_parser = units::latency_us)]
    p99: Option<f64>,
    /// 999 of 1000 messages must take no longer
    #[arg(long, visible_alias = "p99.9", value_name = "TIME", value_parser = units::latency_us)]
    p999: Option<f64>,
    /// No message may take longer
    #[arg(long, value_name = "TIME", value_parser = units::latency_us)]
    max: Option<f64>,
}

impl RateOptions {
    pub(crate) fn is_asked(&self) -> bool {
        self.find_max || !self.rates.is_empty()
    }

    /// The first rate that runs.
    pub(crate) fn first(&self, asked: Option<f64>) -> f64 {
        let start = asked.filter(|rate| *rate > 0.0).unwrap_or(RATE_START);
        // A list with 0 in it is refused as that, later.
        self.rates.first().copied().filter(|rate| *rate > 0.0).unwrap_or(start)
    }
}

/// Which of the latencies is meant.
type Quantile = fn(&Latency) -> f64;

/// A latency that must hold.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LatencyLimit {
    pub name: &'static str,
    pub us: f64,
    #[serde(skip)]
    of: Quantile,
}

impl LatencyLimit {
    pub(crate) fn is_held(&self, latency: &Latency) -> bool {
        self.value(latency) <= self.us
    }

    pub(crate) fn value(&self, latency: &Latency) -> f64 {
        (self.of)(latency)
    }

    pub(crate) fn words(&self) -> String {
        format!("{} <= {}", self.name, duration(self.us))
    }
}

/// The rates that a measurement is to run at.
#[derive(Debug)]
pub(crate) struct Rates {
    list: Vec<f64>,
    searches: bool,
    limits: Vec<LatencyLimit>,
}

impl Rates {
    pub(crate) fn new(options: &Options, scenarios: &[Scenario]) -> Result<Rates, String> {
        let RateOptions { rates, find_max, p50, p90, p99, p999, max } = options.rates.clone();
        let named: [(_, _, Quantile); 5] = [
            ("p50", p50, |latency| latency.p50_us),
            ("p90", p90, |latency| latency.p90_us),
            ("p99", p99, |latency| latency.p99_us),
            ("p99.9", p999, |latency| latency.p999_us),
            ("max", max, |latency| latency.max_us),
        ];
        let limit = |(name, us, of): (_, Option<f64>, _)| Some(LatencyLimit { name, us: us?, of });
        let limits: Vec<LatencyLimit> = named.into_iter().filter_map(limit).collect();
        if find_max && limits.is_empty() {
            return Err("--find-max needs the latency that must hold, as --p99 10ms".to_string());
        }
        let rates = Rates { list: rates, searches: find_max, limits };
        if !rates.is_asked() && !rates.limits.is_empty() {
            let limits = rates.limit_words();
            return Err(format!("{limits}: a latency must hold with --find-max or --rates only"));
        }
        if rates.list.contains(&0.0) {
            return Err("--rates: each rate must be above 0".to_string());
        }
        let other = scenarios.iter().find(|scenario| scenario.kind != Kind::Traffic);
        if let Some(Scenario { name, .. }) = other.filter(|_| rates.is_asked()) {
            return Err(format!("scenario {name}: --find-max and --rates are for traffic"));
        }
        Ok(rates)
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.searches || !self.list.is_empty()
    }

    pub(crate) fn list(&self) -> &[f64] {
        &self.list
    }

    pub(crate) fn searches(&self) -> bool {
        self.searches
    }

    pub(crate) fn limits(&self) -> &[LatencyLimit] {
        &self.limits
    }

    /// Runs of a scenario; of a search, as many as are usual.
    pub(crate) fn run_count(&self) -> u32 {
        if self.searches { PROBE_COUNT_EXPECTED } else { self.list.len() as u32 }
    }

    /// How long a search takes is said before it begins.
    pub(crate) fn announce(&self, scenario_count: usize, round: Duration) {
        if !self.searches {
            return;
        }
        let minutes = |count: u32| {
            let seconds = (count * scenario_count as u32 * round).as_secs_f64();
            if seconds < 90.0 {
                format!("{seconds:.0} s")
            } else {
                format!("{:.0} min", seconds / 60.0)
            }
        };
        let each = match scenario_count {
            1 => String::new(),
            count => format!(" for each of {}", counted(count as u64, "scenarios")),
        };
        eprintln!(
            "ringmq-bench: looks for the highest rate that holds {}{each}: some {} \
             ({PROBE_COUNT_EXPECTED} runs), at most {} ({PROBE_COUNT_MAX} runs); Ctrl-C shows what \
             there is",
            self.limit_words(),
            minutes(PROBE_COUNT_EXPECTED),
            minutes(PROBE_COUNT_MAX),
        );
    }

    fn limit_words(&self) -> String {
        words_of(&self.limits)
    }
}

pub(super) fn words_of(limits: &[LatencyLimit]) -> String {
    limits.iter().map(LatencyLimit::words).collect::<Vec<_>>().join(" and ")
}
