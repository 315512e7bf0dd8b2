//! Loads under way: what each version's readers touch, kept for the next load and led by the last.
//!
//! Invariant: a trace is a hint: reads neither wait for it nor fail by it. One load per version at a
//! time, however many programs take part; it is over when nothing was touched for a while.
//! Concurrency: shared; the lock is held for a look-up, the disk is read and written elsewhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::course::{Guide, Recording};
use super::transfer::blocking;
use super::{CachedFile, Fetcher};
use crate::base::FileRange;
use crate::model::trace::{MAX_DOCUMENT, Step, TraceDoc};
use crate::model::{Digest, FileIx, Manifest};
use crate::store::Store;

/// A program that loads a model may compute for some seconds between two tensors.
const OVER: Duration = Duration::from_secs(30);
/// How often it is looked whether there is something to keep: what a killed process loses of it.
const KEEP: Duration = Duration::from_secs(5);
/// How far a load is led: what 1 Gbit/s holds at 250 ms.
const WINDOW: u64 = 32 << 20;
/// A load of less is not worth a trace: its round trips can be counted on one hand.
const LEAST: u64 = 1 << 20;

/// The loads under way.
#[derive(Default)]
pub struct Loads(Mutex<HashMap<Digest, Load>>);

struct Load {
    manifest: Arc<Manifest>,
    recording: Recording,
    /// The load before, once read.
    guide: Option<Guide>,
    /// Whether it is known if there was one.
    begun: bool,
    touched: Instant,
    /// Whether something was recorded since it was kept.
    changed: bool,
}

impl Load {
    /// What is worth keeping: the first load, one that saw more, or one that went another way.
    fn worth_keeping(&self) -> bool {
        let bytes = self.recording.bytes();
        let better = match &self.guide {
            None => true,
            Some(guide) if guide.has_lost() => bytes >= guide.bytes() / 2,
            Some(guide) => bytes > guide.bytes(),
        };
        self.begun && self.changed && bytes >= LEAST && better
    }
}

impl Loads {
    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Load>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what is worth it. Writes the index.
    fn keep(&self, store: &Store) {
        let due: Vec<_> = {
            let mut loads = self.lock();
            let due = loads.values_mut().filter(|load| load.worth_keeping());
            let taken = |load: &mut Load| {
                load.changed = false;
                (load.manifest.clone(), load.recording.steps().to_vec())
            };
            due.map(taken).collect()
        };
        for (manifest, steps) in due {
            let body = TraceDoc::new(&manifest, &steps).to_json();
            // More than could be read again: paths of many files that are all very long.
            if body.len() > MAX_DOCUMENT {
                continue;
            }
            if let Err(error) = store.save_trace(&manifest.hash(), &body) {
                tracing::debug!(%error, "a load's trace could not be kept");
            }
        }
    }
}

/// From a load's first touch to its end. Keeps nothing alive that others have let go.
async fn accompany(fetcher: Weak<Fetcher>, manifest: Arc<Manifest>) {
    let (of, hash) = (fetcher.clone(), manifest.hash());
    let begin = move || {
        let Some(this) = of.upgrade() else { return };
        this.begin(&manifest);
        if let Some(load) = this.loads.lock().get_mut(&manifest.hash()) {
            load.begun = true;
        }
    };
    let _ = blocking(begin).await;
    loop {
        tokio::time::sleep(KEEP).await;
        let of = fetcher.clone();
        let _ = blocking(move || of.upgrade().map(|this| this.keep_traces())).await;
        let Some(this) = fetcher.upgrade() else { return };
        let mut loads = this.loads.lock();
        if loads.get(&hash).is_none_or(|load| load.touched.elapsed() >= OVER) {
            loads.remove(&hash);
            return;
        }
    }
}

impl Fetcher {
    /// A reader has come to these bytes of a file that is not all there.
    pub fn touched(self: &Arc<Self>, file: &CachedFile, range: FileRange) {
        let hash = file.manifest.hash();
        let mut loads = self.loads.lock();
        let (mut begins, mut lead) = (false, Vec::new());
        let load = loads.entry(hash).or_insert_with(|| {
            begins = true;
            Load {
                manifest: file.manifest.clone(),
                recording: Recording::default(),
                guide: None,
                begun: false,
                touched: Instant::now(),
                changed: false,
            }
        });
        load.touched = Instant::now();
        load.changed |= load.recording.touch(file.file, range);
        if let Some(guide) = &mut load.guide {
            lead = guide.touch(file.file, range);
        }
        drop(loads);
        if begins {
            self.runtime.spawn(accompany(Arc::downgrade(self), file.manifest.clone()));
        }
        self.lead(&file.manifest, lead);
    }

    /// Reads the trace of the load before, and goes where this one has come to meanwhile.
    fn begin(self: &Arc<Self>, manifest: &Arc<Manifest>) {
        let body = match self.store.trace(&manifest.hash()) {
            Ok(Some(body)) => body,
            Ok(None) => return,
            Err(error) => return tracing::debug!(%error, "no trace of an earlier load"),
        };
        let steps = match TraceDoc::parse(&body) {
            Ok(doc) => doc.steps(manifest),
            Err(error) => return tracing::debug!(%error, "no trace of an earlier load"),
        };
        let window = WINDOW.min(self.store.room().0 / 8);
        let mut guide = Guide::new(steps, window);
        let mut lead = Vec::new();
        {
            let mut loads = self.loads.lock();
            let Some(load) = loads.get_mut(&manifest.hash()) else { return };
            for step in load.recording.steps() {
                lead.extend(guide.touch(step.file, step.range));
            }
            load.guide = Some(guide);
        }
        self.lead(manifest, lead);
    }

    /// Fetches what the load will come to.
    fn lead(self: &Arc<Self>, manifest: &Arc<Manifest>, steps: Vec<Step>) {
        if steps.is_empty() {
            return;
        }
        let (this, manifest) = (self.clone(), manifest.clone());
        self.runtime.spawn_blocking(move || {
            let mut files: HashMap<FileIx, Option<Arc<CachedFile>>> = HashMap::new();
            for step in steps {
                let file = files.entry(step.file).or_insert_with(|| {
                    let file = this.file(&manifest, step.file);
                    file.inspect_err(|e| tracing::debug!(error = %e, "a load cannot be led")).ok()
                });
                if let Some(file) = file {
                    this.readahead(file, step.range, |ended| {
                        if let Err(error) = ended {
                            tracing::debug!(%error, "what an earlier load needed does not come");
                        }
                    });
                }
            }
        });
    }

    /// Keeps the traces of loads under way. Writes the index.
    pub fn keep_traces(&self) {
        self.loads.keep(&self.store);
    }
}
