//! `modelfs unmount`: end a mount and its daemon.
//!
//! Invariant: "unmounted" is printed only when the mount and its daemon are gone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use modelfs::base::blocking::blocking;
use modelfs::manager::{GetStatus, Unmount as Request, Unmounting, no_progress};
use modelfs_platform::MountError;
use serde::Serialize;

use super::args::Cache;
use super::daemons;
use super::output::Out;
use crate::control::backend;
use crate::control::client::Client;
use crate::error::{Failure, Kind};
use crate::paths;

/// How long a daemon may take to end: it waits for its last commit to the disk.
const END: Duration = Duration::from_secs(30);

/// How long a mount may outlive its daemon: the guard makes two system calls, or starts a helper.
const GUARD: Duration = Duration::from_secs(5);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Unmount, and end the daemon
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modelfs unmount
  modelfs unmount /models")]
pub struct Unmount {
    /// Where it is mounted; not needed if there is only one mount
    mountpoint: Option<PathBuf>,
    #[command(flatten)]
    cache: Cache,
}

#[derive(Serialize)]
struct Unmounted {
    mountpoint: PathBuf,
}

/// Runs the command.
pub async fn run(out: Out, args: Unmount) -> Result<(), Failure> {
    let wanted = args.mountpoint.as_deref().map(paths::absolute).transpose()?;
    let root = args.cache.root()?;
    let mountpoint = match (find(&root, wanted.as_deref()).await?, wanted) {
        (Some(socket), _) => end(&socket).await?,
        // The mount of a daemon that died or does not listen.
        (None, Some(mountpoint)) => {
            let at = mountpoint.clone();
            blocking(move || modelfs_platform::unmount(&at).map_err(not_unmounted)).await??;
            mountpoint
        }
        (None, None) => {
            return Err(Failure::new(Kind::NotCached, "nothing is mounted")
                .hint("if the daemon of a mount has died: modelfs unmount MOUNTPOINT"));
        }
    };
    out.say(&Unmounted { mountpoint }, |u| format!("unmounted {}", u.mountpoint.display()))
}

/// A wrong mount point is no wrong argument here: nothing is mounted there.
fn not_unmounted(error: MountError) -> Failure {
    match error {
        MountError::Mountpoint { .. } => Failure::new(Kind::NotCached, error.to_string()),
        MountError::NotEmpty { .. } | MountError::NoFuse(_) | MountError::Failed { .. } => {
            error.into()
        }
    }
}

/// The socket of the daemon to end: that of this cache, else of the one mount there is.
async fn find(root: &Path, wanted: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
    if let Some(holder) = backend::holder(root).await? {
        let right = wanted.is_none_or(|w| holder.mountpoint.as_deref() == Some(w));
        if let (true, Some(socket)) = (right, holder.socket) {
            return Ok(Some(socket));
        }
    }
    let live = daemons::of_user().await.into_iter();
    let mut live: Vec<_> = live.filter_map(|status| status.daemon).collect();
    if let Some(wanted) = wanted {
        live.retain(|d| d.mountpoint == wanted);
    }
    if live.len() > 1 {
        let places: Vec<_> = live.iter().map(|d| d.mountpoint.display().to_string()).collect();
        return Err(Failure::usage(format!("there are several mounts: {}", places.join(", ")))
            .hint("say which: modelfs unmount MOUNTPOINT"));
    }
    Ok(live.pop().map(|d| d.socket))
}

/// Asks a daemon to end and waits until it has.
async fn end(socket: &Path) -> Result<PathBuf, Failure> {
    let client = Client::new(socket);
    // Where its lock is, to see it go.
    let folder = client.call(&GetStatus {}, &no_progress()).await?.cache.folder;
    let Unmounting { pid, mountpoint } = client.call(&Request {}, &no_progress()).await?;
    let gone = async {
        while backend::holder(&folder).await?.is_some_and(|h| h.pid == pid) {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    };
    tokio::time::timeout(END, gone).await.unwrap_or_else(|_| {
        Err(Failure::new(Kind::General, format!("the daemon, process {pid}, does not end"))
            .hint("its log may say why"))
    })?;
    // Its guard may still be unmounting.
    let until = tokio::time::Instant::now() + GUARD;
    while modelfs_platform::mounts().iter().any(|mount| mount.path == mountpoint) {
        if tokio::time::Instant::now() >= until {
            let at = mountpoint.display();
            let why = format!("{at}: the daemon has ended, but its mount is still there");
            return Err(Failure::new(Kind::General, why).hint(format!("umount -l {at}")));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(mountpoint)
}
