//! Picks the kind of registry that a name means. Opens no connection.

use std::path::Path;
use std::sync::Arc;

use super::{Folder, Http, HttpTimeouts, Registry, RegistryError};

/// The registry that `name` means: an `http://` or `https://` URL, a `file://` URL, or a folder.
/// It is not asked for anything yet: an unreachable one can be opened.
pub fn open(name: &str) -> Result<Arc<dyn Registry>, RegistryError> {
    open_with(name, HttpTimeouts::default())
}

/// As [`open`], with other timeouts.
pub fn open_with(name: &str, timeouts: HttpTimeouts) -> Result<Arc<dyn Registry>, RegistryError> {
    let bad = |why: &str| {
        // What comes after the scheme may hold a password.
        let name = name.split_once("://").map_or(name, |(scheme, _)| scheme);
        RegistryError::BadName { name: name.to_owned(), why: why.to_owned() }
    };
    let scheme = name.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some("http" | "https") => Ok(Arc::new(Http::new(name, timeouts)?)),
        Some("file") => {
            let path = reqwest::Url::parse(name).ok().and_then(|url| url.to_file_path().ok());
            let path = path.ok_or_else(|| bad("a file URL names a folder of this machine"))?;
            Ok(Arc::new(Folder::new(&path)?))
        }
        Some(_) => Err(bad("write an http, https or file URL, or a folder")),
        None if name.is_empty() => Err(bad("it is empty")),
        None => Ok(Arc::new(Folder::new(Path::new(name))?)),
    }
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
        for bad in ["", "ftp://u:secret@h", "file://elsewhere/x", "s3://secret/x", "https://"] {
            let error = name(bad).unwrap_err();
            assert!(matches!(error, RegistryError::BadName { .. }), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
