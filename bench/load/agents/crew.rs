//! All agents of a scenario: prepares them, orders them, and asks them for their findings.

use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::link::{Link, greet};
use super::merge::sum;
use super::protocol::{Finish, Finished, FromAgent, Mark, Order, Prepare, Rhythm, ToAgent};
use super::router::Router;
use super::session::{self, Start};
use super::split::Split;
use super::token::Token;
use super::{AgentReport, ClockReport, clock};
use crate::broker::Broker;
use crate::engine::Counts;
use crate::interrupt;
use crate::machine::now_ns;
use crate::options::Options;
use crate::plan::{NO_CELL, Plan};
use crate::run::Bench;
use crate::scenario::Scenario;
use crate::traffic::PATIENCE;

/// All clients of an agent connect within this time.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(600);
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// An agent may have many findings.
const FINISH_TIME_MAX: Duration = Duration::from_secs(60);
/// Messages that still arrive are waited for at most this long.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(60);
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// Latencies between agents are corrected in so many slices: few enough to keep, short enough for the clocks.
const SLICES: u64 = 1000;
const SLICE_NS_MIN: u64 = 20_000_000;

pub(super) struct Crew {
    pub links: Vec<Arc<Link>>,
    pub reports: Vec<AgentReport>,
    plan: Plan,
    split: Split,
    orders: u32,
    slice_ns: u64,
    /// Whether messages go between agents.
    pub crosses: bool,
}

impl Crew {
    /// Connects the agents, or starts the processes, and splits the plan.
    pub(super) fn gather(
        bench: &Bench,
        options: &Options,
        scenario: &Scenario,
        broker: &Broker,
    ) -> Result<Crew, String> {
        let plan = Plan::new(scenario);
        let count = options.agents.count().ok_or("no agents are asked for")?;
        let split = Split::new(&plan, count, options.agents.apart);
        let mut links = Vec::new();
        let mut inputs = Vec::new();
        for index in 0..count {
            let (link, input) = match options.agents.agents.get(index) {
                Some(agent) => {
                    let token = Token::find(options.agents.token_file.as_deref())?;
                    Link::new(agent.clone(), greet(agent, token.as_ref(), false)?, None)?
                }
                None => start_process(bench, broker, index, count)?,
            };
            links.push(link);
            inputs.push(input);
        }
        let audiences = split.audiences(&plan);
        let crosses = audiences.iter().any(|audience| !audience.is_empty());
        let router = Arc::new(Router::new(&split, &audiences, &links));
        for (index, (link, input)) in links.iter().zip(inputs).enumerate() {
            let router = router.clone();
            link.listen(index, input, move |reported| router.note(index, reported))?;
        }
        keep_alive(links.iter().map(Arc::downgrade).collect())?;
        let of = |agents: &[u16], index| {
            agents.iter().filter(|agent| usize::from(**agent) == index).count()
        };
        let report = |(index, link): (usize, &Arc<Link>)| AgentReport {
            name: link.name.clone(),
            publishers: of(&split.publishers, index),
            subscribers: of(&split.subscribers, index),
            ..AgentReport::default()
        };
        let reports = links.iter().enumerate().map(report).collect();
        let slice_ns = (bench.span.as_nanos() as u64 / SLICES).max(SLICE_NS_MIN);
        Ok(Crew { links, reports, plan, split, orders: 0, slice_ns, crosses })
    }

    fn alive(&self) -> impl Iterator<Item = (usize, &Arc<Link>)> {
        self.links.iter().enumerate().filter(|(_, link)| link.failure().is_none())
    }

    /// The reason for which the run cannot go on; `Ok`: there is none.
    pub(super) fn check(&self) -> Result<(), String> {
        self.links.iter().try_for_each(|link| link.check())
    }

    /// Sends a message to each agent that is left and takes the answers. The first failure is returned.
    fn ask<T>(
        &self,
        patience: Duration,
        say: impl Fn(usize) -> ToAgent,
        check: impl Fn() -> Result<(), String>,
        pick: impl Fn(FromAgent) -> Option<T>,
    ) -> (Vec<(usize, T)>, Result<(), String>) {
        let asked: Vec<(usize, &Arc<Link>)> = self.alive().collect();
        asked.iter().for_each(|(index, link)| link.say(&say(*index)));
        let mut answers = Vec::new();
        let mut whole = Ok(());
        for (index, link) in asked {
            match link.answer(patience, &check, &pick) {
                Ok(answer) => answers.push((index, answer)),
                Err(reason) => whole = whole.and(Err(reason)),
            }
        }
        (answers, whole)
    }

    /// Connects all clients.
    pub(super) fn prepare(
        &mut self,
        options: &Options,
        scenario: &Scenario,
        broker: &Broker,
    ) -> Result<(), String> {
        let address = broker.target.address.to_string();
        let name = options.broker.as_ref().filter(|_| !options.agents.agents.is_empty());
        let prepare = |index: usize| {
            ToAgent::Prepare(Box::new(Prepare {
                scenario: scenario.clone(),
                split: self.split.clone(),
                agent: index as u16,
                agent_count: self.links.len() as u16,
                broker: name.unwrap_or(&address).clone(),
                threads: options.threads,
            }))
        };
        let (ready, whole) =
            self.ask(CONNECT_TIME_MAX, prepare, interrupt::check, |answer| match answer {
                FromAgent::Ready { threads, origin_ns } => Some((threads, origin_ns)),
                _ => None,
            });
        for (index, (threads, origin_ns)) in ready {
            self.reports[index].threads = threads;
            self.links[index].share_clock(origin_ns);
        }
        whole
    }

    pub(super) fn read_clocks(&self) {
        self.alive().for_each(|(_, link)| link.read_clock());
    }

    fn tracks(&self) -> Vec<clock::Track> {
        let track = |link: &Arc<Link>| {
            link.track.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
        };
        self.links.iter().map(track).collect()
    }

    /// Orders all agents to publish, or to stop. `from_ns` and `recorded_ns` are times of the driver's clock.
    pub(super) fn order(
        &mut self,
        rhythm: Rhythm,
        from_ns: u64,
        recorded_ns: Range<u64>,
    ) -> Result<(), String> {
        let tracks = self.tracks();
        let shown = |index: usize, at_ns: u64| {
            (at_ns as i64 + tracks[index].offset_at(at_ns as i64)).max(0) as u64
        };
        let order = |index: usize| {
            let recorded = |agent: usize| match recorded_ns.is_empty() {
                true => 0..0,
                false => shown(agent, recorded_ns.start)..shown(agent, recorded_ns.end),
            };
            let more = |agent: usize| {
                let at_ns = from_ns.max(1) as i64;
                tracks[index].offset_at(at_ns).saturating_sub(tracks[agent].offset_at(at_ns))
            };
            let agents = 0..self.links.len();
            ToAgent::Order(Order {
                rhythm,
                from_ns: if from_ns == 0 { 0 } else { shown(index, from_ns) },
                recorded_ns: agents.clone().map(recorded).collect(),
                offset_ns: agents.map(more).collect(),
                slice_ns: self.slice_ns,
            })
        };
        let (late, whole) = self.ask(
            ANSWER_TIME_MAX,
            order,
            || Ok(()),
            |answer| match answer {
                FromAgent::Ordered { late_ns } => Some(late_ns),
                _ => None,
            },
        );
        for (index, late_ns) in late {
            let late_us = &mut self.reports[index].late_us;
            *late_us = late_us.max(late_ns as f64 / 1e3);
        }
        self.orders += 1;
        whole
    }

    /// Waits until all messages have arrived, no more come, or the time is up.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        let stilled = self.order(Rhythm::Still, 0, 0..0);
        let begin = Instant::now();
        let mut last = (0, begin);
        loop {
            let progress: Vec<_> = self
                .alive()
                .filter(|(_, link)| link.check().is_ok())
                .map(|(_, link)| link.progress())
                .collect();
            if progress.iter().all(|progress| progress.orders >= self.orders && progress.at_rest) {
                return stilled;
            }
            let delivered: u64 = progress
                .iter()
                .map(|progress| progress.counts.delivered)
                .fold(0, u64::saturating_add);
            if delivered > last.0 {
                last = (delivered, Instant::now());
            }
            if last.1.elapsed() > PATIENCE || begin.elapsed() > SETTLE_TIME_MAX {
                return stilled;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The counts that the agents told last.
    pub(super) fn counts(&self) -> Counts {
        let counts = self.alive().map(|(_, link)| link.progress().counts);
        counts.fold(Counts::default(), |all, counts| sum(&all, &counts))
    }

    /// Usage and work since the last call, by agent.
    pub(super) fn mark(&self) -> Result<Vec<(usize, Mark)>, String> {
        let (marks, whole) = self.ask(
            ANSWER_TIME_MAX,
            |_| ToAgent::Mark,
            || Ok(()),
            |answer| match answer {
                FromAgent::Marked(mark) => Some(mark),
                _ => None,
            },
        );
        whole.map(|()| marks)
    }

    /// How many messages each publisher has sent, as its agent tells; `None`: its agent does not tell.
    pub(super) fn close(&self) -> Vec<Option<u64>> {
        let (said, _) = self.ask(
            ANSWER_TIME_MAX,
            |_| ToAgent::Close,
            || Ok(()),
            |answer| match answer {
                FromAgent::Closed { sent } => Some(sent),
                _ => None,
            },
        );
        let mut sent: Vec<Option<u64>> = vec![None; self.plan.publishers.len()];
        for (index, said) in said {
            let is_own = |publisher: u32| {
                self.split
                    .publishers
                    .get(publisher as usize)
                    .is_some_and(|of| usize::from(*of) == index)
            };
            if said.iter().any(|(publisher, _)| !is_own(*publisher)) {
                self.links[index].fail("it reports nonsense: what publishers of others have sent");
                continue;
            }
            for (publisher, of) in self.split.publishers.iter().enumerate() {
                if usize::from(*of) == index {
                    sent[publisher] = Some(0);
                }
            }
            said.iter().for_each(|(publisher, count)| sent[*publisher as usize] = Some(*count));
        }
        sent
    }

    /// Ends the runs of the agents. Returns the findings of each.
    pub(super) fn finish(&self, sent: &[Option<u64>]) -> Vec<(usize, Finished)> {
        let tracks = self.tracks();
        let finish = |index: usize| {
            let elsewhere =
                (0_u32..).zip(sent).filter_map(|(publisher, sent)| Some((publisher, (*sent)?)));
            let is_away =
                |publisher: u32| usize::from(self.split.publishers[publisher as usize]) != index;
            ToAgent::Finish(Box::new(Finish {
                sent: elsewhere
                    .filter(|(publisher, sent)| is_away(*publisher) && *sent > 0)
                    .collect(),
                clocks: tracks.iter().map(|track| tracks[index].relative_to(track)).collect(),
            }))
        };
        let (found, _) = self.ask(
            FINISH_TIME_MAX,
            finish,
            || Ok(()),
            |answer| match answer {
                FromAgent::Finished(found) => Some(*found),
                _ => None,
            },
        );
        found
    }

    /// For each agent: how many messages its publishers have sent, and the most that can have reached its subscribers,
    /// each once.
    pub(super) fn dues(&self, sent: &[Option<u64>]) -> Vec<(u64, u64)> {
        let mut agent_of_cell = vec![0; self.plan.cell_count];
        for (subscriber, agent) in self.plan.subscribers.iter().zip(&self.split.subscribers) {
            for cell in subscriber.cells.iter().filter(|cell| **cell != NO_CELL) {
                agent_of_cell[*cell as usize] = usize::from(*agent);
            }
        }
        let mut dues = vec![(0_u64, 0_u64); self.links.len()];
        for ((publisher, agent), sent) in
            self.plan.publishers.iter().zip(&self.split.publishers).zip(sent)
        {
            let own = &mut dues[usize::from(*agent)].0;
            *own = own.saturating_add(sent.unwrap_or(0));
            for cell in &publisher.cells {
                // The messages of an agent that is gone are not known.
                let due = &mut dues[agent_of_cell[*cell as usize]].1;
                *due = due.saturating_add(sent.unwrap_or(u64::MAX));
            }
        }
        dues
    }

    /// The deviations of the clocks, and how wrong a latency between agents may be, nanoseconds.
    pub(super) fn judge_clocks(&mut self) -> u64 {
        let tracks = self.tracks();
        for (report, track) in self.reports.iter_mut().zip(&tracks) {
            report.clock = ClockReport {
                offset_us: track.0.first().map_or(0.0, |reading| reading.offset_ns as f64 / 1e3),
                drift_ppm: track.drift_ppm(),
                round_trip_us: 2.0 * track.half_round_trip_ns() as f64 / 1e3,
                uncertainty_us: track.uncertainty_ns() as f64 / 1e3,
                readings: track.0.clone(),
            };
        }
        clock::pair_uncertainty_ns(&tracks.iter().collect::<Vec<_>>(), self.slice_ns)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.links.iter().for_each(|link| link.end());
    }
}

/// Starts a process of the driver's own, on its share of the generator's cores.
fn start_process(
    bench: &Bench,
    broker: &Broker,
    index: usize,
    count: usize,
) -> Result<(Arc<Link>, Socket), String> {
    let name = format!("process {}", index + 1);
    let failed = |error: std::io::Error| format!("{name}: {error}");
    let (own, other) = UnixStream::pair().map_err(failed)?;
    let all = &bench.placement.generator;
    let share: Vec<String> = match all.len() >= count {
        true => all.iter().skip(index).step_by(count).map(ToString::to_string).collect(),
        false => vec![all[index % all.len()].to_string()],
    };
    let targets = [broker.target.address.to_string()];
    let cores = share.join(",");
    let child =
        Start { targets: &targets, cores: Some(&cores), clock: (0, 0) }.process(other.into());
    let socket = Socket::from(own);
    let child = child?;
    session::tune(&socket)?;
    Link::new(name, socket, Some(child))
}

/// Tells the agents from time to time that the driver is still there.
fn keep_alive(links: Vec<Weak<Link>>) -> Result<(), String> {
    let say = move || {
        while links.iter().any(|link| link.strong_count() > 0) {
            links.iter().filter_map(Weak::upgrade).for_each(|link| link.say(&ToAgent::Alive));
            thread::sleep(ALIVE_INTERVAL);
        }
    };
    thread::Builder::new()
        .name("alive".to_string())
        .spawn(say)
        .map(drop)
        .map_err(|error| format!("thread: {error}"))
}

/// A time shortly after now, by the driver's clock.
pub(super) fn soon(lead: Duration) -> u64 {
    now_ns() + lead.as_nanos() as u64
}
