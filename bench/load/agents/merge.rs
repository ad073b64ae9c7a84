//! The findings of agents: each agent puts its own together at the end of a run, and the driver those of all.

use hdrhistogram::Histogram;

use super::clock::interpolate;
use super::protocol::{Finish, Finished, FromAgent, LatencyPairs};
use crate::engine::far::FarOrders;
use crate::engine::{Counts, Engine};
use crate::recorder::{Latencies, new_histogram};
use crate::tally::Faults;

/// Ends the engine of an agent. The counts sent elsewhere tell which messages are missing here, and the clocks tell how
/// long messages from elsewhere took.
pub(super) fn finish(
    engine: Engine,
    far: &FarOrders,
    agent_count: usize,
    finish: &Finish,
) -> Result<FromAgent, String> {
    if finish.clocks.len() != agent_count {
        return Err("these are the clocks of another number of agents".to_string());
    }
    let counts = engine.counts(0);
    let shared = engine.shared();
    for (publisher, sent) in &finish.sent {
        let is_away = shared.plan.away.has_publisher(*publisher as usize);
        let count = shared.sent.get(*publisher as usize).filter(|_| is_away);
        count
            .ok_or("it says what a publisher of this agent has sent")?
            .store(*sent, std::sync::atomic::Ordering::Relaxed);
    }
    let mut latencies = Latencies::default();
    engine.end_record(&mut latencies)?;
    let faults = engine.stop()?;
    let mut latency = latencies.total;
    let (crossed, negative) = add_far(&mut latency, far, &finish.clocks);
    let latency = pairs(&latency);
    Ok(FromAgent::Finished(Box::new(Finished { counts, faults, latency, crossed, negative })))
}

/// Adds messages from elsewhere, corrected by the clocks as they are known now. Returns how many there were, and how
/// many of them came before they were sent.
fn add_far(
    latency: &mut Histogram<u64>,
    far: &FarOrders,
    clocks: &[Vec<(i64, i64)>],
) -> (u64, u64) {
    let (mut crossed, mut negative) = (0, 0);
    let slices =
        std::mem::take(&mut *far.slices.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    for slice in &slices {
        let agent = usize::from(slice.agent);
        let correction =
            interpolate(&clocks[agent], slice.at_ns).wrapping_sub(far.offset_ns[agent]);
        for (value, count) in &slice.counts {
            let took = value.wrapping_sub(correction);
            crossed += count;
            negative += if took < 0 { *count } else { 0 };
            latency.saturating_record_n(took.max(1) as u64, *count);
        }
    }
    (crossed, negative)
}

fn pairs(latency: &Histogram<u64>) -> LatencyPairs {
    let recorded = latency.iter_recorded();
    recorded.map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
}

/// The findings of all agents together.
#[derive(Debug)]
pub(super) struct Merged {
    pub counts: Counts,
    pub faults: Faults,
    pub latency: Histogram<u64>,
    pub crossed: u64,
    /// How many of these came before they were sent, by the clocks.
    pub negative: u64,
}

impl Default for Merged {
    fn default() -> Merged {
        Merged {
            counts: Counts::default(),
            faults: Faults::default(),
            latency: new_histogram(),
            crossed: 0,
            negative: 0,
        }
    }
}

impl Merged {
    /// Adds an agent's findings, if they are possible. `sent`: how many messages its own publishers have sent, as it
    /// told before; `due_max`: the most that can have been delivered to its subscribers once each.
    pub(super) fn add(&mut self, found: &Finished, sent: u64, due_max: u64) -> Result<(), String> {
        let Finished { counts, faults, latency, crossed, negative } = found;
        let latency_count =
            latency.iter().try_fold(0_u64, |sum, (_, count)| sum.checked_add(*count));
        let nonsense = |what: String| Err(format!("it reports nonsense: {what}"));
        if counts.sent != sent {
            return nonsense(format!("{} messages sent, and {sent} before", counts.sent));
        }
        if counts.delivered > due_max {
            return nonsense(format!(
                "{} messages delivered, of {due_max} that were sent to it",
                counts.delivered
            ));
        }
        if latency_count.is_none_or(|count| count > counts.delivered)
            || crossed > &counts.delivered
            || negative > crossed
        {
            return nonsense(format!(
                "more latencies than the {} messages delivered",
                counts.delivered
            ));
        }
        if faults.lost > due_max {
            return nonsense(format!(
                "{} messages lost, of {due_max} that were sent to it",
                faults.lost
            ));
        }
        self.counts = sum(&self.counts, counts);
        self.faults.add(faults);
        self.crossed = self.crossed.saturating_add(*crossed);
        self.negative = self.negative.saturating_add(*negative);
        for (value, count) in latency {
            self.latency.saturating_record_n(*value, *count);
        }
        Ok(())
    }
}

pub(super) fn sum(one: &Counts, other: &Counts) -> Counts {
    Counts {
        sent: one.sent.saturating_add(other.sent),
        writes: one.writes.saturating_add(other.writes),
        delivered: one.delivered.saturating_add(other.delivered),
        reads: one.reads.saturating_add(other.reads),
        size: one.size.saturating_add(other.size),
        missing: one.missing.saturating_add(other.missing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::far::Slice;

    #[test]
    fn latencies_are_corrected_by_how_the_clocks_went() {
        let far = FarOrders { offset_ns: vec![0, 5000], ..FarOrders::default() };
        let slice = |at_ns, value| Slice { agent: 1, at_ns, counts: vec![(value, 2)] };
        // By then the clock here shows 5,100 and 5,900 more, and not 5,000.
        far.slices.lock().expect("no panic").extend([
            slice(1000, 1100),
            slice(9000, 1900),
            slice(9000, 850),
        ]);
        let mut latency = new_histogram();
        let clocks = [vec![], vec![(0, 5000), (10_000, 6000)]];
        assert_eq!(add_far(&mut latency, &far, &clocks), (6, 2));
        assert_eq!(pairs(&latency), [(1, 2), (1000, 4)]);
    }

    #[test]
    fn nothing_is_lost_of_a_histogram_on_its_way() {
        let mut histogram = new_histogram();
        let mut seed = fastrand::Rng::with_seed(5);
        (0..5000)
            .for_each(|_| histogram.saturating_record(1 << seed.u32(..37) | seed.u64(..1 << 20)));
        let counts = Counts { delivered: 5000, ..Counts::default() };
        let found = Finished {
            counts,
            faults: Faults::default(),
            latency: pairs(&histogram),
            crossed: 0,
            negative: 0,
        };
        let mut merged = Merged::default();
        merged.add(&found, 0, 5000).expect("it can be");
        assert_eq!(merged.latency, histogram);
        merged.add(&found, 0, 5000).expect("it can be");
        assert_eq!((merged.latency.len(), merged.counts.delivered), (10_000, 10_000));
    }

    #[test]
    fn what_came_before_it_was_sent_is_summed_and_no_sum_overflows() {
        let found = Finished {
            counts: Counts { delivered: 20, ..Counts::default() },
            faults: Faults { corrupt: u64::MAX, astray: 1, ..Faults::default() },
            latency: Vec::new(),
            crossed: 7,
            negative: 3,
        };
        let mut merged = Merged::default();
        (0..2).for_each(|_| merged.add(&found, 0, 20).expect("it can be"));
        assert_eq!((merged.crossed, merged.negative), (14, 6));
        assert_eq!((merged.faults.corrupt, merged.faults.count()), (u64::MAX, u64::MAX));
    }

    #[test]
    fn counts_that_cannot_be_are_refused() {
        let good = || Finished {
            counts: Counts { sent: 10, delivered: 20, ..Counts::default() },
            faults: Faults::default(),
            latency: vec![(100, 15), (200, 5)],
            crossed: 7,
            negative: 0,
        };
        type Spoil = fn(&mut Finished);
        let spoil: [(Spoil, &str); 6] = [
            (|found| found.counts.sent = 11, "11 messages sent, and 10 before"),
            (|found| found.counts.delivered = 21, "21 messages delivered, of 20"),
            (|found| found.latency.push((5, 1)), "more latencies than"),
            (|found| found.latency.push((5, u64::MAX)), "more latencies than"),
            (|found| found.crossed = 21, "more latencies than"),
            (|found| found.faults.lost = u64::MAX, "messages lost, of 20"),
        ];
        assert_eq!(Merged::default().add(&good(), 10, 20), Ok(()));
        for (spoil, sentence) in spoil {
            let mut found = good();
            spoil(&mut found);
            let wrong = Merged::default().add(&found, 10, 20).expect_err(sentence);
            assert!(wrong.contains(sentence), "{wrong}");
        }
    }
}
