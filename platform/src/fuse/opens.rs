//! Opens and closes, told to the broker one after the other.
//!
//! Invariant: the broker hears of opens and closes in our order, and of an open before the kernel
//! does. Concurrency: at most one thread waits for the broker, however long that takes: the one that
//! brings an open while nobody waits, since waking another one costs as much as the open; what comes
//! meanwhile is left to a thread of its own. That ends when the last [`Opens`] is dropped.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use fuser::{FileHandle, FopenFlags, ReplyEmpty, ReplyOpen};
use modelfs::vfs::{Handle, Ino, Opened, Vfs};

use super::broker::MountBroker;
use super::modes::{Modes, Open, RequestNumber};
use super::replies::{opened_passthrough, refused};
use crate::options::Agreed;

/// Data stays in the page cache from open to open, since content never changes; nothing is ever
/// written, so a close has nothing to say.
const FILE_FLAGS: FopenFlags = FopenFlags::FOPEN_KEEP_CACHE.union(FopenFlags::FOPEN_NOFLUSH);

/// What is to be done.
enum Job {
    Open { ino: Ino, request: RequestNumber, opened: Opened, reply: ReplyOpen },
    Release { ino: Ino, handle: Handle, reply: ReplyEmpty },
}

/// The way to the broker.
#[derive(Clone)]
pub(super) struct Opens {
    teller: Arc<Mutex<Teller>>,
    /// Jobs that are left to the thread and not done.
    left: Arc<AtomicUsize>,
    jobs: Sender<Job>,
    /// Whether there is a thread to spare that may wait itself.
    may_wait: bool,
}

impl Opens {
    /// Starts the thread. `modes`: what is open already; `threads`: how many read requests.
    pub(super) fn start(
        vfs: Arc<Vfs>,
        broker: Arc<dyn MountBroker>,
        agreed: Arc<Mutex<Agreed>>,
        modes: Modes,
        threads: usize,
    ) -> io::Result<Self> {
        let (jobs, queue) = channel();
        let teller = Arc::new(Mutex::new(Teller { vfs, broker, agreed, modes }));
        let left = Arc::new(AtomicUsize::new(0));
        let this = Self { teller: teller.clone(), left: left.clone(), jobs, may_wait: threads > 1 };
        thread::Builder::new()
            .name("fuse-opens".into())
            .spawn(move || work(&teller, &left, &queue))?;
        Ok(this)
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
        if self.may_wait
            && let Ok(mut teller) = self.teller.try_lock()
            && self.left.load(Ordering::Acquire) == 0
        {
            return teller.tell(job);
        }
        self.left.fetch_add(1, Ordering::AcqRel);
        // The thread ends only after the last sender. A job that were lost would be answered with an
        // error by the drop of its reply.
        if self.jobs.send(job).is_err() {
            tracing::error!("the thread for opens is gone");
        }
    }
}

/// The thread.
fn work(teller: &Mutex<Teller>, left: &AtomicUsize, queue: &Receiver<Job>) {
    while let Ok(job) = queue.recv() {
        teller.lock().unwrap_or_else(PoisonError::into_inner).tell(job);
        left.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Who tells the broker.
struct Teller {
    vfs: Arc<Vfs>,
    broker: Arc<dyn MountBroker>,
    agreed: Arc<Mutex<Agreed>>,
    modes: Modes,
}

impl Teller {
    fn tell(&mut self, job: Job) {
        match job {
            Job::Open { ino, request, opened, reply } => self.open(ino, request, opened, reply),
            Job::Release { ino, handle, reply } => {
                // The kernel's number first: while it lives, the tree keeps the file from eviction.
                self.modes.released(ino, handle);
                self.broker.released(ino, handle);
                self.vfs.release(ino, handle);
                reply.ok();
            }
        }
    }

    fn open(&mut self, ino: Ino, request: RequestNumber, opened: Opened, reply: ReplyOpen) {
        let Opened { handle, backing } = opened;
        // The inode's mode, also one of a former process's making; else the tree's wish.
        let backing = self.modes.of(ino).unwrap_or_else(|| {
            let registered = self.broker.register(ino, &*backing?);
            registered.inspect_err(|error| refused(error, &self.vfs, &self.agreed)).ok()
        });
        let open = Open { ino, handle, request, backing };
        self.modes.opened(open);
        self.broker.opened(open);
        let fh = FileHandle(handle.0);
        match backing {
            Some(number) => opened_passthrough(reply, fh, number),
            None => reply.opened(fh, FILE_FLAGS),
        }
    }
}
