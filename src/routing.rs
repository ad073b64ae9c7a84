//! Where a message goes: subscriptions of this shard's clients and of other shards, shared groups, retained messages,
//! and the mail that shards and bridges send each other.

pub mod bridge_mail;
pub(crate) mod groups;
pub(crate) mod known;
pub(crate) mod mail;
pub(crate) mod report;
pub(crate) mod retained;
pub(crate) mod route;
pub(crate) mod router;
