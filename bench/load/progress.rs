//! The progress bar, on stderr, while the bench works.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar over the seconds that all runs together take.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new(total: Duration, shown: bool) -> Progress {
        let target = if shown {
            ProgressDrawTarget::stderr_with_hz(5)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(total.as_millis() as u64), target);
        let style = ProgressStyle::with_template(
            "{bar:30} {percent:>3} %  {elapsed} of some {prefix}  {msg}",
        );
        bar.set_style(style.expect("the template is a constant"));
        bar.set_prefix(format!("{} s", total.as_secs()));
        Progress(bar)
    }

    pub(crate) fn say(&self, scenario: &str, doing: &str) {
        self.0.set_message(format!("{scenario}: {doing}"));
    }

    /// A line that stays, above the bar.
    pub(crate) fn warn(&self, text: &str) {
        self.0.suspend(|| eprintln!("ringmq-bench: {text}"));
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.0.inc(by.as_millis() as u64);
    }

    /// Removes the bar: the lines that follow stand alone.
    pub(crate) fn end(&self) {
        self.0.finish_and_clear();
    }
}
