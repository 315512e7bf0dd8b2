//! Loads of models under way: what each touches is recorded as a trace, and what the previous load touched
//! next is fetched ahead; so are the next shards of one that can be verified only as a whole.
//!
//! Invariant: a trace is a hint: no read waits for it or fails because of it. One load per version and
//! source at a time, however many programs take part; it ends when nothing was touched for a while.
//! Concurrency: shared; the lock is held for look-ups. One task per load; the index is read and written on
//! the blocking pool.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::ahead::Ahead;
use super::shards::next_shards;
use super::trace_follower::TraceFollower;
use super::trace_recorder::TraceRecorder;
use crate::base::FileRange;
use crate::base::blocking::blocking;
use crate::fetch::cached_file::CachedFile;
use crate::fetch::source::Source;
use crate::model::trace::{MAX_DOCUMENT, Step, TraceDoc};
use crate::model::{Digest, FileIx, Manifest, SourceName};
use crate::store::Store;

/// Idle time after which a load is over: a program may compute for some seconds between two tensors.
const OVER: Duration = Duration::from_secs(30);
/// Interval at which traces are saved: a killed process loses at most this much.
const KEEP: Duration = Duration::from_secs(5);
/// Maximum distance of prefetching ahead of a load: what 1 Gbit/s holds at 250 ms.
const WINDOW: u64 = 32 << 20;
/// Minimum size of a load worth a trace: a smaller one needs only a handful of round trips.
const LEAST: u64 = 1 << 20;

/// The loads under way.
pub struct ModelLoads {
    loads: Mutex<HashMap<LoadKey, ModelLoad>>,
    store: Store,
    ahead: Ahead,
}

/// Which version of which source.
type LoadKey = (SourceName, Digest);

/// A version being loaded by one program or several.
struct ModelLoad {
    source: Arc<Source>,
    manifest: Arc<Manifest>,
    recording: TraceRecorder,
    /// The files that were touched.
    files: HashSet<FileIx>,
    /// Follows the trace of the previous load, once it was read.
    follower: Option<TraceFollower>,
    /// Whether the index was asked for that trace.
    begun: bool,
    touched: Instant,
    /// Whether anything was recorded since the trace was last saved.
    changed: bool,
}

impl ModelLoad {
    fn new(file: &CachedFile) -> Self {
        Self {
            source: Arc::clone(file.source()),
            manifest: Arc::clone(file.manifest()),
            recording: TraceRecorder::default(),
            files: HashSet::new(),
            follower: None,
            begun: false,
            touched: Instant::now(),
            changed: false,
        }
    }

    /// Whether to save the trace: of the first load, of one that touched more, or of one that deviated.
    fn worth_keeping(&self) -> bool {
        let bytes = self.recording.bytes();
        let better = match &self.follower {
            None => true,
            Some(follower) if follower.has_deviated() => bytes >= follower.bytes() / 2,
            Some(follower) => bytes > follower.bytes(),
        };
        self.begun && self.changed && bytes >= LEAST && better
    }
}

impl ModelLoads {
    /// No loads.
    pub fn new(store: Store, ahead: Ahead) -> Arc<Self> {
        Arc::new(Self { loads: Mutex::default(), store, ahead })
    }

    fn loads(&self) -> MutexGuard<'_, HashMap<LoadKey, ModelLoad>> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that a reader has touched these bytes of a file that is not complete, and starts what the
    /// previous load touched next.
    pub fn touch(self: &Arc<Self>, file: &CachedFile, range: FileRange) {
        let key = (file.source().name().clone(), file.manifest().hash());
        let mut loads = self.loads();
        let mut begins = false;
        let load = loads.entry(key.clone()).or_insert_with(|| {
            begins = true;
            ModelLoad::new(file)
        });
        load.touched = Instant::now();
        load.changed |= load.recording.touch(file.index(), range);
        let follower = load.follower.as_mut();
        let next = follower.map(|follower| follower.touch(file.index(), range));
        let first = load.files.insert(file.index());
        drop(loads);
        if begins {
            self.ahead.runtime().spawn(accompany(Arc::downgrade(self), key));
        }
        let mut next = next.unwrap_or_default();
        if first {
            let manifest = file.manifest();
            let shards = next_shards(manifest, file.index(), self.store.room().0).into_iter();
            let all = |file| FileRange::new(0, manifest.file(file).len);
            next.extend(shards.map(|file| Step { file, range: all(file) }));
        }
        self.fetch(file.source(), file.manifest(), next);
    }

    /// Reads the trace of the previous load, and replays on it what this load has touched so far. Reads the
    /// index.
    fn begin(self: &Arc<Self>, key: &LoadKey) {
        let Some(load) = self.loads().get(key).map(|l| (l.source.clone(), l.manifest.clone()))
        else {
            return;
        };
        let (source, manifest) = load;
        let steps = self.saved_steps(&manifest);
        let window = WINDOW.min(self.store.room().0 / 8);
        let mut next = Vec::new();
        if let Some(load) = self.loads().get_mut(key) {
            load.begun = true;
            load.follower = steps.map(|steps| {
                let mut follower = TraceFollower::new(steps, window);
                for step in load.recording.steps() {
                    next.extend(follower.touch(step.file, step.range));
                }
                follower
            });
        }
        self.fetch(&source, &manifest, next);
    }

    fn saved_steps(&self, manifest: &Manifest) -> Option<Vec<Step>> {
        let body = self.store.trace(&manifest.hash());
        let body = body.inspect_err(|error| tracing::debug!(%error, "a trace cannot be read"));
        let parsed = TraceDoc::parse(&body.ok()??);
        let parsed = parsed.inspect_err(|error| tracing::debug!(%error, "a trace is damaged"));
        Some(parsed.ok()?.steps(manifest))
    }

    /// Starts fetching these steps of the previous load, in order.
    fn fetch(self: &Arc<Self>, source: &Arc<Source>, manifest: &Arc<Manifest>, steps: Vec<Step>) {
        if steps.is_empty() {
            return;
        }
        let (this, source, manifest) = (Arc::clone(self), Arc::clone(source), Arc::clone(manifest));
        self.ahead.runtime().spawn_blocking(move || {
            let mut files: HashMap<FileIx, Option<Arc<CachedFile>>> = HashMap::new();
            for step in steps {
                let file = files.entry(step.file).or_insert_with(|| {
                    let opened = CachedFile::open(&source, &manifest, step.file, &this.store);
                    let log =
                        |error: &_| tracing::debug!(%error, "a file of a trace cannot be opened");
                    opened.inspect_err(log).ok()
                });
                if let Some(file) = file {
                    this.ahead.start(file, step.range, |ended| {
                        if let Err(error) = ended {
                            tracing::debug!(%error, "bytes of a trace could not be fetched ahead");
                        }
                    });
                }
            }
        });
    }

    /// Saves the traces worth keeping. Writes the index.
    pub fn save(&self) {
        let due: Vec<_> = {
            let mut loads = self.loads();
            let due = loads.values_mut().filter(|load| load.worth_keeping());
            let taken = |load: &mut ModelLoad| {
                load.changed = false;
                (load.manifest.clone(), load.recording.steps().to_vec())
            };
            due.map(taken).collect()
        };
        for (manifest, steps) in due {
            let body = TraceDoc::new(&manifest, &steps).to_json();
            // Larger than the reader accepts: many files with very long paths.
            if body.len() > MAX_DOCUMENT {
                continue;
            }
            if let Err(error) = self.store.save_trace(&manifest.hash(), &body) {
                tracing::debug!(%error, "a trace could not be saved");
            }
        }
    }

    /// Forgets a load that nothing was touched of for a while. Returns whether it is over.
    fn forget_if_over(&self, key: &LoadKey) -> bool {
        let mut loads = self.loads();
        let over = loads.get(key).is_none_or(|load| load.touched.elapsed() >= OVER);
        if over {
            loads.remove(key);
        }
        over
    }
}

/// Runs from a load's first touch to its end. Does not keep the loads alive.
async fn accompany(loads: Weak<ModelLoads>, key: LoadKey) {
    let (of, begins) = (loads.clone(), key.clone());
    let _ = blocking(move || of.upgrade().map(|this| this.begin(&begins))).await;
    loop {
        tokio::time::sleep(KEEP).await;
        let of = loads.clone();
        let _ = blocking(move || of.upgrade().map(|this| this.save())).await;
        match loads.upgrade() {
            Some(this) if !this.forget_if_over(&key) => {}
            _ => return,
        }
    }
}
