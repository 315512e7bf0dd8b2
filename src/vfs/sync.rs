//! Locking that ignores poison: a thread that panics leaves no partial change in any table of this
//! module.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks the mutex.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
