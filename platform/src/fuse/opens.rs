//! Reports opens and closes to the broker, one at a time.
//!
//! Invariant: the broker receives opens and closes in our order, and an open before the kernel gets its
//! reply. Concurrency: at most one thread waits for the broker, however long that takes. If none waits,
//! the thread with the open waits itself, since waking another one costs as much as the open. Jobs that
//! arrive meanwhile go to a separate thread, which ends when the last [`Opens`] is dropped.

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

/// Content never changes, so the page cache stays valid across opens. Nothing is ever written, so a
/// close needs no flush.
const FILE_FLAGS: FopenFlags = FopenFlags::FOPEN_KEEP_CACHE.union(FopenFlags::FOPEN_NOFLUSH);

/// A job for the broker.
enum Job {
    Open { ino: Ino, request: RequestNumber, opened: Opened, reply: ReplyOpen },
    Release { ino: Ino, handle: Handle, reply: ReplyEmpty },
}

/// The path to the broker.
#[derive(Clone)]
pub(super) struct Opens {
    teller: Arc<Mutex<Teller>>,
    /// Jobs queued for the thread and not done.
    left: Arc<AtomicUsize>,
    jobs: Sender<Job>,
    /// Whether a thread that takes requests may wait here: there is more than one.
    may_wait: bool,
}

impl Opens {
    /// Starts the thread. `modes`: the files already open; `threads`: the number that take requests.
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
        // The thread ends only after the last sender. If a job were lost, dropping its reply would
        // answer it with an error.
        if self.jobs.send(job).is_err() {
            tracing::error!("the thread for opens is gone");
        }
    }
}

/// The thread's loop.
fn work(teller: &Mutex<Teller>, left: &AtomicUsize, queue: &Receiver<Job>) {
    while let Ok(job) = queue.recv() {
        teller.lock().unwrap_or_else(PoisonError::into_inner).tell(job);
        left.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Reports to the broker.
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
                // The kernel's backing id first: while it exists, the tree protects the file from
                // eviction.
                self.modes.released(ino, handle);
                self.broker.released(ino, handle);
                self.vfs.release(ino, handle);
                reply.ok();
            }
        }
    }

    fn open(&mut self, ino: Ino, request: RequestNumber, opened: Opened, reply: ReplyOpen) {
        let Opened { handle, backing } = opened;
        // The inode's mode, even if a former process set it; else the mode that the tree wants.
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
