//! Work that blocks on the disk, run on threads that may block.
//!
//! Pure, but for the runtime's threads.

use super::error::ManagerError;

/// Runs `work` on a thread that may block.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ManagerError> + Send + 'static,
) -> Result<T, ManagerError> {
    tokio::task::spawn_blocking(work).await?
}
