//! Negotiation with the kernel when a mount begins.
//!
//! Invariant: no capability is required; a missing one only costs speed, and missing passthrough comes
//! with its reason. Plain functions; one thread, during FUSE_INIT.

use std::io;

use fuser::{InitFlags, KernelConfig};

use crate::options::Agreed;

/// Maximum read size: the most that one request carries at the kernel's default limit of 256 pages.
const MAX_READ: u32 = 1 << 20;
/// Maximum read size of kernels where it is fixed: 32 pages.
const OLD_MAX_READ: u32 = 128 << 10;
/// Maximum number of background reads through the kernel's page cache. As many as possible: reads that
/// wait for an unreachable registry count too and would hold back cached ones. Above the congestion
/// threshold of three quarters the kernel stops readahead.
const MAX_BACKGROUND: u16 = u16::MAX;
const CONGESTION: u16 = MAX_BACKGROUND / 4 * 3;
/// Maximum stacking depth: with 2 the cache may itself be on an overlay, as it is in containers. The
/// price: our mount cannot be the lower layer of an overlay.
const STACK_DEPTH: u32 = 2;
/// The bit of CAP_SYS_ADMIN in a capability set.
const CAP_SYS_ADMIN: u32 = 21;

/// Requests the useful capabilities and returns what was agreed. `no_passthrough`: why not to request
/// it.
pub(super) fn negotiate(config: &mut KernelConfig, no_passthrough: Option<String>) -> Agreed {
    for wish in [
        // Parallel lookups and lists in one folder.
        InitFlags::FUSE_PARALLEL_DIROPS,
        InitFlags::FUSE_ASYNC_READ,
        // Parallel direct reads of one file.
        InitFlags::FUSE_ASYNC_DIO,
        // Lists with attributes, when the reader turns out to use them.
        InitFlags::FUSE_DO_READDIRPLUS,
        InitFlags::FUSE_READDIRPLUS_AUTO,
        // `ls -l` reads each file's ACL: with this, the kernel caches that there is none. It implies
        // permission checks by mode, which every mount enables anyway.
        InitFlags::FUSE_POSIX_ACL,
        // A list needs no handle, so the kernel need not request one.
        InitFlags::FUSE_NO_OPENDIR_SUPPORT,
    ] {
        if let Err(lacks) = config.add_capabilities(wish) {
            tracing::debug!(?lacks, "the kernel lacks something");
        }
    }
    let many_pages = config.capabilities().contains(InitFlags::FUSE_MAX_PAGES);
    for outcome in [
        // This also limits the size of reads; nothing is ever written.
        config.set_max_write(MAX_READ).map(drop),
        config.set_max_background(MAX_BACKGROUND).map(drop).map_err(u32::from),
        config.set_congestion_threshold(CONGESTION).map(drop).map_err(u32::from),
    ] {
        if let Err(nearest) = outcome {
            tracing::debug!(nearest, "the kernel's library wants another value");
        }
    }
    let why_not = no_passthrough.or_else(|| take_passthrough(config).err());
    // Only without passthrough, and for the whole life of the mount: a kernel that sends no opens does
    // not send the releases of files that are already open either.
    if why_not.is_some() && config.add_capabilities(InitFlags::FUSE_NO_OPEN_SUPPORT).is_err() {
        tracing::debug!("the kernel insists on opening files");
    }
    Agreed {
        passthrough: why_not.is_none(),
        why_not,
        max_read: if many_pages { MAX_READ } else { OLD_MAX_READ },
    }
}

/// Why this process may not register backing files, if so.
pub(super) fn lacks_privilege() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    (!has_sys_admin(&status))
        .then(|| "it needs the capability CAP_SYS_ADMIN: run the daemon as root".to_owned())
}

fn take_passthrough(config: &mut KernelConfig) -> Result<(), String> {
    config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).map_err(|_| {
        "this kernel does not have it: Linux 6.9 or later with CONFIG_FUSE_PASSTHROUGH".to_owned()
    })?;
    let refused = |nearest| format!("a stack depth of {STACK_DEPTH} is refused, {nearest} is not");
    config.set_max_stack_depth(STACK_DEPTH).map(drop).map_err(refused)
}

/// Whether the effective capabilities in `/proc/self/status` have CAP_SYS_ADMIN.
fn has_sys_admin(status: &str) -> bool {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_some_and(|set| set >> CAP_SYS_ADMIN & 1 == 1)
}

/// Why the kernel will refuse every backing file, judged by its error for one; none if the next one may
/// succeed.
pub(super) fn why_refused(error: &io::Error) -> Option<&'static str> {
    use rustix::io::Errno;
    match Errno::from_io_error(error)? {
        Errno::PERM | Errno::ACCESS => Some("it needs the capability CAP_SYS_ADMIN"),
        Errno::LOOP => Some("the cache lies on a file system that is itself stacked too deep"),
        Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL | Errno::NOSYS => {
            Some("the kernel cannot pass reads through to the cache's file system")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_parsed_as_the_kernel_prints_them() {
        assert!(has_sys_admin("Name:\tx\nCapPrm:\t0\nCapEff:\t000001fffeffffff\n"));
        assert!(has_sys_admin("CapEff:\t0000000000200000"));
        assert!(!has_sys_admin("CapEff:\t0000000000100000"));
        assert!(!has_sys_admin("CapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff"));
        assert!(!has_sys_admin(""));
    }

    #[test]
    fn missing_privilege_is_permanent_and_missing_memory_is_transient() {
        let error = |e: rustix::io::Errno| io::Error::from(e);
        assert!(why_refused(&error(rustix::io::Errno::PERM)).is_some());
        assert!(why_refused(&error(rustix::io::Errno::LOOP)).is_some());
        assert!(why_refused(&error(rustix::io::Errno::NOMEM)).is_none());
        assert!(why_refused(&io::Error::other("x")).is_none());
    }
}
