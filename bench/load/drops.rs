//! The broker's own count of the messages that it has dropped: what is missing is one thing, what it says that it dropped at a
//! limit another.

use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::client::Client;
use crate::interrupt;
use crate::outcome::Outcome;

/// Where brokers say how many publishes they have dropped.
pub(crate) const DROPPED_TOPIC: &str = "$SYS/broker/publish/messages/dropped";

/// What brokers publish in every interval of `$SYS`, and the longest interval that is waited for.
const PULSE_TOPIC: &str = "$SYS/broker/uptime";
const PULSE_TIME_MAX: Duration = Duration::from_secs(60);

/// A broker of which nothing has come below `$SYS` gets a usual interval to say something.
const FIRST_TIME_MAX: Duration = Duration::from_secs(12);

const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// What comes at once comes within this time.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Follows the broker's own count of dropped messages.
#[derive(Debug)]
pub(crate) struct DropCounter {
    client: Client,
    value: Option<u64>,
    /// The count before the run; `None`: the first that is heard counts as that, so that never too many are explained.
    before: Option<u64>,
    has_pulse: bool,
}

impl DropCounter {
    /// Listens to a broker. `None`: it tells this client nothing.
    pub(crate) fn listen(broker: &Broker) -> Option<DropCounter> {
        let client_id = ("bench-drops", 3, 0);
        let connected = Client::connect_within(CONNECT_TIME_MAX, &broker.target, client_id, None);
        let mut client = connected.ok()?;
        client.subscribe(&[DROPPED_TOPIC, PULSE_TOPIC].map(str::to_string), 0).ok()?;
        let mut drops = DropCounter { client, value: None, before: None, has_pulse: false };
        if broker.is_own() {
            // It has just been started.
            drops.before = Some(0);
            return Some(drops);
        }
        drops.catch_up().ok()?;
        drops.before = match drops.value {
            // A broker that publishes what has changed has nothing to say before the first drop.
            None if drops.has_pulse => Some(0),
            told => told,
        };
        Some(drops)
    }

    /// Before the first run: what the broker has dropped so far and not said yet is none of the run's. A count that has never
    /// moved is taken as it is.
    pub(crate) fn begin(&mut self) {
        if self.before.is_some_and(|count| count > 0) && self.settle() == Ok(true) {
            self.before = self.value;
        }
    }

    /// The count as it is after this moment.
    pub(crate) fn settled(&mut self) -> Result<u64, String> {
        if !self.settle()? {
            return Err(format!("{PULSE_TOPIC} is not published within {PULSE_TIME_MAX:?}"));
        }
        Ok(self.value.unwrap_or(0))
    }

    /// Of what a run has lost, as much as the count grew by is dropped at a limit.
    pub(crate) fn explain(&mut self, outcome: &mut Outcome) -> Result<(), String> {
        self.catch_up()?;
        let is_settled = interrupt::came() || self.settle()?;
        let Some(value) = self.value.filter(|_| is_settled) else { return Ok(()) };
        let grew = value.saturating_sub(self.before.unwrap_or(value));
        let faults = &mut outcome.faults;
        faults.dropped = faults.lost.min(grew);
        faults.lost -= faults.dropped;
        outcome.dropped_as_counted = Some(grew);
        Ok(())
    }

    /// What came before is passed over, then a whole interval seen. False if none can be seen.
    fn settle(&mut self) -> Result<bool, String> {
        self.catch_up()?;
        let begin = Instant::now();
        let mut pulses = 0;
        while pulses < 2 {
            let patience = if self.has_pulse { PULSE_TIME_MAX } else { FIRST_TIME_MAX };
            if begin.elapsed() > patience || interrupt::came() {
                return Ok(false);
            }
            pulses += u32::from(self.next(5 * AT_ONCE)? == Some(true));
        }
        self.catch_up()?;
        Ok(true)
    }

    /// Takes what has come by now, however often more comes.
    fn catch_up(&mut self) -> Result<(), String> {
        let begin = Instant::now();
        while begin.elapsed() < 10 * AT_ONCE && self.next(AT_ONCE)?.is_some() {}
        Ok(())
    }

    /// Takes the next message, if one comes in time. True if it is a pulse.
    fn next(&mut self, patience: Duration) -> Result<Option<bool>, String> {
        let Some((topic, text)) = self.client.next_publish(patience)? else { return Ok(None) };
        if topic == DROPPED_TOPIC {
            let wrong = |_| format!("{DROPPED_TOPIC} is {text:?}, which is no number");
            let value = text.trim().parse().map_err(wrong)?;
            self.before.get_or_insert(value);
            self.value = Some(value);
        }
        self.has_pulse |= topic == PULSE_TOPIC;
        Ok(Some(topic == PULSE_TOPIC))
    }
}
