//! The logins of sources, looked up with the rights of this process: the supervisor's, or a command's.
//!
//! A worker may be another user and may open next to no file, so it asks its supervisor. A source's own secret
//! comes first; without one, the places count where tools of its kind keep logins. Invariant: nothing of a
//! secret is in an error. A file or program is looked at when a login is needed, so a new secret takes effect
//! without a restart. Stateless.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use modelfs::config::Credential;
use modelfs::registry::{Credentials, Logins, Secret, read_private_file, usual_logins};
use tokio::io::AsyncReadExt;

use crate::error::Failure;
use crate::sources::SourcePlan;

/// Maximum size of a secret: tokens with many rights have some kilobytes, and it has to fit a message to a worker.
const MAX_SECRET: u64 = 16 << 10;
/// How long a program may take: it may ask a service of its own, but no person.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);

/// Where the login of one source comes from.
#[derive(Debug)]
struct SourceLogins {
    username: Option<String>,
    credential: Option<Credential>,
    usual: Arc<dyn Logins>,
}

/// The logins of a source.
pub fn of_source(plan: &SourcePlan) -> Result<Arc<dyn Logins>, Failure> {
    Ok(Arc::new(SourceLogins {
        username: plan.username.clone(),
        credential: plan.credential.clone(),
        usual: usual_logins(&plan.address.0)?,
    }))
}

#[async_trait]
impl Logins for SourceLogins {
    async fn login(&self, repository: &str) -> Result<Option<Credentials>, String> {
        let Some(credential) = &self.credential else {
            return self.usual.login(repository).await;
        };
        let secret = secret(credential).await?;
        Ok(Some(match &self.username {
            Some(user) => Credentials::Password { user: user.clone(), password: secret },
            None => Credentials::Bearer(secret),
        }))
    }
}

async fn secret(credential: &Credential) -> Result<Secret, String> {
    let (place, text) = match credential {
        Credential::TokenFile(path) => {
            let file = path.clone();
            let read = tokio::task::spawn_blocking(move || read_private_file(&file, MAX_SECRET));
            (format!("token_file {}", path.display()), read.await.map_err(|e| e.to_string())?)
        }
        Credential::TokenVariable(name) => {
            let value = std::env::var(name).map_err(|_| "is not set, or not UTF-8".to_owned());
            (format!("token_variable {name}"), value)
        }
        Credential::TokenCommand(words) => {
            let program = words.first().map_or("", String::as_str);
            (format!("token_command {program}"), output(words).await)
        }
    };
    let text = text.map_err(|why| format!("{place}: {why}"))?;
    match text.lines().next().map(str::trim) {
        Some(line) if !line.is_empty() => Ok(Secret::new(line)),
        _ => Err(format!("{place}: the first line is empty")),
    }
}

/// What a program prints.
async fn output(words: &[String]) -> Result<String, String> {
    let (program, arguments) = words.split_first().ok_or("names no program")?;
    let ran = async {
        let mut child = tokio::process::Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // It may hold the secret.
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let mut out = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_SECRET).read_to_end(&mut out).await?;
        }
        Ok::<_, std::io::Error>((child.wait().await?, out))
    };
    let ran = tokio::time::timeout(COMMAND_TIMEOUT, ran).await;
    let (status, out) = ran
        .map_err(|_| format!("no output within {COMMAND_TIMEOUT:?}"))?
        .map_err(|e| e.to_string())?;
    if !status.success() {
        return Err(format!("ended with {status}"));
    }
    String::from_utf8(out).map_err(|_| "its output is not UTF-8".to_owned())
}

/// A login that was looked up before this process became another user.
#[derive(Debug)]
struct LookedUp(Result<Option<Credentials>, String>);

/// These logins as they are now, for a process that is about to lose the right to look them up. Logins that
/// are kept by repository are those of the whole registry then.
pub async fn looked_up(logins: &dyn Logins) -> Arc<dyn Logins> {
    Arc::new(LookedUp(logins.login("").await))
}

#[async_trait]
impl Logins for LookedUp {
    async fn login(&self, _: &str) -> Result<Option<Credentials>, String> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use modelfs::registry::NoLogin;

    async fn of(credential: Credential, user: Option<&str>) -> Result<Option<Credentials>, String> {
        let username = user.map(str::to_owned);
        let credential = Some(credential);
        SourceLogins { username, credential, usual: Arc::new(NoLogin) }.login("").await
    }

    fn command(script: &str) -> Credential {
        Credential::TokenCommand(["sh", "-c", script].map(str::to_owned).to_vec())
    }

    #[tokio::test]
    async fn a_secret_is_the_first_line_of_a_file_or_of_a_programs_output() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, " s3cret \nmore\n").unwrap();
        let mode = |mode| std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        mode(0o600);
        let bearer = Ok(Some(Credentials::Bearer(Secret::new("s3cret"))));
        assert_eq!(of(Credential::TokenFile(file.clone()), None).await, bearer);
        assert_eq!(of(command("echo s3cret; echo more"), None).await, bearer);
        let password = Secret::new("s3cret");
        let basic = Credentials::Password { user: "me".into(), password };
        assert_eq!(of(command("echo s3cret"), Some("me")).await, Ok(Some(basic)));
        mode(0o644);
        let error = of(Credential::TokenFile(file.clone()), None).await.unwrap_err();
        assert!(error.contains("chmod") && !error.contains("s3cret"), "{error}");
    }

    #[tokio::test]
    async fn what_goes_wrong_is_said_without_the_secret() {
        for (credential, says) in [
            (command("echo s3cret; echo s3cret >&2; exit 3"), "exit status: 3"),
            (command("true"), "empty"),
            (command("head -c 100000 /dev/zero | tr '\\0' s"), "ended"),
            (Credential::TokenCommand(vec!["/no/such/program".into()]), "/no/such/program"),
            (Credential::TokenVariable("MODELFS_TEST_NOT_SET".into()), "MODELFS_TEST_NOT_SET"),
            (Credential::TokenFile("/no/such/file".into()), "/no/such/file"),
        ] {
            let error = of(credential, None).await.expect_err(says);
            assert!(error.contains(says) && !error.contains("s3cret"), "{error}");
        }
    }

    #[tokio::test]
    async fn without_a_secret_of_its_own_the_usual_login_counts() {
        #[derive(Debug)]
        struct Usual;
        #[async_trait]
        impl Logins for Usual {
            async fn login(&self, repository: &str) -> Result<Option<Credentials>, String> {
                Ok(Some(Credentials::Bearer(Secret::new(repository))))
            }
        }
        let logins = SourceLogins { username: None, credential: None, usual: Arc::new(Usual) };
        let found = logins.login("a/b").await.unwrap();
        assert_eq!(found, Some(Credentials::Bearer(Secret::new("a/b"))));
        let kept = looked_up(&logins).await.login("a/b").await.unwrap();
        assert_eq!(kept, Some(Credentials::Bearer(Secret::new(""))));
    }
}
