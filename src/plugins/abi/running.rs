//! The running call of a hook: a handle stands for it until the hook returns, and for nothing afterwards.
//!
//! A handle is a number that is compared, never a pointer that is followed. The call that runs on a thread is known to
//! that thread alone, so a handle that was kept, or taken to another thread, finds nothing.

use std::cell::Cell;
use std::iter::Chain;
use std::ptr::NonNull;

use super::changes::{Changes, Room};
use super::handles::{self, Handles};
use super::layout::Call;
use super::refused::Refused;
use crate::codec::{Property, PropertyIter, QoS, UserProperties};
use crate::limits::Limits;
use crate::plugin::{MessageEdit, MessageView};

/// The most bytes of a text for the log or the operator.
const EXPLANATION_SIZE_MAX: usize = 1024;

/// The arguments of a hook, as far as the functions need them.
#[derive(Clone, Copy)]
pub(super) enum Subject<'a> {
    /// The hooks create, unsubscribed, events and tick need none.
    Nothing,
    /// With the number of the question that may be answered later.
    Connect(UserProperties<'a>, Option<u64>),
    Subscribe {
        asked: QoS,
    },
    Message(Shown<'a>),
    /// A message that may be changed, within its room and the broker's limits.
    Change(Shown<'a>, Room, &'a Limits),
}

/// The message as it was when the hook began.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: QoS,
    pub retain: bool,
    pub message_expiry_s: Option<u32>,
    /// Encoded properties without message expiry, one behind the other.
    properties: (&'a [u8], &'a [u8]),
}

type Properties<'a> = Chain<PropertyIter<'a>, PropertyIter<'a>>;

/// One call of a hook while it runs.
pub(super) struct Running<'a> {
    pub plugin: &'a str,
    pub subject: Subject<'a>,
    pub changes: &'a mut Changes,
    /// The plugin's explanation of its failure.
    pub explanation: Option<String>,
    /// The index of the user property that `read_on` reads next.
    next_index: u32,
    read_on: Option<Properties<'a>>,
}

#[derive(Clone, Copy)]
struct Slot {
    token: u64,
    running: NonNull<Running<'static>>,
}

/// Ends the call, however it is left.
struct End(Option<Slot>);

thread_local! {
    /// The call in which this thread is.
    static RUNNING: Cell<Option<Slot>> = const { Cell::new(None) };
}

/// Runs `hook` with a handle that stands for `running` until the hook returns.
pub(super) fn enter<R>(
    running: &mut Running<'_>,
    handles: &mut Handles,
    hook: impl FnOnce(Call) -> R,
) -> R {
    let token = handles.next();
    let slot = Slot { token, running: NonNull::from(running).cast() };
    let _end = End(RUNNING.replace(Some(slot)));
    hook(Call { token })
}

/// Runs `act`, the work of a function of the table, if `call` is the handle of the call that runs on this thread.
pub(super) fn with(
    call: Call,
    act: impl FnOnce(&mut Running<'_>) -> Result<(), Refused>,
) -> Result<(), Refused> {
    match RUNNING.take() {
        Some(slot) if slot.token == call.token => {
            // SAFETY: needed because a C plugin cannot carry a Rust reference through its functions. Sound because
            // `enter` borrows `running` for as long as the slot is set, and resets the slot before it returns; slots are
            // of this thread; and the slot was taken, so no second reference can be made while this one is used. `act`
            // takes any lifetimes, so nothing of the invented 'static leaves it.
            let running = unsafe { &mut *slot.running.as_ptr() };
            let result = act(running);
            RUNNING.set(Some(slot));
            result
        }
        other => {
            RUNNING.set(other);
            handles::refuse(call.token);
            Err(Refused::Stale)
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        RUNNING.set(self.0.take());
    }
}

impl<'a> Running<'a> {
    pub(super) fn new(
        plugin: &'a str,
        subject: Subject<'a>,
        changes: &'a mut Changes,
    ) -> Running<'a> {
        changes.clear();
        Running { plugin, subject, changes, explanation: None, next_index: 0, read_on: None }
    }

    pub(super) fn message(&self) -> Result<&Shown<'a>, Refused> {
        match &self.subject {
            Subject::Message(shown) | Subject::Change(shown, ..) => Ok(shown),
            _ => Err(Refused::NotHere),
        }
    }

    pub(super) fn room(&self) -> Result<(Room, &'a Limits), Refused> {
        match self.subject {
            Subject::Change(_, room, limits) => Ok((room, limits)),
            _ => Err(Refused::NotHere),
        }
    }

    /// The user property of that number. Asking for the properties one after the other is fast.
    pub(super) fn user_property(&mut self, index: u32) -> Result<(&'a str, &'a str), Refused> {
        let fresh = match self.subject {
            Subject::Connect(properties, _) => {
                PropertyIter::new(properties.raw()).chain(PropertyIter::new(&[]))
            }
            Subject::Message(shown) | Subject::Change(shown, ..) => shown.properties(),
            _ => return Err(Refused::NotHere),
        };
        let (mut at, mut properties) = match self.read_on.take() {
            Some(read_on) if self.next_index <= index => (self.next_index, read_on),
            _ => (0, fresh),
        };
        loop {
            let found = properties.find_map(|property| match property {
                Property::UserProperty(name, value) => Some((name, value)),
                _ => None,
            });
            let Some(found) = found else { return Err(Refused::None) };
            if at == index {
                self.next_index = index.saturating_add(1);
                self.read_on = Some(properties);
                return Ok(found);
            }
            at += 1;
        }
    }

    pub(super) fn explain(&mut self, text: &[u8]) {
        self.explanation = Some(plain(text));
    }
}

impl<'a> Shown<'a> {
    pub(super) fn of_view(view: &MessageView<'a>) -> Shown<'a> {
        Shown {
            topic: view.topic,
            payload: view.payload,
            qos: view.qos,
            retain: view.retain,
            message_expiry_s: view.message_expiry_s,
            properties: (view.raw_properties, &[]),
        }
    }

    pub(super) fn of_edit(edit: &'a MessageEdit<'_>) -> Shown<'a> {
        Shown {
            topic: edit.topic(),
            payload: edit.payload(),
            qos: edit.qos(),
            retain: edit.retain(),
            message_expiry_s: edit.message_expiry_s(),
            properties: edit.property_parts(),
        }
    }

    pub(super) fn properties(&self) -> Properties<'a> {
        PropertyIter::new(self.properties.0).chain(PropertyIter::new(self.properties.1))
    }

    pub(super) fn properties_size(&self) -> usize {
        self.properties.0.len() + self.properties.1.len()
    }
}

/// A text for the log: bounded, and without control characters.
pub(super) fn plain(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(EXPLANATION_SIZE_MAX)]);
    text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}
