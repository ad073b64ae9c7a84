//! The kernel's release, and facts that follow from it where the kernel itself cannot be asked.

use std::fs;

/// Major and minor number.
pub type Release = (u32, u32);

/// The first release on which receives share buffers. A completion does not say where its bytes are: that follows from the
/// completions before it, in their order. Kernels from 6.12 share buffers, but up to 6.14 they could put a deferred completion
/// behind later ones, so the broker would give bytes to the wrong connection. 6.18 is the first long-term release in which that
/// and later faults of shared buffers are mended. Older kernels get a buffer for each receive: with many connections that bring
/// little at once, more and smaller buffers (`receive_buffers`, `receive_buffer_size`) are better there.
const RELEASE_SHARED_BUFFERS: Release = (6, 18);

/// The output of `uname -r`.
pub fn read_release() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    Some(text.trim().to_owned())
}

pub fn parse_release(text: &str) -> Option<Release> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether this kernel tells reliably which bytes of a shared buffer belong to which connection; an unknown release is
/// not trusted.
pub fn shares_buffers() -> bool {
    let release = read_release().as_deref().and_then(parse_release);
    release.is_some_and(|found| found >= RELEASE_SHARED_BUFFERS)
}
