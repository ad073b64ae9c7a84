//! Lets users in, by a thread that takes its time: the shard goes on meanwhile.

use std::ptr;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::ringmq_plugin::{ALLOW, BAD_USER_NAME_OR_PASSWORD, BUSY, LIMIT_KEEP_ALIVE_S, SessionLimit};

/// What a look-up takes.
const LOOK_UP: Duration = Duration::from_millis(50);

/// The keep alive of those who are let in, at most.
const KEEP_ALIVE_S: u64 = 77;

type Answer = unsafe extern "C" fn(u64, i32, *const SessionLimit, usize) -> i32;

pub struct Door {
    /// `None` only while it is dropped.
    knocks: Option<Sender<(u64, String)>>,
    keeper: Option<JoinHandle<()>>,
}

impl Door {
    /// For these users, with a space between them. The user `nobody` never gets an answer, `echo` gets two.
    pub fn open(users: &str, answer: Answer) -> Door {
        let users: Vec<String> = users.split(' ').map(str::to_owned).collect();
        let (knocks, questions) = mpsc::channel::<(u64, String)>();
        let keeper = thread::spawn(move || {
            for (question, user) in questions {
                thread::sleep(LOOK_UP);
                match user.as_str() {
                    "nobody" => {}
                    _ if !users.contains(&user) => say(answer, question, BAD_USER_NAME_OR_PASSWORD),
                    "echo" => {
                        say(answer, question, ALLOW);
                        say(answer, question, BAD_USER_NAME_OR_PASSWORD);
                    }
                    _ => say(answer, question, ALLOW),
                }
            }
        });
        Door { knocks: Some(knocks), keeper: Some(keeper) }
    }

    /// The user wants to come in; the answer to the question follows.
    pub fn knock(&self, question: u64, user: &str) {
        if let Some(knocks) = &self.knocks {
            let _ = knocks.send((question, user.to_owned()));
        }
    }
}

impl Drop for Door {
    /// No thread of an instance lives on when it is destroyed.
    fn drop(&mut self) {
        drop(self.knocks.take());
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

fn say(answer: Answer, question: u64, verdict: i32) {
    let limits = [SessionLimit { limit: LIMIT_KEEP_ALIVE_S, reserved: 0, value: KEEP_ALIVE_S }];
    let (limits, count) = if verdict == ALLOW { (limits.as_ptr(), 1) } else { (ptr::null(), 0) };
    // SAFETY: any thread may call it until `destroy` returns, which waits for this one; the limits are good until it returns.
    while unsafe { answer(question, verdict, limits, count) } == BUSY {
        thread::yield_now();
    }
}
