//! Sets with noise as machines have it: how often a difference is found that is not there, and that is there.

use serde_json::{Value, json};

use super::sets::MEASURES;
use super::verdict::Verdict;
use super::*;

/// A machine: figures spread by a few percent, sometimes a round is much worse, and it drifts slowly.
struct Noise {
    random: fastrand::Rng,
    spread: f64,
    drift: f64,
}

impl Noise {
    fn factor(&mut self) -> f64 {
        let random = &mut self.random;
        let normal: f64 = (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
        let bad_round = if random.f64() < 0.03 { 1.0 + random.f64() * 0.3 } else { 1.0 };
        (normal * self.spread + self.drift).exp() * bad_round
    }
}

const SCENARIO_COUNT: usize = 10;

/// Rounds of ten scenarios.
fn rounds(noise: &mut Noise, rounds: usize) -> Value {
    let mut scenarios = Vec::new();
    for _ in 0..rounds {
        noise.drift = noise.drift * 0.7 + (noise.random.f64() - 0.5) * noise.spread;
        for scenario in 0..SCENARIO_COUNT {
            let name = format!("s{scenario}");
            scenarios.push(json!({
                "settings": { "name": name, "payload": 64 },
                "outcome": {
                    "scenario": name,
                    "cpu_us_per_message": 0.5 * noise.factor(),
                    "out_per_s": 1e6 * noise.factor(),
                    "latency": { "p50_us": 60.0 * noise.factor(), "p99_us": 200.0 * noise.factor() },
                    "faults": { "lost": 0 },
                },
            }));
        }
    }
    json!({ "seconds": 5, "machine": {}, "scenarios": scenarios })
}

fn set(name: &str, file: &Value) -> Set {
    let mut set = Set { name: name.to_string(), ..Set::default() };
    set.take(file, "ringmq").expect("these are results");
    set
}

fn compared(before: &Value, after: &Value) -> Comparison {
    let compared = Comparison::new(&set("a", before), &set("b", after), 0.03, 0.05);
    compared.expect("there are enough rounds")
}

/// Of so many pairs of sets: how many differ from themselves, and in how many a difference of ten percent was found.
fn tried(pairs: u64, round_count: usize, spread: f64) -> (usize, usize) {
    let (mut alarms, mut found) = (0, 0);
    for seed in 0..pairs {
        let mut noise = Noise { random: fastrand::Rng::with_seed(seed), spread, drift: 0.0 };
        let before = rounds(&mut noise, round_count);
        let after = rounds(&mut noise, round_count);
        let (before, after) = dealt_in_turns(before, after);
        let figures = compared(&before, &after).figures;
        alarms += usize::from(figures.iter().any(|figure| figure.verdict != Verdict::Same));
        let worse = compared(&before, &slower(&after));
        let is_found = worse.figures.iter().any(|figure| {
            (figure.scenario.as_str(), figure.measure) == ("s9", "CPU per message")
                && figure.verdict == Verdict::Worse
        });
        found += usize::from(is_found && worse.is_worse());
    }
    (alarms, found)
}

/// Rounds that were taken one after the other, every second one in the other set.
fn dealt_in_turns(mut before: Value, mut after: Value) -> (Value, Value) {
    let take = |set: &mut Value| set["scenarios"].take().as_array().cloned().expect("a list");
    let all = [take(&mut before), take(&mut after)].concat();
    let rounds: Vec<&[Value]> = all.chunks(SCENARIO_COUNT).collect();
    let every_second = |from: usize| -> Vec<Value> {
        rounds.iter().skip(from).step_by(2).flat_map(|round| round.to_vec()).collect()
    };
    before["scenarios"] = every_second(0).into();
    after["scenarios"] = every_second(1).into();
    (before, after)
}

/// One scenario costs ten percent more.
fn slower(set: &Value) -> Value {
    let mut set = set.clone();
    for run in set["scenarios"].as_array_mut().expect("a list") {
        let outcome = &mut run["outcome"];
        if outcome["scenario"] == "s9" {
            let cost = outcome["cpu_us_per_message"].as_f64().expect("a figure");
            outcome["cpu_us_per_message"] = json!(cost * 1.1);
        }
    }
    set
}

#[test]
fn one_binary_is_no_different_in_95_of_100_and_ten_percent_are_found() {
    for (pairs, round_count, spread) in [(100, 5, 0.01), (20, 9, 0.02)] {
        let (alarms, found) = tried(pairs, round_count, spread);
        let count = pairs as usize;
        assert!(alarms * 20 <= count, "{round_count} rounds: {alarms} of {count} differ");
        assert!(found * 10 >= count * 9, "{round_count} rounds: found {found} times of {count}");
    }
}

#[test]
fn sets_that_were_not_taken_in_turns_are_told_so() {
    let mut noise = Noise { random: fastrand::Rng::with_seed(1), spread: 0.01, drift: 0.0 };
    let mut dated = |dates: &[&str]| {
        let mut set = Set::default();
        for date in dates {
            let mut file = rounds(&mut noise, 1);
            file["date"] = json!(format!("2001-02-03T04:{date}:06Z"));
            set.take(&file, "ringmq").expect("these are results");
        }
        set
    };
    let sets = [["05", "07", "09", "11"], ["06", "08", "10", "12"], ["13", "14", "15", "16"]];
    let [before, in_turns, behind] = sets.map(|dates| dated(&dates));
    let says = |after: &Set| {
        let comparison = Comparison::new(&before, after, 0.03, 0.05).expect("enough rounds");
        comparison.warnings.iter().any(|warning| warning.contains("one after the other"))
    };
    assert_eq!([&in_turns, &behind].map(says), [false, true]);
}

#[test]
fn which_way_is_worse_follows_from_the_figure() {
    for measure in MEASURES {
        let file = |factor: f64| {
            let runs = (0..6).map(|round| {
                let value = (100.0 + f64::from(round)) * factor;
                let outcome = match measure.words {
                    "CPU per message" => json!({ "cpu_us_per_message": value }),
                    "CPU per message at the rate" => json!({ "cpu_us_per_message_at_rate": value }),
                    "delivered" => json!({ "out_per_s": value }),
                    "p50" => json!({ "latency": { "p50_us": value } }),
                    _ => json!({ "latency": { "p99_us": value } }),
                };
                let mut outcome = outcome;
                outcome["scenario"] = json!("x");
                json!({ "settings": {}, "outcome": outcome })
            });
            json!({ "scenarios": runs.collect::<Vec<_>>() })
        };
        let comparison = compared(&file(1.0), &file(1.2));
        let expected = measure.more_is_better;
        assert_eq!(comparison.figures.len(), 1, "{}", measure.words);
        assert_eq!(comparison.is_worse(), !expected, "{}", measure.words);
        assert!(comparison.words(false, 80).contains("+20.0 %"), "{}", comparison.words(false, 80));
        assert!(comparison.words(true, 60).lines().all(|line| line.chars().count() <= 75));
    }
}

#[test]
fn what_cannot_be_compared_is_refused_with_the_reason() {
    let mut noise = Noise { random: fastrand::Rng::with_seed(1), spread: 0.01, drift: 0.0 };
    let few = set("few", &rounds(&mut noise, 3));
    let many = set("many", &rounds(&mut noise, 9));
    let refused = Comparison::new(&few, &few, 0.03, 0.05).expect_err("3 rounds and 3");
    assert!(refused.contains("too few"), "{refused}");
    assert!(Comparison::new(&few, &many, 0.03, 0.05).is_ok());
    let other = json!({ "scenarios": (0..9).map(|_| json!({
        "settings": { "payload": 4096 },
        "outcome": { "scenario": "s1", "cpu_us_per_message": 1.0 },
    })).collect::<Vec<_>>() });
    let refused =
        Comparison::new(&many, &set("other", &other), 0.03, 0.05).expect_err("another payload");
    assert!(refused.contains("payload is 64 and 4096"), "{refused}");
    for wrong in
        ["", "[]", "{}", "{\"scenarios\": []}", "{\"outcomes\": {\"x\": {\"emqx\": [{}]}}}"]
    {
        let path =
            std::env::temp_dir().join(format!("ringmq-bench-{}-wrong.json", std::process::id()));
        std::fs::write(&path, wrong).expect("written");
        let refused = Set::read(&path, "ringmq").expect_err(wrong);
        assert!(refused.contains("wrong.json: "), "{refused}");
        std::fs::remove_file(&path).expect("removed");
    }
}

#[test]
fn a_fault_that_was_not_there_before_is_worse_whatever_the_figures_are() {
    let mut noise = Noise { random: fastrand::Rng::with_seed(1), spread: 0.01, drift: 0.0 };
    let before = rounds(&mut noise, 4);
    let mut after = before.clone();
    after["scenarios"][3]["outcome"]["faults"]["lost"] = json!(5);
    let comparison = compared(&before, &after);
    assert!(comparison.is_worse());
    let said = comparison.words(false, 80);
    assert!(said.contains("s3: messages lost, and not before"), "{said}");
    assert!(!compared(&after, &after).is_worse());
}

#[test]
fn the_rounds_of_a_broker_are_found_among_those_of_others() {
    let outcome = |cpu: f64| json!({ "scenario": "x", "cpu_us_per_message": cpu });
    let runs =
        |cpu: f64| (0..5).map(|round| outcome(cpu + f64::from(round) / 100.0)).collect::<Vec<_>>();
    let file = json!({
        "settings": { "x": { "payload": 64 } },
        "outcomes": { "x": { "old": runs(1.0), "ringmq": runs(1.3), "mosquitto": runs(9.0) } },
    });
    let read = |broker| {
        let mut set = Set::default();
        set.take(&file, broker).map(|()| set)
    };
    let comparison =
        Comparison::new(&read("old").expect("old"), &read("ringmq").expect("new"), 0.03, 0.05);
    let refused = read("emqx").expect_err("was not measured");
    assert!(comparison.expect("5 rounds and 5").is_worse());
    assert!(refused.contains("mosquitto, old, ringmq"), "{refused}");
}
