//! The plugin's call in which a shard is, for a thread that looks on: a plugin that never returns cannot tell.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::plugin::HookSet;

/// The call of one shard. The shard writes it before and after each call, with plain stores.
#[derive(Debug, Default)]
pub struct Presence {
    /// 0: no call. Else the call's number, plugin and hook, which no earlier call had.
    call: AtomicU64,
    /// The plugins of the chain.
    names: OnceLock<Vec<String>>,
}

/// A call that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupation<'a> {
    /// This number is the same as long as the call is.
    pub call: u64,
    pub plugin: &'a str,
    pub hook: &'static str,
}

/// Calls that are no hooks. Their indices follow those of `HookSet::NAMED`.
const OTHERS: [&str; 2] = ["create", "destroy"];
pub(super) const CREATE: usize = HookSet::NAMED.len();
pub(super) const DESTROY: usize = HookSet::NAMED.len() + 1;

const FIELD_BITS: u32 = 8;
const FIELD_MASK: u64 = (1 << FIELD_BITS) - 1;

impl Presence {
    pub(crate) fn name(&self, names: impl Iterator<Item = String>) {
        let _ = self.names.set(names.collect());
    }

    /// Notes that a call begins. `hook` is its index in `HookSet::NAMED`, or `CREATE` or `DESTROY`; `number` counts
    /// this plugin's calls of it from 1.
    #[inline]
    pub(crate) fn enter(&self, plugin: usize, hook: usize, number: u64) {
        let fields = (plugin as u64) << FIELD_BITS | hook as u64;
        self.call.store(number << (2 * FIELD_BITS) | fields, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn leave(&self) {
        self.call.store(0, Ordering::Relaxed);
    }

    /// The call that the shard is in now.
    pub fn look(&self) -> Option<Occupation<'_>> {
        let call = self.call.load(Ordering::Relaxed);
        let plugin = (call >> FIELD_BITS & FIELD_MASK) as usize;
        let hook = (call & FIELD_MASK) as usize;
        let named = HookSet::NAMED.get(hook).map(|(name, _)| *name);
        let hook = named.or_else(|| OTHERS.get(hook - HookSet::NAMED.len()).copied())?;
        let names = self.names.get()?;
        (call != 0).then_some(Occupation { call, plugin: names.get(plugin)?, hook })
    }
}

const _: () = {
    assert!(crate::config::plugin::PLUGIN_COUNT_MAX as u64 <= FIELD_MASK);
    assert!((HookSet::NAMED.len() + OTHERS.len()) as u64 <= FIELD_MASK);
};
