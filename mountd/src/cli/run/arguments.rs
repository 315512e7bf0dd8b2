//! Arguments of a command that name models, and the variables that programs find the mount by. Pure.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use modelfs::manager::HubEndpoint;
use modelfs::model::{FilePath, ModelRef, Name, VersionRef};
use modelfs::vfs::{DEFAULT_REF, HUB_CACHE};

/// How an argument names a model as the Hub does.
const HUB: &str = "hf://";
/// How an argument names a version as modelfs does.
const REFERENCE: &str = "modelfs:";

/// Where an argument leads to below the mount point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The text before the name: `--model=`, or nothing.
    before: String,
    /// The version.
    pub version: VersionRef,
    /// A file or folder of it.
    file: Option<FilePath>,
}

impl Named {
    /// What an argument names; `None` for one that is passed on as it is.
    pub fn of(argument: &OsStr) -> Result<Option<Self>, String> {
        let Some(text) = argument.to_str() else { return Ok(None) };
        let marked = |text: &str| text.starts_with(HUB) || text.starts_with(REFERENCE);
        let (before, name) = match text.split_once('=') {
            Some((flag, value)) if flag.starts_with('-') && marked(value) => {
                (format!("{flag}="), value)
            }
            _ if marked(text) => (String::new(), text),
            _ => return Ok(None),
        };
        let (version, file) = match name.strip_prefix(HUB) {
            Some(rest) if rest.starts_with("datasets/") || rest.starts_with("spaces/") => {
                return Ok(None);
            }
            Some(rest) => of_hub(rest).ok_or_else(|| {
                format!(
                    "{name}: write hf://ORG/NAME[@REVISION][/FILE], a slash of a revision as --"
                )
            })?,
            None => of_modelfs(&name[REFERENCE.len()..])
                .ok_or_else(|| format!("{name}: write modelfs:GROUP/MODEL@VERSION[/FILE]"))?,
        };
        Ok(Some(Self { before, version, file }))
    }

    /// Its path below a mount point.
    pub fn path(&self, mountpoint: &Path) -> PathBuf {
        let folder = self.version.folder_in(mountpoint);
        match &self.file {
            Some(file) => folder.join(file.as_str()),
            None => folder,
        }
    }

    /// The argument with this path in place of the name.
    pub fn argument(&self, mountpoint: &Path) -> OsString {
        let mut argument = OsString::from(&self.before);
        argument.push(self.path(mountpoint));
        argument
    }
}

fn of_hub(rest: &str) -> Option<(VersionRef, Option<FilePath>)> {
    let (group, rest) = rest.split_once('/')?;
    let (model, file) = split_file(rest)?;
    let (model, revision) = model.split_once('@').unwrap_or((model, DEFAULT_REF));
    Some((version(group, model, revision)?, file))
}

fn of_modelfs(rest: &str) -> Option<(VersionRef, Option<FilePath>)> {
    let (group, rest) = rest.split_once('/')?;
    let (model, rest) = rest.split_once('@')?;
    let (name, file) = split_file(rest)?;
    Some((version(group, model, name)?, file))
}

/// A name and the file after it, if there is one.
fn split_file(text: &str) -> Option<(&str, Option<FilePath>)> {
    match text.split_once('/') {
        None | Some((_, "")) => Some((text.trim_end_matches('/'), None)),
        Some((name, file)) => Some((name, Some(FilePath::new(file.trim_end_matches('/')).ok()?))),
    }
}

fn version(group: &str, model: &str, version: &str) -> Option<VersionRef> {
    let name = |text| Name::new(text).ok();
    let model = ModelRef { group: name(group)?, model: name(model)? };
    Some(VersionRef { model, version: name(version)? })
}

/// The variables by which programs find a mount; `None`: without a value. Without an endpoint programs are set
/// offline, so that names of other registries are not sent to the Hub.
pub fn variables(
    mountpoint: &Path,
    endpoint: Option<&HubEndpoint>,
) -> Vec<(&'static str, Option<OsString>)> {
    let hub = mountpoint.join(HUB_CACHE).into_os_string();
    let mut all = vec![
        ("MODELFS_MODELS", mountpoint.as_os_str().to_owned()),
        ("HF_HUB_CACHE", hub.clone()),
        // What programs before huggingface_hub 0.14, and TGI, look for.
        ("HUGGINGFACE_HUB_CACHE", hub.clone()),
        ("FASTEMBED_CACHE_PATH", hub),
    ];
    if let Some(HubEndpoint { url, token }) = endpoint {
        all.extend([("HF_ENDPOINT", url.into()), ("HF_TOKEN", token.into())]);
    }
    let offline = endpoint.is_none().then(|| OsString::from("1"));
    let all = all.into_iter().map(|(name, value)| (name, Some(value)));
    all.chain(["HF_HUB_OFFLINE", "LLAMA_ARG_OFFLINE"].map(|name| (name, offline.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(argument: &str) -> Result<Option<String>, String> {
        let named = Named::of(argument.as_ref())?;
        Ok(named.map(|n| n.argument("/m".as_ref()).into_string().unwrap()))
    }

    #[test]
    fn names_of_models_become_paths() {
        for (given, path) in [
            ("hf://org/net", "/m/org/net/main"),
            ("hf://org/net/", "/m/org/net/main"),
            ("hf://org/net@v1.0", "/m/org/net/v1.0"),
            ("hf://org/net@refs--pr--1/a/b.gguf", "/m/org/net/refs--pr--1/a/b.gguf"),
            ("hf://org/net/model.gguf", "/m/org/net/main/model.gguf"),
            ("--model=hf://org/net", "--model=/m/org/net/main"),
            ("modelfs:acme/net@1", "/m/acme/net/1"),
            ("-m=modelfs:acme/net@1/x/y", "-m=/m/acme/net/1/x/y"),
        ] {
            assert_eq!(replaced(given).unwrap().as_deref(), Some(path), "{given}");
        }
    }

    #[test]
    fn other_arguments_are_passed_on() {
        for given in
            ["", "org/net", "x=hf://org/net", "see hf://org/net", "hf://datasets/o/n", "--m"]
        {
            assert_eq!(replaced(given), Ok(None), "{given}");
        }
    }

    #[test]
    fn a_name_that_can_be_none_says_how_to_write_one() {
        for given in ["hf://", "hf://net", "hf:///net", "hf://org/net/../x", "hf://org/@x"] {
            assert!(replaced(given).unwrap_err().contains("hf://ORG/NAME"), "{given}");
        }
        for given in ["modelfs:", "modelfs:a/b", "modelfs:a@1", "modelfs:a/b@", "modelfs:a/b@1/.."]
        {
            assert!(replaced(given).unwrap_err().contains("GROUP/MODEL@VERSION"), "{given}");
        }
    }

    #[test]
    fn a_program_is_offline_or_asks_the_daemon() {
        let names = |endpoint| {
            let all = variables("/m".as_ref(), endpoint).into_iter();
            all.filter_map(|(name, value)| value.map(|_| name)).collect::<Vec<_>>()
        };
        let offline = names(None);
        assert!(offline.contains(&"HF_HUB_OFFLINE") && !offline.contains(&"HF_ENDPOINT"));
        let endpoint = HubEndpoint { url: "http://127.0.0.1:1".into(), token: "t".into() };
        let online = names(Some(&endpoint));
        assert!(online.contains(&"HF_ENDPOINT") && !online.contains(&"HF_HUB_OFFLINE"));
        let removed = variables("/m".as_ref(), Some(&endpoint));
        assert!(removed.contains(&("HF_HUB_OFFLINE", None)), "an inherited one is removed");
    }
}
