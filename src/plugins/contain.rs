//! Keeps a panic within the call of a plugin: its message is returned, and nothing is printed from a shard's thread.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Whether this thread is in a plugin's call.
    static IS_CONTAINED: Cell<bool> = const { Cell::new(false) };
    /// The place of the last contained panic.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Lets contained panics print nothing from now on; all others print as before.
pub(super) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !IS_CONTAINED.try_with(Cell::get).unwrap_or(false) {
                return others(panic);
            }
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            let _ = PLACE.try_with(|last| *last.borrow_mut() = place);
        }));
    });
}

/// The result of the call, or the message and place of its panic.
#[inline]
pub(super) fn call<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    IS_CONTAINED.set(true);
    // Only the plugin's own values can be left half-changed, or values that the caller restores.
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    IS_CONTAINED.set(false);
    outcome.map_err(explain)
}

#[cold]
fn explain(payload: Box<dyn Any + Send>) -> String {
    let said = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "no text".to_owned(),
    };
    // The payload may be of any type, so dropping it may panic once more.
    IS_CONTAINED.set(true);
    if let Err(again) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
    IS_CONTAINED.set(false);
    format!("{said} (at {})", PLACE.take())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Panics when it is dropped.
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("and once more");
        }
    }

    #[test]
    fn a_panic_becomes_what_it_said_and_where() {
        install();
        assert_eq!(call(|| 5), Ok(5));
        let said = call(|| panic!("broken")).unwrap_err();
        assert!(said.starts_with("broken (at src/plugins/contain.rs:"), "{said}");
        let said = call(|| panic!("{}", 7)).unwrap_err();
        assert!(said.starts_with("7 (at "), "{said}");
    }

    #[test]
    fn what_a_panic_throws_may_be_of_any_type() {
        install();
        let said = call(|| panic::panic_any(5)).unwrap_err();
        assert!(said.starts_with("no text"), "{said}");
        let said = call(|| panic::panic_any(Bomb)).unwrap_err();
        assert!(said.starts_with("no text"), "{said}");
        assert_eq!(call(|| 5), Ok(5));
    }
}
