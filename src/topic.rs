//! Topics: names, filters, the index of subscriptions and its changes, retained messages by topic, shared groups, aliases.

pub mod alias;
pub mod changes;
pub mod filter;
pub mod index;
pub mod name;
pub mod retained;
pub mod shared;

pub use alias::{AliasError, InboundAliases, OutboundAlias, OutboundAliases};
pub use changes::{Changes, Levels};
pub use filter::{
    FilterError, ShareError, Subscribed, filter_of, has_wildcards, matches, parse_filter, pattern,
};
pub use index::Index;
pub use name::{NameError, check_name, is_system};
pub use retained::{RetainedStore, ScanEnd};
pub use shared::Members;
