//! The screen: its width, text that fits it, and colour if it has colour.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use ringmq::printable::one_line;
use textwrap::{Options, WordSplitter, wrap};

pub(crate) const PLAIN: Style = Style::new();
pub(crate) const STRONG: Style = PLAIN.bold();
pub(crate) const WARNING: Style = AnsiColor::Yellow.on_default();
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();

/// The width if there is no terminal and no width is named.
const WIDTH_DEFAULT: usize = 80;
/// On a narrower terminal, lines break where the terminal breaks them.
const WIDTH_MIN: usize = 40;

/// The columns of the terminal that stdout is, else those that `COLUMNS` names.
pub(crate) fn width() -> usize {
    let terminal = terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0.into());
    let named = || std::env::var("COLUMNS").ok()?.parse().ok();
    terminal.or_else(named).filter(|width| *width > 0).unwrap_or(WIDTH_DEFAULT).max(WIDTH_MIN)
}

/// Breaks a text between words, so that no line is wider. Lines behind the first of a paragraph stand `indent` further
/// right. Characters that do not belong on a screen are escaped, because some texts are a broker's.
pub(crate) fn fitted(text: &str, width: usize, indent: usize) -> Vec<String> {
    let indent = " ".repeat(indent.min(width / 2));
    let options =
        Options::new(width).subsequent_indent(&indent).word_splitter(WordSplitter::NoHyphenation);
    let lines = text.lines().map(one_line);
    lines
        .flat_map(|line| wrap(&line, &options).into_iter().map(String::from).collect::<Vec<_>>())
        .collect()
}

/// Writes to stdout. Colours are left out where stdout is no terminal or `NO_COLOR` is set. A reader that goes away
/// early (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result<(), String> {
    match anstream::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("stdout: {error}")),
        _ => Ok(()),
    }
}
