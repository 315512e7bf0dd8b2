//! Picks the kind of registry that a name means. Opens no connection.

use std::path::Path;
use std::sync::Arc;

use super::{Folder, Hedged, Http, HttpTimeouts, Registry, RegistryError};

/// The registry that `name` means: an `http://` or `https://` URL, a `file://` URL, or a folder.
/// It is not asked for anything yet: an unreachable one can be opened.
pub fn open(name: &str) -> Result<Arc<dyn Registry>, RegistryError> {
    open_with(name, HttpTimeouts::default())
}

/// As [`open`], with other timeouts.
pub fn open_with(name: &str, timeouts: HttpTimeouts) -> Result<Arc<dyn Registry>, RegistryError> {
    let bad = |why: &str| RegistryError::BadName {
        name: scheme_shown(name).to_owned(),
        why: why.to_owned(),
    };
    let folder = |path: &Path| -> Result<Arc<dyn Registry>, RegistryError> {
        Ok(Arc::new(Folder::with_patience(path, timeouts.stall)?))
    };
    let scheme = is_url(name).then(|| {
        name.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase()).unwrap_or_default()
    });
    match scheme.as_deref() {
        Some("http" | "https") => Ok(Arc::new(Hedged::new(Arc::new(Http::new(name, timeouts)?)))),
        Some("file") => {
            let path = reqwest::Url::parse(name).ok().and_then(|url| url.to_file_path().ok());
            let path = path.ok_or_else(|| bad("a file URL names a folder of this machine"))?;
            folder(&path)
        }
        Some(_) => Err(bad("write an http, https or file URL, or a folder")),
        None if name.is_empty() => Err(bad("it is empty")),
        None => folder(Path::new(name)),
    }
}

/// Whether a name is meant for a URL, with whatever slip in it: no folder is looked for there, and
/// it is not shown, since it may hold a password.
pub fn is_url(name: &str) -> bool {
    let start = name.trim_start().split(':').next().unwrap_or_default().to_ascii_lowercase();
    let known = name.contains(':') && matches!(&*start, "http" | "https" | "file");
    known || name.contains("://")
}

/// What can be shown of a URL that cannot be read: its scheme, if that can be one.
pub(super) fn scheme_shown(name: &str) -> &str {
    let scheme = name.split(':').next().unwrap_or_default();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    if name.contains("://") && scheme.chars().all(fits) { scheme } else { "…" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(of: &str) -> Result<String, RegistryError> {
        open(of).map(|r| r.name().to_owned())
    }

    #[test]
    fn kinds_of_names() {
        assert_eq!(name("https://u:p@h/x/?q").unwrap(), "https://h/x");
        assert_eq!(name("HTTP://h").unwrap(), "http://h");
        for (text, url) in [("http", false), ("x/http:y", false), ("File:/x", true), ("a://", true)]
        {
            assert_eq!(is_url(text), url, "{text}");
        }
        #[cfg(unix)]
        {
            assert_eq!(name("file:///srv/a%20b").unwrap(), "/srv/a b");
            assert_eq!(name("/srv/x").unwrap(), "/srv/x");
            assert_eq!(name("/srv//x/").unwrap(), "/srv/x");
            let here = std::env::current_dir().unwrap();
            assert_eq!(name("x/y").unwrap(), here.join("x/y").to_str().unwrap());
            assert_eq!(name("./x").unwrap(), here.join("x").to_str().unwrap());
        }
    }

    #[test]
    fn what_is_no_registry() {
        for bad in [
            "",
            "ftp://u:secret@h",
            "file://elsewhere/x",
            "s3://secret/x",
            "https://",
            "http:/u:secret@h",
            "HTTPS:u:secret@h",
            " http:u:secret@h",
            "u:secret@h://x",
            "secret@h://x",
        ] {
            let error = name(bad).unwrap_err();
            assert!(matches!(error, RegistryError::BadName { .. }), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
