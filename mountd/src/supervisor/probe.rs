//! The probes: check whether the folders of registries answer. A hung file system blocks every access to
//! it.
//!
//! Invariant: a child process looks and is killed if it takes too long. A hung thread could not be
//! killed and would block, in the kernel, other lookups of the same name. At most one look is under
//! way in a folder. Part of the supervisor's one task.

use std::io::Write;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use futures_util::future::{join_all, select_all};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::guard::OWN;
use crate::error::{Failure, Kind};

/// Set for the child process: the folder to look at.
const VARIABLE: &str = "MODELFS_PROBE";
/// How long a look may take: a folder that answers needs less, also over a network and on a loaded
/// machine. A hung folder delays a worker's start by this time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the child process may take to start; if it takes longer, the folder does not count as hung.
const START: Duration = Duration::from_secs(10);
/// How long a first mount waits for the folder.
const FIRST_MOUNT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a hung folder is checked again.
const AGAIN: Duration = Duration::from_secs(5);

/// Checks the folders of registries, all at once.
pub struct Probes(Vec<Probe>);

impl Probes {
    /// For these folders.
    pub fn new(folders: Vec<PathBuf>) -> Self {
        Self(folders.into_iter().map(Probe::new).collect())
    }

    /// The folders that did not answer the last look.
    pub fn hanging(&self) -> Vec<PathBuf> {
        self.0.iter().filter(|probe| probe.hung).map(|probe| probe.folder.clone()).collect()
    }

    /// Whether all folders answer now; an error such as "not found" is an answer.
    pub async fn answer(&mut self) -> bool {
        let all = self.0.iter_mut().map(|probe| probe.answers_within(ANSWER_TIMEOUT));
        join_all(all).await.into_iter().all(|answers| answers)
    }

    /// Waits longer, as a user who mounts would.
    pub async fn answer_before_first_mount(&mut self) -> Result<(), Failure> {
        let all = self.0.iter_mut().map(|probe| probe.answers_within(FIRST_MOUNT_TIMEOUT));
        join_all(all).await;
        let Some(folder) = self.hanging().into_iter().next() else { return Ok(()) };
        let why = format!("{}: the registry's folder does not answer", folder.display());
        Err(Failure::new(Kind::Network, why).hint("is the file system that it lies on reachable?"))
    }

    /// Resolves when a hung folder answers. Cancel safe.
    pub async fn came_back(&mut self) {
        let hung = self.0.iter_mut().filter(|probe| probe.hung);
        let hung: Vec<_> = hung.map(|probe| Box::pin(probe.came_back())).collect();
        match hung.is_empty() {
            true => std::future::pending().await,
            false => drop(select_all(hung).await),
        }
    }
}

/// Checks one folder.
struct Probe {
    folder: PathBuf,
    /// The last look timed out.
    hung: bool,
    look: Option<Look>,
    /// When the next look is due, while the folder hangs.
    due: Instant,
}

struct Look {
    child: Child,
    /// Where the child reports that it begins to look.
    said: ChildStdout,
    /// How long the look may take from then on, and the resulting deadline.
    most: Duration,
    until: Option<Instant>,
}

impl Probe {
    fn new(folder: PathBuf) -> Self {
        Self { folder, hung: false, look: None, due: Instant::now() }
    }

    /// Resolves when the folder, which hangs, answers. Cancel safe.
    async fn came_back(&mut self) {
        loop {
            sleep_until(self.due).await;
            if self.answers_within(ANSWER_TIMEOUT).await {
                return;
            }
        }
    }

    /// Cancel safe: the next call waits for the same look.
    async fn answers_within(&mut self, most: Duration) -> bool {
        if self.look.is_none() {
            self.look = self.start(most);
        }
        let Some(look) = &mut self.look else { return true };
        if look.until.is_none() && timeout(START, look.said.read(&mut [0])).await.is_ok() {
            look.until = Some(Instant::now() + look.most);
        }
        // Any result counts: the worker will check what the folder is.
        self.hung = match look.until {
            Some(until) => timeout_at(until, look.child.wait()).await.is_err(),
            None => false,
        };
        // The drop kills the child if it hangs.
        self.look = None;
        self.due = Instant::now() + AGAIN;
        !self.hung
    }

    fn start(&self, most: Duration) -> Option<Look> {
        let child = Command::new(OWN)
            .arg0("modelfs")
            .env(VARIABLE, &self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let child = child.inspect_err(|error| {
            tracing::warn!(%error, "cannot check whether the registry's folder answers");
        });
        let mut child = child.ok()?;
        let said = child.stdout.take()?;
        Some(Look { child, said, most, until: None })
    }
}

/// The folder that this process is to look at, if it is a probe's child.
pub fn task() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).map(PathBuf::from)
}

/// The child's work: reports that it begins, looks, and exits.
pub fn run(folder: PathBuf) -> ExitCode {
    let mut out = std::io::stdout();
    let said = out.write_all(b".").and_then(|()| out.flush());
    match said.and_then(|()| std::fs::metadata(folder)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
