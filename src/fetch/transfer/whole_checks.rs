//! Compares complete files whose ranges were proved with the SHA-256 of the whole, once.
//!
//! A proof shows that bytes are those of a hash that the source asserted for the file; only the digest of
//! the whole shows that they are those that the version binds. Invariant: a blob is compared only when all
//! of it is present; what was found is kept in the index, since it is permanent for the blob's key.
//! Concurrency: shared; one blob is read at a time, on the blocking pool.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Semaphore;

use crate::base::blocking::blocking;
use crate::base::units::ByteSize;
use crate::fetch::error::FetchError;
use crate::model::hash::Hasher;
use crate::model::{ContentKey, HashAlgorithm};
use crate::store::{Blob, ReadState, Store};

/// Bytes that are read and hashed in one go: few enough that the pool stays free for readers.
const AT_ONCE: u64 = 4 << 20;

/// Comparisons.
pub struct WholeChecks {
    store: Store,
    under_way: Mutex<HashSet<ContentKey>>,
    turn: Semaphore,
    runtime: tokio::runtime::Handle,
}

impl WholeChecks {
    /// None so far. Must be called within the tokio runtime that they are to run on.
    pub fn new(store: Store) -> Arc<Self> {
        let runtime = tokio::runtime::Handle::current();
        Arc::new(Self { store, under_way: Mutex::default(), turn: Semaphore::new(1), runtime })
    }

    fn under_way(&self) -> MutexGuard<'_, HashSet<ContentKey>> {
        self.under_way.lock().expect("holders do not panic")
    }

    /// Compares the blob in the background if it is complete and was not compared yet. May read the index.
    pub fn consider(self: &Arc<Self>, blob: &Arc<Blob>) {
        if !blob.layout().is_proved_file() || !blob.is_complete() {
            return;
        }
        let key = blob.key();
        if !self.under_way().insert(key) {
            return;
        }
        let (this, blob) = (Arc::clone(self), Arc::clone(blob));
        self.runtime.spawn(async move {
            if let Err(error) = this.compare(&blob).await {
                tracing::warn!(blob = %key, %error, "a complete file could not be compared with its SHA-256");
            }
            this.under_way().remove(&key);
        });
    }

    /// The blob was fetched and compared as a whole. Kept where a blob could also come by proofs.
    pub fn matched(&self, blob: &Blob) -> Result<(), FetchError> {
        if blob.layout().is_proved_file() {
            self.store.set_whole_check(&blob.key(), true)?;
        }
        Ok(())
    }

    async fn compare(&self, blob: &Arc<Blob>) -> Result<(), FetchError> {
        let _turn = self.turn.acquire().await.map_err(|_| FetchError::Stopped)?;
        let (store, key) = (self.store.clone(), blob.key());
        if blocking(move || store.whole_check(&key)).await??.is_some() {
            return Ok(());
        }
        let len = blob.layout().len();
        let mut hasher = Hasher::new(HashAlgorithm::Sha256);
        let mut at = 0;
        while at < len {
            let (blob, n) = (Arc::clone(blob), AT_ONCE.min(len - at));
            let step = blocking(move || {
                let mut buffer = vec![0; n as usize];
                let read = blob.read(at, &mut buffer)?;
                hasher.update(&buffer);
                Ok::<_, FetchError>((read, hasher))
            });
            let (read, next) = step.await??;
            // Something of it was evicted: the next reader makes it complete again.
            if read == ReadState::Miss {
                return Ok(());
            }
            (at, hasher) = (at + n, next);
        }
        let matches = hasher.finish() == blob.layout().pieces()[0].object;
        let store = self.store.clone();
        blocking(move || store.set_whole_check(&key, matches)).await??;
        if matches {
            tracing::info!(blob = %key, len = %ByteSize(len), "the SHA-256 of a file whose parts were proved has matched");
            return Ok(());
        }
        tracing::error!(error = %FetchError::another_file(blob.layout()), "a source asserts the hash of another file; its bytes are dropped");
        let store = self.store.clone();
        let dropped = blocking(move || store.evict(&[key], true)).await??;
        if dropped.kept_busy.0 > 0 {
            tracing::error!(bytes = %dropped.kept_busy, "programs still have the wrong file open");
        }
        Ok(())
    }
}
