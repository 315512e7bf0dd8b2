//! Commands about the daemon itself: its end, and another worker.
//!
//! Invariant: the answer leaves before the worker does.

use std::sync::Arc;

use super::answers::{Restarting, Unmounting};
use super::ops::{Live, Ops, Run};
use super::types::{ProgressSink, Restart, Unmount};
use crate::error::{Failure, Kind};

fn live(ops: &Ops) -> Result<&Live, Failure> {
    ops.daemon.as_ref().ok_or_else(|| Failure::new(Kind::NotCached, "nothing is mounted"))
}

impl Run for Restart {
    async fn run(self, ops: Arc<Ops>, _: ProgressSink) -> Result<Restarting, Failure> {
        let live = live(&ops)?;
        let refused = |why| Failure::new(Kind::General, format!("no restart: {why}"));
        live.keeper.restart().await.map_err(refused)?;
        Ok(Restarting { worker: live.status.worker })
    }
}

impl Run for Unmount {
    async fn run(self, ops: Arc<Ops>, _: ProgressSink) -> Result<Unmounting, Failure> {
        let live = live(&ops)?;
        live.keeper.unmount();
        Ok(Unmounting { pid: live.status.pid, mountpoint: live.status.mountpoint.clone() })
    }
}
