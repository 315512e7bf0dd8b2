//! Follows loads: records what each touches, and fetches ahead what the previous load touched.
//!
//! Invariant: no read waits for a trace or fails because of one.
//! Concurrency: one task per load under way; the index is read and written on the blocking pool.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::blocking::blocking;
use super::cached_file::CachedFile;
use super::fetcher::Fetcher;
use super::model_loads::Load;
use super::trace_follower::{TraceFollower, TraceRecorder};
use crate::base::FileRange;
use crate::model::trace::{Step, TraceDoc};
use crate::model::{FileIx, Manifest};

/// Idle time after which a load is over: a program may compute for some seconds between two tensors.
const OVER: Duration = Duration::from_secs(30);
/// Interval at which traces are saved: a killed process loses at most this much.
const KEEP: Duration = Duration::from_secs(5);
/// Maximum distance of prefetching ahead of a load: what 1 Gbit/s holds at 250 ms.
const WINDOW: u64 = 32 << 20;
/// Runs from a load's first touch to its end. Does not keep the fetcher alive.
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
    /// Records that a reader has touched these bytes of a file that is not complete.
    pub fn touched(self: &Arc<Self>, file: &CachedFile, range: FileRange) {
        let hash = file.manifest.hash();
        let mut loads = self.loads.lock();
        let (mut begins, mut lead) = (false, Vec::new());
        let load = loads.entry(hash).or_insert_with(|| {
            begins = true;
            Load {
                manifest: file.manifest.clone(),
                recording: TraceRecorder::default(),
                follower: None,
                begun: false,
                touched: Instant::now(),
                changed: false,
            }
        });
        load.touched = Instant::now();
        load.changed |= load.recording.touch(file.file, range);
        if let Some(follower) = &mut load.follower {
            lead = follower.touch(file.file, range);
        }
        drop(loads);
        if begins {
            self.runtime.spawn(accompany(Arc::downgrade(self), file.manifest.clone()));
        }
        self.lead(&file.manifest, lead);
    }

    /// Reads the trace of the previous load, and replays on it what this load has touched so far.
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
        let mut follower = TraceFollower::new(steps, window);
        let mut lead = Vec::new();
        {
            let mut loads = self.loads.lock();
            let Some(load) = loads.get_mut(&manifest.hash()) else { return };
            for step in load.recording.steps() {
                lead.extend(follower.touch(step.file, step.range));
            }
            load.follower = Some(follower);
        }
        self.lead(manifest, lead);
    }

    /// Fetches ahead the next steps of the load.
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

    /// Saves the traces of loads under way. Writes the index.
    pub fn keep_traces(&self) {
        self.loads.keep(&self.store);
    }
}
