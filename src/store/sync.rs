//! Locking that outlives a panic elsewhere: every critical section of the store leaves its data
//! consistent at each step, so a poisoned lock is only a lock.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks.
pub fn lock<T: ?Sized>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}
