//! Plugins as shared libraries: `ringmq_plugin.h` seen from the broker.
//!
//! A library exports a table of functions; the broker copies it and never closes the library. Nothing crosses the
//! boundary but views that end with the call and functions that copy. A handle is a number that only the running call
//! of its thread answers to: it is compared and never followed. A change that a plugin asks for is validated and copied
//! while its hook runs, kept here, and applied when the hook has returned. So no view moves under the hook, and a hook
//! that fails leaves the message as it was. Neither the plugin nor the broker ever has memory of the other.
#![allow(unsafe_code)]

mod api;
mod changes;
pub mod crash;
mod handles;
mod instance;
pub mod layout;
mod library;
mod questions;
mod refused;
mod running;

use std::path::Path;
use std::sync::Arc;

use super::plugin::{Plugin, PluginError, PluginFactory};
use crate::plugin::HookSet;
use instance::Instance;
use layout::PluginTable;

pub use handles::stale_calls;
pub use library::LoadError;

/// The header with which plugins in C are built.
pub const HEADER: &str = include_str!("abi/ringmq_plugin.h");

/// The header for plugins in Rust.
pub const HEADER_RUST: &str = include_str!("abi/layout.rs");

/// A library that makes instances of a plugin.
#[derive(Debug)]
pub struct LibraryFactory {
    name: Arc<str>,
    table: PluginTable,
    options: Vec<(String, String)>,
    /// `FILE:LINE` of its configuration.
    place: Option<String>,
}

impl LibraryFactory {
    /// Loads the library at `path` as the plugin `name`; `options` are the plugin's in the configuration.
    pub fn load(
        name: &str,
        path: &Path,
        options: Vec<(String, String)>,
    ) -> Result<LibraryFactory, LoadError> {
        Ok(LibraryFactory { name: name.into(), table: library::load(path)?, options, place: None })
    }

    /// Notes where the plugin is configured: `FILE:LINE`.
    #[must_use]
    pub fn configured_at(self, place: String) -> LibraryFactory {
        LibraryFactory { place: Some(place), ..self }
    }

    /// The hooks that the plugin has.
    pub fn hooks(&self) -> HookSet {
        instance::hooks_of(&self.table)
    }
}

impl PluginFactory for LibraryFactory {
    fn name(&self) -> &str {
        &self.name
    }

    fn make(&self, shard: u16) -> Result<Box<dyn Plugin>, PluginError> {
        match (Instance::make(&self.name, &self.table, &self.options, shard), &self.place) {
            (Ok(instance), _) => Ok(Box::new(instance)),
            (Err(error), Some(place)) => Err(PluginError::new(format!("{error} ({place})"))),
            (Err(error), None) => Err(error),
        }
    }
}
