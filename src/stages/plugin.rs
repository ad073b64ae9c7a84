//! The plugin stage: prepares each message before encode and bridge read it.
//!
//! Publish hooks run when a message is admitted, while it is the last one (`shard/hooks.rs`): when the stage takes a message, the
//! message is prepared. The stage acks it when the encode stage, where deliver hooks run, is past it.

use crate::arena::Generation;
use crate::pipeline::{Pipeline, Stage};

/// Prepares all that was admitted.
pub(crate) fn prepare(pipeline: &mut Pipeline) {
    if let Some(batch) = pipeline.take(Stage::Plugin) {
        pipeline.prepare(batch.through());
    }
}

/// The last deliver hook of every message up to `generation` has run.
pub(crate) fn finish(pipeline: &mut Pipeline, generation: Generation) {
    pipeline.ack(Stage::Plugin, generation);
}
