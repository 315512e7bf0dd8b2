//! Docker's registry, started on this machine for a test, and filled by the distribution API.
//!
//! Needs Debian's `docker-registry` (`scripts/deps.sh`). Dropping it ends the process that it started.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use modelfs::model::hash::sha256;

use crate::oci_server::golden_artifact;
use crate::token_signer::{SERVICE, TokenSigner};

/// The user and password of a registry that wants them.
pub const DOCKER_USER: (&str, &str) = ("me", "planted-secret");
/// The same for the registry: by bcrypt, the only form that it takes.
const USERS: &str = "me:$2b$04$7zNgzLs0ExfnC6BnKLn/LuOkHTdc.UzlMrj12EXhALMpe.Jx0Jnc.\n";
/// `Authorization` with them.
const BASIC: &str = "Basic bWU6cGxhbnRlZC1zZWNyZXQ=";
/// How long it may take until it answers, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a registry asks for.
#[derive(Clone, Copy)]
pub enum DockerLogin<'a> {
    /// Nothing.
    Anyone,
    /// [`DOCKER_USER`].
    User,
    /// A token that this signer has signed, of the service with this URL.
    Token(&'a TokenSigner, &'a str),
}

/// A registry in a folder of its own.
pub struct DockerRegistry<'a> {
    child: Child,
    host: String,
    login: DockerLogin<'a>,
    _folder: tempfile::TempDir,
}

impl<'a> DockerRegistry<'a> {
    /// Starts one.
    pub fn start(login: DockerLogin<'a>) -> Self {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut registry = Self::spawn(login);
            // Another process may have taken the port: then it ends, and another port is tried.
            while registry.child.try_wait().expect("a child").is_none() {
                if registry.is_up() {
                    return registry;
                }
                assert!(Instant::now() < deadline, "docker-registry does not answer");
                std::thread::sleep(Duration::from_millis(20));
            }
            assert!(Instant::now() < deadline, "docker-registry does not start");
        }
    }

    fn spawn(login: DockerLogin<'a>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let host = free.local_addr().expect("it is bound").to_string();
        drop(free);
        let auth = match login {
            DockerLogin::Anyone => String::new(),
            DockerLogin::User => {
                format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", path("users"))
            }
            DockerLogin::Token(signer, realm) => format!(
                "auth: {{token: {{realm: '{realm}', service: {SERVICE}, issuer: {SERVICE}, \
                 rootcertbundle: {}}}}}\n",
                signer.certificate().display()
            ),
        };
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '{host}'}}\n{auth}",
            path("data")
        );
        std::fs::write(path("config.yml"), config).expect("a file");
        std::fs::write(path("users"), USERS).expect("a file");
        let child = Command::new("docker-registry")
            .args(["serve", &path("config.yml")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry, which scripts/deps.sh installs");
        Self { child, host, login, _folder: folder }
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Pushes an artifact that a foreign tool wrote, and returns the digest of its manifest.
    pub fn push(&self, repository: &str, tag: &str, name: &str) -> String {
        let login = match self.login {
            DockerLogin::Anyone => String::new(),
            DockerLogin::User => format!("Authorization: {BASIC}\r\n"),
            DockerLogin::Token(signer, _) => {
                let token = signer.token(repository, &["pull", "push"]);
                format!("Authorization: Bearer {token}\r\n")
            }
        };
        let request = |method, path: &str, content_type, body: &[u8]| {
            self.request(method, path, &login, content_type, body).expect("an answer")
        };
        let (manifest, blobs) = golden_artifact(name);
        for blob in blobs {
            let (status, headers) =
                request("POST", &format!("/v2/{repository}/blobs/uploads/"), "", b"");
            assert_eq!(status, 202, "{headers}");
            let location = headers.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("location").then_some(value)
            });
            let location = location.expect("a location").split_once(&self.host).expect("a URL").1;
            let path = format!("{location}&digest=sha256:{}", sha256(&blob));
            let (status, headers) = request("PUT", &path, "application/octet-stream", &blob);
            assert_eq!(status, 201, "{headers}");
        }
        let path = format!("/v2/{repository}/manifests/{tag}");
        let image = "application/vnd.oci.image.manifest.v1+json";
        let (status, headers) = request("PUT", &path, image, &manifest);
        assert_eq!(status, 201, "{headers}");
        format!("sha256:{}", sha256(&manifest))
    }

    fn is_up(&self) -> bool {
        // Without a login it may refuse, and is up.
        let answer = self.request("GET", "/v2/", "", "", b"");
        answer.is_ok_and(|(status, _)| matches!(status, 200 | 401))
    }

    /// The status and headers of the answer to a request; `login` is a whole line or empty.
    fn request(
        &self,
        method: &str,
        path: &str,
        login: &str,
        content_type: &str,
        body: &[u8],
    ) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(&self.host)?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{login}\
             Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            self.host,
            body.len()
        )?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, _) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.ok_or(std::io::ErrorKind::InvalidData)?, head.to_owned()))
    }
}

impl Drop for DockerRegistry<'_> {
    fn drop(&mut self) {
        // It has ended already if this fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
