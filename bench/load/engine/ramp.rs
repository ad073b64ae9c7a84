//! A rate that rises: when each message is due until the full rate is reached, and from then on.

/// How the rate of one publisher rises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ramp {
    pub from_ns: u64,
    /// The time between messages at the full rate.
    pub interval_ns: f64,
    /// The full rate is reached after this time.
    pub span_ns: f64,
    /// The rate rises in so many equal steps, of which the last has the full rate; 0: linearly.
    pub steps: u32,
}

impl Ramp {
    /// When message number `number` is due. A fraction stands for a time between two messages.
    pub(crate) fn due_ns(&self, number: f64) -> f64 {
        let from = self.from_ns as f64;
        if self.steps == 0 {
            let in_ramp = self.span_ns / (2.0 * self.interval_ns);
            return from
                + if number < in_ramp {
                    (2.0 * self.span_ns * self.interval_ns * number).sqrt()
                } else {
                    self.span_ns + (number - in_ramp) * self.interval_ns
                };
        }
        let step_ns = self.span_ns / f64::from(self.steps);
        let (mut at, mut left) = (from, number);
        for step in 1..self.steps {
            let interval_ns = self.interval_ns * f64::from(self.steps) / f64::from(step);
            if left * interval_ns < step_ns {
                return at + left * interval_ns;
            }
            at += step_ns;
            left -= step_ns / interval_ns;
        }
        at + left * self.interval_ns
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    /// Messages that are due within a time.
    fn count(ramp: &Ramp, within_ns: Range<f64>) -> usize {
        let due = (0..).map(|number| ramp.due_ns(f64::from(number)));
        let behind = due.skip_while(|due| *due < within_ns.start);
        behind.take_while(|due| *due < within_ns.end).count()
    }

    #[test]
    fn a_rate_rises_linearly_and_stays() {
        let ramp = Ramp { from_ns: 100, interval_ns: 10.0, span_ns: 10_000.0, steps: 0 };
        assert_eq!(ramp.due_ns(0.0), 100.0);
        let within = |from, to| count(&ramp, 100.0 + from..100.0 + to);
        // At the full rate 10,000 ns hold 1,000 messages: the first half of the ramp an eighth of that, all of it a half.
        for (from, to, wanted) in [
            (0.0, 5_000.0, 125),
            (5_000.0, 10_000.0, 375),
            (10_000.0, 20_000.0, 1000),
            (20_000.0, 30_000.0, 1000),
        ] {
            assert!(within(from, to).abs_diff(wanted) <= 1, "{from} to {to}: {}", within(from, to));
        }
    }

    #[test]
    fn a_rate_rises_in_steps_of_one_size() {
        let ramp = Ramp { from_ns: 0, interval_ns: 10.0, span_ns: 4_000.0, steps: 4 };
        for (step, wanted) in [25, 50, 75, 100, 100, 100].into_iter().enumerate() {
            let from = 1_000.0 * step as f64;
            let found = count(&ramp, from..from + 1_000.0);
            assert!(found.abs_diff(wanted) <= 1, "step {step}: {found}");
        }
    }

    #[test]
    fn no_message_is_due_before_the_one_in_front_of_it() {
        for steps in [0, 1, 2, 7] {
            let ramp = Ramp { from_ns: 5, interval_ns: 33.3, span_ns: 100_000.0, steps };
            let due: Vec<f64> = (0..10_000).map(|number| ramp.due_ns(f64::from(number))).collect();
            assert!(due.is_sorted(), "{steps} steps");
        }
    }
}
