//! Where the figures stand: beside a scenario's words, below them, or in several lines, as the screen has room.

use std::ops::Range;

use anstyle::Style;
use textwrap::core::display_width;

use crate::screen::{PLAIN, STRONG, fitted};

/// The words of a scenario beside its figures take no more.
const WORDS_WIDTH_MAX: usize = 34;
/// Between the words and the figures, and in front of what stands below the words.
const MARGIN: usize = 2;
/// Between figures. Rather than to be closer than this they take a second line: the headings have spaces of their own.
const GAP_WHOLE_MIN: usize = 2;
const GAP_MAX: usize = 3;
const GAP_MIN: usize = 1;

#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    /// Empty where there is nothing to say.
    pub text: String,
    pub style: Style,
}

impl Cell {
    pub(super) fn plain(text: String) -> Cell {
        Cell { text, style: PLAIN }
    }
}

/// One run of a scenario.
#[derive(Debug)]
pub(super) struct Run {
    pub label: String,
    /// One a heading.
    pub cells: Vec<Cell>,
}

#[derive(Debug)]
pub(super) struct Section {
    pub name: String,
    pub words: String,
    pub runs: Vec<Run>,
}

#[derive(Debug)]
pub(super) struct Layout {
    screen: usize,
    /// Of the words beside the figures; 0: they stand above.
    words: usize,
    label: usize,
    /// The columns of each line.
    lines: Vec<Range<usize>>,
    /// Of the first, second and so on column of a line.
    widths: Vec<usize>,
    gap: usize,
}

impl Layout {
    /// The first that fits of: all beside the words; all below them; from `second` on in a second line; ever fewer a
    /// line.
    pub(super) fn choose(
        headings: &[&str],
        second: usize,
        sections: &[Section],
        screen: usize,
    ) -> Layout {
        let count = headings.len();
        let whole = std::slice::from_ref(&(0..count)).to_vec();
        let longest = sections.iter().flat_map(|section| [&section.name, &section.words]);
        let longest = longest.map(|text| display_width(text)).max().unwrap_or(0);
        let fit = Fit::new(headings, sections, screen);
        let beside = fit.try_lines(longest.min(WORDS_WIDTH_MAX), whole.clone(), GAP_WHOLE_MIN);
        beside.or_else(|| fit.try_lines(0, whole, GAP_WHOLE_MIN)).unwrap_or_else(|| {
            let chunks = |columns: Range<usize>, size: usize| {
                let end = columns.end;
                columns.step_by(size).map(move |from| from..end.min(from + size))
            };
            let split = |size| chunks(0..second, size).chain(chunks(second..count, size)).collect();
            let mut sizes = (2..=second.max(count - second)).rev();
            let found = sizes.find_map(|size| fit.try_lines(0, split(size), GAP_MIN));
            found.unwrap_or_else(|| fit.lines(0, split(1), GAP_MIN))
        })
    }

    /// Headings and sections.
    pub(super) fn write(&self, headings: &[&str], sections: &[Section]) -> String {
        let head = |text: &&str| Cell { text: text.to_string(), style: STRONG };
        let heading = Run { label: String::new(), cells: headings.iter().map(head).collect() };
        let head = if self.words > 0 { vec![strong("scenario")] } else { Vec::new() };
        let mut text = self.beside(head, self.figures(&heading));
        for section in sections {
            let figures = section.runs.iter().flat_map(|run| self.figures(run)).collect();
            if self.words > 0 {
                let mut words: Vec<String> =
                    fitted(&section.name, self.words, 2).iter().map(|line| strong(line)).collect();
                words.extend(fitted(&section.words, self.words, 2));
                text += &self.beside(words, figures);
            } else {
                text += &self.above(section);
                text += &self.beside(Vec::new(), figures);
            }
        }
        text
    }

    fn above(&self, section: &Section) -> String {
        let lines = fitted(&format!("{}  {}", section.name, section.words), self.screen, 2);
        let mut text = lines.join("\n") + "\n";
        if text.starts_with(&section.name) {
            text.replace_range(..section.name.len(), &strong(&section.name));
        }
        text
    }

    /// Lines of words beside lines of figures.
    fn beside(&self, words: Vec<String>, figures: Vec<String>) -> String {
        let mut text = String::new();
        for at in 0..words.len().max(figures.len()) {
            let words = words.get(at).map_or("", String::as_str);
            let figures = figures.get(at).map_or("", String::as_str);
            let space = " ".repeat(MARGIN + self.words - display_width(words));
            text += format!("{words}{space}{figures}").trim_end();
            text.push('\n');
        }
        text
    }

    /// The lines of a run; those in which it has nothing to say are left out.
    fn figures(&self, run: &Run) -> Vec<String> {
        let mut lines = Vec::new();
        for columns in &self.lines {
            let cells = &run.cells[columns.clone()];
            if cells.iter().all(|cell| cell.text.is_empty()) && !lines.is_empty() {
                continue;
            }
            let label = if lines.is_empty() { run.label.as_str() } else { "" };
            let mut line = format!("{label:<0$}", self.label);
            for (Cell { text, style }, width) in cells.iter().zip(&self.widths) {
                line += &" ".repeat(self.gap + width - display_width(text));
                line += &painted(text, *style);
            }
            lines.push(line);
        }
        lines
    }
}

/// Finds whether lines fit.
struct Fit {
    screen: usize,
    label: usize,
    /// Of each column.
    widths: Vec<usize>,
}

impl Fit {
    fn new(headings: &[&str], sections: &[Section], screen: usize) -> Fit {
        let runs = || sections.iter().flat_map(|section| &section.runs);
        let label = runs().map(|run| display_width(&run.label)).max().unwrap_or(0);
        let widest = |column: usize| {
            let cells = runs().map(|run| display_width(&run.cells[column].text));
            cells.chain([display_width(headings[column])]).max().unwrap_or(0)
        };
        Fit { screen, label, widths: (0..headings.len()).map(widest).collect() }
    }

    /// `None`: with gaps of at least `gap_min` they are too wide.
    fn try_lines(&self, words: usize, lines: Vec<Range<usize>>, gap_min: usize) -> Option<Layout> {
        let mut layout = self.lines(words, lines, gap_min);
        let used = MARGIN + words + self.label + layout.widths.iter().sum::<usize>();
        layout.gap = GAP_MAX.min(self.screen.checked_sub(used)? / layout.widths.len());
        (layout.gap >= gap_min).then_some(layout)
    }

    fn lines(&self, words: usize, lines: Vec<Range<usize>>, gap: usize) -> Layout {
        let mut widths = vec![0; lines.iter().map(Range::len).max().unwrap_or(0)];
        for columns in &lines {
            for (width, column) in widths.iter_mut().zip(columns.clone()) {
                *width = self.widths[column].max(*width);
            }
        }
        Layout { screen: self.screen, words, label: self.label, lines, widths, gap }
    }
}

fn strong(text: &str) -> String {
    painted(text, STRONG)
}

fn painted(text: &str, style: Style) -> String {
    if text.is_empty() { String::new() } else { format!("{style}{text}{style:#}") }
}
