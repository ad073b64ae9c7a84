//! The limits of this process.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

/// The soft and the hard limit; `u64::MAX` stands for no limit. An error says that the system call is refused.
pub fn resource_limit(resource: Resource) -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: needed because rustix's call takes no refusal for an answer, and filters of system calls refuse this one. Sound
    // because the kernel writes one structure to the local that is given, which outlives the call.
    let result = unsafe { libc::getrlimit64(resource as _, &raw mut limit) };
    if result == 0 { Ok((limit.rlim_cur, limit.rlim_max)) } else { Err(io::Error::last_os_error()) }
}

/// Sets the soft and the hard limit to one value; `u64::MAX` stands for no limit.
pub fn set_resource_limit(resource: Resource, limit: u64) -> io::Result<()> {
    let limit = (limit != u64::MAX).then_some(limit);
    Ok(setrlimit(resource, Rlimit { current: limit, maximum: limit })?)
}
