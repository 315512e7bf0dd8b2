//! Whether the registry's folder answers: one on a hung file system keeps everybody who looks at it.
//!
//! Invariant: a process looks, which is killed if it takes too long: a thread that hangs there could
//! not be, and would keep others in the kernel who look at the same name. At most one look is under
//! way. Part of the supervisor's one task.

use std::io::Write;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::reaper::OWN;
use crate::error::{Failure, Kind};

/// Set for the process that looks: at which folder.
const VARIABLE: &str = "MODELFS_PROBE";
/// A folder that answers does so within this once it is looked at, also over a network and on a loaded
/// machine. So much a hung one delays a worker's start.
const PROMPT: Duration = Duration::from_secs(1);
/// How long the process that looks may take to start; where it takes longer, nothing is known.
const START: Duration = Duration::from_secs(10);
/// How long a first mount waits.
const AT_LAST: Duration = Duration::from_secs(10);
/// How often it is looked whether a folder that hung answers again.
const AGAIN: Duration = Duration::from_secs(5);

/// Looks at a folder.
pub struct Probe {
    folder: Option<PathBuf>,
    /// The last look did not end in time.
    hung: bool,
    look: Option<Look>,
    /// When the next look is due, while it hangs.
    due: Instant,
}

struct Look {
    child: Child,
    /// Where it says that it looks now.
    said: ChildStdout,
    /// How long it may take from then on, and until when that is.
    most: Duration,
    until: Option<Instant>,
}

impl Probe {
    /// Of the registry's folder, if it is one.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, hung: false, look: None, due: Instant::now() }
    }

    /// Whether it did not answer last.
    pub fn hangs(&self) -> bool {
        self.hung
    }

    /// Whether it answers now, be it that it is not there.
    pub async fn answers(&mut self) -> bool {
        self.answers_within(PROMPT).await
    }

    /// Waits longer, for as long as somebody would who mounts it.
    pub async fn answers_at_last(&mut self) -> Result<(), Failure> {
        if self.answers_within(AT_LAST).await {
            return Ok(());
        }
        let folder = self.folder.clone().unwrap_or_default();
        let why = format!("{}: the registry's folder does not answer", folder.display());
        Err(Failure::new(Kind::Network, why).hint("is the file system that it lies on reachable?"))
    }

    /// Resolves when a folder that hung answers. Cancel safe.
    pub async fn came_back(&mut self) {
        if !self.hung {
            return std::future::pending().await;
        }
        loop {
            sleep_until(self.due).await;
            if self.answers_within(PROMPT).await {
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
        // Whatever it found: what the folder is, the worker will see.
        self.hung = match look.until {
            Some(until) => timeout_at(until, look.child.wait()).await.is_err(),
            None => false,
        };
        // Killed by its drop if it hangs.
        self.look = None;
        self.due = Instant::now() + AGAIN;
        !self.hung
    }

    fn start(&self, most: Duration) -> Option<Look> {
        let folder = self.folder.as_ref()?;
        let child = Command::new(OWN)
            .arg0("modelfs")
            .env(VARIABLE, folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let child = child.inspect_err(|error| {
            tracing::warn!(%error, "nobody looks whether the registry's folder answers");
        });
        let mut child = child.ok()?;
        let said = child.stdout.take()?;
        Some(Look { child, said, most, until: None })
    }
}

/// Which folder this process is to look at, if it is there for that.
pub fn task() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).map(PathBuf::from)
}

/// Says that it looks, looks, and ends.
pub fn run(folder: PathBuf) -> ExitCode {
    let mut out = std::io::stdout();
    let said = out.write_all(b".").and_then(|()| out.flush());
    match said.and_then(|()| std::fs::metadata(folder)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
