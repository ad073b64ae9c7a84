//! Work in steps. A step is: a session offered; a filter inserted, removed or compared; a message queued, moved or
//! freed; a timer fired; 4 KiB copied; a packet read.

/// Bytes whose copy is a step.
pub(crate) const COPY_SIZE: usize = 4 << 10;

/// The steps of copying so many bytes.
#[inline(always)]
pub(crate) fn steps_of_bytes(bytes: usize) -> u64 {
    (bytes / COPY_SIZE) as u64
}
