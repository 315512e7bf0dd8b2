//! The service manager's unit that we run as: whether it is restarting, and the size of its fd store.
//!
//! Invariant: without a clear and timely answer from the manager, there is no restart. Each query is a
//! child process; no state.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// The manager's timeout for an answer; we query it while it waits for us to end.
const MOST: Duration = Duration::from_secs(3);

/// A unit of a service manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    name: String,
    /// Whether it belongs to a user's manager.
    of_user: bool,
}

impl Unit {
    /// The unit of this name, of the manager that started us.
    pub fn new(name: String) -> Self {
        // A user's manager sets its process id; the system's manager is always process 1.
        Self { name, of_user: std::env::var_os("MANAGERPID").is_some() }
    }

    /// Whether the manager will start the unit again after this stop.
    pub async fn is_restarting(&self) -> bool {
        let jobs = ["list-jobs", "--plain", "--full", "--no-legend", "--", &self.name];
        self.ask(&jobs).await.is_some_and(|jobs| has_restart(&jobs, &self.name))
    }

    /// Number of descriptors in the unit's fd store.
    pub async fn kept(&self) -> Option<usize> {
        let show = ["show", "--property=NFileDescriptorStore", "--value", "--", &self.name];
        self.ask(&show).await?.trim().parse().ok()
    }

    async fn ask(&self, question: &[&str]) -> Option<String> {
        let mut command = Command::new("systemctl");
        if self.of_user {
            command.arg("--user");
        }
        command.args(question).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        match tokio::time::timeout(MOST, command.output()).await {
            Ok(Ok(said)) if said.status.success() => String::from_utf8(said.stdout).ok(),
            otherwise => {
                tracing::warn!(?otherwise, unit = self.name, "the service manager gives no answer");
                None
            }
        }
    }
}

/// Parses `123 modelfs.service restart running`, one line per job. The second half of a restart is a
/// job of another kind and begins when the unit has stopped.
fn has_restart(jobs: &str, unit: &str) -> bool {
    jobs.lines().any(|job| {
        let mut words = job.split_whitespace().skip(1);
        words.next() == Some(unit) && words.next() == Some("restart")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_restart_of_this_unit_counts_as_a_restart() {
        let jobs = "12 a.service stop running\n13 b.service  restart waiting\n";
        assert!(has_restart(jobs, "b.service"));
        assert!(!has_restart(jobs, "a.service"));
        assert!(!has_restart(jobs, "restart"));
        assert!(!has_restart("No jobs running.\n", "a.service"));
        assert!(!has_restart("", ""));
    }
}
