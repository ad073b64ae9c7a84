//! How a worker waits: in the kernel, spinning, or first the one and then the other.

use std::time::{self, Duration};

use crate::config::WaitMode;
use crate::mesh::{Port, Weighed};
use crate::net::Network;
use crate::time::Instant;

/// Looks between two looks at the clock.
const LOOKS_PER_CLOCK: u32 = 64;

#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    mode: WaitMode,
    spin: Duration,
}

impl Waiter {
    pub(super) fn new(mode: WaitMode, spin_us: u32) -> Waiter {
        Waiter { mode, spin: Duration::from_micros(spin_us.into()) }
    }

    /// Submits what is queued, and returns when something has completed, mail is there or `timeout` has passed.
    pub(super) fn wait<M: Send + Weighed>(
        self,
        net: &mut impl Network,
        port: &Port<M>,
        now: Instant,
        timeout: Duration,
    ) {
        match self.mode {
            WaitMode::Sleep => sleep(net, port, now, timeout),
            WaitMode::Spin => {
                spin(net, port, now, timeout);
            }
            WaitMode::Adaptive => {
                if !spin(net, port, now, timeout.min(self.spin)) {
                    sleep(net, port, now, timeout.saturating_sub(self.spin));
                }
            }
        }
    }
}

fn sleep<M: Send + Weighed>(
    net: &mut impl Network,
    port: &Port<M>,
    now: Instant,
    timeout: Duration,
) {
    if timeout.is_zero() || !port.fall_asleep() {
        net.poll(now);
        return;
    }
    net.wait(now, timeout);
    port.wake_up();
}

/// `true` when there is something to do.
fn spin<M: Send + Weighed>(
    net: &mut impl Network,
    port: &Port<M>,
    now: Instant,
    timeout: Duration,
) -> bool {
    net.poll(now);
    let began = time::Instant::now();
    loop {
        for _ in 0..LOOKS_PER_CLOCK {
            if net.has_work() {
                net.poll(now);
                return true;
            }
            if port.has_mail() {
                return true;
            }
            std::hint::spin_loop();
        }
        if began.elapsed() >= timeout {
            return false;
        }
    }
}
