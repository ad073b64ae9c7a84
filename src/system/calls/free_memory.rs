//! Freed memory that the allocator keeps.

/// Gives whole pages of free memory back to the kernel, those between allocations too. Other threads that allocate
/// meanwhile may wait for some milliseconds.
pub fn give_back_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: needed because no safe library has the call. Sound because it takes the allocator's own locks and moves
    // nothing that is allocated; with another allocator than glibc's in its place it finds nothing to do.
    unsafe {
        libc::malloc_trim(0);
    }
}
