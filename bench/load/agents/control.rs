//! The connection of a run's process to the driver.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::protocol::{FRAME_SIZE_MAX, FromAgent, ToAgent, decode, read_frame, write_frame};
use super::window::Window;
use crate::machine::now_ns;

/// A driver that sends nothing for this long has gone away: it sends something every second.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// The connection to the driver, as the threads of the process share it.
#[derive(Debug)]
pub(super) struct Control {
    output: Mutex<Socket>,
    /// The window of the publishers here, once there are any.
    pub window: Mutex<Option<Window>>,
    /// Whether the driver has got everything.
    has_answered: AtomicBool,
}

impl Control {
    pub(super) fn new(socket: &Socket) -> Result<Control, String> {
        let output = socket.try_clone().map_err(|error| format!("socket: {error}"))?;
        let (output, has_answered) = (Mutex::new(output), AtomicBool::new(false));
        Ok(Control { output, window: Mutex::default(), has_answered })
    }

    pub(super) fn say(&self, said: &FromAgent) -> Result<(), String> {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        write_frame(&mut *output, said)
    }

    /// Waits, after the last message, until the driver has read it and closes. The side that closes first throws away
    /// the bytes that the other has not read.
    pub(super) fn linger(&self) {
        self.has_answered.store(true, Relaxed);
        thread::sleep(SILENCE_MAX);
    }

    /// Notes that the driver has got everything.
    pub(super) fn has_answered(&self) -> bool {
        self.has_answered.load(Relaxed)
    }

    /// Reads the driver's messages until that fails. Returns the reason.
    pub(super) fn read(&self, mut socket: Socket, orders: &SyncSender<ToAgent>) -> String {
        loop {
            let begin = Instant::now();
            let patience = || match begin.elapsed() > SILENCE_MAX {
                true => Err(format!("it has said nothing for {SILENCE_MAX:?}")),
                false => Ok(()),
            };
            let frame = match read_frame(&mut socket, FRAME_SIZE_MAX, patience) {
                Ok(frame) => frame,
                Err(reason) => return reason,
            };
            let got_ns = now_ns();
            let done = match decode(&frame) {
                Ok(ToAgent::Ping { number }) => {
                    self.say(&FromAgent::Pong { number, got_ns, answered_ns: now_ns() })
                }
                Ok(ToAgent::Alive) => Ok(()),
                Ok(ToAgent::Delivered(counts)) => self.note(&counts),
                Ok(order) => {
                    orders.try_send(order).map_err(|_| "it orders more than is done".to_string())
                }
                Err(reason) => Err(reason),
            };
            if let Err(reason) = done {
                return reason;
            }
        }
    }

    fn note(&self, counts: &[(u32, u64)]) -> Result<(), String> {
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let window = window.as_ref().ok_or("it counts what was not sent")?;
        window.note(counts)
    }
}
