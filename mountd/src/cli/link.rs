//! `modelfs link`: let a repository of the user's own Hugging Face cache be the mount's.
//!
//! Invariant: only a link that leads to a mount's view is ever replaced or removed.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;
use modelfs::base::blocking::blocking;
use modelfs::model::ModelRef;
use modelfs::vfs::{HUB_CACHE, repository_folder};
use serde::Serialize;

use super::args::Cache;
use super::output::Out;
use crate::control::backend;
use crate::error::{Failure, Kind};

/// Use a model of the mount from your own Hugging Face cache
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modelfs link org/name
  modelfs link --remove org/name

Makes a link in the folder that programs take for the Hugging Face cache (HF_HUB_CACHE, or hub in HF_HOME, or \
~/.cache/huggingface/hub), so that they find this model on the mount and all others where they were. Remove \
the link when the mount is gone for good.")]
pub struct Link {
    /// Model: ORG/NAME
    #[arg(value_name = "MODEL")]
    model: ModelRef,
    /// Remove the link
    #[arg(long)]
    remove: bool,
    #[command(flatten)]
    cache: Cache,
}

#[derive(Serialize)]
struct Linked {
    link: PathBuf,
    /// Where it leads to; none: it was removed.
    target: Option<PathBuf>,
}

/// Runs the command.
pub async fn run(out: Out, args: Link) -> Result<(), Failure> {
    let hub = hub_cache(|name| std::env::var_os(name)).ok_or_else(|| {
        Failure::usage("there is no home folder with a Hugging Face cache").hint("set HF_HUB_CACHE")
    })?;
    let folder = repository_folder(args.model.group.as_str(), args.model.model.as_str());
    let link = hub.join(&folder);
    let linked = match args.remove {
        true => blocking(move || remove(link)).await??,
        false => {
            let root = args.cache.root()?;
            let holder = backend::holder(&root).await?;
            let mountpoint = holder.and_then(|holder| holder.mountpoint).ok_or_else(|| {
                Failure::new(Kind::NotCached, "nothing is mounted with this cache")
                    .hint("modelfs mount MOUNTPOINT")
            })?;
            blocking(move || make(&hub, link, &mountpoint, &folder)).await??
        }
    };
    out.say(&linked, |linked| match &linked.target {
        Some(target) => format!("{} leads to {}", linked.link.display(), target.display()),
        None => format!("removed {}", linked.link.display()),
    })
}

/// The folder that programs take for the Hugging Face cache.
fn hub_cache(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let home = || set("HF_HOME").or_else(|| Some(cache()?.join("huggingface")));
    let own = set("HF_HUB_CACHE").or_else(|| set("HUGGINGFACE_HUB_CACHE"));
    own.or_else(|| Some(home()?.join("hub")))
}

fn make(hub: &Path, link: PathBuf, mountpoint: &Path, folder: &str) -> Result<Linked, Failure> {
    if hub.starts_with(mountpoint) {
        let text = format!("{}: the Hugging Face cache is the mount's already", hub.display());
        return Err(Failure::usage(text));
    }
    let target = mountpoint.join(HUB_CACHE).join(folder);
    match std::fs::metadata(&target) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let text = format!("{folder}: no registry of {} has this model", mountpoint.display());
            return Err(Failure::new(Kind::NotFound, text));
        }
        Err(error) => {
            let text = format!("{}: {error}", target.display());
            return Err(Failure::new(Kind::Network, text).hint("modelfs status says why"));
        }
    }
    let failed =
        |error: std::io::Error| Failure::new(Kind::General, format!("{}: {error}", link.display()));
    std::fs::create_dir_all(hub).map_err(failed)?;
    if is_ours(&link)? {
        std::fs::remove_file(&link).map_err(failed)?;
    }
    match std::os::unix::fs::symlink(&target, &link) {
        Ok(()) => Ok(Linked { link, target: Some(target) }),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let text = format!("{}: the model was downloaded there", link.display());
            Err(Failure::usage(text).hint("move it away first"))
        }
        Err(error) => Err(failed(error)),
    }
}

fn remove(link: PathBuf) -> Result<Linked, Failure> {
    if !is_ours(&link)? {
        let text = format!("{}: there is no link to a mount", link.display());
        return Err(Failure::new(Kind::NotCached, text));
    }
    std::fs::remove_file(&link)
        .map_err(|e| Failure::new(Kind::General, format!("{}: {e}", link.display())))?;
    Ok(Linked { link, target: None })
}

/// Whether a link leads to a view of a mount, which may be gone.
fn is_ours(link: &Path) -> Result<bool, Failure> {
    match std::fs::read_link(link) {
        Ok(target) => Ok(target.parent().is_some_and(|folder| folder.ends_with(HUB_CACHE))),
        // A file or folder, or nothing.
        Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound) => Ok(false),
        Err(e) => Err(Failure::new(Kind::General, format!("{}: {e}", link.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_where_programs_look_for_it() {
        let of = |set: &[(&str, &str)]| {
            let find = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into());
            hub_cache(find).map(|path| path.display().to_string())
        };
        let home = ("HOME", "/home/me");
        assert_eq!(of(&[home]).as_deref(), Some("/home/me/.cache/huggingface/hub"));
        assert_eq!(of(&[home, ("XDG_CACHE_HOME", "/c")]).as_deref(), Some("/c/huggingface/hub"));
        assert_eq!(of(&[home, ("HF_HOME", "/h")]).as_deref(), Some("/h/hub"));
        assert_eq!(of(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/x")]).as_deref(), Some("/x"));
        assert_eq!(
            of(&[home, ("HF_HOME", "")]).as_deref(),
            Some("/home/me/.cache/huggingface/hub")
        );
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn only_links_to_a_view_are_replaced_or_removed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("real")).unwrap();
        std::os::unix::fs::symlink("/elsewhere/models--o--n", at("other")).unwrap();
        std::os::unix::fs::symlink("/m/.views/hf/models--o--n", at("ours")).unwrap();
        for name in ["real", "other", "none"] {
            assert!(remove(at(name)).is_err(), "{name}");
        }
        assert!(at("real").is_dir() && at("other").is_symlink());
        assert!(remove(at("ours")).is_ok() && !at("ours").is_symlink());
    }
}
