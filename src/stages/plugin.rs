//! The plugin stage: prepares each message before encode and bridge read it.
//!
//! Publish hooks run when a message is admitted, while it is the last one (`shard/hooks.rs`). So the message is prepared when
//! the stage takes it. The stage acks it when the encode stage, where deliver hooks run, is past it.

use crate::arena::Generation;
use crate::pipeline::{Pipeline, Stage};

/// Prepares all messages that were admitted.
pub(crate) fn prepare(pipeline: &mut Pipeline) {
    if let Some(batch) = pipeline.take(Stage::Plugin) {
        pipeline.prepare(batch.through());
    }
}

/// Acks every message up to `generation`, whose last deliver hook has run.
pub(crate) fn finish(pipeline: &mut Pipeline, generation: Generation) {
    pipeline.ack(Stage::Plugin, generation);
}
