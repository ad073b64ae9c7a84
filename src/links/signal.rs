//! Wakes a task of the same executor.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Raised by any task, awaited by one. Stays raised until it was awaited.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    is_raised: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Signal {
    pub(crate) fn raise(&self) {
        self.is_raised.set(true);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    pub(crate) async fn wait(&self) {
        poll_fn(|context| {
            if self.is_raised.take() {
                return Poll::Ready(());
            }
            self.waiting.replace(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once, zip};

    #[test]
    fn a_signal_raised_early_is_not_missed_and_counts_once() {
        let signal = Signal::default();
        signal.raise();
        signal.raise();
        block_on(async {
            signal.wait().await;
            assert_eq!(poll_once(signal.wait()).await, None);
            zip(signal.wait(), async { signal.raise() }).await;
        });
    }
}
