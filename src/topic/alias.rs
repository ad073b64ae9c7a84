//! Topic aliases of one connection: those its client defined, and those that we define, for the busiest topics.

mod inbound;
mod outbound;

pub use inbound::{AliasError, InboundAliases};
pub use outbound::{OutboundAlias, OutboundAliases};
