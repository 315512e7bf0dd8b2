//! Runs work that blocks on the disk on the blocking pool of the runtime. Stateless.

use super::error::FetchError;

/// Runs `work` on the blocking pool and waits for its result.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, FetchError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| FetchError::Stopped)
}
