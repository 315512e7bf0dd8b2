//! How the C library's allocator treats large buffers: the one system call here that rustix lacks.
//!
//! Called once, before threads start; it changes no memory that is in use.
#![allow(unsafe_code)]

/// Makes large freed buffers go back to the system at once. Buffers of up to some MiB come and go on
/// many threads; glibc learns from them to keep such sizes, in every thread's arena, and then holds
/// several times what is in use.
pub fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// From this size on a buffer is a mapping of its own, given back when freed. Above what
        /// a connection reads into (some 400 KiB, made anew for each piece of a body: as mappings
        /// they cost more page faults than anything else that a download does).
        const LARGE: libc::c_int = 1 << 20;
        /// Free memory kept at the top of the heap: some such pieces.
        const TOP: libc::c_int = 8 << 20;
        /// Threads mostly wait; two arenas are enough for those that do not.
        const ARENAS: libc::c_int = 2;
        // SAFETY: mallopt only sets parameters, may be called at any time, and gets values of the
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
