//! `mount --background`: starts this program again in its own session, with a pipe on which the child
//! reports that it is ready, or why not.
//!
//! Invariant: the command exits with 0 only when the mount is ready, else with the daemon's own error
//! and exit code. A daemon whose parent dies before that unmounts and exits. No fork: the child is
//! started like any program and detaches itself. One task.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::control::event::Event;
use crate::error::{Failure, Kind};
use crate::paths;
use crate::ready::Ready;

/// Set for the child: its standard output is the pipe to its parent. A variable and not a flag, so that
/// the command line stays the user's.
const CHILD: &str = "MODELFS_BACKGROUND_CHILD";

/// A log larger than this is renamed at the next start; one old log is kept.
const MAX_LOG: u64 = 16 << 20;

/// Whether this process is the child.
pub fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Starts the daemon of the store at `root` and waits until it is ready.
pub fn start(root: &Path) -> Result<Ready, Failure> {
    let log_path = paths::log_file(root)?;
    let log = open_log(&log_path)?;
    let failed = |e: std::io::Error| {
        Failure::new(Kind::General, format!("starting the daemon in the background: {e}"))
    };
    let mut child = Command::new(std::env::current_exe().map_err(failed)?)
        .args(std::env::args_os().skip(1))
        .env(CHILD, "1")
        // It leaves this working directory, and so do its child processes.
        .envs(paths::environment())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(failed)?;
    let pipe = child.stdout.take().expect("its output is piped, one line above");
    let mut line = String::new();
    BufReader::new(pipe).read_line(&mut line).map_err(failed)?;
    match serde_json::from_str(&line) {
        Ok(Event::Done(ready)) => Ok(ready),
        Ok(Event::Error(failure)) => Err(failure),
        Ok(Event::Progress(_)) | Err(_) => {
            let how = child.wait().map_err(failed)?;
            Err(Failure::new(
                Kind::General,
                format!("the daemon ended before the mount was ready ({how})"),
            )
            .hint(format!("its log is {}", log_path.display())))
        }
    }
}

fn open_log(path: &Path) -> Result<File, Failure> {
    if path.metadata().is_ok_and(|m| m.len() > MAX_LOG) {
        std::fs::rename(path, path.with_extension("log.old"))
            .map_err(|e| Failure::storage(path, "renaming the old log", &e))?;
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| Failure::storage(path, "opening the log", &e))
}

/// In the child: leaves the terminal and the working directory.
pub fn detach() {
    // Fails only for the leader of a process group, which a newly started child never is.
    if let Err(error) = rustix::process::setsid() {
        tracing::warn!(%error, "cannot start a session of its own");
    }
    if let Err(error) = std::env::set_current_dir("/") {
        tracing::warn!(%error, "cannot leave the working directory");
    }
}

/// In the child: reports the outcome to the parent and closes the pipe.
pub fn tell(outcome: &Event<&Ready>) -> Result<(), Failure> {
    let gone = |e: std::io::Error| {
        Failure::new(Kind::Interrupted, format!("the process that started the daemon is gone: {e}"))
    };
    let mut line = serde_json::to_vec(outcome).expect("plain data with string keys");
    line.push(b'\n');
    let mut out = std::io::stdout();
    out.write_all(&line).and_then(|()| out.flush()).map_err(gone)?;
    let nothing = OpenOptions::new().write(true).open("/dev/null").map_err(gone)?;
    rustix::stdio::dup2_stdout(nothing).map_err(|e| gone(e.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_log_is_renamed_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        File::create(&path).unwrap().set_len(MAX_LOG + 1).unwrap();
        open_log(&path).unwrap().write_all(b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert!(dir.path().join("x.log.old").exists());
        open_log(&path).unwrap().write_all(b"er").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"newer");
    }
}
