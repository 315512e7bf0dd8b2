//! The kernel's requests, one method each.
//!
//! Invariant: every request gets one reply; nothing is ever written. Concurrency: several threads call
//! in. A known answer is sent on the thread that took the request. An answer that has to wait becomes a
//! task on the runtime, or a job of the thread for opens, so that waiting never holds a thread that a
//! cached read needs.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use modelfs::vfs::{Answer, Handle, Ino, ListPlace, Vfs};

use super::broker::MountBroker;
use super::convert::{KEPT, Owner, attr};
use super::errno::errno;
use super::modes::RequestNumber;
use super::opens::Opens;
use super::replies::{MAX_NAME, send_attribute, text};
use super::{lists, negotiate};
use crate::options::Agreed;

/// Inode numbers are never reused, so one generation is enough.
const GENERATION: Generation = Generation(0);
/// Number of answers after which a process counts as serving: a path lookup and an open take as many.
/// One answer may be all that precedes the request that kills a process.
const FIRST_ANSWERS: u32 = 4;
/// The block size of statfs: a page.
const STATFS_BLOCK: u64 = 4096;
/// The kernel caches lists too; changes invalidate them.
const FOLDER_FLAGS: FopenFlags = FopenFlags::FOPEN_KEEP_CACHE.union(FopenFlags::FOPEN_CACHE_DIR);

/// What a mount needs to answer requests.
pub(super) struct Adapter {
    pub(super) vfs: Arc<Vfs>,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) owner: Owner,
    pub(super) no_passthrough: Option<String>,
    pub(super) agreed: Arc<Mutex<Agreed>>,
    /// The kernel supports skipping opendir.
    pub(super) without_opendir: bool,
    /// The kernel supports skipping open, and nothing depends on it.
    pub(super) without_open: bool,
    pub(super) opens: Opens,
    pub(super) answered: Arc<Answered>,
}

/// Counts the first answers and notifies the broker of the last of them.
pub(super) struct Answered {
    left: AtomicU32,
    broker: Arc<dyn MountBroker>,
}

impl Answered {
    pub(super) fn new(broker: Arc<dyn MountBroker>) -> Self {
        Self { left: AtomicU32::new(FIRST_ANSWERS), broker }
    }

    /// Counts one answer. Once the count is reached, this costs one load.
    fn one(&self) {
        let less = |left: u32| left.checked_sub(1);
        if self.left.load(Ordering::Relaxed) > 0
            && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) == Ok(1)
        {
            self.broker.serves();
        }
    }
}

impl Adapter {
    /// Replies now, or from a task once the answer is known.
    fn respond<T: Send + 'static, R: Send + 'static>(
        &self,
        answer: Answer<T>,
        reply: R,
        send: impl FnOnce(Result<T, Errno>, R) + Send + 'static,
    ) {
        match answer {
            Answer::Now(answer) => {
                send(answer.map_err(|e| errno(&e)), reply);
                self.answered.one();
            }
            Answer::Later(answer) => {
                let answered = Arc::clone(&self.answered);
                self.runtime.spawn(async move {
                    send(answer.await.map_err(|e| errno(&e)), reply);
                    answered.one();
                });
            }
        }
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let agreed = negotiate::negotiate(config, self.no_passthrough.clone());
        self.vfs.set_passthrough(agreed.passthrough);
        let can = config.capabilities();
        self.without_opendir = can.contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT);
        self.without_open = !agreed.passthrough && can.contains(InitFlags::FUSE_NO_OPEN_SUPPORT);
        *self.agreed.lock().unwrap_or_else(PoisonError::into_inner) = agreed;
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = match text(name) {
            Ok(name) => name,
            Err(error) => return reply.error(error),
        };
        let (owner, vfs) = (self.owner, Arc::clone(&self.vfs));
        self.respond(
            self.vfs.lookup(Ino(parent.0), name),
            reply,
            move |found, reply| match found {
                Ok(found) => {
                    vfs.looked_up(found.attr.ino);
                    let valid = if found.keeps { KEPT } else { Duration::ZERO };
                    reply.entry(&valid, &attr(&found.attr, owner), GENERATION);
                }
                // No entry at all: the kernel must not cache a "not found" that nothing would
                // invalidate.
                Err(error) => reply.error(error),
            },
        );
    }

    fn forget(&self, _: &Request, ino: INodeNo, times: u64) {
        self.vfs.forget(Ino(ino.0), times);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let owner = self.owner;
        self.respond(self.vfs.attr(Ino(ino.0)), reply, move |found, reply| match found {
            Ok(found) => reply.attr(&KEPT, &attr(&found, owner)),
            Err(error) => reply.error(error),
        });
    }

    /// Without passthrough, reading needs no handle. ENOSYS tells the kernel so once; every later open
    /// and close costs no more than on a local file system.
    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.acc_mode() != OpenAccMode::O_RDONLY {
            return reply.error(Errno::EROFS);
        }
        if self.without_open {
            return reply.error(Errno::ENOSYS);
        }
        let ino = Ino(ino.0);
        let request = RequestNumber::new(request.unique().0);
        let opens = self.opens.clone();
        self.respond(self.vfs.open(ino), reply, move |opened, reply| match opened {
            Ok(opened) => opens.open(ino, request, opened, reply),
            Err(error) => reply.error(error),
        });
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let answer = self.vfs.read(Ino(ino.0), Handle(fh.0), offset, size);
        self.respond(answer, reply, |bytes, reply| match bytes {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        });
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.opens.release(Ino(ino.0), Handle(fh.0), reply);
    }

    /// Listing needs no handle: the position in the list is enough. A kernel that supports this never
    /// calls again.
    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.without_opendir {
            true => reply.error(Errno::ENOSYS),
            false => reply.opened(FileHandle(0), FOLDER_FLAGS),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let (ino, place) = (Ino(ino.0), ListPlace::from_number(offset));
        let parent = self.vfs.parent(ino);
        self.respond(self.vfs.list(ino, place), reply, move |list, mut reply| match list {
            Ok(list) => {
                lists::fill(&mut reply, place, ino, parent, &list);
                reply.ok();
            }
            Err(error) => reply.error(error),
        });
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let (ino, place) = (Ino(ino.0), ListPlace::from_number(offset));
        let (owner, parent, vfs) = (self.owner, self.vfs.parent(ino), Arc::clone(&self.vfs));
        self.respond(self.vfs.list(ino, place), reply, move |list, mut reply| match list {
            Ok(list) => {
                let returned = lists::fill_plus(&mut reply, place, ino, parent, &list, owner);
                returned.into_iter().for_each(|ino| vfs.looked_up(ino));
                reply.ok();
            }
            Err(error) => reply.error(error),
        });
    }

    fn releasedir(&self, _: &Request, _: INodeNo, _: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let space = self.vfs.space();
        let (blocks, free) = (space.total / STATFS_BLOCK, space.free / STATFS_BLOCK);
        let block = STATFS_BLOCK as u32;
        // Zero inodes in total and free: like Btrfs, there is no limit, and `df -i` shows "-".
        let (inodes, free_inodes) = (0, 0);
        reply.statfs(blocks, free, free, inodes, free_inodes, block, MAX_NAME as u32, block);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let Some(name) = name.to_str() else { return reply.error(Errno::ENODATA) };
        let answer = self.vfs.attribute(Ino(ino.0), name);
        self.respond(answer, reply, move |value, reply| send_attribute(value, size, reply));
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.respond(self.vfs.attributes(Ino(ino.0)), reply, move |names, reply| {
            let joined =
                names.map(|names| names.iter().flat_map(|n| [n, "\0"]).collect::<String>());
            send_attribute(joined.map(String::into_bytes), size, reply);
        });
    }

    /// Nothing is ever written, so a flush does nothing: after ENOSYS the kernel sends no more of them.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readlink(&self, _: &Request, _: INodeNo, reply: ReplyData) {
        reply.error(Errno::EINVAL);
    }

    // The requests below would change something. On a read-only mount the kernel refuses them itself;
    // if the mount is remounted writable from outside, we refuse them.

    fn setattr(
        &self,
        _: &Request,
        _: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn rmdir(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn rename(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: INodeNo,
        _: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn create(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        reply.error(Errno::EROFS);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn setxattr(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: &[u8],
        _: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }
}
