//! Charts as SVG: lines over two axes, and bars with each round as a dot. All are as wide as a phone; the page lays them out.

use maud::{Markup, html};

use super::axis::Axis;

/// Of the drawing, in its own units: on a phone these are nearly pixels.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 54.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;

/// Colours that the page has; further lines are dashed.
const COLOURS: usize = 6;

const ROW: f64 = 40.0;
/// For the figure behind a bar.
const FIGURE_WIDTH: f64 = 96.0;
/// Of a letter, about.
const LETTER: f64 = 6.6;

#[derive(Clone, Debug)]
pub(super) struct Line {
    pub label: String,
    pub colour: usize,
    /// Lines of one colour are told apart by it.
    pub dash: usize,
    pub points: Vec<(f64, f64)>,
    /// The words for its last point.
    pub figure: String,
}

/// Lines over two axes.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    pub title: String,
    /// Which way is better, and what else must be known.
    pub note: String,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
    /// Where something was missing, along the x axis.
    pub marks: Vec<f64>,
}

/// One bar: the median of `rounds`.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    pub label: String,
    pub colour: usize,
    pub median: f64,
    pub rounds: Vec<f64>,
    pub figure: String,
}

#[derive(Clone, Debug)]
pub(super) struct Bars {
    pub title: String,
    pub note: String,
    pub axis: Axis,
    pub bars: Vec<Bar>,
}

fn number(value: f64) -> String {
    format!("{value:.1}")
}

/// The class of a line or bar.
fn colour(index: usize, dash: usize) -> String {
    let dashed = ["", " dash", " dot"][(index / COLOURS + dash) % 3];
    format!("c{}{dashed}", index % COLOURS)
}

/// As much of a text as fits `width`.
fn cut(text: &str, width: f64) -> String {
    let room = (width / LETTER) as usize;
    match text.chars().count() {
        count if count <= room => text.to_string(),
        _ => text.chars().take(room.saturating_sub(1)).chain(['…']).collect(),
    }
}

impl Lines {
    pub(super) fn draw(&self) -> Markup {
        let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        let x = |value: f64| LEFT + self.x.place(value) * width;
        let y = |value: f64| TOP + (1.0 - self.y.place(value)) * height;
        let path = |line: &Line| {
            let points =
                line.points.iter().map(|(at, value)| [number(x(*at)), number(y(*value))].join(","));
            points.collect::<Vec<_>>().join(" ")
        };
        let base = TOP + height;
        html! {
            figure {
                figcaption { b { (self.title) } " " span.note { (self.note) } }
                svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(self.title) {
                    @for (tick, text) in &self.y.ticks {
                        line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(number(y(*tick))) y2=(number(y(*tick))) {}
                        text x=(LEFT - 6.0) y=(number(y(*tick) + 4.0)) text-anchor="end" { (text) }
                    }
                    @for (tick, text) in self.spread_ticks(width) {
                        line.grid x1=(number(x(tick))) x2=(number(x(tick))) y1=(TOP) y2=(number(base)) {}
                        text x=(number(x(tick))) y=(number(base + 15.0)) text-anchor="middle" { (text) }
                    }
                    text.label x=(number(LEFT + width / 2.0)) y=(number(HEIGHT - 5.0)) text-anchor="middle" {
                        (self.x.label)
                    }
                    @for at in &self.marks {
                        path.missing d=(format!("M{} {} l-4 -8 l8 0 z", number(x(*at)), number(base))) {}
                    }
                    @for line in &self.lines {
                        polyline class=(colour(line.colour, line.dash)) points=(path(line)) { title { (line.label) } }
                        @if let [only] = &line.points[..] {
                            circle class=(colour(line.colour, line.dash)) cx=(number(x(only.0))) cy=(number(y(only.1))) r="3" {}
                        }
                    }
                }
                ul.legend {
                    @for line in &self.lines {
                        li {
                            span class=(format!("key {}", colour(line.colour, line.dash))) {}
                            (line.label) " " b { (line.figure) }
                        }
                    }
                    @if !self.marks.is_empty() { li { span.missing { "▼" } " messages were missing" } }
                }
            }
        }
    }

    /// The ticks of the x axis that have room beside each other.
    fn spread_ticks(&self, width: f64) -> Vec<(f64, &str)> {
        let mut shown: Vec<(f64, &str)> = Vec::new();
        let mut free_from = f64::NEG_INFINITY;
        for (tick, text) in &self.x.ticks {
            let half = text.chars().count() as f64 * LETTER / 2.0 + 3.0;
            let at = self.x.place(*tick) * width;
            if at - half >= free_from && at + half <= width + RIGHT + 3.0 {
                shown.push((*tick, text));
                free_from = at + half;
            }
        }
        shown
    }
}

impl Bars {
    pub(super) fn draw(&self) -> Markup {
        let height = ROW * self.bars.len() as f64 + 6.0;
        let width = WIDTH - FIGURE_WIDTH - 4.0;
        let along = |value: f64| 2.0 + self.axis.place(value) * width;
        html! {
            figure {
                figcaption { b { (self.title) } " " span.note { (self.note) } }
                svg viewBox=(format!("0 0 {WIDTH} {height}")) role="img" aria-label=(self.title) {
                    @for (index, bar) in self.bars.iter().enumerate() {
                        @let top = ROW * index as f64;
                        @let end = bar.rounds.iter().copied().fold(bar.median, f64::max);
                        text.name x="2" y=(number(top + 13.0)) { (cut(&bar.label, WIDTH - 4.0)) title { (bar.label) } }
                        @let width = number(along(bar.median) - 2.0);
                        rect class=(colour(bar.colour, 0)) x="2" y=(number(top + 18.0)) height="14" width=(width) {
                            title { (bar.label) ": " (bar.figure) }
                        }
                        @if bar.rounds.len() > 1 {
                            @for round in &bar.rounds {
                                circle.round cx=(number(along(*round))) cy=(number(top + 25.0)) r="3" {}
                            }
                        }
                        text.figure x=(number(along(end) + 7.0)) y=(number(top + 29.5)) { (bar.figure) }
                    }
                }
                @if self.bars.iter().any(|bar| bar.rounds.len() > 1) {
                    p.note { "Bar: median; each dot is a round." }
                }
            }
        }
    }
}
