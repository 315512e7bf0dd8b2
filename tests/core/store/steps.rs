//! A machine that stops between every two steps of each operation of the store.
//!
//! A step is a change of the disk or of the index. For each operation and each of its steps, three
//! things are found afterwards: all that was done (the process was killed), or with it lost by
//! chance what the disk had not synced, with the index as it was or as it was last made durable.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use modelfs::store::{Faults, FaultyDisk, MemoryDisk};

pub const LIMIT: ByteSize = ByteSize::mib(8);

/// Copies everything below a root but what lies in folders.
fn copy_root(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        // a file that goes while this runs is one that SQLite does without
        if entry.file_type().unwrap().is_file() && entry.file_name() != "lock" {
            let _ = std::fs::copy(entry.path(), to.join(entry.file_name()));
        }
    }
}

/// In memory where that can be: thousands of transactions wait for nothing.
fn quick_folder() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
    dir.unwrap()
}

/// A store that can be stopped.
pub struct World {
    pub root: PathBuf,
    pub memory: MemoryDisk,
    disk: Arc<FaultyDisk<MemoryDisk>>,
    store: Option<Store>,
    /// How many acts of an operation returned.
    acts: Arc<AtomicU32>,
}

impl World {
    fn on(root: PathBuf, memory: MemoryDisk, faults: &Faults) -> Self {
        let disk = Arc::new(FaultyDisk::new(memory.clone(), faults.clone()));
        Self { root, memory, disk, store: None, acts: Arc::default() }
    }

    /// The store, opened if it is not.
    pub fn open(&mut self) -> Result<&Store, StoreError> {
        if self.store.is_none() {
            let (disk, clock) = (self.disk.clone(), Arc::new(SystemClock));
            self.store = Some(Store::open_with(options(&self.root, LIMIT), disk, clock)?);
        }
        Ok(self.store.as_ref().expect("opened above"))
    }

    pub fn store(&self) -> &Store {
        self.store.as_ref().expect("the operation opened it")
    }

    pub fn close(&mut self) {
        self.store = None;
    }

    /// Something that was asked for has been promised.
    pub fn done(&self) {
        self.acts.fetch_add(1, Ordering::SeqCst);
    }
}

/// The files that an operation is about, each with the number that its bytes come from.
pub type Files = [(u32, BlobLayout)];

/// What is tried at every step. Steps count from the end of `before`.
pub struct Operation {
    pub files: Vec<(u32, BlobLayout)>,
    /// Makes what it begins with; the store is closed well after it.
    pub prepare: fn(&mut World, &Files),
    /// Comes before the steps that are counted: usually opens the store.
    pub before: fn(&mut World),
    pub act: fn(&mut World, &Files) -> Result<(), StoreError>,
    /// Whether what is stored may be wrong until the next verification.
    pub spoilt: bool,
    /// What must hold after so many acts returned.
    pub after: fn(&Store, &Files, u32),
}

/// What the dead one left behind.
struct Left {
    disk: MemoryDisk,
    newest: PathBuf,
    durable: PathBuf,
    acts: u32,
}

pub fn open_it(world: &mut World) {
    world.open().unwrap();
}

/// Stops an operation at each of its steps. How many there were.
pub fn at_every_step(operation: &Operation) -> u64 {
    let template = quick_folder();
    let (first, files) = (template.path().join("first"), &operation.files);
    let mut world = World::on(first.clone(), MemoryDisk::new(), &Faults::default());
    (operation.prepare)(&mut world, files);
    world.close();
    for step in 0.. {
        let dir = quick_folder();
        let faults = Faults::default();
        let root = dir.path().join("root");
        copy_root(&first, &root);
        // all of it is synced: nothing gets lost here
        let mut stopping = World::on(root, world.memory.crash(0), &faults);
        (operation.before)(&mut stopping);
        let left = arm(&faults, step, dir.path(), &stopping);
        let outcome = (operation.act)(&mut stopping, files);
        let acts = stopping.acts.load(Ordering::SeqCst);
        // the dead change nothing more: their disk has stopped, and the index was copied
        stopping.close();
        let Some(left) = left.lock().unwrap().take() else {
            outcome.unwrap_or_else(|e| panic!("step {step}: not stopped, but {e}"));
            let after = open_on(&stopping.root, LIMIT, Arc::new(stopping.memory.clone()));
            holds(operation, after, &stopping.memory, acts, "undisturbed");
            println!("stopped at each of {step} steps, {} states examined", 3 * step + 1);
            return step;
        };
        for (what, index, disk) in [
            ("power cut, log lost", &left.durable, left.disk.crash(0)),
            ("power cut", &left.newest, left.disk.crash(0)),
            ("killed", &left.newest, stopping.memory.clone()),
        ] {
            let root = dir.path().join("after");
            copy_root(index, &root);
            let what = format!("step {step}, {what}");
            let store = Store::open_with(
                options(&root, LIMIT),
                Arc::new(disk.clone()),
                Arc::new(SystemClock),
            );
            let store = store.unwrap_or_else(|e| panic!("{what}: {e}"));
            holds(operation, store, &disk, left.acts, &what);
        }
    }
    unreachable!("it ends when it was not stopped");
}

/// Stops at a step from now on, keeping what a new process would find.
fn arm(faults: &Faults, step: u64, dir: &Path, world: &World) -> Arc<Mutex<Option<Left>>> {
    let left: Arc<Mutex<Option<Left>>> = Arc::default();
    let (newest, durable) = (dir.join("newest"), dir.join("durable"));
    copy_root(&world.root, &durable);
    let was_durable = Arc::new(Mutex::new(false));
    faults.watch_index({
        let (left, was_durable) = (left.clone(), was_durable.clone());
        let (root, durable) = (world.root.clone(), durable.clone());
        move |durably| {
            let mut was = was_durable.lock().unwrap();
            if left.lock().unwrap().is_none() && std::mem::replace(&mut *was, durably) {
                copy_root(&root, &durable);
            }
        }
    });
    let hook = {
        let (left, root, memory) = (left.clone(), world.root.clone(), world.memory.clone());
        let acts = world.acts.clone();
        move || {
            copy_root(&root, &newest);
            if *was_durable.lock().unwrap() {
                copy_root(&root, &durable);
            }
            let acts = acts.load(Ordering::SeqCst);
            let disk = memory.crash(step);
            *left.lock().unwrap() = Some(Left { disk, newest, durable, acts });
        }
    };
    faults.stop_at(step, Some(Box::new(hook)));
    left
}

/// The promises, after whatever happened.
fn holds(operation: &Operation, store: Store, disk: &MemoryDisk, acts: u32, what: &str) {
    let files = &operation.files;
    let found = store.verify(&store.blobs(), &|_, _| true).unwrap();
    assert!(operation.spoilt || found.dropped == ByteSize(0), "{what}: {found:?}");
    for (n, l) in files {
        let blob = store.blob(l.clone()).unwrap();
        for run in blob.present(l.all_parts()) {
            assert!(check(&blob, *n, run), "{what}: claims what is not there");
        }
    }
    let used = store.usage();
    assert!(used.used <= LIMIT, "{what}: {used:?}");
    assert!(disk.allocated() <= used.used.0, "{what}: space that nobody counts");
    no_strays(&store, disk, what);
    (operation.after)(&store, files, acts);
    for (n, l) in files {
        let blob = store.blob(l.clone()).unwrap();
        put(&store, &blob, *n, l.all_parts()).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(check(&blob, *n, l.all_parts()), "{what}: works on");
    }
    store.commit().unwrap();
}

/// Nothing lies around that the index knows nothing of.
fn no_strays(store: &Store, disk: &MemoryDisk, what: &str) {
    let known: Vec<String> = store.blobs().iter().map(ToString::to_string).collect();
    for folder in disk.list(Path::new("blobs")).unwrap().iter().filter(|f| *f != "stray") {
        for name in disk.list(&Path::new("blobs").join(folder)).unwrap() {
            let stem = name.trim_end_matches(".sums");
            // what has no name of ours is left alone
            if stem == "stray" {
                continue;
            }
            assert!(known.iter().any(|k| k == stem), "{what}: {name} is nobody's");
        }
    }
    let entries = std::fs::read_dir(store.root()).unwrap().map(|e| e.unwrap().file_name());
    let names: Vec<String> = entries.map(|n| n.into_string().unwrap()).collect();
    let aside = |n: &&String| n.starts_with("index.db.corrupt-") && !n.ends_with("-wal");
    assert!(names.iter().filter(aside).count() <= 1, "{what}: {names:?}");
    for name in &names {
        let known = ["lock", "epoch", "index.db", "index.db-wal", "headroom"]
            .contains(&name.as_str())
            || name.starts_with("index.db.corrupt-");
        assert!(known, "{what}: {name} is nobody's");
    }
}
