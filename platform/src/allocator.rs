//! Settings of the C library's allocator for large buffers: the only system call here that rustix
//! lacks.
//!
//! Invariant: memory in use does not change. Concurrency: call once, before other threads start.
#![allow(unsafe_code)]

/// Makes the allocator return large freed buffers to the system at once. Many threads allocate and free
/// buffers of up to some MiB. By default glibc adapts, keeps such buffers in every thread's arena and
/// holds several times what is in use.
pub fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// Buffers of at least this size get their own mapping, which is unmapped when freed. Larger
        /// than a connection's read buffers (some 400 KiB, allocated anew for each piece of a body): as
        /// mappings they would cost more page faults than the rest of a download.
        const LARGE: libc::c_int = 1 << 20;
        /// Free memory kept at the top of the heap: some such read buffers.
        const TOP: libc::c_int = 8 << 20;
        /// Most threads wait, so two arenas are enough.
        const ARENAS: libc::c_int = 2;
        // SAFETY: mallopt only sets parameters and may be called at any time. The values have the
        // type and range that its manual page names.
        let set = unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) == 1
                && libc::mallopt(libc::M_TRIM_THRESHOLD, TOP) == 1
                && libc::mallopt(libc::M_ARENA_MAX, ARENAS) == 1
        };
        if !set {
            tracing::debug!("the allocator keeps its own ways");
        }
    }
}
