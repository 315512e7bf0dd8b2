//! A mount for one command: a daemon of its own, on a folder of its own.
//!
//! Invariant: the daemon ends with this process, however that ends, and takes its mount along; its guard does
//! so if the daemon is killed. The folder is removed once nothing is mounted there. One task.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use modelfs::base::blocking::blocking;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::error::{Failure, Kind};

/// How long a daemon may take to end: it waits for its last commit to the disk.
const END: Duration = Duration::from_secs(30);

/// What the daemon of a private mount is given; the rest it finds as every command does.
pub struct DaemonOptions {
    /// The cache folder.
    pub cache: PathBuf,
    /// The registry, if this command was given one: may hold credentials.
    pub registry: Option<String>,
    /// The file of settings, if this command was given one.
    pub config: Option<PathBuf>,
    /// Flags of this command that it gets as well.
    pub flags: Vec<String>,
    /// Where it answers programs that ask the Hub.
    pub hub_endpoint: Option<SocketAddr>,
    /// A variable for what it logs.
    pub log: Option<(&'static str, &'static str)>,
}

/// How a start ended.
pub enum Started {
    /// It is mounted.
    Mounted(Box<PrivateMount>),
    /// The daemon ended first and said why on standard error.
    Failed(ExitStatus),
}

/// The mount.
pub struct PrivateMount {
    daemon: Child,
    folder: Folder,
}

/// The folder of the mount. Removed when it is dropped, unless something is mounted there: nothing is ever
/// deleted through a mount.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // An error: it was removed before, or something is mounted there.
        let _ = std::fs::remove_dir(&self.0);
    }
}

impl PrivateMount {
    /// Starts the daemon and waits until its mount is ready.
    pub async fn start(options: DaemonOptions) -> Result<Started, Failure> {
        let failed =
            |what: &str, e: std::io::Error| Failure::new(Kind::General, format!("{what}: {e}"));
        let temporary = std::env::temp_dir();
        let folder = tempfile::Builder::new().prefix("modelfs-run.").tempdir_in(&temporary);
        let folder =
            folder.map_err(|e| failed(&format!("a folder in {}", temporary.display()), e))?;
        let folder = Folder(folder.keep());
        let program = std::env::current_exe().map_err(|e| failed("finding this program", e))?;
        let mut command = Command::new(program);
        command.arg("mount").arg(&folder.0).args(options.flags);
        // Not as an argument: other users can read command lines.
        command.env("MODELFS_CACHE_DIR", options.cache);
        command.envs(options.registry.map(|registry| ("MODELFS_REGISTRY", registry)));
        command.envs(options.config.map(|file| ("MODELFS_CONFIG", file)));
        command.envs(options.log);
        command.envs(options.hub_endpoint.map(|at| ("MODELFS_HUB_ENDPOINT", at.to_string())));
        // The unit of a service is that of its own mount.
        command.env_remove("MODELFS_UNIT").env_remove("MODELFS_MOUNTPOINT");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        // A terminal's signals are for the command; the daemon ends after it.
        command.process_group(0);
        // Also if the start is given up.
        command.kill_on_drop(true);
        modelfs_platform::end_with_parent(command.as_std_mut());
        let mut daemon = command.spawn().map_err(|e| failed("starting the daemon", e))?;
        let out = daemon.stdout.take().expect("it is piped");
        let mut lines = BufReader::new(out).lines();
        match lines.next_line().await.map_err(|e| failed("reading from the daemon", e))? {
            Some(_) => {
                // The daemon prints no more; if it did, a closed pipe would be an error to it.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                Ok(Started::Mounted(Box::new(Self { daemon, folder })))
            }
            None => {
                let ended = daemon.wait().await.map_err(|e| failed("waiting for the daemon", e))?;
                Ok(Started::Failed(ended))
            }
        }
    }

    /// Where it is mounted.
    pub fn mountpoint(&self) -> &Path {
        &self.folder.0
    }

    /// Unmounts and waits until the mount is gone.
    pub async fn end(mut self) -> Result<(), Failure> {
        if let Some(pid) = self.daemon.id().and_then(|id| Pid::from_raw(id as i32)) {
            // An error: it has ended, which is what the next line waits for.
            let _ = kill_process(pid, Signal::TERM);
        }
        let ended = tokio::time::timeout(END, self.daemon.wait()).await;
        let at = self.folder.0.clone();
        let remove = move || {
            std::fs::remove_dir(&at).map_err(|error| {
                let at = at.display();
                match error.kind() {
                    ErrorKind::ResourceBusy => {
                        Failure::new(Kind::General, format!("{at}: the mount is still there"))
                            .hint(format!("modelfs unmount {at}"))
                    }
                    _ => Failure::new(Kind::General, format!("{at}: {error}")),
                }
            })
        };
        blocking(remove).await??;
        match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(Failure::new(
                Kind::General,
                format!("the daemon of the mount ended with {status}"),
            )),
            Ok(Err(error)) => {
                Err(Failure::new(Kind::General, format!("waiting for the daemon: {error}")))
            }
            Err(_) => Err(Failure::new(Kind::General, "the daemon of the mount does not end")),
        }
    }
}
