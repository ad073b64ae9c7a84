//! Hooks of some runs: what becomes of a message follows from its number, so the ledger knows what must arrive.

use crate::dice::Dice;
use crate::ledger::{number_of, payload_of};
use ringmq::codec::{Property, QoS, ReasonCode};
use ringmq::plugin::{ClientView, HookEvent, HookSet, Hooks, MessageEdit, MessageView, Verdict};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// What the hooks of a run do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Plan {
    pub is_on: bool,
    salt: u32,
}

/// What hooks make of one message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    pub is_denied: bool,
    pub topic: Option<String>,
    pub payload_size: Option<usize>,
    pub qos: Option<QoS>,
    pub retain: Option<bool>,
    pub expiry_s: Option<u32>,
    pub properties: Properties,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Properties {
    #[default]
    Unchanged,
    Added,
    /// All named `n` by one.
    Replaced,
    /// All named `n` gone.
    Removed,
    /// The content type, in its place or at the end.
    Typed,
}

impl Plan {
    /// Of its own dice: the rest of a run is the same with hooks and without.
    pub(crate) fn new(seed: u64) -> Plan {
        let mut dice = Dice::new(seed ^ 0x686f_6f6b);
        Plan { is_on: dice.chance(40), salt: dice.below(1 << 20) as u32 }
    }

    fn draw(&self, id: u32, what: u32) -> u32 {
        let mixed = (id ^ self.salt).wrapping_mul(0x9e37_79b1) ^ what.wrapping_mul(0x85eb_ca6b);
        (mixed ^ mixed >> 15).wrapping_mul(0x2c1b_3c6d) >> 12
    }

    /// For the message with this number, as it was sent.
    pub(crate) fn change(&self, id: u32, topic: &str, payload_size: usize) -> Change {
        if !self.is_on {
            return Change::default();
        }
        let draw = |what| self.draw(id, what);
        let is_plain = topic.starts_with("t/");
        let properties = [
            Properties::Unchanged,
            Properties::Added,
            Properties::Replaced,
            Properties::Removed,
            Properties::Typed,
        ];
        Change {
            is_denied: draw(0).is_multiple_of(12),
            topic: (is_plain && draw(1).is_multiple_of(4)).then(|| format!("t/{}", draw(2) % 4)),
            payload_size: match draw(3) % 6 {
                0 => Some(payload_size + draw(4) as usize % 300),
                1 => Some(12 + draw(4) as usize % payload_size.max(1)),
                _ => None,
            },
            qos: (is_plain && draw(5).is_multiple_of(5))
                .then(|| QoS::from_bits((draw(6) % 3) as u8).expect("below 3")),
            // All of a topic or none: what is retained may arrive behind what is not.
            retain: (topic == "$x/1").then_some(true),
            expiry_s: draw(8).is_multiple_of(20).then_some(1000),
            properties: properties[draw(9) as usize % properties.len()],
        }
    }

    /// Whether the deliver hook keeps a message from a receiver.
    pub(crate) fn skips(&self, client_id: &str, id: u32) -> bool {
        let Some(number) = client_id.strip_prefix("client-") else { return false };
        let number: u32 = number.parse().expect("a number");
        self.is_on && self.draw(id, 100 + number).is_multiple_of(10)
    }
}

impl Properties {
    /// What encoded properties become.
    pub(crate) fn apply(self, id: u32, raw: &[u8]) -> Vec<u8> {
        let all: Vec<Property<'_>> = ringmq::codec::PropertyIter::new(raw).collect();
        let value = format!("{id:x}");
        let is_named = |property: &Property<'_>| matches!(property, Property::UserProperty("n", _));
        let is_type = |property: &Property<'_>| matches!(property, Property::ContentType(_));
        let made = match self {
            Properties::Unchanged => all,
            Properties::Added => {
                [all.as_slice(), &[Property::UserProperty("hook", &value)]].concat()
            }
            Properties::Removed => all.into_iter().filter(|one| !is_named(one)).collect(),
            Properties::Replaced => put(all, is_named, Property::UserProperty("n", &value)),
            Properties::Typed => put(all, is_type, Property::ContentType(&value)),
        };
        let mut bytes = Vec::new();
        made.iter().for_each(|property| property.encode(&mut bytes));
        bytes
    }
}

/// `new` where the first match was, or at the end.
fn put<'a>(
    all: Vec<Property<'a>>,
    matches: impl Fn(&Property<'_>) -> bool,
    new: Property<'a>,
) -> Vec<Property<'a>> {
    let place = all.iter().position(&matches);
    let mut made: Vec<_> = all.into_iter().filter(|one| !matches(one)).collect();
    made.insert(place.unwrap_or(made.len()).min(made.len()), new);
    made
}

/// How often the publish hook ran, by the number of the message.
pub(crate) type Runs = Rc<RefCell<HashMap<u32, u32>>>;

pub(crate) struct PlannedHooks {
    pub plan: Plan,
    pub runs: Runs,
    /// Connected clients, by their events.
    connected_count: i64,
}

impl PlannedHooks {
    pub(crate) fn new(plan: Plan, runs: Runs) -> PlannedHooks {
        PlannedHooks { plan, runs, connected_count: 0 }
    }
}

impl Hooks for PlannedHooks {
    fn hooks(&self) -> HookSet {
        HookSet::PUBLISH
            | HookSet::AUTHORIZE_PUBLISH
            | HookSet::DELIVER
            | HookSet::EVENTS
            | HookSet::DROPS
            | HookSet::TICK
    }

    fn publish(&mut self, client: &ClientView<'_>, message: &mut MessageEdit<'_>) -> Verdict {
        assert!(!client.client_id.is_empty() && client.version.is_some());
        let Some(id) = number_of(message.payload()) else { return Verdict::Allow };
        *self.runs.borrow_mut().entry(id).or_default() += 1;
        let change = self.plan.change(id, message.topic(), message.payload().len());
        if let Some(topic) = &change.topic {
            message.set_topic(topic).expect("a good topic");
        }
        if let Some(size) = change.payload_size {
            message.set_payload(&payload_of(id, size)).expect("there is room");
        }
        if let Some(qos) = change.qos {
            message.set_qos(qos);
        }
        if let Some(retain) = change.retain {
            message.set_retain(retain);
        }
        if change.expiry_s.is_some() {
            message.set_message_expiry_s(change.expiry_s);
        }
        let value = format!("{id:x}");
        match change.properties {
            Properties::Unchanged => {}
            Properties::Added => message.add_user_property("hook", &value).expect("there is room"),
            Properties::Replaced => {
                message.replace_user_property("n", &value).expect("there is room")
            }
            Properties::Removed => {
                message.remove_user_property("n");
            }
            Properties::Typed => {
                message.set_content_type(Some(&value)).expect("there is room");
            }
        }
        // Half of what is denied is denied when all changes are made.
        match change.is_denied && id.is_multiple_of(2) {
            true => Verdict::Deny(ReasonCode::QuotaExceeded),
            false => Verdict::Allow,
        }
    }

    fn authorize_publish(&mut self, _: &ClientView<'_>, message: &MessageView<'_>) -> Verdict {
        let id = number_of(message.payload);
        // Whether a message is denied does not follow from its topic or size.
        let is_denied = id.is_some_and(|id| self.plan.change(id, "", 0).is_denied);
        match is_denied {
            true => Verdict::Deny(ReasonCode::QuotaExceeded),
            false => Verdict::Allow,
        }
    }

    fn deliver(&mut self, receiver: &ClientView<'_>, message: &MessageView<'_>) -> bool {
        number_of(message.payload).is_none_or(|id| !self.plan.skips(receiver.client_id, id))
    }

    fn event(&mut self, event: &HookEvent<'_>) {
        match event {
            HookEvent::Connected { .. } => self.connected_count += 1,
            HookEvent::Disconnected { .. } => self.connected_count -= 1,
            _ => {}
        }
        assert!(self.connected_count >= 0, "more clients left than came");
    }
}
