//! What the commands share: finding the backend and the reference, showing what is being waited for,
//! stopping on Ctrl-C.
//!
//! Invariant: what a stopped command has done is committed. A command that waits for a registry says so
//! within moments. Where there is no cache, only a command that keeps something in it creates one.

use std::convert::Infallible;
use std::path::{Component, Path};
use std::time::{Duration, Instant};

use modelfs::config::{Address, Origin, Setting};
use modelfs::manager::{Lookup, MountedPath, ProgressSink, Ref, no_progress};
use modelfs::model::VersionRef;

use super::args::{self, Places};
use super::output::Out;
use super::progress::Meter;
use crate::control::backend::{self, Backend, IfAbsent, SourcesToUse};
use crate::control::routes::Route;
use crate::error::{Failure, Kind};
use crate::{paths, sources, wiring};

/// How often the display of what is being waited for is updated: it counts seconds.
const UPDATE: Duration = Duration::from_secs(1);

/// A command's store, in this process or in the daemon.
pub struct Session {
    out: Out,
    backend: Backend,
    mounted: Option<MountedPath>,
}

impl Places {
    /// The registry that this command names, by flag or variable. A file says what to mount, not what the
    /// daemon of this cache must serve.
    fn asked_for(&self) -> Result<Option<String>, Failure> {
        let given = self.config()?.registry;
        let now = |given: &Setting<Address>| !matches!(given.origin, Origin::File { .. });
        given.filter(now).map(|given| paths::registry(&given.value.0)).transpose()
    }

    /// The name of that registry in answers, without credentials.
    pub fn registry_name(&self) -> Result<Option<String>, Failure> {
        let name = |given: String| Ok(modelfs::registry::open(&given)?.name().to_owned());
        self.asked_for()?.map(name).transpose()
    }

    /// Opens the store for a command that keeps nothing new in it.
    pub async fn open(&self, out: Out, lookup: Lookup) -> Result<Session, Failure> {
        let session = self.connect(out, lookup, IfAbsent::TreatAsEmpty).await?;
        self.check_registry(session).await
    }

    /// Opens the store, or creates it, for a command that keeps something in it.
    pub async fn open_or_create(&self, out: Out, lookup: Lookup) -> Result<Session, Failure> {
        let session = self.connect(out, lookup, IfAbsent::Create).await?;
        self.check_registry(session).await
    }

    /// Opens the store, whatever registry its daemon serves.
    pub async fn connect(
        &self,
        out: Out,
        lookup: Lookup,
        if_absent: IfAbsent,
    ) -> Result<Session, Failure> {
        let config = self.config()?;
        let root = args::cache_root(&config)?;
        let (plans, http) = (sources::plans(&config)?, wiring::http_options(&config));
        let backend =
            Backend::open(&root, &SourcesToUse { plans, http }, lookup, if_absent).await?;
        let mounted = match &backend {
            Backend::Local(_) => None,
            Backend::Daemon(_) => backend::holder(&root).await?.and_then(|h| h.mountpoint),
        };
        let mounted = mounted.map(|path| MountedPath { path });
        let session = Session { out, backend, mounted };
        let (meter, most) = (Meter::new(out, "", false), Some(wiring::FIRST_CONTACT));
        session.attend(session.backend.first_catalogs(), &meter, most).await?;
        Ok(session)
    }

    async fn check_registry(&self, session: Session) -> Result<Session, Failure> {
        if let Some(registry) = self.asked_for()? {
            session.backend.check_registry(&registry).await?;
        }
        Ok(session)
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

    /// Runs a short command.
    pub async fn ask<R: Route>(&self, command: R) -> Result<R::Answer, Failure> {
        let meter = Meter::new(self.out, "", false);
        self.attend(self.backend.call(command, no_progress()), &meter, None).await
    }

    /// Runs a long command and shows how far it is.
    pub async fn follow<R: Route>(&self, command: R, meter: &Meter) -> Result<R::Answer, Failure> {
        let sink: ProgressSink = meter.sink();
        self.attend(self.backend.call(command, sink), meter, None).await
    }

    /// Waits for work that may take long, for at most `most` if that is known: shows what is being waited
    /// for, and Ctrl-C stops it.
    async fn attend<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
        meter: &Meter,
        most: Option<Duration>,
    ) -> Result<T, Failure> {
        let end = tokio::select! {
            end = work => end,
            never = self.watch(meter, most) => match never {},
            _ = tokio::signal::ctrl_c() => {
                Err(Failure::new(Kind::Interrupted, "stopped; what was done so far is kept"))
            }
        };
        meter.finish();
        end
    }

    async fn watch(&self, meter: &Meter, most: Option<Duration>) -> Infallible {
        let begun = Instant::now();
        loop {
            tokio::time::sleep(UPDATE).await;
            // A daemon that does not answer at once does not say what it waits for.
            let asked = tokio::time::timeout(UPDATE, self.backend.waiting()).await;
            let mut waiting = asked.ok().flatten();
            if let (Some((_, waiting)), Some(most)) = (&mut waiting, most) {
                let left = most.saturating_sub(begun.elapsed()).as_secs();
                waiting.seconds_left = waiting.seconds_left.min(left);
            }
            meter.waits(waiting);
        }
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
