//! Logs to stderr, as lines or JSON, written by a thread of their own: a terminal that stands still must not stop a shard.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;

use crate::config::{LogFormat, LogLevel};

/// Lines that wait for stderr; what comes beyond is counted and dropped.
const LINES_WAITING_MAX: usize = 4096;

/// Keeps the log going; dropping it writes what waits.
#[derive(Debug)]
pub struct Logs {
    lines: SyncSender<Line>,
    thread: Option<JoinHandle<()>>,
}

/// Starts the log of this process; only the first call of a process has an effect on what is written.
pub fn start(level: LogLevel, format: LogFormat) -> Logs {
    let (lines, waiting) = sync_channel(LINES_WAITING_MAX);
    let dropped_count = Arc::new(AtomicU64::new(0));
    let writer = Writer { lines: lines.clone(), dropped_count: dropped_count.clone() };
    let thread = thread::Builder::new()
        .name("logs".to_owned())
        .spawn(move || write_lines(&waiting, &dropped_count, &mut io::stderr()))
        .expect("the system has room for one more thread at start");
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let registry = tracing_subscriber::registry().with(filter(level));
    // A test process may have a subscriber already: that one stays.
    let _ = match format {
        LogFormat::Human => {
            registry.with(layer.with_target(false).with_ansi(io::stderr().is_terminal())).try_init()
        }
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
    Logs { lines, thread: Some(thread) }
}

impl Drop for Logs {
    fn drop(&mut self) {
        if self.lines.send(Line::End).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// The libraries below speak up about errors only, unless everything is asked for.
fn filter(level: LogLevel) -> Targets {
    let own = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let others = if level == LogLevel::Trace { LevelFilter::TRACE } else { LevelFilter::ERROR };
    Targets::new().with_default(others).with_target("ringmq", own)
}

enum Line {
    Text(Vec<u8>),
    End,
}

#[derive(Clone, Debug)]
struct Writer {
    lines: SyncSender<Line>,
    dropped_count: Arc<AtomicU64>,
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Writer;

    fn make_writer(&'a self) -> Writer {
        self.clone()
    }
}

impl Write for Writer {
    /// The subscriber writes each event whole.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(Line::Text(line.to_vec())).is_err() {
            self.dropped_count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_lines(waiting: &Receiver<Line>, dropped_count: &AtomicU64, out: &mut impl Write) {
    while let Ok(Line::Text(line)) = waiting.recv() {
        // Who closed stderr does not want to hear of it.
        let _ = out.write_all(&line);
        let count = dropped_count.swap(0, Ordering::Relaxed);
        if count > 0 {
            let _ = writeln!(out, "{count} log lines were dropped here: stderr is read too slowly");
        }
    }
    let _ = out.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_bound_are_dropped_and_counted() {
        let (lines, waiting) = sync_channel(2);
        let dropped_count = Arc::new(AtomicU64::new(0));
        let mut writer = Writer { lines: lines.clone(), dropped_count: dropped_count.clone() };
        for line in ["a\n", "b\n", "c\n", "d\n"] {
            assert_eq!(writer.write(line.as_bytes()).unwrap(), 2);
        }
        assert_eq!(dropped_count.load(Ordering::Relaxed), 2);
        drop((writer, lines));
        let mut out = Vec::new();
        write_lines(&waiting, &dropped_count, &mut out);
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out, "a\n2 log lines were dropped here: stderr is read too slowly\nb\n");
    }
}
