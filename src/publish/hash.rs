//! Reads every byte once and computes, on all cores, the digests of chunks, leaves and files.
//!
//! A worker takes the next chunk and one of a bounded number of buffers, reads the chunk, hashes it and
//! its leaves, and stores it. The SHA-256 of a file of many chunks must be computed in order: its chunks
//! wait in the file's queue, and the worker that finds the next one there hashes it while the others
//! process other chunks.
//! Invariant: buffers are assigned in chunk order, so the chunk that a queue waits for always has one,
//! and the memory in use is bounded whatever the size of the version.
//! Concurrency: the pool and each queue have a lock, not held during I/O or hashing.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};

use super::plan::Chunk;
use super::scan::{Found, Stamp};
use super::types::{MAX_CHUNK, Progress, PublishError};
use crate::model::hash::{Hasher, sha256};
use crate::model::{Digest, HashAlgorithm};

/// Maximum size of all buffers: eight of the largest chunks. 64 cores need no more with chunks of the
/// usual size either.
const MEMORY: u64 = 8 * MAX_CHUNK;

/// What to hash.
pub struct Job<'a> {
    /// The files, in the manifest's order.
    pub files: &'a [Found],
    /// The chunks of these files.
    pub chunks: &'a [Chunk],
    /// Maximum chunk size.
    pub chunk_size: u64,
    /// Leaf size and hash algorithm, if chunks have leaves.
    pub leaf: Option<(u64, HashAlgorithm)>,
    /// Stores bytes under their SHA-256; returns whether they were new.
    pub keep: Keep<'a>,
}

/// The digests.
#[derive(Debug, Default)]
pub struct Hashed {
    /// The SHA-256 of each chunk.
    pub chunks: Vec<Digest>,
    /// The SHA-256 of each chunk's leaf list, if there are leaves.
    pub leaves: Option<Vec<Digest>>,
    /// The SHA-256 of each file.
    pub files: Vec<Digest>,
    /// Number of new chunks.
    pub new: u64,
    /// Bytes of the new chunks.
    pub new_bytes: u64,
}

struct Pool {
    state: Mutex<PoolState>,
    changed: Condvar,
}

struct PoolState {
    free: Vec<Vec<u8>>,
    next: usize,
    failed: Option<PublishError>,
    stop: bool,
}

/// The function that stores bytes.
pub type Keep<'a> = &'a (dyn Fn(&Digest, &[u8]) -> Result<bool, PublishError> + Sync);

/// A buffer that returns to its pool when dropped.
struct Lease<'a> {
    bytes: Vec<u8>,
    pool: &'a Pool,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.pool.lock().free.push(std::mem::take(&mut self.bytes));
        self.pool.changed.notify_one();
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }

    /// The next of `count` chunks and a buffer for it; `None` if no chunk is left.
    fn next(&self, count: usize) -> Option<(usize, Lease<'_>)> {
        let mut state = self.lock();
        loop {
            if state.stop || state.next >= count {
                return None;
            }
            if let Some(mut bytes) = state.free.pop() {
                let chunk = state.next;
                state.next += 1;
                drop(state);
                bytes.clear();
                return Some((chunk, Lease { bytes, pool: self }));
            }
            state = self.changed.wait(state).expect("nothing panics while it holds this lock");
        }
    }

    fn fail(&self, error: Option<PublishError>) {
        let mut state = self.lock();
        state.stop = true;
        if state.failed.is_none() {
            state.failed = error;
        }
        drop(state);
        self.changed.notify_all();
    }
}

/// Stops the other workers if this one panics: they would wait forever for its buffers.
struct StopOnPanic<'a>(&'a Pool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(None);
        }
    }
}

/// A file whose SHA-256 is computed in order.
#[derive(Default)]
struct Queue<'a> {
    waiting: BTreeMap<u64, (Arc<Lease<'a>>, Range<usize>)>,
    // Boxed: it is large, and most of a million files never need one.
    hasher: Option<Box<Hasher>>,
    at: u64,
    busy: bool,
    done: Option<Digest>,
}

struct Work<'w, 'a> {
    job: &'w Job<'w>,
    pool: &'a Pool,
    queues: &'w [Mutex<Queue<'a>>],
}

struct Report {
    chunk: usize,
    digest: Digest,
    list: Option<Digest>,
    len: u64,
    new: bool,
    files_done: u64,
}

/// Hashes everything; `progress` is called on this thread.
pub fn hash_all(job: &Job<'_>, progress: &dyn Fn(Progress)) -> Result<Hashed, PublishError> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()) as u64;
    let room = (MEMORY / job.chunk_size.max(1)).max(2);
    let threads = threads.min(room);
    // Twice as many buffers as workers: as many chunks may wait in queues as are being processed.
    let free = (0..room.min(threads * 2)).map(|_| Vec::new()).collect();
    let state = PoolState { free, next: 0, failed: None, stop: false };
    let pool = Pool { state: Mutex::new(state), changed: Condvar::new() };
    let queues: Vec<Mutex<Queue<'_>>> = job.files.iter().map(|_| Mutex::default()).collect();
    let mut out = Hashed::default();
    let zero = Digest::from_bytes([0; 32]);
    out.chunks = vec![zero; job.chunks.len()];
    out.leaves = job.leaf.map(|_| out.chunks.clone());
    let mut so_far = Progress {
        bytes_total: job.chunks.iter().map(|c| c.len).sum(),
        files_total: job.files.len() as u64,
        files_done: job.files.iter().filter(|f| f.stamp.size == 0).count() as u64,
        bytes_done: 0,
    };
    std::thread::scope(|scope| {
        let (send, reports) = mpsc::channel();
        for _ in 0..threads {
            let work = Work { job, pool: &pool, queues: &queues };
            let send = send.clone();
            scope.spawn(move || work.run(&send));
        }
        drop(send);
        progress(so_far);
        for r in reports {
            out.chunks[r.chunk] = r.digest;
            if let (Some(leaves), Some(list)) = (&mut out.leaves, r.list) {
                leaves[r.chunk] = list;
            }
            out.new += u64::from(r.new);
            out.new_bytes += if r.new { r.len } else { 0 };
            so_far.bytes_done += r.len;
            so_far.files_done += r.files_done;
            progress(so_far);
        }
    });
    if let Some(error) = pool.lock().failed.take() {
        return Err(error);
    }
    let empty = sha256(b"");
    for queue in &queues {
        let queue = queue.lock().expect("nothing panics while it holds this lock");
        out.files.push(queue.done.unwrap_or(empty));
    }
    unchanged(job.files)?;
    Ok(out)
}

/// Checks that no file has changed since the scan.
fn unchanged(files: &[Found]) -> Result<(), PublishError> {
    for file in files {
        match fs::metadata(&file.real) {
            Ok(meta) if Stamp::of(&meta) == file.stamp => {}
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(PublishError::io(&file.real)(e));
            }
            _ => return Err(PublishError::Changed(file.real.clone())),
        }
    }
    Ok(())
}

impl<'a> Work<'_, 'a> {
    fn run(&self, send: &mpsc::Sender<Report>) {
        let _guard = StopOnPanic(self.pool);
        while let Some((ix, lease)) = self.pool.next(self.job.chunks.len()) {
            match self.chunk(ix, lease) {
                // The receiver outlives the workers.
                Ok(report) => drop(send.send(report)),
                Err(e) => return self.pool.fail(Some(e)),
            }
        }
    }

    fn chunk(&self, ix: usize, mut lease: Lease<'a>) -> Result<Report, PublishError> {
        let Job { files, chunks, leaf, keep, .. } = self.job;
        let chunk = &chunks[ix];
        for segment in &chunk.segments {
            read(
                &files[segment.file],
                segment.range.start(),
                segment.range.len(),
                &mut lease.bytes,
            )?;
        }
        let bytes = &lease.bytes[..];
        let digest = sha256(bytes);
        let new = keep(&digest, bytes)?;
        let mut list = None;
        if let Some((size, kind)) = leaf {
            let leaves = bytes.chunks(*size as usize).map(|leaf| *kind.hash(leaf).as_bytes());
            let leaves = leaves.collect::<Vec<_>>().concat();
            let of_list = sha256(&leaves);
            keep(&of_list, &leaves)?;
            list = Some(of_list);
        }
        let (len, mut files_done, mut at) = (chunk.len, 0, 0);
        let lease = Arc::new(lease);
        for segment in &chunk.segments {
            let part = at..at + segment.range.len() as usize;
            at = part.end;
            let size = files[segment.file].stamp.size;
            let done = if part.len() as u64 == size {
                let is_chunk = size == len;
                let digest = if is_chunk { digest } else { sha256(&lease.bytes[part]) };
                self.queue(segment.file).done = Some(digest);
                true
            } else {
                self.feed(segment.file, segment.range.start(), size, lease.clone(), part)
            };
            files_done += u64::from(done);
        }
        Ok(Report { chunk: ix, digest, list, len, new, files_done })
    }

    fn queue(&self, file: usize) -> MutexGuard<'_, Queue<'a>> {
        self.queues[file].lock().expect("nothing panics while it holds this lock")
    }

    /// Queues a part of a file and hashes the parts whose turn it is, unless another worker does. Returns
    /// whether that finished the file.
    fn feed(
        &self,
        file: usize,
        offset: u64,
        size: u64,
        lease: Arc<Lease<'a>>,
        part: Range<usize>,
    ) -> bool {
        let mut queue = self.queue(file);
        queue.waiting.insert(offset, (lease, part));
        if queue.busy {
            return false;
        }
        queue.busy = true;
        loop {
            let at = queue.at;
            let Some((lease, part)) = queue.waiting.remove(&at) else {
                queue.busy = false;
                return false;
            };
            let hasher = queue.hasher.take();
            let mut hasher = hasher.unwrap_or_else(|| Box::new(Hasher::new(HashAlgorithm::Sha256)));
            drop(queue);
            let len = part.len() as u64;
            hasher.update(&lease.bytes[part]);
            drop(lease);
            queue = self.queue(file);
            queue.at += len;
            if queue.at == size {
                queue.done = Some(hasher.finish());
                return true;
            }
            queue.hasher = Some(hasher);
        }
    }
}

/// Appends a range of a file to `out`.
fn read(file: &Found, start: u64, len: u64, out: &mut Vec<u8>) -> Result<(), PublishError> {
    let failed = |e: std::io::Error| match e.kind() {
        ErrorKind::NotFound => PublishError::Changed(file.real.clone()),
        _ => PublishError::io(&file.real)(e),
    };
    let mut open = File::open(&file.real).map_err(failed)?;
    open.seek(SeekFrom::Start(start)).map_err(failed)?;
    out.reserve(len as usize);
    match open.take(len).read_to_end(out).map_err(failed)? as u64 {
        n if n == len => Ok(()),
        _ => Err(PublishError::Changed(file.real.clone())),
    }
}

/// Number of distinct digests.
pub fn distinct(digests: &[Digest]) -> u64 {
    digests.iter().collect::<HashSet<_>>().len() as u64
}

#[cfg(test)]
#[path = "hash_tests.rs"]
mod tests;
