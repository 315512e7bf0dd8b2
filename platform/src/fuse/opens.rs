//! Opens and closes, told to the keeper one after the other.
//!
//! Invariant: the keeper hears of opens and closes in our order, and of an open before the kernel
//! does. Concurrency: one thread, which alone waits for the keeper: however long that takes, the
//! threads that read requests go on. It ends when the last [`Opens`] is dropped.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use fuser::{FileHandle, FopenFlags, ReplyEmpty, ReplyOpen};
use modelfs::vfs::{Handle, Ino, Opened, Vfs};

use super::modes::{Modes, Open, RequestNumber};
use super::replies::{opened_passthrough, refused};
use super::serve::Keeper;
use crate::Agreed;

/// Data stays in the page cache from open to open, since content never changes; nothing is ever
/// written, so a close has nothing to say.
const FILE_FLAGS: FopenFlags = FopenFlags::FOPEN_KEEP_CACHE.union(FopenFlags::FOPEN_NOFLUSH);

/// What the thread is to do.
enum Job {
    Open { ino: Ino, request: RequestNumber, opened: Opened, reply: ReplyOpen },
    Release { ino: Ino, handle: Handle, reply: ReplyEmpty },
}

/// The way to the thread.
#[derive(Clone)]
pub(super) struct Opens(Sender<Job>);

impl Opens {
    /// Starts the thread. `modes`: what is open already.
    pub(super) fn start(
        vfs: Arc<Vfs>,
        keeper: Arc<dyn Keeper>,
        agreed: Arc<Mutex<Agreed>>,
        modes: Modes,
    ) -> io::Result<Self> {
        let (jobs, queue) = channel();
        let teller = Teller { vfs, keeper, agreed, modes };
        thread::Builder::new().name("fuse-opens".into()).spawn(move || teller.run(&queue))?;
        Ok(Self(jobs))
    }

    /// Answers an open.
    pub(super) fn open(&self, ino: Ino, request: RequestNumber, opened: Opened, reply: ReplyOpen) {
        self.send(Job::Open { ino, request, opened, reply });
    }

    /// Answers a close.
    pub(super) fn release(&self, ino: Ino, handle: Handle, reply: ReplyEmpty) {
        self.send(Job::Release { ino, handle, reply });
    }

    fn send(&self, job: Job) {
        // The thread ends only after the last sender. A job that were lost would be answered with an
        // error by the drop of its reply.
        if self.0.send(job).is_err() {
            tracing::error!("the thread for opens is gone");
        }
    }
}

/// The thread's state.
struct Teller {
    vfs: Arc<Vfs>,
    keeper: Arc<dyn Keeper>,
    agreed: Arc<Mutex<Agreed>>,
    modes: Modes,
}

impl Teller {
    fn run(mut self, queue: &Receiver<Job>) {
        while let Ok(job) = queue.recv() {
            match job {
                Job::Open { ino, request, opened, reply } => {
                    self.open(ino, request, opened, reply);
                }
                Job::Release { ino, handle, reply } => {
                    // The kernel's number first: while it lives, the tree keeps the file from
                    // eviction.
                    self.modes.released(ino, handle);
                    self.keeper.released(ino, handle);
                    self.vfs.release(ino, handle);
                    reply.ok();
                }
            }
        }
    }

    fn open(&mut self, ino: Ino, request: RequestNumber, opened: Opened, reply: ReplyOpen) {
        let Opened { handle, backing } = opened;
        // The inode's mode, also one of a former process's making; else the tree's wish.
        let backing = self.modes.of(ino).unwrap_or_else(|| {
            let registered = self.keeper.register(ino, &*backing?);
            registered.inspect_err(|error| refused(error, &self.vfs, &self.agreed)).ok()
        });
        let open = Open { ino, handle, request, backing };
        self.modes.opened(open);
        self.keeper.opened(open);
        let fh = FileHandle(handle.0);
        match backing {
            Some(number) => opened_passthrough(reply, fh, number),
            None => reply.opened(fh, FILE_FLAGS),
        }
    }
}
