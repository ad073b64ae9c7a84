//! The chain of one shard's plugins: calls them in their order, times and counts the calls, and contains failures.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use tracing::warn;

use super::presence::{CREATE, DESTROY};
use super::tally::{Silence, Tally, index};
use super::{Answers, Installed, Plugin, PluginError, Presence, contain, tick};
use crate::codec::{QoS, ReasonCode};
use crate::config::plugin::OnError;
use crate::plugin::{
    ClientView, ConnectView, HookEvent, HookFigures, HookSet, Hooks, MessageEdit, MessageView,
    Resumed, SessionLimits, Verdict,
};
use crate::printable::Quoted;

/// Of the hooks that run for every message, one call in so many is timed exactly: reading the clock would cost more
/// than most of the calls. Slow calls are noticed in any case, by the kernel's tick.
const TIMED_EVERY: u64 = 64;

/// The hooks that run for every message or every delivery.
const FREQUENT: HookSet =
    HookSet::PUBLISH.union(HookSet::AUTHORIZE_PUBLISH).union(HookSet::DELIVER);

/// The hooks that are called for one message after another.
const AT_ORIGIN: HookSet = HookSet::PUBLISH.union(HookSet::AUTHORIZE_PUBLISH);

/// The answer to a client whose request a broken plugin could not judge.
const FAILED: Verdict = Verdict::Deny(ReasonCode::ImplementationSpecificError);

/// The plugins of one shard.
pub struct Chain {
    links: Vec<Link>,
    hooks: HookSet,
    /// When the last call at a message's origin ended, if the next one follows at once.
    row_ms: Option<u64>,
    /// The index of the plugin that gave the last denial.
    denier: usize,
    /// The place of the link that has said `Later` last.
    asked: usize,
}

struct Link {
    name: String,
    shard: u16,
    /// The plugin's index in the chain, and where the shard notes that it is in one of the plugin's calls.
    place: usize,
    presence: Arc<Presence>,
    /// `None` only while the plugin is dropped.
    plugin: Option<Box<dyn Plugin>>,
    hooks: HookSet,
    on_error: OnError,
    slow_ms: u64,
    tallies: [Tally; HookSet::NAMED.len()],
    failure_lines: Silence,
    slow_lines: Silence,
}

/// A call that failed or panicked; how its plugin's failures are handled.
struct Failed(OnError);

impl Chain {
    /// Makes an instance of each plugin for this shard, on its thread.
    pub fn new(
        installed: &[Installed],
        shard: u16,
        presence: &Arc<Presence>,
    ) -> Result<Chain, PluginError> {
        contain::install();
        presence.name(installed.iter().map(|one| one.factory.name().to_owned()));
        let new = |(place, one)| Link::new(one, place, shard, presence.clone());
        let links = installed.iter().enumerate().map(new);
        let links: Vec<Link> = links.collect::<Result<_, _>>()?;
        let hooks = links.iter().fold(HookSet::EMPTY, |all, link| all.union(link.hooks));
        Ok(Chain { links, hooks, row_ms: None, denier: 0, asked: 0 })
    }

    /// Gives the plugins the way of answers that come later. Without it no plugin can answer later.
    pub fn set_answers(&mut self, answers: &Answers) {
        for link in &mut self.links {
            let plugin = link.plugin.as_deref_mut().expect("it is there until the link is dropped");
            plugin.set_answers(answers.clone());
        }
    }

    /// Asks the plugins that have the hook, from the index `first` on, until one denies or wants to answer later.
    fn ask_from(
        &mut self,
        first: usize,
        hook: HookSet,
        mut work: impl FnMut(&mut Link, &mut u64) -> Result<Verdict, Failed>,
    ) -> Verdict {
        // The clock is read once a call instead of twice.
        let row_ms = if AT_ORIGIN.contains(hook) { self.row_ms } else { None };
        let mut began_ms = row_ms.unwrap_or_else(tick::now_ms);
        let (links, places) = (&mut self.links[first..], (&mut self.denier, &mut self.asked));
        let verdict = Self::ask_each(links, places, hook, &mut began_ms, &mut work);
        if AT_ORIGIN.contains(hook) {
            self.row_ms = Some(began_ms);
        }
        verdict
    }

    fn ask(
        &mut self,
        hook: HookSet,
        work: impl FnMut(&mut Link, &mut u64) -> Result<Verdict, Failed>,
    ) -> Verdict {
        self.ask_from(0, hook, work)
    }

    #[inline]
    fn ask_each(
        links: &mut [Link],
        (denier, asked): (&mut usize, &mut usize),
        hook: HookSet,
        began_ms: &mut u64,
        work: &mut impl FnMut(&mut Link, &mut u64) -> Result<Verdict, Failed>,
    ) -> Verdict {
        for link in links.iter_mut().filter(|link| link.hooks.contains(hook)) {
            let verdict = match work(link, began_ms) {
                Ok(verdict) => verdict,
                Err(Failed(OnError::Deny)) => FAILED,
                Err(Failed(OnError::Pass)) => Verdict::Allow,
            };
            if verdict == Verdict::Later && hook == HookSet::CONNECT {
                *asked = link.place;
                return verdict;
            }
            let verdict = verdict.at_once();
            if verdict.is_denied() {
                link.tallies[index(hook)].denials += 1;
                *denier = link.place;
                return verdict;
            }
        }
        Verdict::Allow
    }

    fn tell(
        &mut self,
        hook: HookSet,
        client_id: &str,
        mut work: impl FnMut(&mut dyn Plugin) -> Result<(), PluginError>,
    ) {
        let mut began_ms = tick::now_ms();
        for link in self.links.iter_mut().filter(|link| link.hooks.contains(hook)) {
            // No answer of this hook could refuse anything.
            let _ = link.call(hook, client_id, &mut began_ms, &mut work);
        }
    }
}

impl Hooks for Chain {
    fn hooks(&self) -> HookSet {
        self.hooks
    }

    fn connect(
        &mut self,
        client: &ClientView<'_>,
        connect: &ConnectView<'_>,
        limits: &mut SessionLimits,
    ) -> Verdict {
        let first = match connect.resumed {
            None => 0,
            Some(Resumed { place, denied: None }) => usize::from(place) + 1,
            Some(Resumed { place, denied: Some(reason) }) => {
                self.denier = usize::from(place);
                self.links[self.denier].tallies[index(HookSet::CONNECT)].denials += 1;
                return Verdict::Deny(reason);
            }
        };
        self.ask_from(first, HookSet::CONNECT, |link, began_ms| {
            let before = *limits;
            let verdict = link.call(HookSet::CONNECT, client.client_id, began_ms, |plugin| {
                plugin.connect(client, connect, limits)
            });
            if verdict.is_err() {
                *limits = before;
            }
            verdict
        })
    }

    fn authorize_subscribe(
        &mut self,
        client: &ClientView<'_>,
        filter: &str,
        qos: &mut QoS,
    ) -> Verdict {
        self.ask(HookSet::SUBSCRIBE, |link, began_ms| {
            let before = *qos;
            let verdict = link.call(HookSet::SUBSCRIBE, client.client_id, began_ms, |plugin| {
                plugin.authorize_subscribe(client, filter, qos)
            });
            // A plugin may only lower the QoS.
            *qos = if verdict.is_ok() { before.min(*qos) } else { before };
            verdict
        })
    }

    fn unsubscribed(&mut self, client: &ClientView<'_>, filter: &str) {
        self.tell(HookSet::UNSUBSCRIBE, client.client_id, |plugin| {
            plugin.unsubscribed(client, filter)
        });
    }

    fn publish(&mut self, client: &ClientView<'_>, message: &mut MessageEdit<'_>) -> Verdict {
        let mut is_pledged = true;
        let verdict = self.ask(HookSet::PUBLISH, |link, began_ms| {
            // A message that is denied needs no undoing.
            let before = (link.on_error == OnError::Pass).then(|| message.save());
            let verdict = link.call(HookSet::PUBLISH, client.client_id, began_ms, |plugin| {
                plugin.publish(client, message)
            });
            if let (Err(_), Some(before)) = (&verdict, before) {
                message.restore(before);
            }
            is_pledged &= message.take_pledge() && verdict.is_ok();
            verdict
        });
        if is_pledged {
            message.pledge();
        }
        verdict
    }

    fn repeated(&mut self, count: u64) {
        for link in self.links.iter_mut().filter(|link| link.hooks.contains(HookSet::PUBLISH)) {
            link.tallies[index(HookSet::PUBLISH)].calls += count;
        }
    }

    fn pause(&mut self) {
        self.row_ms = None;
    }

    fn authorize_publish(&mut self, client: &ClientView<'_>, message: &MessageView<'_>) -> Verdict {
        self.ask(HookSet::AUTHORIZE_PUBLISH, |link, began_ms| {
            link.call(HookSet::AUTHORIZE_PUBLISH, client.client_id, began_ms, |plugin| {
                plugin.authorize_publish(client, message)
            })
        })
    }

    fn deliver(&mut self, receiver: &ClientView<'_>, message: &MessageView<'_>) -> bool {
        let verdict = self.ask(HookSet::DELIVER, |link, began_ms| {
            let is_wanted =
                link.call(HookSet::DELIVER, receiver.client_id, began_ms, |plugin| {
                    plugin.deliver(receiver, message)
                })?;
            Ok(if is_wanted { Verdict::Allow } else { FAILED })
        });
        !verdict.is_denied()
    }

    fn event(&mut self, event: &HookEvent<'_>) {
        let (hook, client_id) = match event {
            HookEvent::Dropped { client_id, .. } => (HookSet::DROPS, client_id.unwrap_or_default()),
            HookEvent::Connected { client, .. }
            | HookEvent::Disconnected { client, .. }
            | HookEvent::TakenOver { client }
            | HookEvent::SessionEnded { client } => (HookSet::EVENTS, client.client_id),
        };
        self.tell(hook, client_id, |plugin| plugin.event(event));
    }

    fn tick(&mut self) {
        self.tell(HookSet::TICK, "", |plugin| plugin.tick());
    }

    fn asked(&self) -> u16 {
        self.asked as u16
    }

    fn denier(&self) -> Option<&str> {
        self.links.get(self.denier).map(|link| link.name.as_str())
    }

    fn figures(&self) -> Vec<HookFigures> {
        let of_link = |link: &Link| {
            let named = HookSet::NAMED.iter().filter(|(_, hook)| link.hooks.contains(*hook));
            let figures: Vec<_> = named
                .map(|(name, hook)| link.tallies[index(*hook)].figures(&link.name, name))
                .collect();
            figures
        };
        self.links.iter().flat_map(of_link).collect()
    }
}

impl Link {
    fn new(
        installed: &Installed,
        place: usize,
        shard: u16,
        presence: Arc<Presence>,
    ) -> Result<Link, PluginError> {
        let name = installed.factory.name().to_owned();
        presence.enter(place, CREATE, 1);
        let made = contain::call(|| {
            let plugin = installed.factory.make(shard)?;
            let hooks = plugin.hooks();
            Ok::<_, PluginError>((plugin, hooks))
        });
        presence.leave();
        let (plugin, hooks) = match made {
            Ok(Ok(made)) => made,
            Ok(Err(error)) => return Err(PluginError::new(format!("plugin '{name}': {error}"))),
            Err(panic) => {
                return Err(PluginError::new(format!(
                    "plugin '{name}' panics at its start: {panic}"
                )));
            }
        };
        Ok(Link {
            name,
            shard,
            place,
            presence,
            plugin: Some(plugin),
            hooks,
            on_error: installed.on_error,
            slow_ms: installed.slow_ms,
            tallies: Default::default(),
            failure_lines: Silence::default(),
            slow_lines: Silence::default(),
        })
    }

    /// Calls a hook for a client (empty: for none); the call is contained, timed and counted. `began_ms` is when the
    /// call begins, and afterwards when it ended.
    #[inline]
    fn call<T>(
        &mut self,
        hook: HookSet,
        client_id: &str,
        began_ms: &mut u64,
        work: impl FnOnce(&mut dyn Plugin) -> Result<T, PluginError>,
    ) -> Result<T, Failed> {
        let tally = &mut self.tallies[index(hook)];
        tally.calls += 1;
        let is_timed = !FREQUENT.contains(hook) || tally.calls % TIMED_EVERY == 1;
        let began = is_timed.then(Instant::now);
        let plugin = self.plugin.as_deref_mut().expect("it is there until the link is dropped");
        self.presence.enter(self.place, index(hook), tally.calls);
        let outcome = contain::call(|| work(plugin));
        self.presence.leave();
        if let Some(began) = began {
            tally.time(began.elapsed().as_nanos() as u64);
        }
        let now_ms = tick::now_ms();
        let passed_ms = now_ms.saturating_sub(std::mem::replace(began_ms, now_ms));
        if passed_ms >= self.slow_ms {
            self.judge_time((hook, client_id), now_ms, passed_ms, began);
        }
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                self.tallies[index(hook)].errors += 1;
                Err(self.fail((hook, client_id), now_ms, "failed", &error.0))
            }
            Err(panic) => {
                self.tallies[index(hook)].panics += 1;
                Err(self.fail((hook, client_id), now_ms, "panicked", &panic))
            }
        }
    }

    /// Judges a call during which the kernel's tick moved by `passed_ms`: the call was as slow as that, or it merely
    /// began just before a tick.
    #[cold]
    fn judge_time(
        &mut self,
        (hook, client_id): (HookSet, &str),
        now_ms: u64,
        passed_ms: u64,
        began: Option<Instant>,
    ) {
        let took_ms = match began {
            Some(began) => began.elapsed().as_millis() as u64,
            None => passed_ms.saturating_sub(tick::resolution_ms()),
        };
        if took_ms < self.slow_ms {
            return;
        }
        let tally = &mut self.tallies[index(hook)];
        tally.slow += 1;
        tally.longest_ns = tally.longest_ns.max(took_ms * 1_000_000);
        if let Some(held_back) = self.slow_lines.ask(now_ms) {
            warn!(
                "plugin '{}' is slow: its {} hook took {took_ms} ms{}, and nothing else ran on shard {} meanwhile{}",
                self.name,
                name_of(hook),
                for_client(client_id),
                self.shard,
                and_before(held_back)
            );
        }
    }

    #[cold]
    fn fail(
        &mut self,
        (hook, client_id): (HookSet, &str),
        now_ms: u64,
        how: &str,
        why: &str,
    ) -> Failed {
        if let Some(held_back) = self.failure_lines.ask(now_ms) {
            warn!(
                "plugin '{}' {how} in its {} hook{} on shard {}: {why}{}",
                self.name,
                name_of(hook),
                for_client(client_id),
                self.shard,
                and_before(held_back)
            );
        }
        Failed(self.on_error)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let plugin = self.plugin.take();
        self.presence.enter(self.place, DESTROY, 1);
        let dropped = contain::call(|| drop(plugin));
        self.presence.leave();
        if let Err(panic) = dropped {
            warn!("plugin '{}' panicked at its end on shard {}: {panic}", self.name, self.shard);
        }
    }
}

fn name_of(hook: HookSet) -> &'static str {
    HookSet::NAMED[index(hook)].0
}

fn for_client(client_id: &str) -> String {
    match client_id {
        "" => String::new(),
        client_id => format!(" for client {}", Quoted(client_id)),
    }
}

fn and_before(held_back: u64) -> String {
    match held_back {
        0 => String::new(),
        count => format!(" (and {count} times since it was last told)"),
    }
}
