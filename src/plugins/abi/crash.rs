//! A crash: which shard, plugin and hook it happened in is written to stderr before the process ends as it would have.
//!
//! What runs in the handler is safe there: it reads atomics and memory that no longer changes, writes to its own stack, and
//! makes the system calls `write`, `sigaction` and `raise`. It allocates nothing and takes no lock.
//!
//! The handler finds the shard in a word of its thread and the plugin's hook in the shard's `Presence`, writes one
//! line, and leaves the signal to the handler that was there before.

use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use libc::{c_int, c_void, siginfo_t};

use crate::plugins::presence::Presence;

/// The signals of faults, aborts and forbidden system calls.
const SIGNALS: [(c_int, &str); 6] = [
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGABRT, "SIGABRT"),
    (libc::SIGSYS, "SIGSYS"),
];

/// A line is shorter: a plugin's name is bounded.
const LINE_SIZE_MAX: usize = 512;

/// What the signals did before, for the time after the line.
static BEFORE: OnceLock<[libc::sigaction; SIGNALS.len()]> = OnceLock::new();

static IS_JSON: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The shard of this thread. Without a destructor and with a constant beginning it is plain memory of the thread, which
    /// a signal handler may read.
    static SHARD: Cell<Option<Seat>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
struct Seat {
    shard: u16,
    presence: *const Presence,
}

/// While this value lives, a crash of this thread is a crash of that shard.
pub struct Witness {
    presence: *const Presence,
    /// The value belongs to its thread.
    _thread: PhantomData<*const ()>,
}

impl Witness {
    pub fn new(shard: u16, presence: Arc<Presence>) -> Witness {
        let presence = Arc::into_raw(presence);
        SHARD.set(Some(Seat { shard, presence }));
        Witness { presence, _thread: PhantomData }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        SHARD.set(None);
        // SAFETY: needed because the handler holds no reference count. Sound because the pointer came from `into_raw` and is
        // given back once, on the thread whose handler alone can see it, after it was taken out of sight.
        drop(unsafe { Arc::from_raw(self.presence) });
    }
}

/// Lets a crash tell where it happened from now on; `is_json`: as an object, like the lines of the log.
pub fn install(is_json: bool) {
    IS_JSON.store(is_json, Ordering::Relaxed);
    // The present actions are read before any handler can run.
    BEFORE.get_or_init(|| SIGNALS.map(|(signal, _)| ask(signal)));
    for (signal, _) in SIGNALS {
        // SAFETY: needed because no safe library lets a handler see faults. Sound because all members of the structure may
        // be zero, the handler has the type that SA_SIGINFO asks for and does only what is allowed in one.
        unsafe {
            let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
            action.sa_sigaction = on_crash as *const () as usize;
            // A stack that has overflowed has no room for a handler.
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(signal, &raw const action, ptr::null_mut());
        }
    }
}

/// The present action of a signal.
fn ask(signal: c_int) -> libc::sigaction {
    let mut action = MaybeUninit::zeroed();
    // SAFETY: needed as above. Sound because the pointer is to a local of that type, and all its members may be zero.
    unsafe {
        libc::sigaction(signal, ptr::null(), action.as_mut_ptr());
        action.assume_init()
    }
}

extern "C" fn on_crash(signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    let index = SIGNALS.iter().position(|(known, _)| *known == signal);
    let name = index.map_or("a signal", |index| SIGNALS[index].1);
    let mut line = Line::new();
    line.describe(name, IS_JSON.load(Ordering::Relaxed));
    // SAFETY: needed because a handler must not use std's buffered streams, and because the signal must do what it did
    // before. Sound because the line outlives the call of `write`, the actions were filled in before the handler was
    // installed, the kernel hands a valid `info`, and all three calls are allowed in a handler.
    unsafe {
        libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.size);
        if let (Some(before), Some(index)) = (BEFORE.get(), index) {
            libc::sigaction(signal, &raw const before[index], ptr::null_mut());
        }
        // A fault comes again when the instruction is tried again, with all facts of the kernel. A signal that a
        // process sent would not come again, nor would a system call that a filter forbids.
        if (*info).si_code <= 0 || signal == libc::SIGSYS {
            libc::raise(signal);
        }
    }
}

/// Text on the handler's own stack.
struct Line {
    bytes: [u8; LINE_SIZE_MAX],
    size: usize,
}

impl Line {
    fn new() -> Line {
        Line { bytes: [0; LINE_SIZE_MAX], size: 0 }
    }

    fn describe(&mut self, signal: &str, is_json: bool) {
        self.push(if is_json { "{\"level\":\"ERROR\",\"message\":\"" } else { "ringmq: " });
        self.push("the process crashes (");
        self.push(signal);
        self.push(")");
        match SHARD.try_with(Cell::get).ok().flatten() {
            Some(seat) => {
                self.push(" on shard ");
                self.push_number(seat.shard);
                // SAFETY: needed because the handler cannot hold a reference count. Sound because `Witness` keeps the
                // allocation for as long as the seat is set, and both are of this thread.
                match unsafe { &*seat.presence }.look() {
                    Some(seen) => {
                        self.push(", in the ");
                        self.push(seen.hook);
                        self.push(" hook of plugin '");
                        self.push(seen.plugin);
                        self.push("'");
                    }
                    None => self.push(", in no plugin"),
                }
            }
            None => self.push(" on a thread that is no shard's"),
        }
        self.push(if is_json { "\"}\n" } else { "\n" });
    }

    /// Appends as much of the text as there is room for.
    fn push(&mut self, text: &str) {
        let room = LINE_SIZE_MAX - self.size;
        let size = text.len().min(room);
        self.bytes[self.size..self.size + size].copy_from_slice(&text.as_bytes()[..size]);
        self.size += size;
    }

    fn push_number(&mut self, number: u16) {
        let mut digits = [0; 5];
        let (mut rest, mut at) = (number, digits.len());
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.push(std::str::from_utf8(&digits[at..]).unwrap_or("?"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(is_json: bool) -> String {
        let mut line = Line::new();
        line.describe("SIGSEGV", is_json);
        String::from_utf8(line.bytes[..line.size].to_vec()).unwrap()
    }

    #[test]
    fn a_crash_names_shard_plugin_and_hook() {
        assert_eq!(
            line(false),
            "ringmq: the process crashes (SIGSEGV) on a thread that is no shard's\n"
        );
        let presence = Arc::new(Presence::default());
        presence.name(["one", "two"].map(str::to_owned).into_iter());
        let witness = Witness::new(107, presence.clone());
        assert_eq!(
            line(false),
            "ringmq: the process crashes (SIGSEGV) on shard 107, in no plugin\n"
        );
        presence.enter(1, 4, 1);
        let expected =
            "the process crashes (SIGSEGV) on shard 107, in the publish hook of plugin 'two'";
        assert_eq!(line(false), format!("ringmq: {expected}\n"));
        let json = format!("{{\"level\":\"ERROR\",\"message\":\"{expected}\"}}\n");
        assert_eq!(line(true), json);
        presence.leave();
        drop(witness);
        assert!(line(false).ends_with("no shard's\n"));
        assert_eq!(Arc::strong_count(&presence), 1);
    }

    #[test]
    fn a_line_never_passes_its_bound() {
        let mut line = Line::new();
        for _ in 0..LINE_SIZE_MAX {
            line.push("ab ");
        }
        assert_eq!(line.size, LINE_SIZE_MAX);
    }
}
