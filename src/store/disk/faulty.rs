//! A disk that fails on demand, wrapped around another.
//!
//! Invariant: a call that is made to fail leaves the disk below untouched (but a write that runs
//! out of space, which does what still fits). Calls are counted in one order, from any thread.

use parking_lot::{Mutex, MutexGuard};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::{Access, Disk, DiskFile, FileStat};

type Hook = Box<dyn FnOnce() + Send>;
type Watch = Arc<dyn Fn(bool) + Send + Sync>;

#[derive(Default)]
struct Plan {
    calls: u64,
    stop_at: Option<(u64, Option<Hook>)>,
    stop_after: Option<(u64, Option<Hook>)>,
    fail_at: Option<(u64, io::ErrorKind)>,
    room: Option<u64>,
    fail_sync: bool,
    on_read: Option<Hook>,
    spoilt: Option<Range<u64>>,
    watch: Option<Watch>,
}

/// What shall go wrong. Clones are the same.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Faults(call {})", self.plan().calls)
    }
}

impl Faults {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock()
    }

    /// Runs before each change of the index; it is told whether the change is to be durable.
    pub fn watch_index(&self, watch: impl Fn(bool) + Send + Sync + 'static) {
        self.plan().watch = Some(Arc::new(watch));
    }

    /// How many calls that change the disk or the index were made.
    pub fn calls(&self) -> u64 {
        self.plan().calls
    }

    /// The `n`th such call from now on (0: the next) and all after it do not happen: the process
    /// is dead. `hook` runs just before, to copy what else it left behind.
    pub fn stop_at(&self, n: u64, hook: Option<Box<dyn FnOnce() + Send>>) {
        let mut plan = self.plan();
        plan.stop_at = Some((plan.calls + n, hook));
    }

    /// Like [`Faults::stop_at`], but the `n`th call still happens, and `hook` runs just after it.
    pub fn stop_after(&self, n: u64, hook: Option<Box<dyn FnOnce() + Send>>) {
        let mut plan = self.plan();
        plan.stop_after = Some((plan.calls + n, hook));
    }

    /// The `n`th such call from now on (0: the next) fails; the others go through.
    pub fn fail_at(&self, n: u64, kind: io::ErrorKind) {
        let mut plan = self.plan();
        plan.fail_at = Some((plan.calls + n, kind));
    }

    /// Writes run out of space after so many bytes. `None`: no longer.
    pub fn room(&self, bytes: Option<u64>) {
        self.plan().room = bytes;
    }

    /// Every `sync` of a file fails, or no longer does.
    pub fn fail_sync(&self, fail: bool) {
        self.plan().fail_sync = fail;
    }

    /// Runs once, in the middle of the next read: after its start and before its bytes.
    pub fn on_read(&self, hook: Box<dyn FnOnce() + Send>) {
        self.plan().on_read = Some(hook);
    }

    /// Reads that touch these bytes of any file fail, until something of them is written again.
    pub fn spoil(&self, bytes: Range<u64>) {
        self.plan().spoilt = Some(bytes);
    }

    fn touches_spoilt(&self, offset: u64, len: usize) -> bool {
        let end = offset + len as u64;
        self.plan().spoilt.as_ref().is_some_and(|bad| bad.start < end && offset < bad.end)
    }

    /// Does something that changes the disk, if it shall not fail.
    fn run<T>(&self, f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.call()?;
        let out = f();
        let mut plan = self.plan();
        let done = plan.calls;
        if let Some((at, hook)) = &mut plan.stop_after
            && done == *at + 1
            && let Some(hook) = hook.take()
        {
            hook();
        }
        out
    }

    fn call(&self) -> io::Result<()> {
        let mut plan = self.plan();
        let now = plan.calls;
        plan.calls += 1;
        if let Some((at, hook)) = &mut plan.stop_at
            && now >= *at
        {
            if let Some(hook) = hook.take() {
                hook();
            }
            return Err(io::Error::other("stopped"));
        }
        if plan.stop_after.as_ref().is_some_and(|(at, _)| now > *at) {
            return Err(io::Error::other("stopped"));
        }
        match plan.fail_at {
            Some((at, kind)) if at == now => Err(kind.into()),
            _ => Ok(()),
        }
    }
}

/// The wrapper.
#[derive(Debug)]
pub struct FaultyDisk<D> {
    below: D,
    faults: Faults,
}

#[derive(Debug)]
struct FaultyFile {
    below: Arc<dyn DiskFile>,
    faults: Faults,
}

impl<D: Disk> FaultyDisk<D> {
    /// Around `below`.
    pub fn new(below: D, faults: Faults) -> Self {
        Self { below, faults }
    }
}

impl<D: Disk> Disk for FaultyDisk<D> {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let below = if access == Access::Create {
            self.faults.run(|| self.below.open(path, access))?
        } else {
            self.below.open(path, access)?
        };
        Ok(Arc::new(FaultyFile { below, faults: self.faults.clone() }))
    }

    fn open_shared(&self, path: &Path) -> io::Result<Option<File>> {
        self.below.open_shared(path)
    }

    fn is_shared(&self, path: &Path) -> bool {
        self.below.is_shared(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let freed = self.below.stat(path).map_or(0, |s| s.allocated);
        self.faults.run(|| self.below.remove(path))?;
        if let Some(room) = &mut self.faults.plan().room {
            *room += freed;
        }
        Ok(())
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.faults.run(|| self.below.make_folder(path))
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.faults.run(|| self.below.sync_folder(path))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.below.list(folder)
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        self.below.stat(path)
    }

    fn free(&self) -> io::Result<u64> {
        self.below.free()
    }

    fn boot(&self) -> Option<i64> {
        self.below.boot()
    }

    fn holes(&self) -> bool {
        self.below.holes()
    }

    fn index_changes(&self, durably: bool) -> io::Result<()> {
        let watch = self.faults.plan().watch.clone();
        if let Some(watch) = watch {
            watch(durably);
        }
        self.faults.run(|| self.below.index_changes(durably))
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let hook = self.faults.plan().on_read.take();
        if let Some(hook) = hook {
            hook();
        }
        if self.faults.touches_spoilt(offset, buf.len()) {
            return Err(io::Error::other("input/output error"));
        }
        self.below.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let room = self.faults.plan().room;
        let fits = room.map_or(bytes.len(), |r| (r.min(bytes.len() as u64)) as usize);
        self.faults.run(|| self.below.write_at(&bytes[..fits], offset))?;
        if self.faults.touches_spoilt(offset, fits) {
            self.faults.plan().spoilt = None;
        }
        if let Some(room) = &mut self.faults.plan().room {
            *room = room.saturating_sub(fits as u64);
        }
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.faults.run(|| self.below.set_len(len))
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let before = self.below.stat()?.allocated;
        self.faults.run(|| self.below.punch(offset, len))?;
        let freed = before.saturating_sub(self.below.stat()?.allocated);
        if let Some(room) = &mut self.faults.plan().room {
            *room += freed;
        }
        Ok(())
    }

    fn copy_from(&self, source: &dyn DiskFile, from: u64, to: u64, len: u64) -> io::Result<bool> {
        self.faults.run(|| self.below.copy_from(source, from, to, len))
    }

    fn is_solid(&self, offset: u64, len: u64) -> io::Result<bool> {
        self.below.is_solid(offset, len)
    }

    fn sync(&self) -> io::Result<()> {
        if self.faults.plan().fail_sync {
            return Err(io::Error::other("input/output error"));
        }
        self.faults.run(|| self.below.sync())
    }

    fn stat(&self) -> io::Result<FileStat> {
        self.below.stat()
    }

    fn as_file(&self) -> Option<&File> {
        self.below.as_file()
    }

    fn forget(&self, offset: u64, len: u64) {
        self.below.forget(offset, len);
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryDisk;
    use super::*;

    #[test]
    fn stops_fails_and_fills_up() {
        let faults = Faults::default();
        let below = MemoryDisk::new();
        let disk = FaultyDisk::new(below.clone(), faults.clone());
        disk.make_folder(Path::new("d")).unwrap();
        let file = disk.open(Path::new("d/f"), Access::Create).unwrap();
        faults.fail_at(1, io::ErrorKind::Other);
        file.write_at(b"a", 0).unwrap();
        assert!(file.write_at(b"b", 0).is_err());
        file.write_at(b"c", 1).unwrap();
        faults.room(Some(2));
        assert_eq!(file.write_at(b"xyz", 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
        faults.room(None);
        let (tell, told) = std::sync::mpsc::channel();
        faults.stop_at(0, Some(Box::new(move || tell.send(()).unwrap())));
        assert!(file.write_at(b"q", 0).is_err() && disk.remove(Path::new("d/f")).is_err());
        told.recv().unwrap();
        let mut buf = [0; 2];
        file.read_at(&mut buf, 0).unwrap();
        assert_eq!(&buf, b"xy");
        assert_eq!(faults.calls(), 8);
    }
}
