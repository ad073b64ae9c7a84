//! Logs to stderr, as lines or JSON, written by a thread of their own: a terminal that stands still must not stop a shard.
//! Every event is one line, whatever texts of clients it contains.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{self, debug_fn};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::prelude::*;

use crate::config::{LogFormat, LogLevel};
use crate::printable::{OneLine, is_unfit, one_line};

/// Lines that wait for stderr; what comes beyond is counted and dropped.
const LINES_WAITING_MAX: usize = 4096;

/// How long a process that ends waits for a stderr that nobody reads.
const LAST_LINES_TIME: Duration = Duration::from_secs(2);

/// How often an end that has no room among the lines is tried again.
const END_PAUSE: Duration = Duration::from_millis(5);

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
    let writer = Writer { format, lines: lines.clone(), dropped_count: dropped_count.clone() };
    let thread = thread::Builder::new()
        .name("logs".to_owned())
        .spawn(move || write_lines(format, &waiting, &dropped_count, &mut io::stderr()))
        .expect("the system has room for one more thread at start");
    // What the subscriber cannot format it would print, and panic where stderr cannot be written.
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(filter(level));
    // A test process may have a subscriber already: that one stays.
    let is_first = match format {
        LogFormat::Human => {
            let layer = layer.with_target(false).with_ansi(io::stderr().is_terminal());
            registry.with(layer.fmt_fields(debug_fn(write_field).delimited(" "))).try_init()
        }
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
    if is_first.is_ok() {
        report_panics(format, lines.clone());
    }
    Logs { lines, thread: Some(thread) }
}

impl Drop for Logs {
    fn drop(&mut self) {
        let until = Instant::now() + LAST_LINES_TIME;
        if wait_for_lines(&self.lines, Line::End, until)
            && let Some(thread) = self.thread.take()
        {
            while !thread.is_finished() && Instant::now() < until {
                thread::sleep(END_PAUSE);
            }
        }
    }
}

/// Puts a mark behind the lines that wait; `false` if there was no room for it `until` then.
fn wait_for_lines(lines: &SyncSender<Line>, mut mark: Line, until: Instant) -> bool {
    loop {
        match lines.try_send(mark) {
            Ok(()) => return true,
            Err(TrySendError::Full(back)) if Instant::now() < until => mark = back,
            Err(_) => return false,
        }
        thread::sleep(END_PAUSE);
    }
}

/// A field of an event for people: the message as it is, another one with its name.
fn write_field(out: &mut format::Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let mut out = OneLine(out);
    match field.name() {
        "message" => write!(out, "{value:?}"),
        name => write!(out, "{name}={value:?}"),
    }
}

/// A panic that ends the process is a line of the log like any other, the last one.
fn report_panics(format: LogFormat, lines: SyncSender<Line>) {
    panic::set_hook(Box::new(move |panic| {
        let thread = thread::current();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let (fixed, made) =
            (panic.payload().downcast_ref::<&str>(), panic.payload().downcast_ref());
        let said = fixed.copied().or(made.map(String::as_str)).unwrap_or("no text");
        let name = thread.name().unwrap_or("without a name");
        let mut text = format!("thread '{name}' panicked at {place}: {said}");
        let backtrace = std::backtrace::Backtrace::capture();
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            let _ = write!(text, "; backtrace: {backtrace}");
        }
        let line = own_line(format, "ERROR", &text);
        // What was told before stands before it, if somebody reads.
        let until = Instant::now() + LAST_LINES_TIME;
        let (written, all) = sync_channel(1);
        if wait_for_lines(&lines, Line::Mark(written), until) {
            let _ = all.recv_timeout(until.saturating_duration_since(Instant::now()));
        }
        let _ = io::stderr().write_all(line.as_bytes());
    }));
}

/// A line that no event makes.
fn own_line(format: LogFormat, level: &str, text: &str) -> String {
    let mut time = String::new();
    let _ = SystemTime.format_time(&mut format::Writer::new(&mut time));
    match format {
        LogFormat::Human => format!("{time} {level:>5} {}\n", one_line(text)),
        LogFormat::Json => {
            let object = serde_json::json!({ "timestamp": time, "level": level, "message": text });
            format!("{}\n", in_json(&object.to_string()))
        }
    }
}

/// JSON escapes what ends a line, not all that controls a terminal; such characters stand within texts only.
fn in_json(line: &str) -> Cow<'_, str> {
    let is_left = |char: char| !char.is_ascii() && is_unfit(char) || char == '\u{7f}';
    if !line.contains(is_left) {
        return Cow::Borrowed(line);
    }
    let mut escaped = String::with_capacity(line.len() + 16);
    for char in line.chars() {
        if !is_left(char) {
            escaped.push(char);
            continue;
        }
        for unit in char.encode_utf16(&mut [0; 2]) {
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }
    Cow::Owned(escaped)
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

#[derive(Debug)]
enum Line {
    Text(Vec<u8>),
    /// Tells when all before it is written.
    Mark(SyncSender<()>),
    End,
}

#[derive(Clone, Debug)]
struct Writer {
    format: LogFormat,
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
        let text = match (self.format, str::from_utf8(line)) {
            (LogFormat::Json, Ok(text)) => in_json(text).into_owned().into_bytes(),
            _ => line.to_vec(),
        };
        if self.lines.try_send(Line::Text(text)).is_err() {
            self.dropped_count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_lines(
    format: LogFormat,
    waiting: &Receiver<Line>,
    dropped_count: &AtomicU64,
    out: &mut impl Write,
) {
    while let Ok(line) = waiting.recv() {
        // Who closed stderr, or has no room for what comes from it, does not want to hear of it.
        match line {
            Line::Text(text) => _ = out.write_all(&text),
            Line::Mark(written) => _ = written.try_send(()),
            Line::End => break,
        }
        let count = dropped_count.swap(0, Ordering::Relaxed);
        if count > 0 {
            let text = format!("{count} log lines were dropped here: stderr is read too slowly");
            let _ = out.write_all(own_line(format, "WARN", &text).as_bytes());
        }
    }
    let _ = out.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of lines for which there are two places.
    fn written(format: LogFormat, texts: &[&str]) -> String {
        let (lines, waiting) = sync_channel(2);
        let dropped_count = Arc::new(AtomicU64::new(0));
        let mut writer = Writer { format, lines, dropped_count: dropped_count.clone() };
        for text in texts {
            assert_eq!(writer.write(text.as_bytes()).unwrap(), text.len());
        }
        drop(writer);
        let mut out = Vec::new();
        write_lines(format, &waiting, &dropped_count, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_beyond_the_bound_are_dropped_and_counted() {
        let out = written(LogFormat::Human, &["a\n", "b\n", "c\n", "d\n"]);
        let lines: Vec<_> = out.lines().collect();
        assert_eq!((lines.len(), lines[0], lines[2]), (3, "a", "b"), "{out}");
        let told = " WARN 2 log lines were dropped here: stderr is read too slowly";
        assert!(lines[1].ends_with(told), "{out}");
    }

    #[test]
    fn in_json_every_line_is_an_object_even_the_one_about_dropped_lines() {
        let texts: Vec<_> =
            (0..4).map(|_| "{\"message\":\"\u{9b}31m\u{202e}\u{e0041}\u{7f}\"}\n").collect();
        let out = written(LogFormat::Json, &texts);
        assert_eq!(out.lines().count(), 3, "{out}");
        for line in out.lines() {
            assert!(!line.contains(is_unfit), "{line}");
            let object: serde_json::Value = serde_json::from_str(line).expect(line);
            let message = object["message"].as_str().expect("a text");
            assert!(
                message.contains("\u{9b}31m\u{202e}\u{e0041}\u{7f}")
                    || message.starts_with("2 log")
            );
        }
    }

    #[test]
    fn an_event_for_people_is_one_line() {
        let (lines, waiting) = sync_channel(8);
        let writer = Writer { format: LogFormat::Human, lines, dropped_count: Arc::default() };
        let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
        let layer = layer.fmt_fields(debug_fn(write_field).delimited(" "));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let outside = "x\n2026-01-01T00:00:00Z ERROR forged\r\u{1b}[2K";
            tracing::warn!(path = %outside, name = outside, "plugin: {outside}");
        });
        let Ok(Line::Text(line)) = waiting.try_recv() else { panic!("an event is a line") };
        let line = String::from_utf8(line).unwrap();
        let body = line.strip_suffix('\n').expect("it ends");
        assert!(!body.contains(is_unfit), "{line}");
        assert!(
            body.contains(r"plugin: x\n2026-01-01T00:00:00Z ERROR forged\r\u{1b}[2K"),
            "{line}"
        );
        assert!(body.contains(r"path=x\n2026"), "{line}");
    }

    #[test]
    fn an_end_does_not_wait_for_a_log_that_nobody_reads() {
        let (lines, waiting) = sync_channel(1);
        lines.try_send(Line::Text(Vec::new())).unwrap();
        assert!(!wait_for_lines(&lines, Line::End, Instant::now() + Duration::from_millis(20)));
        waiting.recv().unwrap();
        assert!(wait_for_lines(&lines, Line::End, Instant::now()));
    }
}
