//! Tests of the table: it fits, and nothing is left out.

use anstream::adapter::strip_str;
use clap::Parser;
use textwrap::core::display_width;

use super::*;
use crate::options::Options;
use crate::outcome::Measure;
use crate::rates::Point;
use crate::scenario::chosen;
use crate::tally::Faults;

const WIDTHS: [usize; 9] = [40, 60, 80, 100, 120, 132, 160, 200, 400];

fn built_in() -> Vec<Scenario> {
    chosen(&Options::parse_from(["ringmq-bench", "--full"])).expect("they are built in")
}

/// As wide as figures get, and no two alike: `seed` is below 100.
fn outcome_of(scenario: &Scenario, seed: usize) -> Outcome {
    let number = |digits: f64| digits + seed as f64;
    let mut outcome = Outcome::new(&scenario.name);
    outcome.bound = Bound::Waiting;
    outcome.contested = true;
    if scenario.is_flat_out() {
        outcome.in_per_s = number(1_234_500.0);
        outcome.out_per_s = number(61_725_600.0);
        outcome.megabytes_per_s = number(5_100.0);
        outcome.batches.messages_per_write = Some(number(500.0));
        outcome.batches.messages_per_read = Some(number(1_700.0));
        outcome.cpu_us_per_message = Some(number(1_000.0));
    }
    outcome.resident_size = Some(number(2_000.0) as u64 * (1 << 20));
    if scenario.rate > 0.0 {
        outcome.in_per_s_at_rate = Some(number(20_100.0));
        outcome.out_per_s_at_rate = Some(number(1_005_100.0));
        outcome.batches_at_rate.messages_per_write = Some(number(30.0));
        outcome.batches_at_rate.messages_per_read = Some(number(200.0));
        outcome.cpu_us_per_message_at_rate = Some(number(300.0));
        let us = |ms: f64| number(ms) * 1000.0;
        outcome.latency = Some(Latency {
            rate: scenario.rate,
            count: 1,
            mean_us: us(100.0),
            p50_us: us(100.0),
            p90_us: us(200.0),
            p99_us: us(300.0),
            p999_us: us(400.0),
            max_us: us(500.0),
        });
    }
    outcome
}

fn figures_of(outcome: &Outcome) -> Vec<String> {
    let mut figures = Vec::new();
    if outcome.out_per_s > 0.0 {
        figures.extend([outcome.in_per_s, outcome.out_per_s].map(grouped));
        figures.push(format!("{:.1}", outcome.megabytes_per_s));
    }
    let cpu = [outcome.cpu_us_per_message, outcome.cpu_us_per_message_at_rate];
    figures.extend(cpu.into_iter().flatten().map(processor_time));
    for Batches { messages_per_write, messages_per_read } in
        [outcome.batches, outcome.batches_at_rate]
    {
        figures.extend([messages_per_write, messages_per_read].into_iter().flatten().map(batch));
    }
    let at_rate = [outcome.in_per_s_at_rate, outcome.out_per_s_at_rate];
    figures.extend(at_rate.into_iter().flatten().map(grouped));
    if let Some(latency) = &outcome.latency {
        let Latency { p50_us, p90_us, p99_us, p999_us, max_us, .. } = *latency;
        figures.extend([p50_us, p90_us, p99_us, p999_us, max_us].map(duration));
    }
    figures
}

fn plain(scenarios: &[Scenario], outcomes: &[Outcome], width: usize) -> String {
    strip_str(&table(scenarios, outcomes, true, width)).to_string()
}

fn check_width(text: &str, width: usize) {
    for line in text.lines() {
        assert!(display_width(line) <= width, "{width}: {line}\n{text}");
        assert_eq!(line, line.trim_end());
    }
}

/// Whether the words stand in the text one behind the other, whatever the lines.
fn holds(text: &str, words: &str) -> bool {
    let text: Vec<&str> = text.split_whitespace().collect();
    let words: Vec<&str> = words.split_whitespace().collect();
    text.windows(words.len()).any(|part| part == words)
}

#[test]
fn no_line_is_wider_than_the_screen_and_nothing_is_left_out() {
    let scenarios = built_in();
    let numbered = scenarios.iter().enumerate();
    let mut outcomes: Vec<_> =
        numbered.map(|(seed, scenario)| outcome_of(scenario, seed)).collect();
    outcomes[3].faults = Faults { lost: 1_234_567_890, duplicated: 1, ..Faults::default() };
    outcomes[4].failures.push("the broker ended; it said:\n  one line\n  another".to_string());
    outcomes[5].measures.push(Measure {
        name: "others' throughput, stalled to not stalled, median".into(),
        value: 99.25,
        unit: "% of what it was",
    });
    for width in WIDTHS {
        let text = plain(&scenarios, &outcomes, width);
        check_width(&text, width);
        for heading in HEADINGS {
            assert!(holds(&text, heading), "{width}: {heading}\n{text}");
        }
        let words: Vec<&str> =
            text.split_whitespace().map(|word| word.trim_start_matches([CONTESTED, '~'])).collect();
        for outcome in &outcomes {
            for figure in figures_of(outcome) {
                assert!(words.contains(&figure.as_str()), "{width}: {figure}\n{text}");
            }
            assert!(words.contains(&outcome.scenario.as_str()), "{width}\n{text}");
        }
        assert!(holds(&text, "FAULTS fan-in-one: 1,234,567,890 lost, 1 duplicated"), "{text}");
        assert!(holds(&text, "FAILED fan-in-five: the broker ended; it said: one line another"));
        assert!(holds(&text, "others' throughput, stalled to not stalled, median 99.25 %"));
    }
}

#[test]
fn the_words_stand_beside_the_figures_where_there_is_room() {
    let scenarios = built_in();
    let at = scenarios.iter().position(|scenario| scenario.name == "p2p-qos0").expect("built in");
    let scenarios = &scenarios[at..=at];
    let mut outcome = outcome_of(&scenarios[0], 0);
    outcome.in_per_s = 2_345_678.0;
    outcome.out_per_s = 2_345_678.0;
    outcome.cpu_us_per_message = Some(0.045);
    let outcomes = [outcome];
    let lines = |width| -> Vec<String> {
        let text = plain(scenarios, &outcomes, width);
        text.lines().take_while(|line| !line.is_empty()).map(str::to_string).collect()
    };
    let wide = lines(160);
    assert_eq!(wide.len(), 3, "{wide:#?}");
    assert!(wide[1].starts_with("p2p-qos0  ") && wide[1].contains(" flat out "), "{wide:#?}");
    let words = "50 pairs, 64 B, QoS 0, batch 250  20,000/s ";
    assert!(wide[2].starts_with(words), "{wide:#?}");
    assert!(wide[2].ends_with(" 100ms  200ms  300ms  400ms  500ms"), "{wide:#?}");
    let narrower = lines(120);
    assert_eq!(narrower.len(), 4, "{narrower:#?}");
    assert_eq!(narrower[1], "p2p-qos0  50 pairs, 64 B, QoS 0, batch 250");
    // The latency stands in a line of its own.
    let narrow = lines(80);
    assert_eq!(narrow.len(), 6, "{narrow:#?}");
    assert!(narrow[3].starts_with("  flat out ") && narrow[4].starts_with("  20,000/s "));
    assert_eq!(
        narrow[5].split_whitespace().collect::<Vec<_>>(),
        ["100ms", "200ms", "300ms", "400ms", "500ms"]
    );
}

#[test]
fn a_row_without_traffic_has_dashes_and_no_line_without_figures() {
    let scenario =
        chosen(&Options::parse_from(["ringmq-bench", "--scenario", "idle"])).expect("built in");
    let mut outcome = Outcome::new("idle");
    outcome.resident_size = Some(12 << 20);
    for width in WIDTHS {
        let text = plain(&scenario, &[outcome.clone()], width);
        check_width(&text, width);
        assert!(holds(&text, "12.0 0"), "{text}");
    }
    let text = plain(&scenario, &[outcome], 80);
    assert_eq!(text.lines().take_while(|line| !line.is_empty()).count(), 4, "{text}");
}

#[test]
fn names_of_others_neither_move_the_columns_nor_the_cursor() {
    let mut scenarios = built_in();
    scenarios.truncate(2);
    scenarios[0].name =
        "\u{1b}[2J測試 的 場景 with a name that is longer than all that is beside it".to_string();
    let outcomes: Vec<_> = scenarios.iter().map(|scenario| outcome_of(scenario, 1)).collect();
    for width in WIDTHS {
        let text = table(&scenarios, &outcomes, false, width);
        assert!(!text.contains("\u{1b}[2J"), "{text:?}");
        check_width(&strip_str(&text).to_string(), width);
    }
}

#[test]
fn a_run_that_the_generator_held_back_is_marked() {
    let scenarios = built_in();
    let mut outcome = outcome_of(&scenarios[0], 0);
    outcome.contested = false;
    outcome.bound = Bound::Broker;
    let text = plain(&scenarios, &[outcome.clone()], 80);
    assert!(!text.contains(['*', '~', '!']), "{text}");
    outcome.bound = Bound::Generator;
    let text = plain(&scenarios, &[outcome.clone()], 80);
    assert!(text.contains("*61,725,600") && text.contains("* the generator was busy"), "{text}");
    outcome.contested_at_rate = true;
    let text = plain(&scenarios, &[outcome], 80);
    assert!(text.contains("! other programs used"), "{text}");
}

#[test]
fn a_rate_is_one_line_of_eighty_columns_and_of_as_many_as_it_needs_on_less() {
    let scenario = Scenario { flat_out: false, rate: 1.0, ..built_in()[2].clone() };
    let outcome = Outcome { curve: [1e3, 64e3, 2e6].map(point).into(), ..Outcome::new("fan-out") };
    for width in WIDTHS {
        let text = plain(std::slice::from_ref(&scenario), std::slice::from_ref(&outcome), width);
        check_width(&text, width);
        for heading in curve::HEADINGS {
            assert!(holds(&text, heading), "{width}: {heading}\n{text}");
        }
        for figure in ["1,000/s", "2,000,000/s x", "12.35", "113ms", "567ms", "1,234"] {
            assert!(holds(&text, figure), "{width}: {figure}\n{text}");
        }
        assert!(holds(&text, "at 64,000 msg/s: 1,234 lost, p99 was 345ms"), "{width}\n{text}");
        let line = text.lines().find(|line| line.contains("64,000/s")).expect("a line");
        assert_eq!(line.contains("1,234"), width >= 80, "{width}\n{text}");
    }
}

fn point(rate: f64) -> Point {
    let us = |ms: f64| ms * 1000.0;
    Point {
        rate,
        in_per_s: rate,
        is_kept: true,
        holds: rate < 2e3,
        reasons: if rate < 2e3 { vec![] } else { vec!["1,234 lost, p99 was 345ms".to_string()] },
        latency: Latency {
            rate,
            count: 1,
            mean_us: 150.0,
            p50_us: us(113.0),
            p90_us: us(234.0),
            p99_us: us(345.0),
            p999_us: us(456.0),
            max_us: us(567.0),
        },
        cpu_us_per_message: Some(12.3456),
        faults: Faults { lost: 1234, ..Faults::default() },
        ..Point::failed(rate, String::new())
    }
}
