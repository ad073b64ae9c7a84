//! Hooks: what plugins are asked and told, what they may change of a message, and what that came to. No stage, no I/O.

mod edit;
mod figures;
mod held;
mod hooks;
mod hosted;
mod question;
mod receivers;
mod view;

pub use crate::session::{DropReason, SessionLimits};
pub use edit::{EditBuffers, EditError, FixedProperty, MessageEdit, PropertyName, Saved};
pub use figures::HookFigures;
pub use hooks::{HookSet, Hooks, Verdict};
pub(crate) use hosted::{Hosted, Plugged, is_wanted};
pub use question::{Answer, QuestionId, Reply, Resumed};
pub use receivers::Receivers;
pub use view::{ClientView, ConnectView, HookEvent, MessageView};
