//! One instance of a plugin: turns the broker's calls into calls of the plugin's functions, and their results into
//! answers.

use std::ffi::c_void;
use std::net::{IpAddr, SocketAddr};
use std::ptr;
use std::sync::Arc;

use super::api::API;
use super::changes::{Changes, Room};
use super::handles::{Handles, INSTANCES_MAX};
use super::layout::{
    self, ABI_MAJOR, ABI_MINOR, Address, Api, Call, Client, Connect, Event, Hook, Message,
    PluginOption, PluginTable, Setup, Subscription, Undelivered, View,
};
use super::questions;
use super::refused::{Refused, reply};
use super::running::{self, Running, Shown, Subject};
use crate::codec::{ProtocolVersion, QoS};
use crate::plugin::{
    ClientView, ConnectView, HookEvent, HookSet, MessageEdit, MessageView, SessionLimits, Verdict,
};
use crate::plugins::plugin::{Answers, Plugin, PluginError};

/// An instance is made, called and dropped on its shard's thread.
pub(super) struct Instance {
    name: Arc<str>,
    table: PluginTable,
    /// The plugin's own pointer; the broker never follows it.
    state: *mut c_void,
    handles: Handles,
    changes: Changes,
    /// There is a way for its answers.
    can_answer_later: bool,
}

type Result<T> = std::result::Result<T, PluginError>;

impl Instance {
    /// Lets the plugin make an instance. The functions of `table` stay where they are for as long as the process runs.
    pub(super) fn make(
        name: &Arc<str>,
        table: &PluginTable,
        options: &[(String, String)],
        shard: u16,
    ) -> Result<Instance> {
        let handles = Handles::new(name, shard).ok_or_else(|| {
            PluginError::new(format!("there are {INSTANCES_MAX} instances of plugins already"))
        })?;
        let mut instance = Instance {
            name: name.clone(),
            // There is nothing to destroy yet.
            table: PluginTable { destroy: None, ..*table },
            state: ptr::null_mut(),
            handles,
            changes: Changes::default(),
            can_answer_later: false,
        };
        if let Some(create) = table.create {
            instance.create(create, options, shard)?;
        }
        instance.table.destroy = table.destroy;
        Ok(instance)
    }

    fn create(&mut self, create: Create, options: &[(String, String)], shard: u16) -> Result<()> {
        let name = self.name.clone();
        let view = |text: &str| View::of(text.as_bytes());
        let options: Vec<_> = options
            .iter()
            .map(|(name, value)| PluginOption { name: view(name), value: view(value) })
            .collect();
        let setup = Setup {
            size: size_of::<Setup>() as u32,
            abi_major: ABI_MAJOR,
            abi_minor: ABI_MINOR,
            shard,
            reserved: 0,
            option_count: options.len() as u32,
            options: options.as_ptr(),
            plugin_name: view(&name),
            broker_version: view(env!("CARGO_PKG_VERSION")),
        };
        let mut state = ptr::null_mut();
        let code = self.call(Subject::Nothing, |_, api, call| {
            // SAFETY: needed to call into C. Sound because the table's functions have the types of the header, which the
            // version handshake has checked, and never go away; everything handed in outlives the call.
            unsafe { create(api, call, &setup, &mut state) }
        })?;
        self.state = state;
        self.expect_done(code)
    }

    /// Runs one hook; a result below 0 is an error, with what the plugin explained.
    fn call(
        &mut self,
        subject: Subject<'_>,
        hook: impl FnOnce(*mut c_void, *const Api, Call) -> i32,
    ) -> Result<i32> {
        let state = self.state;
        let mut running = Running::new(&self.name, subject, &mut self.changes);
        let code = running::enter(&mut running, &mut self.handles, |call| hook(state, &API, call));
        match running.explanation.take() {
            _ if code >= 0 => Ok(code),
            Some(explanation) => Err(PluginError::new(explanation)),
            None => {
                Err(PluginError::new(format!("it returned {} ({code})", Refused::name_of(code))))
            }
        }
    }

    /// Runs a hook that gets a client and one more argument.
    fn call_with<T>(
        &mut self,
        hook: Hook<T>,
        subject: Subject<'_>,
        client: &ClientView<'_>,
        what: &T,
    ) -> Result<i32> {
        let client = Client::of(client);
        self.call(subject, |state, api, call| {
            // SAFETY: as in `create`. `state` is what the plugin's `create` has set.
            unsafe { hook(state, api, call, &client, what) }
        })
    }

    fn expect_done(&self, code: i32) -> Result<()> {
        if code == layout::OK { Ok(()) } else { Err(meaningless(code)) }
    }
}

type Create = unsafe extern "C-unwind" fn(*const Api, Call, *const Setup, *mut *mut c_void) -> i32;

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(destroy) = self.table.destroy {
            // SAFETY: as in `create`; it is the last call with this state.
            unsafe { destroy(self.state) }
        }
        if self.can_answer_later {
            questions::set(self.handles.number(), None);
        }
    }
}

impl Plugin for Instance {
    fn hooks(&self) -> HookSet {
        hooks_of(&self.table)
    }

    fn set_answers(&mut self, answers: Answers) {
        questions::set(self.handles.number(), Some(answers));
        self.can_answer_later = true;
    }

    fn connect(
        &mut self,
        client: &ClientView<'_>,
        connect: &ConnectView<'_>,
        limits: &mut SessionLimits,
    ) -> Result<Verdict> {
        let Some(hook) = self.table.connect else { return Ok(Verdict::Allow) };
        let instance = self.handles.number();
        let question = connect.question.filter(|_| self.can_answer_later);
        let question = question.map(|question| questions::number_of(instance, question));
        let subject = Subject::Connect(connect.user_properties, question);
        let verdict = match self.call_with(hook, subject, client, &Connect::of(connect))? {
            layout::LATER => Verdict::Later,
            code => verdict(code)?,
        };
        if !verdict.is_denied() {
            // What a plugin has set wins over what plugins before it have set.
            *limits = self.changes.session.or(*limits);
        }
        Ok(verdict)
    }

    fn authorize_subscribe(
        &mut self,
        client: &ClientView<'_>,
        filter: &str,
        qos: &mut QoS,
    ) -> Result<Verdict> {
        let Some(hook) = self.table.authorize_subscribe else { return Ok(Verdict::Allow) };
        let subscription = Subscription {
            size: size_of::<Subscription>() as u32,
            qos: *qos as u8,
            reserved: [0; 3],
            filter: View::of(filter.as_bytes()),
        };
        let subject = Subject::Subscribe { asked: *qos };
        let verdict = verdict(self.call_with(hook, subject, client, &subscription)?)?;
        if let (Verdict::Allow, Some(granted)) = (verdict, self.changes.qos()) {
            *qos = granted;
        }
        Ok(verdict)
    }

    fn unsubscribed(&mut self, client: &ClientView<'_>, filter: &str) -> Result<()> {
        let Some(hook) = self.table.unsubscribed else { return Ok(()) };
        let client = Client::of(client);
        let code = self.call(Subject::Nothing, |state, api, call| {
            // SAFETY: as in `call_with`.
            unsafe { hook(state, api, call, &client, View::of(filter.as_bytes())) }
        })?;
        self.expect_done(code)
    }

    fn publish(
        &mut self,
        client: &ClientView<'_>,
        message: &mut MessageEdit<'_>,
    ) -> Result<Verdict> {
        let Some(hook) = self.table.publish else { return Ok(Verdict::Allow) };
        let shown = Shown::of_edit(message);
        let room = Room {
            topic_size: shown.topic.len(),
            properties_size: shown.properties_size(),
            payload_size: shown.payload.len(),
            size_max: message.size_max(),
            weight_max: message.limits().packet_size_max.max(CHANGES_WEIGHT_MIN),
        };
        let subject = Subject::Change(shown, room, message.limits());
        let verdict = verdict(self.call_with(hook, subject, client, &Message::of(&shown))?)?;
        if verdict == Verdict::Allow {
            self.changes.apply(message).map_err(|error| {
                PluginError::new(format!("what it made of the message was refused: {error}"))
            })?;
        }
        Ok(verdict)
    }

    fn authorize_publish(
        &mut self,
        client: &ClientView<'_>,
        message: &MessageView<'_>,
    ) -> Result<Verdict> {
        let Some(hook) = self.table.authorize_publish else { return Ok(Verdict::Allow) };
        let shown = Shown::of_view(message);
        verdict(self.call_with(hook, Subject::Message(shown), client, &Message::of(&shown))?)
    }

    fn deliver(&mut self, receiver: &ClientView<'_>, message: &MessageView<'_>) -> Result<bool> {
        let Some(hook) = self.table.deliver else { return Ok(true) };
        let shown = Shown::of_view(message);
        match self.call_with(hook, Subject::Message(shown), receiver, &Message::of(&shown))? {
            layout::ALLOW => Ok(true),
            layout::SKIP => Ok(false),
            code => Err(meaningless(code)),
        }
    }

    fn event(&mut self, event: &HookEvent<'_>) -> Result<()> {
        let (client, kind, is_resumed, why) = match event {
            HookEvent::Connected { client, is_resumed } => {
                (client, layout::EVENT_CONNECTED, *is_resumed, None)
            }
            HookEvent::Disconnected { client, why } => {
                (client, layout::EVENT_DISCONNECTED, false, Some(*why))
            }
            HookEvent::TakenOver { client } => (client, layout::EVENT_TAKEN_OVER, false, None),
            HookEvent::SessionEnded { client } => {
                (client, layout::EVENT_SESSION_ENDED, false, None)
            }
            HookEvent::Dropped { client_id, topic, why } => {
                return self.dropped(*client_id, topic, why.name());
            }
        };
        let Some(hook) = self.table.event else { return Ok(()) };
        let event = Event {
            size: size_of::<Event>() as u32,
            kind,
            is_resumed: is_resumed.into(),
            reserved: [0; 7],
            why: View::of_text(why),
        };
        let code = self.call_with(hook, Subject::Nothing, client, &event)?;
        self.expect_done(code)
    }

    fn tick(&mut self) -> Result<()> {
        let Some(hook) = self.table.tick else { return Ok(()) };
        let code = self.call(Subject::Nothing, |state, api, call| {
            // SAFETY: as in `call_with`.
            unsafe { hook(state, api, call) }
        })?;
        self.expect_done(code)
    }
}

impl Instance {
    fn dropped(&mut self, client_id: Option<&str>, topic: &str, why: &str) -> Result<()> {
        let Some(hook) = self.table.dropped else { return Ok(()) };
        let undelivered = Undelivered {
            size: size_of::<Undelivered>() as u32,
            reserved: 0,
            client_id: View::of_text(client_id),
            topic: View::of(topic.as_bytes()),
            why: View::of(why.as_bytes()),
        };
        let code = self.call(Subject::Nothing, |state, api, call| {
            // SAFETY: as in `call_with`.
            unsafe { hook(state, api, call, &undelivered) }
        })?;
        self.expect_done(code)
    }
}

/// The weight that all changes of one call may have in any case, however small the largest packet is, bytes.
const CHANGES_WEIGHT_MIN: usize = 64 << 10;

/// The hooks that a table has.
pub(super) fn hooks_of(table: &PluginTable) -> HookSet {
    let has = [
        (table.connect.is_some(), HookSet::CONNECT),
        (table.authorize_subscribe.is_some(), HookSet::SUBSCRIBE),
        (table.authorize_publish.is_some(), HookSet::AUTHORIZE_PUBLISH),
        (table.publish.is_some(), HookSet::PUBLISH),
        (table.deliver.is_some(), HookSet::DELIVER),
        (table.unsubscribed.is_some(), HookSet::UNSUBSCRIBE),
        (table.event.is_some(), HookSet::EVENTS),
        (table.dropped.is_some(), HookSet::DROPS),
        (table.tick.is_some(), HookSet::TICK),
    ];
    has.into_iter()
        .filter(|(has, _)| *has)
        .fold(HookSet::EMPTY, |hooks, (_, hook)| hooks.union(hook))
}

/// The verdict for the return value, 0 or above, of a hook that may deny.
fn verdict(code: i32) -> Result<Verdict> {
    match reply(code) {
        Some(Ok(())) => Ok(Verdict::Allow),
        Some(Err(reason)) => Ok(Verdict::Deny(reason)),
        None => Err(meaningless(code)),
    }
}

#[cold]
fn meaningless(code: i32) -> PluginError {
    PluginError::new(format!("it returned {code} (0x{code:X}), which means nothing here"))
}

impl View {
    fn of_text(text: Option<&str>) -> View {
        text.map_or(View::ABSENT, |text| View::of(text.as_bytes()))
    }
}

impl Client {
    fn of(client: &ClientView<'_>) -> Client {
        Client {
            size: size_of::<Client>() as u32,
            shard: client.shard,
            protocol: match client.version {
                None => 0,
                Some(ProtocolVersion::V31) => 3,
                Some(ProtocolVersion::V311) => 4,
                Some(ProtocolVersion::V5) => 5,
            },
            reserved: 0,
            client_id: View::of(client.client_id.as_bytes()),
            user_name: View::of_text(client.user_name),
            peer: Address::of(client.peer),
            listener: Address::of(client.listener),
        }
    }
}

impl Address {
    fn of(address: Option<SocketAddr>) -> Address {
        let mut ip = [0; 16];
        let family = match address.map(|address| address.ip()) {
            None => 0,
            Some(IpAddr::V4(v4)) => {
                ip[..4].copy_from_slice(&v4.octets());
                4
            }
            Some(IpAddr::V6(v6)) => {
                ip = v6.octets();
                6
            }
        };
        Address { ip, port: address.map_or(0, |address| address.port()), family, reserved: 0 }
    }
}

impl Connect {
    fn of(connect: &ConnectView<'_>) -> Connect {
        let will = connect.will.as_ref();
        Connect {
            size: size_of::<Connect>() as u32,
            session_expiry_s: connect.session_expiry_s.unwrap_or(0),
            keep_alive_s: connect.keep_alive_s,
            has_session_expiry: connect.session_expiry_s.is_some().into(),
            clean_start: connect.clean_start.into(),
            has_will: will.is_some().into(),
            will_qos: will.map_or(0, |will| will.qos as u8),
            will_retain: will.is_some_and(|will| will.retain).into(),
            reserved: 0,
            password: connect.password.map_or(View::ABSENT, View::of),
            will_topic: View::of_text(will.map(|will| will.topic)),
            will_payload: will.map_or(View::ABSENT, |will| View::of(will.payload)),
        }
    }
}

impl Message {
    fn of(shown: &Shown<'_>) -> Message {
        Message {
            size: size_of::<Message>() as u32,
            qos: shown.qos as u8,
            retain: shown.retain.into(),
            reserved: 0,
            topic: View::of(shown.topic.as_bytes()),
            payload: View::of(shown.payload),
        }
    }
}
