//! The login of the Hub: where the token lies. Reads the environment and one small file.
//!
//! Invariant: the token is in no text that this program writes.

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::registry::credentials::{Credentials, Secret};
use crate::registry::error::RegistryError;
use crate::registry::login::Logins;

/// Maximum number of bytes read of the file: tokens have some forty characters.
const MAX_FILE: u64 = 4096;

/// What the environment says of the Hub.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `HF_ENDPOINT`.
    pub endpoint: Option<String>,
    /// `HF_TOKEN`.
    pub token: Option<Token>,
    /// The folder of the Hub's tools: `HF_HOME`, or its default.
    pub home: Option<PathBuf>,
}

/// An access token of the Hub.
#[derive(Debug, Clone)]
pub struct Token(Secret);

impl Token {
    /// The token in a text; `None` if it is empty. Errors say that it is none, and not what it was.
    pub fn new(text: &str) -> Result<Option<Self>, RegistryError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let bad = || RegistryError::BadName {
            name: "hf://".into(),
            why:
                "the token (HF_TOKEN, or the file of `hf auth login`) has characters that none has"
                    .into(),
        };
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(bad());
        }
        Ok(Some(Self(Secret::new(text))))
    }
}

#[async_trait]
impl Logins for Environment {
    async fn login(&self, _: &str) -> Result<Option<Credentials>, String> {
        let this = self.clone();
        let token = tokio::task::spawn_blocking(move || this.token()).await;
        let token = token.map_err(|_| "stopped".to_owned())?.map_err(|e| e.to_string())?;
        Ok(token.map(|Token(secret)| Credentials::Bearer(secret)))
    }
}

impl Environment {
    /// What this process's `HF_ENDPOINT` says.
    pub fn endpoint_of_process() -> Option<String> {
        std::env::var("HF_ENDPOINT").ok().filter(|value| !value.is_empty())
    }

    /// What the variables of this process say.
    pub fn of_process() -> Result<Self, RegistryError> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let folder = |name| variable(name).map(PathBuf::from);
        let cache = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
        Ok(Self {
            endpoint: Self::endpoint_of_process(),
            token: variable("HF_TOKEN").map(|t| Token::new(&t)).transpose()?.flatten(),
            home: folder("HF_HOME").or_else(|| Some(cache()?.join("huggingface"))),
        })
    }

    /// The token: the variable's, else the one that `hf auth login` left in the folder.
    pub fn token(&self) -> Result<Option<Token>, RegistryError> {
        match (&self.token, &self.home) {
            (Some(token), _) => Ok(Some(token.clone())),
            (None, Some(home)) => from_file(&home.join("token")),
            (None, None) => Ok(None),
        }
    }
}

fn from_file(path: &Path) -> Result<Option<Token>, RegistryError> {
    use std::io::Read;
    let unreadable = |error: std::io::Error| RegistryError::BadName {
        name: "hf://".into(),
        why: format!("the token in {} cannot be read: {error}", path.display()),
    };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        // Not logged in; or another user's folder, whose login is not ours.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            tracing::warn!(path = %path.display(), "the Hub's token cannot be read: going on without");
            return Ok(None);
        }
        Err(e) => return Err(unreadable(e)),
    };
    if let Some(mode) = readable_by_others(&file) {
        tracing::warn!(
            path = %path.display(), mode,
            "others can read the Hub's token: make it readable by you only (chmod 600)"
        );
    }
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text).map_err(unreadable)?;
    Token::new(&text)
}

/// The file's mode, if others than its owner can read it.
#[cfg(unix)]
fn readable_by_others(file: &std::fs::File) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let mode = file.metadata().ok()?.permissions().mode() & 0o7777;
    (mode & 0o044 != 0).then(|| format!("{mode:03o}"))
}

#[cfg(not(unix))]
fn readable_by_others(_: &std::fs::File) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(environment: &Environment) -> Option<String> {
        let Token(secret) = environment.token().unwrap()?;
        let header = Credentials::Bearer(secret).header().unwrap();
        Some(header.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_variable_comes_before_the_file_and_the_file_is_optional() {
        let home = tempfile::tempdir().unwrap();
        let mut environment =
            Environment { home: Some(home.path().to_owned()), ..Default::default() };
        assert_eq!(sent(&environment), None, "there is no login");
        std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
        assert_eq!(sent(&environment).as_deref(), Some("Bearer hf_file"));
        environment.token = Token::new(" hf_variable ").unwrap();
        assert_eq!(sent(&environment).as_deref(), Some("Bearer hf_variable"));
    }

    #[test]
    fn a_token_is_never_shown() {
        let token = Token::new("hf_secret").unwrap().unwrap();
        assert!(!format!("{token:?}").contains("secret"));
        for bad in ["hf secret", "hf_secret\nX: y", "hf_secrét"] {
            let error = Token::new(bad).unwrap_err().to_string();
            assert!(!error.contains("secr"), "{error}");
        }
        assert!(Token::new(" \n").unwrap().is_none());
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_noticed() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        let with = |mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), permissions).unwrap();
            readable_by_others(file.as_file())
        };
        assert_eq!((with(0o600), with(0o400)), (None, None));
        assert_eq!((with(0o644).as_deref(), with(0o640).as_deref()), (Some("644"), Some("640")));
    }
}
