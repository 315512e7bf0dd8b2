//! Layers: registries around registries, of any format, each written once.

#[cfg(any(test, feature = "test-util"))]
mod faulty;
mod hedge;
mod retry;
mod retrying;
mod waits;

#[cfg(any(test, feature = "test-util"))]
pub use faulty::{Call, Fault, Faulty, When};
pub use hedge::Hedged;
pub use retry::{Attempts, RetryPolicy};
pub use retrying::{DEADLINE, Retrying};
pub use waits::{Wait, Waiting, Waits};
