//! `modelfs doctor`: what this machine can and cannot do, and what to do about it.
//!
//! Invariant: nothing changes; a mount would meet what is reported. Findings are plain values, made by pure
//! functions.

use std::path::Path;

use clap::Args;
use modelfs::manager::{GetStatus, no_progress};
use serde::Serialize;

use super::args::Cache;
use super::output::Out;
use super::table::{Column, table};
use crate::control::backend;
use crate::control::client::Client;
use crate::error::{Failure, Kind};
use crate::identity::Identity;
use crate::{confine, paths, reach};

/// Passthrough, and requests sent again to the next worker.
const NEEDED: (u32, u32) = (6, 9);

/// How good a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// As it should be.
    Good,
    /// It works, but something is slower or weaker.
    Weaker,
    /// Mounting will fail.
    Bad,
}

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    what: &'static str,
    verdict: Verdict,
    text: String,
}

fn finding(what: &'static str, verdict: Verdict, text: impl Into<String>) -> Finding {
    Finding { what, verdict, text: text.into() }
}

/// Check what this machine can do, and say how to fix what it cannot
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modelfs doctor
  modelfs doctor --json")]
pub struct Doctor {
    #[command(flatten)]
    cache: Cache,
}

/// Runs the command.
pub async fn run(out: Out, args: Doctor) -> Result<(), Failure> {
    let root = args.cache.root()?;
    let mut findings = vec![
        kernel(&std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default()),
        device(std::fs::metadata("/dev/fuse").is_ok()),
        rights(rustix::process::geteuid().is_root(), in_path("fusermount3")),
        landlock(confine::landlock_is_there()),
    ];
    let identity = Identity::of_worker(None, false)?;
    if rustix::process::geteuid().is_root() {
        findings.push(worker(&identity));
    }
    findings.push(cache(&root, &identity));
    findings.push(daemon(&root).await?);
    let bad = findings.iter().any(|f| f.verdict == Verdict::Bad);
    out.show(&findings, |findings| {
        let rows = findings.iter().map(|f| {
            let verdict = match f.verdict {
                Verdict::Good => "good",
                Verdict::Weaker => "weaker",
                Verdict::Bad => "BAD",
            };
            vec![f.what.to_owned(), verdict.to_owned(), super::output::printable(&f.text)]
        });
        let columns = [Column::Left("CHECK"), Column::Left("RESULT"), Column::Left("DETAILS")];
        table(&columns, rows.collect())
    })?;
    match bad {
        true => Err(Failure::new(Kind::General, "this machine cannot mount")),
        false => Ok(()),
    }
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release.trim().split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let (version, needed) = ((next(), next()), format!("{}.{}", NEEDED.0, NEEDED.1));
    let release = release.trim();
    match version >= NEEDED {
        true => finding("kernel", Verdict::Good, format!("Linux {release}")),
        false => finding(
            "kernel",
            Verdict::Weaker,
            format!(
                "Linux {release} has no passthrough, and a mount ends with its worker; {needed} has both"
            ),
        ),
    }
}

fn device(there: bool) -> Finding {
    match there {
        true => finding("/dev/fuse", Verdict::Good, "present"),
        false => finding(
            "/dev/fuse",
            Verdict::Bad,
            "missing: run modprobe fuse; in a container, pass the device in",
        ),
    }
}

fn rights(root: bool, helper: bool) -> Finding {
    match (root, helper) {
        (true, _) => {
            finding("rights", Verdict::Good, "root: the kernel reads cached files by itself")
        }
        (false, true) => finding(
            "rights",
            Verdict::Weaker,
            "fusermount3 mounts; cached files are read through the daemon, since passthrough needs root",
        ),
        (false, false) => finding(
            "rights",
            Verdict::Bad,
            "mounting without root needs fusermount3: install the package fuse3",
        ),
    }
}

fn landlock(there: bool) -> Finding {
    match there {
        true => {
            finding("Landlock", Verdict::Good, "the worker can open only the files that it needs")
        }
        false => finding(
            "Landlock",
            Verdict::Weaker,
            "this kernel missing it or has it disabled (lsm=landlock,…): the worker can open all files of its user",
        ),
    }
}

fn worker(identity: &Identity) -> Finding {
    match identity {
        Identity::Other(user) => {
            let text = format!("it becomes the user {}, who will own the cache folder", user.name);
            finding("worker", Verdict::Good, text)
        }
        Identity::Bare | Identity::Kept => {
            finding("worker", Verdict::Weaker, confine::runs_as_root())
        }
    }
}

fn cache(root: &Path, identity: &Identity) -> Finding {
    if let Identity::Other(_) = identity
        && let Err(failure) = reach::reachable(root, identity)
    {
        let hint = failure.hint.unwrap_or_default();
        return finding("cache", Verdict::Bad, format!("{}: {hint}", failure.message));
    }
    // Where it would be created, if it does not exist yet.
    let there = root.ancestors().find(|p| p.exists()).unwrap_or(root);
    let at = root.display();
    match rustix::fs::access(there, rustix::fs::Access::WRITE_OK) {
        Ok(()) => {
            let free = modelfs::base::units::ByteSize(paths::free_at(root).unwrap_or(0));
            finding("cache", Verdict::Good, format!("{at}, {free} free"))
        }
        Err(error) => finding(
            "cache",
            Verdict::Bad,
            format!("{at}: {error}: choose another folder with --cache-dir"),
        ),
    }
}

async fn daemon(root: &Path) -> Result<Finding, Failure> {
    let Some(holder) = backend::holder(root).await? else {
        return Ok(finding("daemon", Verdict::Good, "none runs on this cache"));
    };
    if let Some(trouble) = holder.trouble {
        return Ok(finding("daemon", Verdict::Bad, trouble));
    }
    let Some(socket) = holder.socket else {
        let text = format!("another command, process {}, uses the cache", holder.pid);
        return Ok(finding("daemon", Verdict::Good, text));
    };
    let status = Client::new(&socket).call(&GetStatus {}, &no_progress()).await?;
    let Some(daemon) = status.daemon else {
        return Ok(finding("daemon", Verdict::Bad, "the process that answers is not a daemon"));
    };
    let missing = [daemon.why_no_passthrough, daemon.confinement.missing];
    let missing: Vec<_> = missing.into_iter().flatten().collect();
    let at = format!("process {} at {}", daemon.pid, daemon.mountpoint.display());
    Ok(match missing.is_empty() {
        true => finding("daemon", Verdict::Good, at),
        false => finding("daemon", Verdict::Weaker, format!("{at}: {}", missing.join("; "))),
    })
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::User;

    #[test]
    fn every_doctor_finding_says_what_to_do() {
        assert_eq!(kernel("6.18.44-fc\n").verdict, Verdict::Good);
        assert_eq!(kernel("6.9.0").verdict, Verdict::Good);
        assert!(kernel("6.8.12-generic").text.contains("6.9 has both"));
        assert_eq!(kernel("").verdict, Verdict::Weaker);
        assert!(device(false).text.contains("modprobe"));
        assert_eq!(rights(true, false).verdict, Verdict::Good);
        assert_eq!(rights(false, true).verdict, Verdict::Weaker);
        assert!(rights(false, false).text.contains("fuse3"));
        assert_eq!(
            (landlock(true).verdict, landlock(false).verdict),
            (Verdict::Good, Verdict::Weaker)
        );
        let (name, groups) = ("modelfs".to_owned(), Vec::new());
        let other = Identity::Other(User { name, uid: 998, gid: 998, groups });
        assert_eq!(worker(&other).verdict, Verdict::Good);
        let bare = worker(&Identity::Bare);
        assert!(bare.verdict == Verdict::Weaker && bare.text.contains("useradd"), "{bare:?}");
        let dir = tempfile::tempdir().unwrap();
        let found = cache(&dir.path().join("to/be/made"), &Identity::Bare);
        assert!(found.verdict == Verdict::Good && found.text.contains("free"), "{found:?}");
    }
}
