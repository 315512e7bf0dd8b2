//! How the C library's allocator treats large buffers: the one system call here that rustix lacks.
//!
//! Called once, before threads start; it changes no memory that is in use.
#![allow(unsafe_code)]

/// Makes freed buffers go back to the system at once. Buffers of 128 KiB to some MiB come and go on
/// many threads; glibc learns from them to keep such sizes, in every thread's arena, and then holds
/// several times what is in use.
pub fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// Above the sizes that are allocated all the time, below the buffers that bodies fill.
        const LARGE: libc::c_int = 128 << 10;
        /// Threads mostly wait; two arenas are enough for those that do not.
        const ARENAS: libc::c_int = 2;
        // SAFETY: mallopt only sets parameters, may be called at any time, and gets values of the
        // type and range that its manual page names.
        let set = unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) == 1
                && libc::mallopt(libc::M_ARENA_MAX, ARENAS) == 1
        };
        if !set {
            tracing::debug!("the allocator keeps its own ways");
        }
    }
}
