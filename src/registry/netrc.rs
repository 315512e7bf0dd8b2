//! Logins in `.netrc`, as curl and other programs read it.
//!
//! Invariant: a login is given for the host that it was kept for; `default` is not read, since it would send a
//! password to any server. A file that others can read is refused. Nothing of the file is in an error.
//! Stateless: the file is read when a login is needed.

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::credentials::{Credentials, Secret};
use super::login::Logins;
use super::private_file;

/// Maximum size of the file: people keep some hundred logins.
const MAX_FILE: u64 = 1 << 20;

/// The login of one host in a file.
#[derive(Debug, Clone)]
pub struct Netrc {
    /// The file; it need not be there.
    pub file: PathBuf,
    /// The host, without a port.
    pub host: String,
}

impl Netrc {
    /// The user's file: `NETRC`, or `~/.netrc`.
    pub fn of_environment(host: &str) -> Option<Self> {
        let named = std::env::var_os("NETRC").filter(|name| !name.is_empty()).map(PathBuf::from);
        let home = || Some(std::env::home_dir()?.join(".netrc"));
        Some(Self { file: named.or_else(home)?, host: host.to_owned() })
    }
}

#[async_trait]
impl Logins for Netrc {
    async fn login(&self, _: &str) -> Result<Option<Credentials>, String> {
        let (file, host) = (self.file.clone(), self.host.clone());
        let read = tokio::task::spawn_blocking(move || login_of(&file, &host));
        read.await.unwrap_or_else(|_| Err("stopped".to_owned()))
    }
}

fn login_of(file: &Path, host: &str) -> Result<Option<Credentials>, String> {
    match private_file::read_if_any(file, MAX_FILE)? {
        Some(text) => Ok(find(&text, host)),
        None => Ok(None),
    }
}

/// The login of a host in the text of a file. Without a user or a password there is none.
fn find(text: &str, host: &str) -> Option<Credentials> {
    let mut words = Words(text);
    let (mut ours, mut user, mut password) = (false, None, None);
    while let Some(word) = words.keyword() {
        match word.as_str() {
            // The first entry of a host counts.
            "machine" | "default" if ours => break,
            "machine" => ours = words.next()?.eq_ignore_ascii_case(host),
            "default" => ours = false,
            "macdef" => words.skip_macro(),
            "login" => user = words.next().filter(|_| ours).or(user),
            "password" => password = words.next().filter(|_| ours).or(password),
            "account" => drop(words.next()),
            _ => {}
        }
    }
    Some(Credentials::Password { user: user?, password: Secret::new(password?) })
}

/// The words of a text: separated by blanks, or in quotes with `\` before a quote.
struct Words<'a>(&'a str);

impl Words<'_> {
    /// A macro ends at an empty line.
    fn skip_macro(&mut self) {
        self.0 = self.0.split_once("\n\n").map_or("", |(_, rest)| rest);
    }

    /// The next word where a comment may stand. A password may begin with `#`.
    fn keyword(&mut self) -> Option<String> {
        loop {
            self.0 = self.0.trim_start();
            let Some(comment) = self.0.strip_prefix('#') else { return self.next() };
            self.0 = comment.split_once('\n').map_or("", |(_, rest)| rest);
        }
    }
}

impl Iterator for Words<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.0 = self.0.trim_start();
        let Some(quoted) = self.0.strip_prefix('"') else {
            let end = self.0.find(char::is_whitespace).unwrap_or(self.0.len());
            let (word, rest) = self.0.split_at(end);
            self.0 = rest;
            return (!word.is_empty()).then(|| word.to_owned());
        };
        let (mut word, mut chars) = (String::new(), quoted.char_indices());
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.0 = &quoted[at + 1..];
                    return Some(word);
                }
                '\\' => word.extend(chars.next().map(|(_, escaped)| escaped)),
                c => word.push(c),
            }
        }
        self.0 = "";
        Some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: &str = "# mine\nmachine a.example login me password #p1\n\
                        machine b.example\n  login you\n  account x\n  password \"with \\\" blank\"\n\
                        macdef init\n  machine c.example login no password no\n\n\
                        machine a.example login later password p9 machine half login only\n\
                        default login any password all";

    fn password(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Password { user: user.into(), password: Secret::new(password) })
    }

    #[test]
    fn a_login_is_found_for_its_host_alone() {
        for (host, want) in [
            ("a.example", password("me", "#p1")),
            ("A.Example", password("me", "#p1")),
            ("b.example", password("you", "with \" blank")),
            ("c.example", None),
            ("half", None),
            ("other", None),
        ] {
            assert_eq!(find(FILE, host), want, "{host}");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_file_that_others_can_read_is_refused_without_showing_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let netrc = Netrc { file: dir.path().join(".netrc"), host: "a.example".into() };
        assert_eq!(netrc.login("").await, Ok(None), "there is no file");
        std::fs::write(&netrc.file, FILE).unwrap();
        let mode = |mode| {
            std::fs::set_permissions(&netrc.file, PermissionsExt::from_mode(mode)).unwrap();
        };
        mode(0o600);
        assert_eq!(netrc.login("").await, Ok(password("me", "#p1")));
        mode(0o644);
        let error = netrc.login("").await.unwrap_err();
        assert!(error.contains("chmod") && error.contains(".netrc"), "{error}");
        assert!(!error.contains("p1"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(machine|login|password|macdef|[a-z\"\\\\# \n]{0,3} ){0,12}") {
            let _ = find(&text, "a");
        }
    }
}
