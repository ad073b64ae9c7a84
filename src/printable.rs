//! Text of clients, remotes and plugins, made fit for a line of the log: it cannot end the line, move the cursor, hide
//! or pretend to be more.

use std::borrow::Cow;
use std::fmt::{self, Display, Write};

use crate::limits::LOGGED_TEXT_SIZE_MAX;

/// A text of a client, a remote or a plugin, in single quotes. Characters unfit for a line, the quote and the backslash
/// are escaped, so that nothing inside looks like the end of the quotation. A long text is cut, and its size follows.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Quoted(text) = *self;
        let mut end = text.len().min(LOGGED_TEXT_SIZE_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let shown = &text[..end];
        out.write_char('\'')?;
        for char in shown.chars() {
            if matches!(char, '\'' | '\\') {
                out.write_char('\\')?;
            }
            write_escaped(out, char)?;
        }
        out.write_char('\'')?;
        if shown.len() < text.len() {
            write!(out, "... ({} bytes)", text.len())?;
        }
        Ok(())
    }
}

/// Passes text on and escapes every character that does not belong on a line.
#[derive(Debug)]
pub struct OneLine<W>(pub W);

impl<W: Write> Write for OneLine<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !text.contains(is_unfit) {
            return self.0.write_str(text);
        }
        text.chars().try_for_each(|char| write_escaped(&mut self.0, char))
    }
}

/// The text on one line.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unfit) {
        return Cow::Borrowed(text);
    }
    let mut escaped = OneLine(String::with_capacity(text.len() + 16));
    escaped.write_str(text).expect("a string takes everything");
    Cow::Owned(escaped.0)
}

/// A number and what it counts: `2 shards`, `1 shard`. The first word of `plural` that ends with an s is the plural.
pub fn counted(count: u64, plural: &str) -> String {
    if count != 1 {
        return format!("{count} {plural}");
    }
    let mut ends = plural.split(' ').scan(0, |end, word| {
        *end += word.len() + 1;
        Some((*end - 1, word))
    });
    match ends.find(|(_, word)| word.ends_with('s')) {
        Some((end, _)) => format!("1 {}{}", &plural[..end - 1], &plural[end..]),
        None => format!("1 {plural}"),
    }
}

fn write_escaped(out: &mut impl Write, char: char) -> fmt::Result {
    if is_unfit(char) { write!(out, "{}", char.escape_default()) } else { out.write_char(char) }
}

/// Whether a character ends a line, controls a terminal, reverses the direction of writing, or cannot be seen.
pub fn is_unfit(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{AD}' | '\u{61C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_text_stays_on_its_line_and_within_its_quotes() {
        let cases = [
            ("probe-7", "'probe-7'"),
            ("Fühler 温度 🌡", "'Fühler 温度 🌡'"),
            ("a\n2026-01-01T00:00:00Z ERROR forged", r"'a\n2026-01-01T00:00:00Z ERROR forged'"),
            ("a' connected from 10.0.0.1, client 'b", r"'a\' connected from 10.0.0.1, client \'b'"),
            (r"a\", r"'a\\'"),
            ("\r\u{1b}[2K\u{7f}\0\u{9b}31m", r"'\r\u{1b}[2K\u{7f}\u{0}\u{9b}31m'"),
            ("user\u{202e}nimda\u{200b}\u{2028}", r"'user\u{202e}nimda\u{200b}\u{2028}'"),
            ("", "''"),
        ];
        for (text, quoted) in cases {
            assert_eq!(Quoted(text).to_string(), quoted);
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_its_size_is_said() {
        let text = "é".repeat(LOGGED_TEXT_SIZE_MAX);
        let quoted = Quoted(&text).to_string();
        let size = text.len();
        assert_eq!(
            quoted,
            format!("'{}'... ({size} bytes)", &text[..LOGGED_TEXT_SIZE_MAX / 2 * 2])
        );
        let fits = "a".repeat(LOGGED_TEXT_SIZE_MAX);
        assert_eq!(Quoted(&fits).to_string(), format!("'{fits}'"));
    }

    #[test]
    fn one_of_a_kind_is_no_plural() {
        for (count, plural, text) in [
            (0, "shards", "0 shards"),
            (1, "shards", "1 shard"),
            (2, "shards on cores", "2 shards on cores"),
            (1, "retained messages refused", "1 retained message refused"),
            (1, "reads of messages", "1 read of messages"),
            (1, "more", "1 more"),
        ] {
            assert_eq!(counted(count, plural), text);
        }
    }

    #[test]
    fn a_line_keeps_what_is_fit_and_escapes_the_rest() {
        assert!(matches!(one_line("it's \\ \"plain\" ü"), Cow::Borrowed(_)));
        assert_eq!(one_line("a\nb\tc\u{85}"), r"a\nb\tc\u{85}");
        for char in (0..=0x10_FFFF).filter_map(char::from_u32) {
            let line = one_line(char.encode_utf8(&mut [0; 4])).into_owned();
            assert!(!line.contains(is_unfit), "{line}");
        }
    }
}
