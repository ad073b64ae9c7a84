//! Idle connections: how much memory each costs the broker, and how much processor time all of them cost.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::broker::Broker;
use crate::client::Client;
use crate::engine::Counts;
use crate::interrupt;
use crate::meter::Meter;
use crate::outcome::Outcome;
use crate::report::measured::{MeasuredRun, Pace};
use crate::run::Bench;
use crate::scenario::Scenario;

/// The broker gets this time to finish the work of the connections.
const SETTLE: Duration = Duration::from_secs(2);

pub(crate) fn run(bench: &Bench, scenario: &Scenario, broker: &Broker) -> Result<Outcome, String> {
    if f64::from(scenario.keep_alive_s) * 1.5 < bench.span.as_secs_f64() {
        return Err(format!(
            "keep_alive_s is {}: idle clients send nothing, so the broker would close them within the {} s of the run",
            scenario.keep_alive_s,
            bench.span.as_secs()
        ));
    }
    let mut outcome = Outcome::new(&scenario.name);
    // This thread is the whole generator.
    let mut meter =
        Meter::new(broker.pid, BTreeSet::from([rustix::thread::gettid().as_raw_pid() as u32]));
    bench.wait(SETTLE, || Ok(()))?;
    let fresh = meter.resident_size();
    let mut clients = Vec::with_capacity(scenario.connections);
    for index in 0..scenario.connections {
        if interrupt::came() {
            break;
        }
        if index % 1000 == 0 {
            bench.progress.say(&scenario.name, &format!("{index} connections"));
        }
        let mut client = Client::connect(
            &broker.target,
            &format!("idle-{index:05}"),
            scenario.mqtt,
            index,
            None,
        )?;
        if !scenario.filters.is_empty() {
            client.subscribe(&[scenario.filter_of(index)], scenario.qos)?;
        }
        clients.push(client);
    }
    if clients.is_empty() {
        return Err(interrupt::REASON.to_string());
    }
    bench.wait(SETTLE, || Ok(()))?;
    bench.progress.say(&scenario.name, &format!("{} connections at rest", clients.len()));
    let usage = meter.watch(bench.span, &bench.progress, Counts::default, || Ok(()))?;
    outcome.resident_size_max = meter.resident_size_max;
    if usage.is_measured() {
        outcome.set_usage(&usage, 0);
        let series = meter.take_series();
        let run = MeasuredRun::new(Pace::AtRest, &Counts::default(), &usage, series);
        outcome.runs.push(MeasuredRun { bound: None, ..run });
    }
    outcome.measure("connections", clients.len() as f64, "");
    if let Some((fresh, with)) = fresh.zip(usage.resident_size) {
        let each = with.saturating_sub(fresh) as f64 / clients.len() as f64;
        outcome.measure("memory, fresh", fresh as f64 / f64::from(1 << 20), "MiB");
        outcome.measure("memory per idle connection", each / 1024.0, "KiB");
    }
    if let Some(cores) = outcome.broker_cores_used {
        outcome.measure("processor time while idle", cores * 100.0, "% of a core");
    }
    for client in &mut clients {
        client.check_open()?;
    }
    Ok(outcome)
}
