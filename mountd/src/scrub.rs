//! The scrub: verifies the whole cache slowly in the background, so that damage on disk is found before
//! the data is needed.
//!
//! Invariant: it never reads faster than its rate, does not affect recency, and stops within a part
//! when asked to. Concurrency: one thread of its own, since it only waits for the disk.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use modelfs::base::units::ByteSize;
use modelfs::store::Store;

/// The pause between two passes: disks decay in months, not in hours.
const REST: Duration = Duration::from_secs(24 * 3600);

type Stop = Arc<(Mutex<bool>, Condvar)>;

/// A running scrub. Dropping it stops it.
pub struct Scrub {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Scrub {
    /// Starts a scrub at `rate` bytes per second; none if the rate is 0.
    pub fn start(store: Store, rate: ByteSize) -> std::io::Result<Option<Self>> {
        if rate.0 == 0 {
            return Ok(None);
        }
        let stop = Stop::default();
        let theirs = stop.clone();
        let thread = std::thread::Builder::new()
            .name("scrub".to_owned())
            .spawn(move || while pass(&store, rate, &theirs) && !sleep(&theirs, REST) {})?;
        Ok(Some(Self { stop, thread: Some(thread) }))
    }
}

impl Drop for Scrub {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Verifies everything once. `false`: it was stopped.
fn pass(store: &Store, rate: ByteSize, stop: &Stop) -> bool {
    for blob in store.blobs() {
        let started = Instant::now();
        let pace = |done, _| !sleep(stop, ahead(done, rate, started.elapsed()));
        match store.verify(&[blob], &pace) {
            Ok(found) if found.dropped.0 > 0 => {
                tracing::warn!(%blob, dropped = %found.dropped, "the scrub found spoilt bytes");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%blob, %error, "the scrub cannot verify a blob"),
        }
        if sleep(stop, Duration::ZERO) {
            return false;
        }
    }
    true
}

/// How far `done` bytes after `elapsed` are ahead of the rate.
fn ahead(done: u64, rate: ByteSize, elapsed: Duration) -> Duration {
    Duration::from_secs_f64(done as f64 / rate.0 as f64).saturating_sub(elapsed)
}

/// Sleeps; returns whether the scrub was stopped.
fn sleep(stop: &Stop, time: Duration) -> bool {
    let (flag, told) = &**stop;
    let stopped = flag.lock().unwrap_or_else(PoisonError::into_inner);
    if time.is_zero() {
        return *stopped;
    }
    let waited = told.wait_timeout_while(stopped, time, |stopped| !*stopped);
    *waited.unwrap_or_else(PoisonError::into_inner).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use modelfs::config::defaults;

    #[test]
    fn the_scrub_keeps_to_its_rate() {
        let rate = ByteSize::mib(1);
        assert_eq!(ahead(0, rate, Duration::ZERO), Duration::ZERO);
        assert_eq!(ahead(10 << 20, rate, Duration::from_secs(4)), Duration::from_secs(6));
        assert_eq!(ahead(10 << 20, rate, Duration::from_secs(11)), Duration::ZERO);
    }

    #[test]
    fn the_scrub_stops_during_a_pause() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(modelfs::store::StoreOptions::at(folder.path())).unwrap();
        let scrub = Scrub::start(store.clone(), defaults::SCRUB_RATE).unwrap().unwrap();
        let started = Instant::now();
        drop(scrub);
        assert!(started.elapsed() < REST / 100);
        assert!(Scrub::start(store, ByteSize(0)).unwrap().is_none());
    }
}
