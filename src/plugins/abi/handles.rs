//! Numbers for handles, each used once, and the account of handles that were used when they were not valid.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::warn;

/// A token is the number of an instance, from 1, above a count of its calls.
const COUNT_BITS: u32 = 48;

/// Live instances of the whole process.
pub(super) const INSTANCES_MAX: usize = (1 << (u64::BITS - COUNT_BITS)) - 1;

/// The entry of each number that was given to an instance, at the number less one.
static INSTANCES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// How many handles were refused. Handles that no live instance was given are counted here alone.
static REFUSED: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Default)]
struct Entry {
    /// `None`: no live instance has the number.
    account: Option<Arc<Account>>,
    /// The count with which the next instance of this number goes on, so that no handle comes again.
    count: u64,
}

#[derive(Debug)]
struct Account {
    plugin: String,
    shard: u16,
    refused: AtomicU64,
}

/// The handles of one instance.
#[derive(Debug)]
pub(super) struct Handles {
    number: usize,
    count: u64,
}

impl Handles {
    /// The handles of a new instance; `None`: `INSTANCES_MAX` are alive.
    pub(super) fn new(plugin: &str, shard: u16) -> Option<Handles> {
        let account = Account { plugin: plugin.to_owned(), shard, refused: AtomicU64::new(0) };
        let mut instances = lock();
        let index = match instances.iter().position(|entry| entry.account.is_none()) {
            Some(index) => index,
            None if instances.len() < INSTANCES_MAX => {
                instances.push(Entry::default());
                instances.len() - 1
            }
            None => return None,
        };
        instances[index].account = Some(Arc::new(account));
        Some(Handles { number: index + 1, count: instances[index].count })
    }

    /// That of the instance, from 1.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// The token of the next call.
    pub(super) fn next(&mut self) -> u64 {
        self.count = (self.count + 1) & ((1 << COUNT_BITS) - 1);
        (self.number as u64) << COUNT_BITS | self.count
    }
}

impl Drop for Handles {
    fn drop(&mut self) {
        lock()[self.number - 1] = Entry { account: None, count: self.count };
    }
}

/// How many calls of functions were refused for their handle, in the whole process.
pub fn stale_calls() -> u64 {
    REFUSED.load(Ordering::Relaxed)
}

/// Counts a call whose handle is not that of the running call, and names the instance that was given the handle.
#[cold]
pub(super) fn refuse(token: u64) {
    let number = (token >> COUNT_BITS) as usize;
    let account = number
        .checked_sub(1)
        .and_then(|index| lock().get(index).and_then(|entry| entry.account.clone()));
    let all = REFUSED.fetch_add(1, Ordering::Relaxed) + 1;
    let count =
        account.as_ref().map_or(all, |account| account.refused.fetch_add(1, Ordering::Relaxed) + 1);
    // The first ones are logged, then fewer and fewer: they may come once a message.
    if !count.is_power_of_two() {
        return;
    }
    let whose = match &account {
        Some(account) => format!("plugin '{}' on shard {}", account.plugin, account.shard),
        None => "a plugin".to_owned(),
    };
    warn!(
        "{whose} called a function with a handle that is not of the running call ({count} so far): nothing was done; \
         a handle is good until its hook returns, on that thread"
    );
}

fn lock() -> MutexGuard<'static, Vec<Entry>> {
    INSTANCES.lock().unwrap_or_else(PoisonError::into_inner)
}
