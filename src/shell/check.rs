//! Checks of the machine before the broker runs: each finding says what is wrong and how to mend it.

mod bridges;
mod cores;
mod directories;
mod files;
mod kernel;
mod listeners;
mod memory;

use std::fmt;
use std::sync::Arc;

use crate::config::Settings;
use crate::config::plugin::PluginSettings;
use crate::plugins::{self, Chain, Installed, PluginError};
use crate::printable::one_line;
use crate::system::io::{self, Io};
use crate::system::process::Process;

pub use cores::allowed_cores;

/// What one examination found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was examined.
    pub subject: &'static str,
    pub level: Level,
    /// What is.
    pub what: String,
    /// What to do; empty if nothing is wrong.
    pub remedy: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Ok,
    /// The broker runs, but not as configured or not as it should.
    Warn,
    /// The broker cannot run.
    Fail,
}

/// Examines everything that `serve` needs, and raises the limits on open files and locked memory as far as allowed.
/// The ports are bound for a moment. The cores of the settings are filled in.
pub fn run_checks(settings: &Settings) -> Vec<Finding> {
    run(settings, directories::check)
}

/// As `run_checks`, without what a start waits for by itself.
pub fn run_checks_for_start(settings: &Settings) -> Vec<Finding> {
    run(settings, directories::check_for_start)
}

fn run(settings: &Settings, check_directories: fn(&Settings) -> Vec<Finding>) -> Vec<Finding> {
    let process = Process::read();
    // The limit is raised first: a ring counts towards it.
    let locked = memory::check_locked(settings, &process);
    let choice = io::choose(settings.io, &process);
    let io = choice.as_ref().map_or(Io::Uring, |choice| choice.io);
    let mut findings = vec![kernel::check_release(process.kernel_release.as_deref(), io)];
    findings.push(kernel::judge_io(&choice));
    findings.push(match io {
        Io::Uring => locked,
        Io::Epoll => Finding::ok(locked.subject, "epoll locks none"),
    });
    findings.push(files::check(settings));
    findings.extend(cores::check(settings));
    findings.push(memory::check_bounds(settings));
    findings.extend(check_configuration(settings));
    findings.extend(bridges::check(settings));
    findings.extend(check_directories(settings));
    findings.extend(listeners::check(settings));
    findings
}

/// Whether something must be put right first.
pub fn has_failed(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.level == Level::Fail)
}

/// Makes an instance of each plugin as `serve` would: a library is loaded, and what it runs when it is loaded runs.
pub fn check_plugins(settings: &Settings) -> Vec<Finding> {
    let check = |plugin: &PluginSettings| match plugins::install(plugin).and_then(try_out) {
        Ok(()) => {
            Finding::ok("plugins", format!("{} ({}) can run", plugin.name, plugin.work.kind()))
        }
        Err(error) => {
            let sentence = error.to_string();
            // Behind the semicolon stands what to do.
            let (what, remedy) = sentence.split_once("; ").unwrap_or((&sentence, ""));
            Finding::fail("plugins", what, remedy)
        }
    };
    settings.plugins.iter().map(check).collect()
}

fn try_out(installed: Installed) -> Result<(), PluginError> {
    Chain::new(&[installed], 0, &Arc::default()).map(drop)
}

fn check_configuration(settings: &Settings) -> Vec<Finding> {
    let found = settings.contradictions();
    if found.is_empty() {
        return vec![Finding::ok("configuration", "nothing in it contradicts")];
    }
    found
        .into_iter()
        .map(|one| {
            // A sentence of a contradiction ends with what to do.
            let (what, remedy) = one.sentence.split_once(": ").unwrap_or((&one.sentence, ""));
            Finding::fail("configuration", what, remedy)
        })
        .collect()
}

impl Finding {
    fn ok(subject: &'static str, what: impl Into<String>) -> Finding {
        Finding { subject, level: Level::Ok, what: what.into(), remedy: String::new() }
    }

    fn warn(subject: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { subject, level: Level::Warn, what: what.into(), remedy: remedy.into() }
    }

    fn fail(subject: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { subject, level: Level::Fail, what: what.into(), remedy: remedy.into() }
    }

    /// What is and what to do, in one sentence.
    pub fn sentence(&self) -> String {
        if self.remedy.is_empty() {
            return format!("{}: {}", self.subject, self.what);
        }
        format!("{}: {}; {}", self.subject, self.what, self.remedy)
    }
}

/// As wide as the format asks, `LINE_WIDTH` by default.
impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        let width = out.width().unwrap_or(LINE_WIDTH).max(LINE_WIDTH_MIN) - INDENT.len();
        write!(out, "{level:<5} {:<14} ", self.subject)?;
        wrap(out, &one_line(&self.what), "", width)?;
        if !self.remedy.is_empty() {
            write!(out, "\n{INDENT}-> ")?;
            wrap(out, &one_line(&self.remedy), "   ", width)?;
        }
        Ok(())
    }
}

/// What stands below the subject's text.
const INDENT: &str = "                     ";
/// Where no terminal says how wide it is.
pub const LINE_WIDTH: usize = 110;
const LINE_WIDTH_MIN: usize = 60;

/// Breaks the text between words; further lines begin with the indent and `hang`.
fn wrap(out: &mut fmt::Formatter<'_>, text: &str, hang: &str, width: usize) -> fmt::Result {
    let width = width - hang.len();
    let mut line_size = 0;
    for word in text.split(' ') {
        let size = word.chars().count();
        if line_size > 0 && line_size + 1 + size > width {
            write!(out, "\n{INDENT}{hang}")?;
            line_size = 0;
        }
        let space = if line_size > 0 { " " } else { "" };
        write!(out, "{space}{word}")?;
        line_size += space.len() + size;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_finding_is_broken_between_words_and_nothing_is_lost() {
        let what = "word ".repeat(60) + "end";
        let finding = Finding::warn("open files", &what, &what);
        let printed = finding.to_string();
        assert!(printed.lines().count() > 6, "{printed}");
        assert!(printed.lines().all(|line| line.len() <= LINE_WIDTH), "{printed}");
        let narrow = format!("{finding:80}");
        assert!(narrow.lines().all(|line| line.len() <= 80), "{narrow}");
        assert!(narrow.lines().count() > printed.lines().count(), "{narrow}");
        let words: Vec<_> = printed.split_whitespace().collect();
        assert_eq!(words.join(" "), format!("warn open files {what} -> {what}"));
    }
}
