//! Work that blocks, run on the blocking pool of the runtime. Stateless.

/// The work did not end: it panicked, or the runtime is shutting down.
#[derive(Debug, thiserror::Error)]
#[error("a task failed: {0}")]
pub struct Stopped(#[from] tokio::task::JoinError);

/// Runs `work` on the blocking pool and waits for its result.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Stopped> {
    Ok(tokio::task::spawn_blocking(work).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_returns_its_result_and_a_panic_becomes_an_error() {
        assert_eq!(blocking(|| 7).await.unwrap(), 7);
        let error = blocking(|| panic!("on purpose")).await.unwrap_err();
        assert!(error.to_string().contains("panicked"), "{error}");
    }
}
