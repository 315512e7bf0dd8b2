//! The service manager's fd store: it keeps the mount from one supervisor to the next.
//!
//! Invariant: a mount is left in the fd store only once the manager has all that the next supervisor
//! needs, including the guard's pipe: if the manager closes it, the guard unmounts. A stored mount that
//! cannot be taken over is unmounted before anything else is mounted. Part of the supervisor's one
//! task.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use modelfs::base::blocking::blocking;
use modelfs_platform::{Connection, Kept, MountOptions, Mounted, inherited};
use rustix::fs::MemfdFlags;

use super::guard::{Guard, GuardProcess};
use super::messages::OpenFile;
use super::service_manager;
use super::unit::Unit;
use crate::error::{Failure, Kind};

/// The names of the descriptors in the fd store.
const DEVICE: &str = "modelfs-device";
const STATE: &str = "modelfs-state";
const GUARD: &str = "modelfs-guard";
const NAMES: [&str; 3] = [DEVICE, STATE, GUARD];

/// The format version of [`State`]. Other versions are rejected.
const FORM: u32 = 1;
/// Maximum state size: a million open files.
const LARGEST: u64 = 128 << 20;
/// How long the manager may take to process our messages.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(3);

/// All that the next supervisor needs to know.
#[derive(serde::Serialize, serde::Deserialize)]
struct State {
    form: u32,
    /// The cache folder: inodes are positions in its index.
    root: PathBuf,
    since: String,
    restarts: u32,
    mount: Kept,
    open: Vec<OpenFile>,
}

/// What the next supervisor receives beside the mount.
pub(super) struct ServiceState {
    /// The cache folder.
    pub(super) root: PathBuf,
    /// Since when the mount exists.
    pub(super) since: String,
    /// Number of workers that have ended.
    pub(super) restarts: u32,
}

/// The former supervisor's entries in the fd store. Dropping it unmounts.
#[derive(Default)]
pub struct Inheritance {
    device: Option<OwnedFd>,
    state: Option<OwnedFd>,
    guard: Option<OwnedFd>,
    /// Once the state is read: the mount, in case no guard can be asked.
    mounted: Option<Mounted>,
}

/// A mount that was taken over.
pub(super) struct TakenUp {
    pub(super) connection: Connection,
    pub(super) guard_process: Option<GuardProcess>,
    pub(super) since: String,
    pub(super) restarts: u32,
}

impl Inheritance {
    /// Takes the stored descriptors. Call it before anything is opened.
    pub fn take() -> Self {
        let mut this = Self::default();
        // Logging has not started; on an error the guard's pipe is closed, and the guard unmounts.
        for (name, descriptor) in inherited::take().unwrap_or_default() {
            match name.as_str() {
                DEVICE => this.device = Some(descriptor),
                STATE => this.state = Some(descriptor),
                GUARD => this.guard = Some(descriptor),
                _ => {}
            }
        }
        this
    }

    /// Whether there is nothing to take over.
    pub(super) fn is_empty(&self) -> bool {
        self.device.is_none() && self.state.is_none() && self.guard.is_none()
    }

    /// Takes the mount over, if possible; otherwise unmounts it.
    pub(super) fn take_up(mut self, mount: &MountOptions, root: &PathBuf) -> Option<TakenUp> {
        if self.is_empty() {
            return None;
        }
        match self.go_on(mount, root) {
            Ok(taken) => {
                tracing::info!(mountpoint = %mount.mountpoint.display(), "going on with the mount");
                forget();
                Some(taken)
            }
            Err(why) => {
                tracing::warn!(
                    "what was kept over the restart cannot be used, mounting anew: {why}"
                );
                None
            }
        }
    }

    fn go_on(&mut self, mount: &MountOptions, root: &PathBuf) -> Result<TakenUp, Failure> {
        let lacks = |what| move || Failure::new(Kind::General, format!("{what} is missing"));
        let state = self.state.take().ok_or_else(lacks("the state"))?;
        let state = read(state)?;
        self.mounted = Some(state.mount.mounted().clone());
        if state.root != *root {
            let why = format!("it was served from the cache folder {}", state.root.display());
            return Err(Failure::new(Kind::General, why));
        }
        let device = self.device.as_ref().ok_or_else(lacks("the mount's descriptor"))?;
        let device = device.try_clone().map_err(|e| Failure::new(Kind::General, e.to_string()))?;
        let open = state.open.into_iter().map(Into::into);
        let connection = Connection::take_up(device, state.mount, open, mount)?;
        self.device = None;
        let guard_process = self.guard.take().and_then(GuardProcess::of);
        Ok(TakenUp { connection, guard_process, since: state.since, restarts: state.restarts })
    }
}

impl Drop for Inheritance {
    fn drop(&mut self) {
        if self.is_empty() {
            return;
        }
        let mut gone =
            self.guard.take().and_then(GuardProcess::of).is_some_and(GuardProcess::take_away);
        if let (false, Some(mounted)) = (gone, &self.mounted) {
            gone = mounted.end().is_ok();
        }
        tracing::info!(gone, "the mount of the former daemon cannot be used and was unmounted");
        forget();
    }
}

/// Removes our entries from the fd store.
pub(super) fn forget() {
    NAMES.iter().for_each(|name| service_manager::remove_fd(name));
}

fn read(state: OwnedFd) -> Result<State, Failure> {
    let bad = |e: &dyn std::fmt::Display| {
        Failure::new(Kind::General, format!("the state is not understood: {e}"))
    };
    let mut file = File::from(state);
    let mut text = Vec::new();
    file.rewind().map_err(|e| bad(&e))?;
    file.take(LARGEST).read_to_end(&mut text).map_err(|e| bad(&e))?;
    // The version first: another format may share nothing else.
    #[derive(serde::Deserialize)]
    struct Form {
        form: u32,
    }
    let Form { form } = serde_json::from_slice(&text).map_err(|e| bad(&e))?;
    if form != FORM {
        return Err(bad(&format!("it has form {form}, this program knows {FORM}")));
    }
    serde_json::from_slice(&text).map_err(|e| bad(&e))
}

fn write(state: &State) -> std::io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create(STATE, MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(state)?)?;
    Ok(file)
}

/// Stores everything with the manager and waits until it has it. `false`: it does not have everything,
/// and our entries were removed.
pub(super) async fn hand_over(
    unit: &Unit,
    connection: &Connection,
    guard: Option<&Guard>,
    service: ServiceState,
) -> bool {
    let kept = match store(connection, guard, service).await {
        Ok(()) => unit.kept().await.unwrap_or(0) >= NAMES.len(),
        Err(failure) => {
            tracing::error!("{failure}");
            false
        }
    };
    if !kept {
        tracing::error!("the service manager keeps no descriptors for us: unmounting");
        forget();
    }
    kept
}

async fn store(
    connection: &Connection,
    guard: Option<&Guard>,
    service: ServiceState,
) -> Result<(), Failure> {
    let failed = |e: std::io::Error| {
        Failure::new(Kind::General, format!("handing the mount to the service manager: {e}"))
    };
    let Some(guard) = guard.and_then(Guard::pipe) else {
        return Err(Failure::new(Kind::General, "the mount has no guard"));
    };
    let state = State {
        form: FORM,
        root: service.root,
        since: service.since,
        restarts: service.restarts,
        mount: connection.kept(),
        open: connection.open_files().into_iter().map(Into::into).collect(),
    };
    let state = write(&state).map_err(failed)?;
    service_manager::store_fd(GUARD, guard).map_err(failed)?;
    service_manager::store_fd(STATE, state.as_fd()).map_err(failed)?;
    service_manager::store_fd(DEVICE, connection.device()).map_err(failed)?;
    blocking(move || service_manager::barrier(BARRIER_TIMEOUT).map_err(failed)).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(text: &str) -> String {
        let mut file = File::from(rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC).unwrap());
        file.write_all(text.as_bytes()).unwrap();
        read(file.into()).err().map_or_else(String::new, |failure| failure.to_string())
    }

    #[test]
    fn a_stored_state_of_another_format_version_is_refused() {
        assert!(reads("").contains("not understood"));
        assert!(reads("{}").contains("not understood"));
        assert!(reads(r#"{"form":9}"#).contains("form 9"));
        assert!(reads(r#"{"form":1}"#).contains("missing field"));
    }
}
