//! The plugin stage: a message is prepared when the stage takes it, and acked when its deliver hooks have run.
//!
//! Publish hooks run before a message is admitted, and the hook that authorizes it runs while it is the last message of
//! the arena (`shard::hooks`). So no work is left for the stage when it takes the message. Deliver hooks run within the
//! encode stage: the plugin stage acks a message when the encode stage is past it.

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
