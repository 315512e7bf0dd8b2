//! A setting as it is shown. Plain values.

use serde::Serialize;

use super::origin::Origin;

/// A setting as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its name.
    pub key: &'static str,
    /// Its value, without secrets; none: not set.
    pub value: Option<String>,
    /// Where the value came from.
    pub origin: Origin,
}
