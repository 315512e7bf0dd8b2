//! The kernel's requests, one method each.
//!
//! Invariant: every reply is sent once; nothing is ever written. Concurrency: several threads call
//! in; what is known is answered on the thread that took the request, what has to wait becomes a
//! task on the runtime, or a job of the thread for opens, so that nothing that waits ever holds a
//! thread that a cached read needs.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

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

/// Our inodes are never used again for something else, so there is but one generation.
const GENERATION: Generation = Generation(0);
/// Answers after which a process is said to serve: looking a path up and opening the file takes as
/// many. One answer may be all that comes before the request that a process dies of.
const FIRST_ANSWERS: u32 = 4;
/// The unit that statfs counts in: a page.
const STATFS_BLOCK: u64 = 4096;
/// The kernel keeps lists too; it is told when they change.
const FOLDER_FLAGS: FopenFlags = FopenFlags::FOPEN_KEEP_CACHE.union(FopenFlags::FOPEN_CACHE_DIR);

/// What a mount needs to answer.
pub(super) struct Adapter {
    pub(super) vfs: Arc<Vfs>,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) owner: Owner,
    pub(super) no_passthrough: Option<String>,
    pub(super) agreed: Arc<Mutex<Agreed>>,
    /// The kernel can do without opening folders.
    pub(super) without_opendir: bool,
    /// The kernel can do without opening files, and nothing depends on it.
    pub(super) without_open: bool,
    pub(super) opens: Opens,
    pub(super) answered: Arc<Answered>,
}

/// Counts the first answers, and tells the broker of the last of them.
pub(super) struct Answered {
    left: AtomicU32,
    broker: Arc<dyn MountBroker>,
}

impl Answered {
    pub(super) fn new(broker: Arc<dyn MountBroker>) -> Self {
        Self { left: AtomicU32::new(FIRST_ANSWERS), broker }
    }

    /// One more was sent. All later ones cost a load.
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
    /// Replies now, or from a task when the answer has come.
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
                    vfs.told(found.ino);
                    reply.entry(&KEPT, &attr(&found, owner), GENERATION);
                }
                // No entry at all, so that the kernel keeps no "not there" that nobody would correct.
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

    /// Where the kernel never reads by itself, reading needs no handle: it hears so once, and every
    /// later open and close costs no more than those of a file on the disk.
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

    /// Listing needs no handle: a place in a list says it all. A kernel that understands this asks
    /// never again.
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
                let told = lists::fill_plus(&mut reply, place, ino, parent, &list, owner);
                told.into_iter().for_each(|ino| vfs.told(ino));
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
        // No inodes in all and none free: like Btrfs, there is no limit, and `df -i` shows "-".
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

    /// Nothing is ever written, so a close has nothing to say: a kernel that hears this asks no more.
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

    // What follows would change something. The kernel refuses all of it itself on a read-only
    // mount; should the mount ever be made writable from outside, we do.

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
