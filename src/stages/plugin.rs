//! The plugin stage: prepares each message before encode and bridge read it.
//!
//! Publish hooks run when a message is admitted, while it is the last one: when the stage takes it, it is prepared. It is
//! acked when the encode stage, where deliver hooks run, is past it.

mod edit;
mod figures;
mod hooks;
mod receivers;
mod view;

pub use crate::session::{DropReason, SessionLimits};
pub use edit::{EditBuffers, EditError, FixedProperty, MessageEdit, PropertyName, Saved};
pub use figures::HookFigures;
pub use hooks::{HookSet, Hooks, Verdict};
pub use receivers::Receivers;
pub use view::{ClientView, ConnectView, HookEvent, MessageView};

use crate::arena::Generation;
use crate::pipeline::{Pipeline, Stage};

/// Prepares all that was admitted.
pub fn prepare(pipeline: &mut Pipeline) {
    if let Some(batch) = pipeline.take(Stage::Plugin) {
        pipeline.prepare(batch.through());
    }
}

/// The last deliver hook of every message up to `generation` has run.
pub fn finish(pipeline: &mut Pipeline, generation: Generation) {
    pipeline.ack(Stage::Plugin, generation);
}
