//! Locking: a thread that panicked has not left half a change behind in any of our tables, so a
//! poisoned lock is used on.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The lock.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
