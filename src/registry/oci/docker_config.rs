//! Logins that other tools keep: Docker's `config.json`, Podman's `auth.json`, credential helpers.
//!
//! Invariant: a login is given for the registry that it was kept for, and for no other. Nothing of a
//! file or of what a helper writes is in an error. Files are read when a registry asks for a login, so
//! that a new login takes effect. Stateless.

use std::collections::HashMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::registry::credentials::{Credentials, Secret};
use crate::registry::login::Logins;

/// Maximum size of a file: a login takes a few hundred bytes.
const MAX_FILE: u64 = 1 << 20;
/// Maximum size of what a helper writes: a login, with a token of some kilobytes.
const MAX_ANSWER: u64 = 64 << 10;
/// How long a helper may take: it may ask a service of its own, but no person.
const HELPER_TIMEOUT: Duration = Duration::from_secs(20);
/// What Docker's registry is called where logins are kept.
const DOCKER_IO: &str = "https://index.docker.io/v1/";
/// The user of a login that is a token for the token service.
const TOKEN_USER: &str = "<token>";

/// Where logins are kept.
#[derive(Debug, Clone, Default)]
pub struct DockerConfig {
    /// The files, the first that has a login for a registry first. They need not be there.
    pub files: Vec<PathBuf>,
    /// Where helpers are looked for; `None`: in `PATH`.
    pub helpers: Option<PathBuf>,
}

/// The logins of one registry there.
#[derive(Debug, Clone)]
pub struct DockerLogins {
    /// Where they are kept.
    pub config: DockerConfig,
    /// The registry: `host` or `host:port`.
    pub host: String,
}

#[async_trait]
impl Logins for DockerLogins {
    async fn login(&self, repository: &str) -> Result<Option<Credentials>, String> {
        self.config.login(&self.host, repository).await
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: HashMap<String, Entry>,
    cred_helpers: HashMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
    registrytoken: Option<Secret>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: Secret,
}

impl DockerConfig {
    /// Where this user's tools keep them: `DOCKER_CONFIG` or `~/.docker`, then `REGISTRY_AUTH_FILE` or
    /// the places of Podman.
    pub fn from_environment() -> Self {
        let var = |name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = env::home_dir().filter(|home| !home.as_os_str().is_empty());
        let below = |path: &str| home.as_ref().map(|home| home.join(path));
        let docker =
            var("DOCKER_CONFIG").or_else(|| below(".docker")).map(|d| d.join("config.json"));
        let podman = match var("REGISTRY_AUTH_FILE") {
            Some(file) => vec![Some(file)],
            None => {
                let runtime = var("XDG_RUNTIME_DIR").map(|d| d.join("containers/auth.json"));
                let config = var("XDG_CONFIG_HOME").or_else(|| below(".config"));
                vec![runtime, config.map(|d| d.join("containers/auth.json"))]
            }
        };
        let files = [docker].into_iter().chain(podman).flatten().collect();
        Self { files, helpers: None }
    }

    /// The login for a registry (`host` or `host:port`) and a repository of it; or what is wrong, in
    /// one line.
    pub async fn login(&self, host: &str, repository: &str) -> Result<Option<Credentials>, String> {
        for path in &self.files {
            let Some(file) = read(path).await? else { continue };
            if let Some(found) = self.login_in(&file, path, host, repository).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    async fn login_in(
        &self,
        file: &File,
        path: &Path,
        host: &str,
        repository: &str,
    ) -> Result<Option<Credentials>, String> {
        let keys = keys(host, repository);
        let helper = keys.iter().find_map(|key| Some((key, file.cred_helpers.get(key)?)));
        if let Some((key, helper)) = helper {
            return self.ask(helper, key).await;
        }
        for (key, entry) in keys.iter().filter_map(|key| Some((key, file.auths.get(key)?))) {
            let bad = || format!("{}: the login for '{key}' is malformed", path.display());
            if let Some(found) = entry.read().map_err(|()| bad())? {
                return Ok(Some(found));
            }
        }
        match (&file.creds_store, keys.last()) {
            // Docker keeps a login under the name that was logged in to: the plain host, but for its own.
            (Some(store), Some(key)) => {
                self.ask(store, if host == "docker.io" { DOCKER_IO } else { key }).await
            }
            _ => Ok(None),
        }
    }

    /// Asks a credential helper for a login.
    async fn ask(&self, helper: &str, key: &str) -> Result<Option<Credentials>, String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if helper.is_empty() || !helper.chars().all(legal) {
            return Err("a credential helper in docker's configuration has no name of one".into());
        }
        let program = format!("docker-credential-{helper}");
        let failed = |why: String| format!("{program}: {why}");
        let path = match &self.helpers {
            Some(folder) => folder.join(&program),
            None => PathBuf::from(&program),
        };
        let asked = async {
            let mut child = tokio::process::Command::new(path)
                .arg("get")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                // A helper that takes too long ends with the future that waits for it.
                .kill_on_drop(true)
                .spawn()?;
            let (mut stdin, stdout) = (child.stdin.take(), child.stdout.take());
            if let Some(stdin) = &mut stdin {
                // A helper that does not read its input still says what it has to say.
                let _ = stdin.write_all(key.as_bytes()).await;
            }
            drop(stdin);
            let mut out = Vec::new();
            if let Some(stdout) = stdout {
                stdout.take(MAX_ANSWER).read_to_end(&mut out).await?;
            }
            Ok::<_, std::io::Error>((child.wait().await?, out))
        };
        let (status, out) = tokio::time::timeout(HELPER_TIMEOUT, asked)
            .await
            .map_err(|_| failed(format!("no answer within {HELPER_TIMEOUT:?}")))?
            .map_err(|e| failed(e.to_string()))?;
        if !status.success() {
            // What helpers say where they have no login, on their standard output.
            let none =
                String::from_utf8_lossy(&out).to_lowercase().contains("credentials not found");
            return if none { Ok(None) } else { Err(failed(format!("ended with {status}"))) };
        }
        let answer: Answer =
            serde_json::from_slice(&out).map_err(|_| failed("its answer is malformed".into()))?;
        Ok(match answer.username.as_str() {
            TOKEN_USER => Some(Credentials::Identity(answer.secret)),
            // A login without a user is none.
            "" => None,
            _ => Some(Credentials::Password { user: answer.username, password: answer.secret }),
        })
    }
}

impl Entry {
    /// The login that it holds; the entry of a login that a helper keeps holds none.
    fn read(&self) -> Result<Option<Credentials>, ()> {
        let given = |secret: &Option<Secret>| secret.clone().filter(|s| !s.reveal().is_empty());
        if let Some(token) = given(&self.registrytoken) {
            return Ok(Some(Credentials::Bearer(token)));
        }
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Credentials::Identity(token)));
        }
        if let Some(auth) = given(&self.auth) {
            let text = BASE64_STANDARD.decode(auth.reveal()).map_err(drop)?;
            let text = String::from_utf8(text).map_err(drop)?;
            // Docker once wrote zeros after it.
            let (user, password) = text.trim_end_matches('\0').split_once(':').ok_or(())?;
            let (user, password) = (user.to_owned(), Secret::new(password));
            return Ok(Some(Credentials::Password { user, password }));
        }
        let user = self.username.clone().filter(|u| !u.is_empty());
        Ok(user
            .zip(given(&self.password))
            .map(|(user, password)| Credentials::Password { user, password }))
    }
}

/// The names that a login may be kept under, the most specific first: of a repository or a part of its
/// path (Podman), of the host, and as Docker has written them over the years.
fn keys(host: &str, repository: &str) -> Vec<String> {
    let mut path = format!("{host}/{repository}");
    let mut keys = Vec::new();
    while path.len() > host.len() {
        keys.push(path.clone());
        path.truncate(path.rfind('/').unwrap_or(host.len()).max(host.len()));
    }
    keys.retain(|key| !key.ends_with('/'));
    if host == "docker.io" {
        keys.extend([DOCKER_IO, "index.docker.io", "registry-1.docker.io"].map(str::to_owned));
    }
    for scheme in ["https", "http"] {
        keys.extend(["", "/", "/v1/", "/v2/"].map(|end| format!("{scheme}://{host}{end}")));
    }
    keys.push(host.to_owned());
    keys
}

async fn read(path: &Path) -> Result<Option<File>, String> {
    let failed = |why: String| format!("{}: {why}", path.display());
    let mut body = Vec::new();
    match tokio::fs::File::open(path).await {
        Ok(file) => {
            let read = file.take(MAX_FILE + 1).read_to_end(&mut body).await;
            read.map_err(|e| failed(e.to_string()))?
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e.to_string())),
    };
    if body.len() as u64 > MAX_FILE {
        return Err(failed(format!("more than {MAX_FILE} bytes")));
    }
    // The text of the error may hold what stands in the file.
    let malformed = |e: serde_json::Error| {
        failed(format!("malformed at line {}, column {}", e.line(), e.column()))
    };
    serde_json::from_slice(&body).map(Some).map_err(malformed)
}

#[cfg(test)]
#[path = "docker_config_tests.rs"]
mod tests;
