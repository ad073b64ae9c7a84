//! System calls that no safe library has.
#![allow(unsafe_code)]

mod free_memory;
mod resource_limit;
mod tcp_option;

pub use free_memory::give_back_free_memory;
pub use resource_limit::{resource_limit, set_resource_limit};
#[cfg(test)]
pub use tcp_option::tcp_rto_max;
pub use tcp_option::{RTO_MAX_MS, confirmed, outstanding, set_tcp_rto_max, unanswered_probes};
