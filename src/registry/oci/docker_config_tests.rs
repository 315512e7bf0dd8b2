//! Logins of Docker, Podman and their helpers.

use std::fs;

use super::*;

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn config(&self, json: &str) -> DockerConfig {
        let file = self.0.path().join("config.json");
        fs::write(&file, json).unwrap();
        DockerConfig { files: vec![file], helpers: Some(self.0.path().to_owned()) }
    }

    /// A helper that runs this shell script.
    #[cfg(unix)]
    fn helper(&self, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.0.path().join(format!("docker-credential-{name}"));
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

fn password(user: &str, password: &str) -> Option<Credentials> {
    Some(Credentials::Password { user: user.into(), password: Secret::new(password) })
}

#[tokio::test]
async fn a_login_is_found_for_its_host_and_no_other() {
    let home = Home::new();
    // base64 of "me:pa:ss", "hub:x", "path:y", "old:z"
    let config = home.config(
        r#"{"auths":{
            "h:5000":{"auth":"bWU6cGE6c3M="},
            "https://index.docker.io/v1/":{"auth":"aHViOng="},
            "quay.io/acme/models":{"auth":"cGF0aDp5"},
            "https://old.example/v1/":{"auth":"b2xkOno="},
            "plain":{"username":"u","password":"p"},
            "identity":{"auth":"","identitytoken":"it"},
            "registry":{"registrytoken":"rt"}
        },"other":7}"#,
    );
    for (host, repository, want) in [
        ("h:5000", "a/b", password("me", "pa:ss")),
        ("h", "a/b", None),
        ("h:5001", "a/b", None),
        ("docker.io", "ai/smollm2", password("hub", "x")),
        ("quay.io", "acme/models/net", password("path", "y")),
        ("quay.io", "acme/models", password("path", "y")),
        ("quay.io", "acme/modelsx", None),
        ("quay.io", "", None),
        ("old.example", "a", password("old", "z")),
        ("plain", "", password("u", "p")),
        ("identity", "a", Some(Credentials::Identity(Secret::new("it")))),
        ("registry", "a", Some(Credentials::Bearer(Secret::new("rt")))),
    ] {
        assert_eq!(config.login(host, repository).await, Ok(want), "{host} {repository}");
    }
}

#[tokio::test]
async fn the_first_file_with_a_login_counts_and_files_may_be_missing() {
    let (first, second) = (Home::new(), Home::new());
    let mut config = first.config(r#"{"auths":{"a":{"username":"1","password":"p"}}}"#);
    config.files.insert(0, first.0.path().join("none.json"));
    let other = second.config(
        r#"{"auths":{"a":{"username":"2","password":"p"},"b":{"username":"2","password":"p"}}}"#,
    );
    config.files.extend(other.files);
    assert_eq!(config.login("a", "x").await, Ok(password("1", "p")));
    assert_eq!(config.login("b", "x").await, Ok(password("2", "p")));
    assert_eq!(DockerConfig::default().login("a", "x").await, Ok(None));
}

#[tokio::test]
async fn broken_files_are_named_and_not_shown() {
    let home = Home::new();
    for bad in [
        r#"{"auths":{"h":"s3cret"}}"#,
        r#"{"auths":{"h":{"auth":"s3cret!"}}}"#,
        r#"{"auths":{"h":{"auth":"czNjcmV0"}}}"#,
        r#"{"auths":{"h":{"auth":7}},"s3cret""#,
        r#"{"credHelpers":{"h":"../s3cret"}}"#,
    ] {
        let error = home.config(bad).login("h", "a").await.unwrap_err();
        let shown = error.contains("s3cret") || error.contains("czNjcmV0");
        assert!(!shown && !error.contains('\n'), "{error}");
    }
    let error = home.config("{").login("h", "a").await.unwrap_err();
    assert!(error.contains("config.json: malformed at line 1"), "{error}");
    let large = home.config(&" ".repeat(MAX_FILE as usize + 1));
    assert!(large.login("h", "a").await.unwrap_err().contains("more than"));
}

#[cfg(unix)]
#[tokio::test]
async fn helpers_are_asked_for_the_host() {
    let home = Home::new();
    let config = home
        .config(r#"{"auths":{"stored":{}},"credsStore":"store","credHelpers":{"h:5000":"one"}}"#);
    home.helper(
        "one",
        r#"read h; [ "$1" = get ] && echo "{\"Username\":\"u-$h\",\"Secret\":\"s\"}""#,
    );
    home.helper("store", r#"read h; echo "{\"Username\":\"<token>\",\"Secret\":\"t-$h\"}""#);
    assert_eq!(config.login("h:5000", "a").await, Ok(password("u-h:5000", "s")));
    let identity = |t: &str| Ok(Some(Credentials::Identity(Secret::new(t))));
    assert_eq!(config.login("stored", "a").await, identity("t-stored"));
    assert_eq!(config.login("docker.io", "a").await, identity("t-https://index.docker.io/v1/"));
}

#[cfg(unix)]
#[tokio::test]
async fn a_helper_without_a_login_is_no_error_and_every_other_failure_is() {
    let home = Home::new();
    let config = home.config(r#"{"credsStore":"x"}"#);
    home.helper("x", "echo 'credentials not found in native keychain'; exit 1");
    assert_eq!(config.login("h", "a").await, Ok(None));
    for (script, why) in [
        ("echo s3cret; exit 3", "exit status: 3"),
        ("echo '{\"Username\":\"s3cret\"}'", "malformed"),
        ("echo s3cret", "malformed"),
    ] {
        home.helper("x", script);
        let error = config.login("h", "a").await.unwrap_err();
        assert!(error.starts_with("docker-credential-x: ") && error.contains(why), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
    let config = home.config(r#"{"credsStore":"missing"}"#);
    let error = config.login("h", "a").await.unwrap_err();
    assert!(error.starts_with("docker-credential-missing: "), "{error}");
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn a_helper_that_hangs_is_given_up() {
    let home = Home::new();
    let config = home.config(r#"{"credsStore":"x"}"#);
    home.helper("x", "exec sleep 600");
    let error = config.login("h", "a").await.unwrap_err();
    assert!(error.contains("no answer within 20s"), "{error}");
}
