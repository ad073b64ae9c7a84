//! Plugin hosts: the trait of a plugin in Rust, the built-in plugins, the C ABI, and the chain that calls them and contains their failures.

pub mod abi;
mod chain;
mod contain;
mod filters;
mod plugin;
mod presence;
mod tally;
mod template;
mod tick;
mod topic_rewrite;
mod user_property;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

pub use chain::Chain;
pub use plugin::{Answers, Plugin, PluginError, PluginFactory};
pub use presence::Presence;

use crate::config::plugin::{
    NAME_SIZE_MAX, OnError, PLUGIN_COUNT_MAX, PluginSettings, PluginWork, is_name,
};
use crate::config::table::Refusal;
use abi::LibraryFactory;
use topic_rewrite::TopicRewriteFactory;
use user_property::UserPropertyFactory;

/// A plugin of the chain, and how its failures and slow calls are handled.
#[derive(Clone)]
pub struct Installed {
    pub factory: Arc<dyn PluginFactory>,
    pub on_error: OnError,
    /// A call that takes longer than this is named in the log.
    pub slow_ms: u64,
}

impl Installed {
    /// A plugin with the default handling: its failures deny.
    pub fn new(factory: impl PluginFactory + 'static) -> Installed {
        Installed {
            factory: Arc::new(factory),
            on_error: OnError::default(),
            slow_ms: PluginSettings::SLOW_MS,
        }
    }
}

/// A plugin of the configuration with its library loaded, or the error in it, with file and line.
pub fn install(settings: &PluginSettings) -> Result<Installed, PluginError> {
    match factory(settings) {
        Ok(factory) => {
            Ok(Installed { factory, on_error: settings.on_error, slow_ms: settings.slow_ms })
        }
        Err(wrong) => {
            let place = |refusal: Refusal| {
                format!("{}:{}: {}", settings.file, refusal.line, refusal.sentence)
            };
            let sentences: Vec<_> = wrong.into_iter().map(place).collect();
            Err(PluginError::new(sentences.join("; ")))
        }
    }
}

/// Checks that these plugins can stand in one chain: each has a name of its own that is a level of a topic.
pub fn check_names(installed: &[Installed]) -> Result<(), PluginError> {
    if installed.len() > PLUGIN_COUNT_MAX {
        let sentence = format!("{} plugins are more than {PLUGIN_COUNT_MAX}", installed.len());
        return Err(PluginError::new(sentence));
    }
    for (index, one) in installed.iter().enumerate() {
        let name = one.factory.name();
        if !is_name(name) {
            return Err(PluginError::new(format!(
                "plugin '{name}': its name must be 1 to {NAME_SIZE_MAX} letters, digits, - and _"
            )));
        }
        if installed[..index].iter().any(|other| other.factory.name() == name) {
            return Err(PluginError::new(format!("two plugins have the name '{name}'")));
        }
    }
    Ok(())
}

/// The errors in a plugin's settings, as far as they show without loading its library.
pub fn check(settings: &PluginSettings) -> Vec<Refusal> {
    match &settings.work {
        PluginWork::Library { .. } => Vec::new(),
        _ => factory(settings).err().unwrap_or_default(),
    }
}

fn factory(settings: &PluginSettings) -> Result<Arc<dyn PluginFactory>, Vec<Refusal>> {
    match &settings.work {
        PluginWork::UserProperty { filters, properties } => {
            Ok(Arc::new(UserPropertyFactory::new(settings, filters, properties)?))
        }
        PluginWork::TopicRewrite { rules } => {
            Ok(Arc::new(TopicRewriteFactory::new(settings, rules)?))
        }
        PluginWork::Library { path, options } => {
            let place = format!("{}:{}", settings.file, settings.line);
            let loaded = LibraryFactory::load(&settings.name, Path::new(path), options.clone());
            let refuse = |error| vec![refusal(settings, settings.line, "path", error)];
            Ok(Arc::new(loaded.map_err(refuse)?.configured_at(place)))
        }
    }
}

/// A sentence about a key of a plugin's table.
fn refusal(settings: &PluginSettings, line: usize, key: &str, what: impl fmt::Display) -> Refusal {
    let sentence = format!("[[plugin]] '{}': key '{key}': {what}", settings.name);
    Refusal { line, sentence }
}
