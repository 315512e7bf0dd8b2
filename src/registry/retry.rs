//! Placeholder until retries land.
use std::sync::Arc;
use std::time::Duration;

use super::{Registry, RegistryError};

#[derive(Debug, Default)]
pub(crate) struct RetryPolicy;
impl RetryPolicy {
    pub(crate) fn delay_after(&self, _: &RegistryError, _: u32, _: Duration) -> Option<Duration> {
        None
    }
}
pub(crate) struct Retrying;
impl Retrying {
    pub(crate) fn patient(registry: Arc<dyn Registry>, _: Duration) -> Arc<dyn Registry> {
        registry
    }
}
