//! How long a transport waits. Plain values.

use std::time::Duration;

/// How long a registry may be silent.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Until the connection stands, TLS included.
    pub connect: Duration,
    /// Without a byte of the answer: the stall timeout.
    pub stall: Duration,
}

impl Timeouts {
    /// Such that a read with this deadline survives a connection that died in silence: a quarter of
    /// the deadline for the stall timeout leaves room for three attempts.
    pub fn within(deadline: Duration) -> Self {
        let usual = Self::default();
        Self { connect: usual.connect.min(deadline / 2), stall: usual.stall.min(deadline / 4) }
    }
}

impl Default for Timeouts {
    /// Connecting takes seconds at worst; a server that is silent for longer than 15 has stalled,
    /// and there must be time left for another attempt within a minute.
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), stall: Duration::from_secs(15) }
    }
}
