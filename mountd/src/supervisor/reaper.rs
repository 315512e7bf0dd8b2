//! The process that takes the mount away when its supervisor dies without having done so.
//!
//! Invariant: it waits on a pipe and does nothing else; a supervisor that ends well says so first.
//! One thread.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, ExitCode, Stdio};

use modelfs_platform::Mounted;

use crate::error::{Failure, Kind};

/// Set for the reaper: which mount it is about.
const VARIABLE: &str = "MODELFS_REAPER";
/// What a supervisor says that leaves no mount behind.
const DONE: u8 = b'.';

/// A reaper at work.
pub struct Reaper(ChildStdin);

impl Reaper {
    /// Starts one.
    pub fn start(program: &Path, mounted: &Mounted) -> Result<Self, Failure> {
        let failed = |e: std::io::Error| {
            Failure::new(Kind::General, format!("starting the mount's last guard: {e}"))
        };
        let mut child = Command::new(program)
            .env(VARIABLE, serde_json::to_string(mounted).expect("paths and numbers are JSON"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // What ends the supervisor's terminal or group must not end it.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let pipe = child.stdin.take().expect("its input is piped, some lines above");
        // It ends after us, or with us: nobody waits for it.
        std::thread::spawn(move || child.wait());
        Ok(Self(pipe))
    }

    /// Sends it home.
    pub fn dismiss(mut self) {
        if let Err(error) = self.0.write_all(&[DONE]) {
            tracing::debug!(%error, "the mount's last guard had gone already");
        }
    }
}

/// Which mount this process is to take away, if it is a reaper.
pub fn task() -> Option<String> {
    std::env::var(VARIABLE).ok()
}

/// A reaper's life.
pub fn run(task: &str) -> ExitCode {
    let Ok(mounted) = serde_json::from_str::<Mounted>(task) else { return ExitCode::FAILURE };
    let mut said = Vec::new();
    if std::io::stdin().read_to_end(&mut said).is_ok() && said == [DONE] {
        return ExitCode::SUCCESS;
    }
    match mounted.end() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("modelfs: the daemon died, and its mount stays: {error}");
            ExitCode::FAILURE
        }
    }
}
