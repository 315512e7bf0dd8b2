//! A mount as whoever keeps it sees it: made, taken away, its descriptor handed to those that serve.
//!
//! Invariant: one descriptor, never cloned: what a cloned one had read would be lost with it. A
//! dropped connection has been unmounted, unless it was left to whoever comes next. Concurrency: shared;
//! nothing waits but for the kernel.

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

/// What the kernel reads ahead of a sequential reader, where we may say so. With its default of 128
/// KiB cached mode has half the speed (1,000 against 2,000 MiB/s from the blob's page cache); a full
/// request of 1 MiB is no faster than this, and would be fetched around each fault of a map.
const READ_AHEAD_KIB: &str = "512";
/// The kernel's first request fits, whatever its version (FUSE_MIN_READ_BUFFER).
const FIRST_REQUEST: usize = 8192;

/// A connection to the kernel with its mount.
pub struct Connection {
    device: OwnedFd,
    mounted: Mounted,
    init: Mutex<Init>,
    modes: Mutex<Modes>,
    allow_other: bool,
    /// Others hold the descriptor too, and will go on.
    left: AtomicBool,
}

/// What a process needs, beside the descriptor and the list of open files, to go on with a mount that
/// another one made.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Kept {
    mounted: Mounted,
    init: Init,
    allow_other: bool,
}

impl Kept {
    /// What it takes to take it away.
    pub fn mounted(&self) -> &Mounted {
        &self.mounted
    }
}

impl Connection {
    /// Checks the mount point and mounts. Whoever opens a file there waits until somebody serves.
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
                left: AtomicBool::new(false),
            }),
            Err(source) => {
                system::unmount(&point).ok();
                Err(MountError::Failed { path: point, source })
            }
        }
    }

    /// Goes on with a mount that another process made, if it is there and as wanted. The error says why
    /// not; then nothing has been changed.
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
        unless(init.is_answered() && init.can_send_again(), "was left before it was served")?;
        let mut modes = Modes::default();
        open.for_each(|file| modes.opened(file));
        unless(!has_ended(&device), "was cut off")?;
        Ok(Self {
            device,
            mounted,
            init: Mutex::new(init),
            modes: Mutex::new(modes),
            allow_other,
            left: AtomicBool::new(false),
        })
    }

    /// What to tell a process that is to go on.
    pub fn kept(&self) -> Kept {
        let (mounted, init) = (self.mounted.clone(), self.init().clone());
        Kept { mounted, init, allow_other: self.allow_other }
    }

    /// Leaves the mount as it is when this value goes: somebody else holds the descriptor.
    pub fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    fn init(&self) -> MutexGuard<'_, Init> {
        self.init.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn modes(&self) -> MutexGuard<'_, Modes> {
        lock(&self.modes)
    }

    /// Where it is mounted.
    pub fn point(&self) -> &Path {
        &self.mounted.point
    }

    /// The descriptor, to hand to a process that serves.
    pub fn device(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    /// The first request, for a process that comes to serve.
    pub fn offer(&self) -> Vec<u8> {
        self.init().offer()
    }

    /// Whether this kernel lets another process go on where one died.
    pub fn can_be_taken_over(&self) -> bool {
        self.init().can_send_again()
    }

    /// Why the kernel is not to be asked to read files by itself, if so.
    pub fn no_passthrough(&self, wanted: bool) -> Option<String> {
        match wanted {
            true => negotiate::lacks_privilege(),
            false => Some("switched off".to_owned()),
        }
    }

    /// Takes a process's answer to the first request; the first such answer goes to the kernel.
    pub fn answered(&self, reply: &[u8]) -> io::Result<()> {
        let mut init = self.init();
        if !init.is_answered() {
            init.answered(reply)?;
            rustix::io::write(&self.device, reply)?;
            // Not before: the answer sets it to what the kernel had offered.
            self.read_ahead();
        }
        Ok(())
    }

    /// Has the kernel read further ahead, where that is ours to say.
    fn read_ahead(&self) {
        let Some(mounted) = self.mounted.found() else { return };
        let setting = format!("/sys/class/bdi/{}/read_ahead_kb", mounted.device);
        if let Err(error) = std::fs::write(&setting, READ_AHEAD_KIB) {
            tracing::debug!(%error, setting, "the kernel's readahead stays as it is");
        }
    }

    /// Registers a file that the kernel is to read by itself. An inode that has one keeps it.
    pub fn register(&self, ino: modelfs::vfs::Ino, file: &File) -> io::Result<BackingNumber> {
        match self.modes().of(ino) {
            Some(Some(number)) => Ok(number),
            _ => device::register(self.device(), file),
        }
    }

    /// Takes back what was registered and has no handle.
    pub fn unregister(&self, number: BackingNumber) {
        if let Err(error) = device::unregister(self.device(), number) {
            tracing::debug!(%error, ?number, "the kernel did not take a backing file back");
        }
    }

    /// Notes an open file.
    pub fn opened(&self, open: Open) {
        self.modes().opened(open);
    }

    /// Notes a release; the inode's backing goes with its last handle.
    pub fn released(&self, ino: modelfs::vfs::Ino, handle: modelfs::vfs::Handle) {
        let last = self.modes().released(ino, handle);
        if let Some(number) = last {
            self.unregister(number);
        }
    }

    /// Everything that is open, for a process that goes on.
    pub fn open_files(&self) -> Vec<Open> {
        self.modes().iter().collect()
    }

    /// Whether the kernel has ended the connection: unmounted and closed, or cut off.
    pub fn has_ended(&self) -> bool {
        has_ended(&self.device)
    }

    /// Whether reading requests waits for one. Everybody who has the descriptor shares this.
    pub fn set_waiting(&self, waits: bool) -> io::Result<()> {
        let flags = rustix::fs::fcntl_getfl(&self.device)?;
        let flags = match waits {
            true => flags - OFlags::NONBLOCK,
            false => flags | OFlags::NONBLOCK,
        };
        Ok(rustix::fs::fcntl_setfl(&self.device, flags)?)
    }

    /// Takes the mount away, lazily if files are open; no error if it is gone.
    pub fn unmount(&self) -> Result<(), MountError> {
        self.mounted.unmount()
    }

    /// Cuts off files that are still open, if the system lets us: their readers get an error.
    pub fn abort(&self) {
        // The number of one that has ended may be another's by now.
        if !self.has_ended() {
            self.mounted.abort();
        }
    }

    /// What another process needs to take the mount away.
    pub fn mounted(&self) -> &Mounted {
        &self.mounted
    }

    /// Answers one request with an error, for as long as nobody serves; `false`: the connection
    /// has ended. Waits for a request, for `most` at the longest.
    pub fn refuse(&self, reason: &str, most: std::time::Duration) -> io::Result<bool> {
        refuse::one(self.device(), reason, most, |ino, handle| self.released(ino, handle))
    }

    /// Asks for all requests again that were taken and not answered.
    pub fn send_again(&self) -> io::Result<()> {
        device::send_again(&self.device)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.left.load(Ordering::Relaxed) {
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
