//! A mount and its connection: mounting, unmounting, and the descriptor for the processes that serve.
//!
//! Invariant: the device is never cloned: requests read from a clone are lost when it closes. Dropping
//! a connection unmounts it, unless it was left to another process. Concurrency: shared; it waits only
//! for the kernel.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::OFlags;

use super::init::Init;
use super::modes::{BackingNumber, Modes, Open, lock};
use super::mounted::Mounted;
use super::{checks, device, negotiate, refuse, system};
use crate::error::MountError;
use crate::options::MountOptions;

/// The kernel's readahead window for sequential reads, where we may set it. With its default of 128 KiB
/// cached mode has half the speed (1,000 against 2,000 MiB/s from the blob's page cache). A full
/// request of 1 MiB is no faster than this, and would be fetched around each fault of a memory map.
const READ_AHEAD_KIB: &str = "512";
/// Buffer size for FUSE_INIT of any version (FUSE_MIN_READ_BUFFER).
const FIRST_REQUEST: usize = 8192;

/// A connection to the kernel with its mount.
pub struct Connection {
    device: OwnedFd,
    mounted: Mounted,
    init: Mutex<Init>,
    modes: Mutex<Modes>,
    allow_other: bool,
    /// Another process holds the descriptor and continues the mount.
    detached: AtomicBool,
}

/// What a process needs, beside the descriptor and the list of open files, to take over a mount of
/// another process.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Kept {
    mounted: Mounted,
    init: Init,
    allow_other: bool,
}

impl Kept {
    /// What is needed to unmount it.
    pub fn mounted(&self) -> &Mounted {
        &self.mounted
    }
}

impl Connection {
    /// Checks the mount point and mounts. Requests wait until a process serves.
    pub fn open(options: &MountOptions) -> Result<Self, MountError> {
        let point = checks::check(options)?;
        let source = Mounted::new_source();
        let device = system::mount(&point, &source, options.allow_other)?;
        let mounted = Mounted::at(&point, source);
        match first_request(&device) {
            Ok(init) => Ok(Self {
                device,
                mounted,
                init: Mutex::new(init),
                modes: Mutex::default(),
                allow_other: options.allow_other,
                detached: AtomicBool::new(false),
            }),
            Err(source) => {
                system::unmount(&point).ok();
                Err(MountError::Failed { path: point, source })
            }
        }
    }

    /// Takes over a mount of another process, if it is in place and has the wanted options. On an error
    /// nothing has been changed.
    pub fn take_up(
        device: OwnedFd,
        kept: Kept,
        open: impl Iterator<Item = Open>,
        options: &MountOptions,
    ) -> Result<Self, MountError> {
        let Kept { mounted, init, allow_other } = kept;
        let point = checks::absolute(&options.mountpoint)?;
        let unless = |holds: bool, why: &str| match holds {
            true => Ok(()),
            false => Err(MountError::Mountpoint { path: mounted.point.clone(), why: why.into() }),
        };
        unless(mounted.point == point, "is another mount point than the one wanted now")?;
        unless(allow_other == options.allow_other, "was mounted for other readers than now")?;
        let there = mounted.number.is_some() && mounted.is_in_place();
        unless(there, "is not mounted any more")?;
        unless(device::is_one(&device), "comes with a descriptor that is none of a mount")?;
        unless(init.is_answered() && init.can_resend(), "was left before it was served")?;
        let mut modes = Modes::default();
        open.for_each(|file| modes.opened(file));
        unless(!has_ended(&device), "was cut off")?;
        Ok(Self {
            device,
            mounted,
            init: Mutex::new(init),
            modes: Mutex::new(modes),
            allow_other,
            detached: AtomicBool::new(false),
        })
    }

    /// The state for a process that takes over.
    pub fn kept(&self) -> Kept {
        let (mounted, init) = (self.mounted.clone(), self.init().clone());
        Kept { mounted, init, allow_other: self.allow_other }
    }

    /// Keeps the mount when this value is dropped: another process holds the descriptor.
    pub fn detach(&self) {
        self.detached.store(true, Ordering::Relaxed);
    }

    fn init(&self) -> MutexGuard<'_, Init> {
        self.init.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn modes(&self) -> MutexGuard<'_, Modes> {
        lock(&self.modes)
    }

    /// The mount point.
    pub fn point(&self) -> &Path {
        &self.mounted.point
    }

    /// The descriptor, for a process that serves.
    pub fn device(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    /// The FUSE_INIT request, for a new process that serves.
    pub fn offer(&self) -> Vec<u8> {
        self.init().offer()
    }

    /// Whether this kernel supports takeover after a worker's death.
    pub fn can_be_taken_over(&self) -> bool {
        self.init().can_resend()
    }

    /// Why passthrough must not be used, if so.
    pub fn no_passthrough(&self, wanted: bool) -> Option<String> {
        match wanted {
            true => negotiate::lacks_privilege(),
            false => Some("switched off".to_owned()),
        }
    }

    /// Takes a process's reply to FUSE_INIT; the first such reply goes to the kernel.
    pub fn answered(&self, reply: &[u8]) -> io::Result<()> {
        let mut init = self.init();
        if !init.is_answered() {
            init.answered(reply)?;
            rustix::io::write(&self.device, reply)?;
            // Not earlier: the reply resets the window to what the kernel had offered.
            self.read_ahead();
        }
        Ok(())
    }

    /// Enlarges the kernel's readahead window, where we may.
    fn read_ahead(&self) {
        let Some(mounted) = self.mounted.found() else { return };
        let setting = format!("/sys/class/bdi/{}/read_ahead_kb", mounted.device);
        if let Err(error) = std::fs::write(&setting, READ_AHEAD_KIB) {
            tracing::debug!(%error, setting, "the kernel's readahead stays as it is");
        }
    }

    /// Registers a file for passthrough. An inode keeps the backing id that it has.
    pub fn register(&self, ino: modelfs::vfs::Ino, file: &File) -> io::Result<BackingNumber> {
        match self.modes().of(ino) {
            Some(Some(number)) => Ok(number),
            _ => device::register(self.device(), file),
        }
    }

    /// Unregisters a backing file that has no handle.
    pub fn unregister(&self, number: BackingNumber) {
        if let Err(error) = device::unregister(self.device(), number) {
            tracing::debug!(%error, ?number, "the kernel did not take a backing file back");
        }
    }

    /// Records an open file.
    pub fn opened(&self, open: Open) {
        self.modes().opened(open);
    }

    /// Records a release; the inode's last one drops its backing id.
    pub fn released(&self, ino: modelfs::vfs::Ino, handle: modelfs::vfs::Handle) {
        let last = self.modes().released(ino, handle);
        if let Some(number) = last {
            self.unregister(number);
        }
    }

    /// All open files, for a process that takes over.
    pub fn open_files(&self) -> Vec<Open> {
        self.modes().iter().collect()
    }

    /// Whether the kernel has ended the connection: unmounted and closed, or aborted.
    pub fn has_ended(&self) -> bool {
        has_ended(&self.device)
    }

    /// Sets whether reads from the device block. All holders of the descriptor share this.
    pub fn set_waiting(&self, waits: bool) -> io::Result<()> {
        let flags = rustix::fs::fcntl_getfl(&self.device)?;
        let flags = match waits {
            true => flags - OFlags::NONBLOCK,
            false => flags | OFlags::NONBLOCK,
        };
        Ok(rustix::fs::fcntl_setfl(&self.device, flags)?)
    }

    /// Unmounts, lazily if files are open; no error if the mount is gone.
    pub fn unmount(&self) -> Result<(), MountError> {
        self.mounted.unmount()
    }

    /// Aborts the connection, if the system lets us: readers of files that are still open get an error.
    pub fn abort(&self) {
        // The number of an ended connection may have been reused.
        if !self.has_ended() {
            self.mounted.abort();
        }
    }

    /// What another process needs to unmount it.
    pub fn mounted(&self) -> &Mounted {
        &self.mounted
    }

    /// Answers one request with an error, while no process serves; `false`: the connection has ended.
    /// Waits at most `most` for a request.
    pub fn refuse(&self, reason: &str, most: std::time::Duration) -> io::Result<bool> {
        refuse::one(self.device(), reason, most, |ino, handle| self.released(ino, handle))
    }

    /// Asks the kernel to resend all requests that were read and not answered.
    pub fn resend(&self) -> io::Result<()> {
        device::resend(&self.device)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.detached.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.unmount() {
            tracing::warn!(%error, "unmounting failed");
        }
    }
}

fn has_ended(device: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut look = [PollFd::new(device, PollFlags::IN)];
    poll(&mut look, Some(&Timespec::default())).is_ok()
        && look[0].revents().contains(PollFlags::ERR)
}

fn first_request(device: &OwnedFd) -> io::Result<Init> {
    let mut buffer = vec![0; FIRST_REQUEST];
    let len = rustix::io::retry_on_intr(|| rustix::io::read(device, &mut buffer))?;
    Init::new(&buffer[..len])
}
