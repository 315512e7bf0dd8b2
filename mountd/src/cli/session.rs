//! What the commands share: finding the backend and the reference, stopping on Ctrl-C.
//!
//! Invariant: a command that was stopped leaves what it has done, committed.

use std::path::{Component, Path};

use modelfs::model::VersionRef;

use super::args::Places;
use super::progress::Meter;
use crate::control::answers::MountedPath;
use crate::control::backend::{self, Backend};
use crate::control::ops::{Ask, Run};
use crate::control::types::{ProgressSink, Ref};
use crate::error::{Failure, Kind};
use crate::paths;

/// A command's store, wherever it lives.
pub struct Session {
    backend: Backend,
    mounted: Option<MountedPath>,
}

impl Places {
    /// The registry, if one was given; an empty variable is none.
    pub fn registry(&self) -> Result<Option<String>, Failure> {
        let given = self.registry.as_deref().filter(|r| !r.is_empty());
        given.map(paths::registry).transpose()
    }

    /// Opens the store.
    pub async fn open(&self, ask: Ask) -> Result<Session, Failure> {
        let root = paths::cache_root(self.cache_dir.as_deref())?;
        let backend = Backend::open(&root, self.registry()?.as_deref(), ask).await?;
        let mounted = match &backend {
            Backend::Local(_) => None,
            Backend::Daemon(_) => backend::holder(&root).await?.and_then(|h| h.mountpoint),
        };
        Ok(Session { backend, mounted: mounted.map(|path| MountedPath { path }) })
    }
}

impl Session {
    /// The version that these words name.
    pub fn reference(&self, words: &[String]) -> Result<Ref, Failure> {
        let mounted = self.mounted.as_ref().map(|m| m.path.as_path());
        if let ([path], Some(mounted)) = (words, mounted) {
            let real = Path::new(path).is_absolute().then(|| paths::absolute(Path::new(path)));
            if let Some(found) = real.transpose()?.and_then(|real| below(&real, mounted)) {
                return Ok(found);
            }
        }
        Ok((&VersionRef::from_words(words)?).into())
    }

    /// The version that these words name; none if there are none.
    pub fn optional(&self, words: &[String]) -> Result<Option<Ref>, Failure> {
        (!words.is_empty()).then(|| self.reference(words)).transpose()
    }

    /// Asks for something short.
    pub async fn ask<C: Run>(&self, call: C) -> Result<C::Answer, Failure> {
        self.backend.call(call, backend::none()).await
    }

    /// Asks for something long; Ctrl-C stops it.
    pub async fn follow<C: Run>(&self, call: C, meter: &Meter) -> Result<C::Answer, Failure> {
        let sink: ProgressSink = meter.sink();
        let end = tokio::select! {
            end = self.backend.call(call, sink) => end,
            _ = tokio::signal::ctrl_c() => {
                Err(Failure::new(Kind::Interrupted, "stopped; what was done until now is kept"))
            }
        };
        meter.finish();
        end
    }

    /// Commits what was done here.
    pub async fn close(self) -> Result<(), Failure> {
        self.backend.close().await
    }
}

/// The version that a path below a mount point belongs to.
fn below(path: &Path, mountpoint: &Path) -> Option<Ref> {
    let mut names = path.strip_prefix(mountpoint).ok()?.components().map(|c| match c {
        Component::Normal(name) => name.to_str().map(str::to_owned),
        _ => None,
    });
    let mut next = || names.next().flatten();
    Some(Ref { group: next()?, model: next()?, version: next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_below_the_mount_point_names_its_version() {
        let at = |p: &str| below(Path::new(p), Path::new("/models")).map(|r| r.to_string());
        assert_eq!(at("/models/org/net/v1").as_deref(), Some("org/net@v1"));
        assert_eq!(at("/models/org/net/v1/sub/file.bin").as_deref(), Some("org/net@v1"));
        assert_eq!(at("/models/org/net"), None);
        assert_eq!(at("/other/org/net/v1"), None);
    }
}
