//! Hooks that a test writes as closures.

use ringmq::codec::{QoS, ReasonCode};
use ringmq::plugin::{
    ClientView, ConnectView, HookEvent, HookSet, Hooks, MessageEdit, MessageView, QuestionId,
    Resumed, SessionLimits, Verdict,
};
use std::cell::RefCell;
use std::rc::Rc;

/// What the hooks of all shards were called with, as lines.
pub(crate) type Log = Rc<RefCell<Vec<String>>>;

type OnConnect =
    fn(&ClientView<'_>, &ConnectView<'_>, &mut SessionLimits) -> Result<(), ReasonCode>;
/// Which CONNECTs are answered later.
type OnLater = fn(&ClientView<'_>) -> bool;
type OnSubscribe = fn(&ClientView<'_>, &str, &mut QoS) -> Result<(), ReasonCode>;
type OnPublish = fn(&ClientView<'_>, &mut MessageEdit<'_>) -> Result<(), ReasonCode>;
type OnAuthorize = fn(&ClientView<'_>, &MessageView<'_>) -> Result<(), ReasonCode>;
type OnDeliver = fn(&ClientView<'_>, &MessageView<'_>) -> bool;

#[derive(Clone, Default)]
pub(crate) struct Scripted {
    pub connect: Option<OnConnect>,
    pub later: Option<OnLater>,
    /// What was asked: by client, the shard and the number.
    pub questions: Rc<RefCell<Vec<(String, usize, QuestionId)>>>,
    pub subscribe: Option<OnSubscribe>,
    pub publish: Option<OnPublish>,
    pub authorize: Option<OnAuthorize>,
    pub deliver: Option<OnDeliver>,
    /// Beside those that are written.
    pub more: HookSet,
    pub says_pauses: bool,
    pub log: Log,
}

impl Scripted {
    fn say(&self, line: String) {
        self.log.borrow_mut().push(line);
    }
}

fn verdict(result: Result<(), ReasonCode>) -> Verdict {
    result.map_or_else(Verdict::Deny, |()| Verdict::Allow)
}

impl Hooks for Scripted {
    fn hooks(&self) -> HookSet {
        let written = [
            (self.connect.is_some() || self.later.is_some(), HookSet::CONNECT),
            (self.subscribe.is_some(), HookSet::SUBSCRIBE),
            (self.publish.is_some(), HookSet::PUBLISH),
            (self.authorize.is_some(), HookSet::AUTHORIZE_PUBLISH),
            (self.deliver.is_some(), HookSet::DELIVER),
        ];
        written.into_iter().filter(|(is, _)| *is).fold(self.more, |set, (_, one)| set | one)
    }

    fn connect(
        &mut self,
        client: &ClientView<'_>,
        connect: &ConnectView<'_>,
        limits: &mut SessionLimits,
    ) -> Verdict {
        match connect.resumed {
            Some(Resumed { denied: Some(reason), .. }) => return Verdict::Deny(reason),
            Some(Resumed { place, .. }) => {
                assert_eq!(place, self.asked());
                self.say(format!("resumed {}", client.client_id));
                return Verdict::Allow;
            }
            None => self.say(format!("connect {}", client.client_id)),
        }
        if self.later.is_some_and(|later| later(client)) {
            if let Some(question) = connect.question {
                let asked = (client.client_id.to_owned(), usize::from(client.shard), question);
                self.questions.borrow_mut().push(asked);
            }
            return Verdict::Later;
        }
        self.connect.map_or(Verdict::Allow, |hook| verdict(hook(client, connect, limits)))
    }

    fn asked(&self) -> u16 {
        3
    }

    fn authorize_subscribe(
        &mut self,
        client: &ClientView<'_>,
        filter: &str,
        qos: &mut QoS,
    ) -> Verdict {
        self.say(format!("subscribe {} {filter}", client.client_id));
        verdict(self.subscribe.expect("not asked for")(client, filter, qos))
    }

    fn unsubscribed(&mut self, client: &ClientView<'_>, filter: &str) {
        assert!(self.more.contains(HookSet::UNSUBSCRIBE));
        self.say(format!("unsubscribed {} {filter}", client.client_id));
    }

    fn publish(&mut self, client: &ClientView<'_>, message: &mut MessageEdit<'_>) -> Verdict {
        self.say(format!("publish {} {}", client.client_id, message.topic()));
        verdict(self.publish.expect("not asked for")(client, message))
    }

    fn repeated(&mut self, count: u64) {
        self.say(format!("{count} more"));
    }

    fn pause(&mut self) {
        if self.says_pauses {
            self.say("pause".into());
        }
    }

    fn authorize_publish(&mut self, client: &ClientView<'_>, message: &MessageView<'_>) -> Verdict {
        self.say(format!("authorize {} {}", client.client_id, message.topic));
        verdict(self.authorize.expect("not asked for")(client, message))
    }

    fn deliver(&mut self, receiver: &ClientView<'_>, message: &MessageView<'_>) -> bool {
        self.deliver.expect("not asked for")(receiver, message)
    }

    fn event(&mut self, event: &HookEvent<'_>) {
        let (line, set) = match event {
            HookEvent::Connected { client, is_resumed } => {
                (format!("connected {} {is_resumed}", client.client_id), HookSet::EVENTS)
            }
            HookEvent::Disconnected { client, why } => {
                (format!("disconnected {}: {why}", client.client_id), HookSet::EVENTS)
            }
            HookEvent::TakenOver { client } => {
                (format!("taken over {}", client.client_id), HookSet::EVENTS)
            }
            HookEvent::SessionEnded { client } => {
                (format!("ended {}", client.client_id), HookSet::EVENTS)
            }
            HookEvent::Dropped { client_id, topic, why } => {
                (format!("dropped {} {topic} {why}", client_id.unwrap_or("-")), HookSet::DROPS)
            }
        };
        assert!(self.more.contains(set), "{line} was not asked for");
        self.say(line);
    }

    fn tick(&mut self) {
        assert!(self.more.contains(HookSet::TICK));
        self.say("tick".into());
    }
}
