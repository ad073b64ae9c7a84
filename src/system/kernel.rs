//! The kernel's release, and what depends on it where the kernel itself cannot be asked.

use std::fs;

/// Major and minor.
pub type Release = (u32, u32);

/// The first release on which receives share buffers. They could from 6.12 on, but kernels up to 6.14 put a completion that
/// was deferred behind later ones, so that whose bytes are where would be told wrong; this is the first long-term release with
/// that and later faults of shared buffers mended.
const RELEASE_SHARED_BUFFERS: Release = (6, 18);

/// What `uname -r` says.
pub fn read_release() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    Some(text.trim().to_owned())
}

pub fn parse_release(text: &str) -> Option<Release> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether this kernel tells reliably which bytes of a shared buffer are whose; an unknown one is not trusted.
pub fn shares_buffers() -> bool {
    let release = read_release().as_deref().and_then(parse_release);
    release.is_some_and(|found| found >= RELEASE_SHARED_BUFFERS)
}
