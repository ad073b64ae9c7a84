//! Topic aliases of one connection: the client's aliases, and the broker's aliases for the busiest topics.

mod inbound;
mod outbound;

pub use inbound::{AliasError, InboundAliases};
pub use outbound::{OutboundAlias, OutboundAliases};
