//! The mounts of this machine, and the status of those daemons that this user may ask.
//!
//! Invariant: listing a mount does not access it: its daemon may be dead. Only sockets in folders of this
//! user are asked. Plain values, merged by a pure function.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use modelfs::manager::{GetStatus, Status, no_progress};
use modelfs_platform::MountPoint;
use serde::Serialize;

use super::table::{Column, table};
use crate::control::client::Client;
use crate::paths;

/// How long a daemon may take to answer with its status.
pub const TIMEOUT: Duration = Duration::from_secs(2);

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mounted {
    /// Where.
    pub mountpoint: PathBuf,
    /// Whose, if the system says so.
    pub user: Option<u32>,
    /// Whether its daemon answered; the rest is known only then.
    pub answers: bool,
    /// The process that keeps it.
    pub pid: Option<u32>,
    /// The names of its registries, without credentials.
    pub registry: Option<String>,
    /// The cache folder.
    pub cache: Option<PathBuf>,
}

/// The status of this user's daemons, whatever their caches.
pub async fn of_user() -> Vec<Status> {
    let sockets = paths::socket_folders().into_iter().filter_map(|f| std::fs::read_dir(f).ok());
    let sockets = sockets.flat_map(|entries| entries.flatten()).map(|entry| entry.path());
    let asked = sockets.map(|socket| async move {
        let (client, call, quiet) = (Client::new(&socket), GetStatus {}, no_progress());
        tokio::time::timeout(TIMEOUT, client.call(&call, &quiet)).await.ok()?.ok()
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// Every mount that this user may see, by its mount point.
pub async fn mounts() -> Vec<Mounted> {
    merged(modelfs_platform::mounts(), &of_user().await)
}

fn merged(points: Vec<MountPoint>, said: &[Status]) -> Vec<Mounted> {
    let mut all: Vec<_> = said.iter().filter_map(answering).collect();
    for point in points {
        match all.iter_mut().find(|m| m.mountpoint == point.path) {
            Some(known) => known.user = point.user,
            None => all.push(Mounted {
                mountpoint: point.path,
                user: point.user,
                answers: false,
                pid: None,
                registry: None,
                cache: None,
            }),
        }
    }
    all.sort_by(|a, b| a.mountpoint.cmp(&b.mountpoint));
    all.dedup_by(|a, b| a.mountpoint == b.mountpoint);
    all
}

fn answering(status: &Status) -> Option<Mounted> {
    let daemon = status.daemon.as_ref()?;
    Some(Mounted {
        mountpoint: daemon.mountpoint.clone(),
        user: None,
        answers: true,
        pid: Some(daemon.pid),
        registry: names(status),
        cache: Some(status.cache.folder.clone()),
    })
}

/// A table of mounts, for the user with this number.
pub fn mounts_text(mounts: &[&Mounted], user: u32) -> String {
    let columns = [
        Column::Left("MOUNTED AT"),
        Column::Left("REGISTRY"),
        Column::Left("CACHE"),
        Column::Left("DAEMON"),
    ];
    let unknown = || "?".to_owned();
    let rows = mounts.iter().map(|m| {
        let daemon = match (m.pid, m.user) {
            (Some(pid), _) => format!("process {pid}"),
            (None, Some(other)) if other != user => format!("of user {other}"),
            (None, _) => "does not answer".to_owned(),
        };
        vec![
            m.mountpoint.display().to_string(),
            m.registry.clone().unwrap_or_else(unknown),
            m.cache.as_ref().map_or_else(unknown, |c| c.display().to_string()),
            daemon,
        ]
    });
    table(&columns, rows.collect())
}

/// The names of a daemon's registries; one of an older program names its only one.
fn names(status: &Status) -> Option<String> {
    let names: Vec<_> = status.sources.iter().map(|source| source.name.as_str()).collect();
    match names.is_empty() {
        true => status.registry.as_ref().map(|only| only.name.clone()),
        false => Some(names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(at: &str) -> Mounted {
        Mounted {
            mountpoint: at.into(),
            user: None,
            answers: true,
            pid: Some(7),
            registry: Some("r".into()),
            cache: Some("/c".into()),
        }
    }

    #[test]
    fn a_mount_whose_daemon_cannot_be_reached_is_listed_as_well() {
        let point = |path: &str, user| MountPoint { path: path.into(), user: Some(user) };
        let all = merged(vec![point("/b", 5), point("/a", 0), point("/a", 0)], &[]);
        let places: Vec<_> = all.iter().map(|m| m.mountpoint.to_str().unwrap()).collect();
        assert_eq!(places, ["/a", "/b"]);
        let known = answers("/x");
        let text = mounts_text(&[&all[0], &all[1], &known], 0);
        let lines: Vec<_> = text.lines().skip(1).collect();
        assert!(lines[0].ends_with("does not answer"), "{text}");
        assert!(lines[1].ends_with("of user 5"), "{text}");
        assert!(lines[2].ends_with("process 7"), "{text}");
    }
}
