//! The chain with plugins that follow the test's orders: order, denial, failures, panics, time.

use std::cell::RefCell;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use super::*;
use crate::codec::user_property_size;
use crate::limits::Limits;
use crate::plugin::EditBuffers;
use crate::plugins::PluginFactory;
use crate::session::DropReason;

/// What a test's plugin does in each of its hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Allow,
    Deny,
    Later,
    Fail,
    Panic,
    Sleep(u64),
}

struct Scripted {
    name: &'static str,
    deed: Deed,
    hooks: HookSet,
}

struct Actor {
    name: &'static str,
    deed: Deed,
    hooks: HookSet,
}

thread_local! {
    /// The calls of a test, in their order.
    static CALLS: Rc<RefCell<Vec<&'static str>>> = Rc::default();
}

impl PluginFactory for Scripted {
    fn name(&self) -> &str {
        self.name
    }

    fn make(&self, _shard: u16) -> Result<Box<dyn Plugin>, PluginError> {
        Ok(Box::new(Actor { name: self.name, deed: self.deed, hooks: self.hooks }))
    }
}

impl Actor {
    fn act(&self) -> Result<Verdict, PluginError> {
        CALLS.with(|calls| calls.borrow_mut().push(self.name));
        match self.deed {
            Deed::Allow => Ok(Verdict::Allow),
            Deed::Deny => Ok(Verdict::Deny(ReasonCode::QuotaExceeded)),
            Deed::Later => Ok(Verdict::Later),
            Deed::Fail => Err(PluginError::new("it has no time")),
            Deed::Panic => panic!("it is upset"),
            Deed::Sleep(ms) => {
                thread::sleep(Duration::from_millis(ms));
                Ok(Verdict::Allow)
            }
        }
    }
}

impl Plugin for Actor {
    fn hooks(&self) -> HookSet {
        self.hooks
    }

    fn connect(
        &mut self,
        _: &ClientView<'_>,
        _: &ConnectView<'_>,
        limits: &mut SessionLimits,
    ) -> Result<Verdict, PluginError> {
        limits.inflight_max = Some(self.name.len() as u16);
        self.act()
    }

    fn authorize_subscribe(
        &mut self,
        _: &ClientView<'_>,
        _: &str,
        qos: &mut QoS,
    ) -> Result<Verdict, PluginError> {
        *qos = if self.name == "raises" { QoS::ExactlyOnce } else { QoS::AtMostOnce };
        self.act()
    }

    fn unsubscribed(&mut self, _: &ClientView<'_>, _: &str) -> Result<(), PluginError> {
        self.act().map(|_| ())
    }

    fn publish(
        &mut self,
        _: &ClientView<'_>,
        message: &mut MessageEdit<'_>,
    ) -> Result<Verdict, PluginError> {
        message.add_user_property("by", self.name)?;
        if message.topic() == "pledged" {
            if self.name == "pledges" {
                message.pledge();
            }
            return self.act();
        }
        message.set_topic(&format!("{}/{}", message.topic(), self.name))?;
        self.act()
    }

    fn authorize_publish(
        &mut self,
        _: &ClientView<'_>,
        _: &MessageView<'_>,
    ) -> Result<Verdict, PluginError> {
        self.act()
    }

    fn deliver(&mut self, _: &ClientView<'_>, _: &MessageView<'_>) -> Result<bool, PluginError> {
        self.act().map(|verdict| !verdict.is_denied())
    }

    fn event(&mut self, _: &HookEvent<'_>) -> Result<(), PluginError> {
        self.act().map(|_| ())
    }

    fn tick(&mut self) -> Result<(), PluginError> {
        self.act().map(|_| ())
    }
}

fn chain(plugins: &[(&'static str, Deed, HookSet)], on_error: OnError) -> Chain {
    CALLS.with(|calls| calls.borrow_mut().clear());
    let installed: Vec<_> = plugins
        .iter()
        .map(|&(name, deed, hooks)| {
            let installed = Installed::new(Scripted { name, deed, hooks });
            Installed { on_error, ..installed }
        })
        .collect();
    Chain::new(&installed, 0, &Arc::default()).unwrap()
}

fn calls() -> Vec<&'static str> {
    CALLS.with(|calls| calls.borrow().clone())
}

/// The result of a message to `t`: the verdict, the topic, and the plugins that have added a property.
fn publish(chain: &mut Chain) -> (Verdict, String, Vec<String>) {
    let original = MessageView { topic: "t", ..MessageView::default() };
    let (limits, mut buffers) = (Limits::default(), EditBuffers::default());
    let mut message = MessageEdit::new(original, &mut buffers, &limits);
    let verdict = chain.publish(&ClientView::default(), &mut message);
    let by = message.user_properties().map(|(_, by)| by.to_owned()).collect();
    (verdict, message.topic().to_owned(), by)
}

fn figures(chain: &Chain, plugin: &str, hook: &str) -> HookFigures {
    let found = chain.figures().into_iter().find(|f| &*f.plugin == plugin && f.hook == hook);
    found.expect("the plugin has the hook")
}

const PASS: OnError = OnError::Pass;
const DENIED: Verdict = Verdict::Deny(ReasonCode::QuotaExceeded);

#[test]
fn plugins_are_called_in_their_order_until_one_denies() {
    let all = HookSet::ALL;
    let mut chain = chain(
        &[("a", Deed::Allow, all), ("b", Deed::Deny, all), ("c", Deed::Allow, all)],
        OnError::Deny,
    );
    assert_eq!(chain.hooks(), all);
    assert_eq!(publish(&mut chain), (DENIED, "t/a/b".to_owned(), vec!["a".into(), "b".into()]));
    let (client, message) = (ClientView::default(), MessageView::default());
    let mut limits = SessionLimits::default();
    assert_eq!(chain.connect(&client, &ConnectView::default(), &mut limits), DENIED);
    assert_eq!(chain.authorize_subscribe(&client, "f", &mut QoS::AtLeastOnce), DENIED);
    assert_eq!(chain.authorize_publish(&client, &message), DENIED);
    assert!(!chain.deliver(&client, &message));
    assert_eq!(calls(), ["a", "b"].repeat(5));
    // A hook that only hears of something cannot deny.
    chain.unsubscribed(&client, "f");
    chain.tick();
    assert_eq!(calls()[10..], ["a", "b", "c", "a", "b", "c"]);
    assert_eq!(figures(&chain, "b", "publish").denials, 1);
    assert_eq!(figures(&chain, "c", "publish").calls, 0);
    assert_eq!(figures(&chain, "c", "tick").calls, 1);
}

#[test]
fn a_connect_that_is_answered_later_goes_on_behind_the_plugin_that_was_asked() {
    let all = HookSet::ALL;
    let plugins = [
        ("a", Deed::Allow, all),
        ("bb", Deed::Later, all),
        ("ccc", Deed::Later, all),
        ("d", Deed::Allow, all),
    ];
    let mut chain = chain(&plugins, OnError::Pass);
    let mut connect = ConnectView::default();
    let mut ask = |chain: &mut Chain, resumed| {
        connect.resumed = resumed;
        let mut limits = SessionLimits::default();
        let verdict = chain.connect(&ClientView::default(), &connect, &mut limits);
        (verdict, chain.asked(), limits.inflight_max)
    };
    let yes = |place| Some(Resumed { place, denied: None });
    assert_eq!(ask(&mut chain, None), (Verdict::Later, 1, Some(2)));
    assert_eq!(ask(&mut chain, yes(1)), (Verdict::Later, 2, Some(3)));
    assert_eq!(ask(&mut chain, yes(2)), (Verdict::Allow, 2, Some(1)));
    assert_eq!(ask(&mut chain, yes(3)).0, Verdict::Allow, "nobody is left to be asked");
    assert_eq!(calls(), ["a", "bb", "ccc", "d"]);
    let no = Resumed { place: 1, denied: Some(ReasonCode::QuotaExceeded) };
    assert_eq!(ask(&mut chain, Some(no)).0, DENIED);
    assert_eq!((chain.denier(), figures(&chain, "bb", "connect").denials), (Some("bb"), 1));
    assert_eq!(calls().len(), 4);
    // Where nobody can wait it is a refusal, however failures are handled.
    assert_eq!(publish(&mut chain).0, FAILED);
    let client = ClientView::default();
    assert_eq!(chain.authorize_subscribe(&client, "f", &mut QoS::AtLeastOnce), FAILED);
}

#[test]
fn a_chain_pledges_if_all_its_plugins_do_and_counts_the_messages_that_passed() {
    let publish = |plugins: &[(&'static str, Deed, HookSet)], on_error| {
        let mut chain = chain(plugins, on_error);
        let original = MessageView { topic: "pledged", ..MessageView::default() };
        let (limits, mut buffers) = (Limits::default(), EditBuffers::default());
        let mut message = MessageEdit::new(original, &mut buffers, &limits);
        chain.publish(&ClientView::default(), &mut message);
        (message.pledged(), chain)
    };
    let (all, size) = (HookSet::ALL, user_property_size("by", "pledges"));
    let pledges = ("pledges", Deed::Allow, all);
    let (pledged, mut chain) =
        publish(&[pledges, ("b", Deed::Allow, HookSet::TICK), pledges], PASS);
    assert_eq!(pledged, Some(2 * size), "who has no publish hook has no say");
    chain.repeated(7);
    assert_eq!(figures(&chain, "pledges", "publish").calls, 8);
    assert_eq!(figures(&chain, "b", "tick").calls, 0);
    let others =
        [("b", Deed::Allow, all), ("pledges", Deed::Fail, all), ("pledges", Deed::Panic, all)];
    for other in others {
        assert_eq!(publish(&[pledges, other], PASS).0, None, "{other:?}");
        assert_eq!(publish(&[other, pledges], PASS).0, None, "{other:?}");
    }
}

#[test]
fn a_hook_is_called_on_those_who_have_it() {
    let some = HookSet::PUBLISH.union(HookSet::TICK);
    let mut chain =
        chain(&[("a", Deed::Allow, some), ("b", Deed::Deny, HookSet::EVENTS)], OnError::Deny);
    assert_eq!(chain.hooks(), some.union(HookSet::EVENTS));
    assert_eq!(publish(&mut chain).0, Verdict::Allow);
    let client = ClientView::default();
    chain.event(&HookEvent::TakenOver { client });
    chain.event(&HookEvent::Dropped { client_id: None, topic: "t", why: DropReason::Expired });
    assert_eq!(calls(), ["a", "b"]);
}

#[test]
fn a_failure_denies_or_is_as_if_the_plugin_were_not_there() {
    for deed in [Deed::Fail, Deed::Panic] {
        let plugins = [
            ("a", Deed::Allow, HookSet::ALL),
            ("bad", deed, HookSet::ALL),
            ("c", Deed::Allow, HookSet::ALL),
        ];
        let mut denying = chain(&plugins, OnError::Deny);
        assert_eq!(publish(&mut denying).0, FAILED);
        assert_eq!(calls(), ["a", "bad"]);
        let (client, message) = (ClientView::default(), MessageView::default());
        let mut limits = SessionLimits::default();
        assert_eq!(denying.connect(&client, &ConnectView::default(), &mut limits), FAILED);
        assert_eq!(limits.inflight_max, Some(1), "what the one before has set");
        assert!(!denying.deliver(&client, &message));

        let mut passing = chain(&plugins, OnError::Pass);
        let (verdict, topic, by) = publish(&mut passing);
        assert_eq!((verdict, topic.as_str()), (Verdict::Allow, "t/a/c"));
        assert_eq!(by, ["a", "c"]);
        assert_eq!(calls(), ["a", "bad", "c"]);
        assert!(passing.deliver(&client, &message));
        passing.tick();
        let figures = figures(&passing, "bad", "publish");
        let is_panic = u64::from(deed == Deed::Panic);
        assert_eq!((figures.calls, figures.errors, figures.panics), (1, 1 - is_panic, is_panic));
        assert_eq!(figures.denials, 0);
    }
}

#[test]
fn a_granted_qos_is_lowered_only() {
    let mut qos = QoS::AtLeastOnce;
    let client = ClientView::default();
    let mut raising = chain(&[("raises", Deed::Allow, HookSet::ALL)], OnError::Pass);
    assert_eq!(raising.authorize_subscribe(&client, "f", &mut qos), Verdict::Allow);
    assert_eq!(qos, QoS::AtLeastOnce);
    let mut failing = chain(&[("lowers", Deed::Fail, HookSet::ALL)], OnError::Pass);
    assert_eq!(failing.authorize_subscribe(&client, "f", &mut qos), Verdict::Allow);
    assert_eq!(qos, QoS::AtLeastOnce);
    let mut lowering = chain(&[("lowers", Deed::Allow, HookSet::ALL)], OnError::Pass);
    assert_eq!(lowering.authorize_subscribe(&client, "f", &mut qos), Verdict::Allow);
    assert_eq!(qos, QoS::AtMostOnce);
}

#[test]
fn a_slow_call_is_counted_whether_it_was_timed_or_not() {
    let sleep = Deed::Sleep(40);
    let mut chain = chain(
        &[("quick", Deed::Allow, HookSet::ALL), ("slow", sleep, HookSet::ALL)],
        OnError::Deny,
    );
    for _ in 0..3 {
        assert_eq!(publish(&mut chain).0, Verdict::Allow);
    }
    let slow = figures(&chain, "slow", "publish");
    assert_eq!((slow.calls, slow.slow), (3, 3));
    assert!(slow.timed == 1 && slow.mean_ns() >= 40_000_000, "{slow:?}");
    assert!(slow.longest_ns >= 40_000_000 && slow.longest_ns < 10_000_000_000, "{slow:?}");
    let quick = figures(&chain, "quick", "publish");
    assert_eq!((quick.calls, quick.timed), (3, 1));
    chain.tick();
    assert_eq!(figures(&chain, "slow", "tick").slow, 1);
}

#[test]
fn what_passes_between_two_calls_is_no_hooks_time_once_it_was_told() {
    let mut chain = chain(&[("quick", Deed::Allow, HookSet::ALL)], OnError::Deny);
    let (client, message) = (ClientView::default(), MessageView::default());
    for _ in 0..2 {
        assert_eq!(publish(&mut chain).0, Verdict::Allow);
        assert_eq!(chain.authorize_publish(&client, &message), Verdict::Allow);
        chain.pause();
        thread::sleep(Duration::from_millis(40));
    }
    thread::sleep(Duration::from_millis(40));
    // Deliver hooks are timed alone.
    assert!(chain.deliver(&client, &message));
    for hook in ["publish", "authorize_publish", "deliver"] {
        assert_eq!(figures(&chain, "quick", hook).slow, 0, "{hook}");
    }
}

#[test]
fn a_plugin_that_cannot_begin_is_a_sentence() {
    struct Broken(bool);
    impl PluginFactory for Broken {
        fn name(&self) -> &str {
            "broken"
        }

        fn make(&self, shard: u16) -> Result<Box<dyn Plugin>, PluginError> {
            assert!(self.0, "no table");
            Err(PluginError::new(format!("no table on shard {shard}")))
        }
    }
    let error = Chain::new(&[Installed::new(Broken(true))], 4, &Arc::default()).err().unwrap();
    assert_eq!(error.to_string(), "plugin 'broken': no table on shard 4");
    let error = Chain::new(&[Installed::new(Broken(false))], 4, &Arc::default()).err().unwrap();
    assert!(error.to_string().starts_with("plugin 'broken' panics at its start: no table (at"));
}

#[test]
fn a_panic_at_a_plugins_end_is_contained() {
    struct Bad;
    impl Plugin for Bad {
        fn hooks(&self) -> HookSet {
            HookSet::TICK
        }
    }
    impl Drop for Bad {
        fn drop(&mut self) {
            CALLS.with(|calls| calls.borrow_mut().push("dropped"));
            panic!("it does not want to go");
        }
    }
    struct Factory;
    impl PluginFactory for Factory {
        fn name(&self) -> &str {
            "bad"
        }

        fn make(&self, _shard: u16) -> Result<Box<dyn Plugin>, PluginError> {
            Ok(Box::new(Bad))
        }
    }
    drop(Chain::new(&[Installed::new(Factory)], 0, &Arc::default()).unwrap());
    assert_eq!(calls(), ["dropped"]);
}

#[test]
fn a_call_that_goes_on_can_be_seen_from_outside() {
    struct Looking(Arc<Presence>);
    impl PluginFactory for Looking {
        fn name(&self) -> &str {
            "looking"
        }

        fn make(&self, _shard: u16) -> Result<Box<dyn Plugin>, PluginError> {
            Ok(Box::new(Looking(self.0.clone())))
        }
    }
    impl Plugin for Looking {
        fn hooks(&self) -> HookSet {
            HookSet::TICK
        }

        fn tick(&mut self) -> Result<(), PluginError> {
            let seen = self.0.look().expect("this call");
            assert_eq!((seen.plugin, seen.hook), ("looking", "tick"));
            Err(PluginError::new(seen.call.to_string()))
        }
    }
    let presence = Arc::<Presence>::default();
    let other = Installed::new(Scripted { name: "other", deed: Deed::Allow, hooks: HookSet::ALL });
    let installed = [other, Installed::new(Looking(presence.clone()))];
    let mut chain = Chain::new(&installed, 0, &presence).unwrap();
    for _ in 0..2 {
        chain.tick();
        assert_eq!(presence.look(), None);
    }
    let figures = figures(&chain, "looking", "tick");
    assert_eq!((figures.errors, figures.panics), (2, 0), "it has seen what it wanted");
}
