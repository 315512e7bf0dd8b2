//! A disk in memory that can lose, at random, whatever was not synced.
//!
//! Invariant: after [`MemoryDisk::crash`], each block written since its file's last sync is what it
//! was then or what it is now, by chance; so is each name since its folder's last sync.
//! One lock around everything: tests only.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::{Access, Disk, DiskFile, FileStat};

const BLOCK: u64 = 4096;
type Block = Box<[u8; BLOCK as usize]>;

/// Change times and boots: no two are the same.
fn tick() -> i64 {
    static LAST: AtomicI64 = AtomicI64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

#[derive(Debug, Clone, Default)]
struct Content {
    len: u64,
    blocks: BTreeMap<u64, Block>,
    /// What changed since the last sync: its content then (`None`: a hole).
    old: BTreeMap<u64, Option<Block>>,
    old_len: Option<u64>,
    /// Whether its name would outlive a crash.
    named: bool,
    /// When it last changed.
    changed: i64,
}

#[derive(Debug, Default)]
struct Inner {
    files: BTreeMap<PathBuf, Arc<Mutex<Content>>>,
    folders: std::collections::BTreeSet<PathBuf>,
    /// Removed since their folder's last sync: may come back.
    removed: Vec<(PathBuf, Arc<Mutex<Content>>)>,
    /// Which life of the machine this is.
    boot: i64,
}

/// Files in memory. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct MemoryFile(Arc<Mutex<Content>>);

impl MemoryDisk {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// A disk as this one would be found after a power cut, chance taken from `seed`.
    pub fn crash(&self, seed: u64) -> MemoryDisk {
        let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
        let mut coin = || {
            // xorshift64: good enough for a coin
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state & 4 == 0
        };
        let inner = self.inner.lock();
        let folders = inner.folders.clone();
        let mut after = Inner { folders, boot: tick(), ..Inner::default() };
        let there = inner.files.iter().map(|(p, c)| (p, c, true));
        let gone = inner.removed.iter().map(|(p, c)| (p, c, false));
        for (path, content, named_now) in gone.chain(there) {
            let mut content = content.lock().clone();
            if named_now && !content.named && coin() || !named_now && coin() {
                continue;
            }
            for (at, old) in std::mem::take(&mut content.old) {
                if coin() {
                    match old {
                        Some(block) => content.blocks.insert(at, block),
                        None => content.blocks.remove(&at),
                    };
                }
            }
            if let Some(len) = content.old_len.take()
                && coin()
            {
                content.len = len;
            }
            content.named = true;
            after.files.insert(path.clone(), Arc::new(Mutex::new(content)));
        }
        MemoryDisk { inner: Arc::new(Mutex::new(after)) }
    }

    /// What all files take.
    pub fn allocated(&self) -> u64 {
        self.inner.lock().files.values().map(|c| c.lock().blocks.len() as u64 * BLOCK).sum()
    }

    /// Changes one byte as a failing medium does: the change time stays.
    pub fn flip(&self, path: &Path, offset: u64) {
        if let Some(c) = self.inner.lock().files.get(path)
            && let Some(block) = c.lock().blocks.get_mut(&(offset / BLOCK))
        {
            block[(offset % BLOCK) as usize] ^= 0xff;
        }
    }

    fn find(&self, path: &Path) -> io::Result<Arc<Mutex<Content>>> {
        self.inner.lock().files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Content {
    fn remember(&mut self, at: u64) {
        let now = self.blocks.get(&at).cloned();
        self.old.entry(at).or_insert(now);
    }

    fn stat(&self) -> FileStat {
        let allocated = self.blocks.len() as u64 * BLOCK;
        FileStat { len: self.len, allocated, changed: self.changed }
    }
}

impl Disk for MemoryDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        if access == Access::Create {
            let mut inner = self.inner.lock();
            if !path.parent().is_some_and(|p| inner.folders.contains(p)) {
                return Err(io::ErrorKind::NotFound.into());
            }
            let new = || Arc::new(Mutex::new(Content { changed: tick(), ..Content::default() }));
            let content = inner.files.entry(path.to_owned()).or_insert_with(new);
            return Ok(Arc::new(MemoryFile(content.clone())));
        }
        Ok(Arc::new(MemoryFile(self.find(path)?)))
    }

    fn open_shared(&self, _path: &Path) -> io::Result<Option<File>> {
        Ok(None)
    }

    fn is_shared(&self, _path: &Path) -> bool {
        false
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let content = inner.files.remove(path).ok_or(io::ErrorKind::NotFound)?;
        if content.lock().named {
            inner.removed.push((path.to_owned(), content));
        }
        Ok(())
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.inner.lock().folders.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        for (_, content) in inner.files.iter().filter(|(p, _)| p.parent() == Some(path)) {
            content.lock().named = true;
        }
        inner.removed.retain(|(p, _)| p.parent() != Some(path));
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let inner = self.inner.lock();
        let all = inner.files.keys().chain(&inner.folders);
        let names = all.filter(|p| p.parent() == Some(folder)).filter_map(|p| p.file_name());
        Ok(names.map(|n| n.to_string_lossy().into_owned()).collect())
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        Ok(self.find(path)?.lock().stat())
    }

    fn free(&self) -> io::Result<u64> {
        // 1 TiB: more than any test writes
        Ok(1 << 40)
    }

    fn boot(&self) -> Option<i64> {
        Some(self.inner.lock().boot)
    }

    fn holes(&self) -> bool {
        true
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let c = self.0.lock();
        let n = c.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        let mut done = 0;
        while done < n {
            let at = offset + done as u64;
            let within = (at % BLOCK) as usize;
            let take = (BLOCK as usize - within).min(n - done);
            let into = &mut buf[done..done + take];
            match c.blocks.get(&(at / BLOCK)) {
                Some(block) => into.copy_from_slice(&block[within..within + take]),
                None => into.fill(0),
            }
            done += take;
        }
        Ok(n)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut c = self.0.lock();
        c.changed = tick();
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let within = (at % BLOCK) as usize;
            let take = (BLOCK as usize - within).min(bytes.len() - done);
            c.remember(at / BLOCK);
            let block = c.blocks.entry(at / BLOCK).or_insert_with(|| Box::new([0; BLOCK as usize]));
            block[within..within + take].copy_from_slice(&bytes[done..done + take]);
            done += take;
        }
        let end = offset + bytes.len() as u64;
        if end > c.len {
            let len = c.len;
            c.old_len.get_or_insert(len);
            c.len = end;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut c = self.0.lock();
        c.changed = tick();
        let was = c.len;
        c.old_len.get_or_insert(was);
        c.len = len;
        let beyond: Vec<u64> = c.blocks.range(len.div_ceil(BLOCK)..).map(|(k, _)| *k).collect();
        for at in beyond {
            c.remember(at);
            c.blocks.remove(&at);
        }
        if !len.is_multiple_of(BLOCK) && c.blocks.contains_key(&(len / BLOCK)) {
            c.remember(len / BLOCK);
            if let Some(block) = c.blocks.get_mut(&(len / BLOCK)) {
                block[(len % BLOCK) as usize..].fill(0);
            }
        }
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut c = self.0.lock();
        c.changed = tick();
        let whole = offset.div_ceil(BLOCK)..(offset + len) / BLOCK;
        let hit: Vec<u64> = c.blocks.range(whole).map(|(k, _)| *k).collect();
        for at in hit {
            c.remember(at);
            c.blocks.remove(&at);
        }
        Ok(())
    }

    fn copy_from(&self, _: &dyn DiskFile, _: u64, _: u64, _: u64) -> io::Result<bool> {
        Ok(false)
    }

    fn is_solid(&self, offset: u64, len: u64) -> io::Result<bool> {
        let c = self.0.lock();
        Ok((offset / BLOCK..(offset + len).div_ceil(BLOCK)).all(|at| c.blocks.contains_key(&at)))
    }

    fn sync(&self) -> io::Result<()> {
        let mut c = self.0.lock();
        c.old.clear();
        c.old_len = None;
        Ok(())
    }

    fn stat(&self) -> io::Result<FileStat> {
        Ok(self.0.lock().stat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_takes_only_what_was_not_synced() {
        let disk = MemoryDisk::new();
        disk.make_folder(Path::new("d")).unwrap();
        let (a, b) = (Path::new("d/a"), Path::new("d/b"));
        let file = disk.open(a, Access::Create).unwrap();
        file.write_at(&[1; 8192], 0).unwrap();
        file.sync().unwrap();
        disk.sync_folder(Path::new("d")).unwrap();
        file.write_at(&[2; 8192], 8192).unwrap();
        disk.open(b, Access::Create).unwrap();
        let (mut lost, mut kept, mut unnamed) = (0, 0, 0);
        for seed in 0..64 {
            let after = disk.crash(seed);
            let mut buf = [0; 16384];
            let n = after.open(a, Access::Read).unwrap().read_at(&mut buf, 0).unwrap();
            assert!(n >= 8192 && buf[..8192] == [1; 8192]);
            lost += i32::from(buf[8192] == 0);
            kept += i32::from(buf[8192] == 2);
            unnamed += i32::from(after.stat(b).is_err());
        }
        assert!(lost > 5 && kept > 5 && unnamed > 5, "{lost} {kept} {unnamed}");
    }
}
