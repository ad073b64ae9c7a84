//! Hooks: the calls and events that plugins get, and the changes that they make to a message. There is no stage and no
//! I/O.

mod edit;
mod figures;
mod hooks;
mod hosted;
mod pledge;
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
