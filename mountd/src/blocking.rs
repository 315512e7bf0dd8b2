//! Work that blocks, run on threads that may block.
//!
//! Pure, but for the runtime's threads.

use crate::error::{Failure, Kind};

/// Runs `work` on a thread that may block.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(Failure::new(Kind::General, format!("a task failed: {e}"))))
}
