//! Signs tokens for Docker's registry, as the token service of a company does: RS256, with the
//! certificate beside the signature. Runs `openssl`.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::json;

/// Who gives the tokens, and for whom: the registry's configuration has the same.
pub const SERVICE: &str = "test";

/// A key and its certificate.
pub struct TokenSigner {
    folder: tempfile::TempDir,
}

impl TokenSigner {
    /// With a key of its own.
    pub fn new() -> Self {
        let signer = Self { folder: tempfile::tempdir().expect("a folder") };
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test"])
            .args(["-days", "2", "-keyout"])
            .arg(signer.key())
            .arg("-out")
            .arg(signer.certificate())
            .stderr(Stdio::null())
            .status()
            .expect("openssl");
        assert!(made.success(), "openssl made no key");
        signer
    }

    /// The file of the certificate.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// A token for these actions on a repository, valid for five minutes.
    pub fn token(&self, repository: &str, actions: &[&str]) -> String {
        let pem = std::fs::read_to_string(self.certificate()).expect("the certificate");
        let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        assert!(BASE64_STANDARD.decode(&der).is_ok(), "{pem}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [der]});
        let claims = json!({
            "iss": SERVICE, "aud": SERVICE, "sub": "me", "jti": "1",
            "iat": now, "nbf": now - 60, "exp": now + 300,
            "access": [{"type": "repository", "name": repository, "actions": actions}],
        });
        let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let body = format!(
            "{}.{}",
            part(header.to_string().as_bytes()),
            part(claims.to_string().as_bytes())
        );
        let text = self.folder.path().join("text");
        std::fs::write(&text, &body).expect("a file");
        let signed = Command::new("openssl")
            .args(["dgst", "-sha256", "-sign"])
            .arg(self.key())
            .arg(&text)
            .output()
            .expect("openssl");
        assert!(signed.status.success(), "{signed:?}");
        format!("{body}.{}", part(&signed.stdout))
    }
}

impl Default for TokenSigner {
    fn default() -> Self {
        Self::new()
    }
}
