//! The identity of the worker, and of root when it works on another user's cache.
//!
//! Invariant: an identity is taken on completely, or the call fails. Users are looked up once, by the C
//! library (getpwnam_r), so that every user database of the system is asked. Concurrency:
//! [`Identity::look`] changes only a thread of its own; [`User::assume`] the whole process, for good.

use std::ffi::{CString, OsString};
use std::path::PathBuf;

use nix::unistd;
use rustix::fs::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};
use serde::{Deserialize, Serialize};

use crate::error::{Failure, Kind};

/// The user that packages create.
pub const USUAL: &str = "modelfs";

/// The command that creates it by hand.
pub const MAKE: &str = "useradd --system --no-create-home --shell /usr/sbin/nologin modelfs";

/// A user of the system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user name.
    pub name: String,
    /// The user id.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
}

/// The identity of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// The current user, with all privileges.
    Kept,
    /// The current user, without capabilities.
    Bare,
    /// Another user.
    Other(User),
}

impl User {
    /// The user with this name or id, if there is one.
    pub fn find(text: &str) -> Result<Option<Self>, Failure> {
        let unknown =
            |e| Failure::new(Kind::General, format!("the user {text} cannot be looked up: {e}"));
        let found = match text.parse() {
            Ok(uid) => unistd::User::from_uid(unistd::Uid::from_raw(uid)),
            Err(_) => unistd::User::from_name(text),
        };
        let Some(found) = found.map_err(unknown)? else { return Ok(None) };
        let name = CString::new(found.name.as_str()).expect("it came from a C string");
        let groups = unistd::getgrouplist(&name, found.gid).map_err(unknown)?;
        Ok(Some(Self {
            name: found.name,
            uid: found.uid.as_raw(),
            gid: found.gid.as_raw(),
            groups: groups.into_iter().map(unistd::Gid::as_raw).collect(),
        }))
    }

    /// A folder's owner; a user unknown to the system has only its ids.
    pub fn of_folder(uid: u32, gid: u32) -> Result<Self, Failure> {
        let known = Self::find(&uid.to_string())?;
        Ok(known.unwrap_or_else(|| Self { name: uid.to_string(), uid, gid, groups: Vec::new() }))
    }

    /// Becomes this user, with all threads, for good. Leaving uid 0 drops all capabilities.
    pub fn assume(&self) -> Result<(), Failure> {
        let groups: Vec<_> = self.groups.iter().copied().map(unistd::Gid::from_raw).collect();
        unistd::setgroups(&groups)
            .and_then(|()| unistd::setgid(unistd::Gid::from_raw(self.gid)))
            .and_then(|()| unistd::setuid(unistd::Uid::from_raw(self.uid)))
            .map_err(|e| self.not_assumed(e.into()))
    }

    /// The same for the calling thread alone.
    fn assume_in_thread(&self) -> Result<(), Failure> {
        let groups: Vec<_> = self.groups.iter().copied().map(Gid::from_raw).collect();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::thread::set_thread_groups(&groups)
            .and_then(|()| rustix::thread::set_thread_res_gid(gid, gid, gid))
            .and_then(|()| rustix::thread::set_thread_res_uid(uid, uid, uid))
            .map_err(|e| self.not_assumed(e.into()))
    }

    fn not_assumed(&self, error: std::io::Error) -> Failure {
        Failure::new(Kind::General, format!("becoming the user {}: {error}", self.name)).hint(
            "root needs CAP_SETUID and CAP_SETGID for that; `--worker-user root` does without",
        )
    }
}

/// The home folders of the current user: from the environment, from the user database, and of the user
/// who became root by sudo.
pub fn homes() -> Vec<PathBuf> {
    let number = |text: OsString| text.to_str().and_then(|text| text.parse().ok());
    let sudo = std::env::var_os("SUDO_UID").and_then(number).map(unistd::Uid::from_raw);
    let users = [Some(unistd::geteuid()), sudo].into_iter().flatten();
    // A user that cannot be looked up has no known home to protect.
    let known = users.filter_map(|uid| unistd::User::from_uid(uid).ok().flatten());
    let named = std::env::var_os("HOME").map(PathBuf::from);
    let mut homes: Vec<_> = known.map(|user| user.dir).chain(named).collect();
    homes.retain(|home| home.is_absolute());
    homes.sort();
    homes.dedup();
    homes
}

impl Identity {
    /// The identity of the worker of a daemon that we start; `given`: the requested user.
    pub fn of_worker(given: Option<&str>, keep: bool) -> Result<Self, Failure> {
        let root = rustix::process::geteuid().is_root();
        choose(given, keep, root, User::find)
    }

    /// Its description in messages.
    pub fn shown(&self) -> String {
        match self {
            Self::Kept => "this user".to_owned(),
            Self::Bare => "this user without capabilities".to_owned(),
            Self::Other(user) => format!("the user {}", user.name),
        }
    }

    /// Runs `look` with the worker's permissions, on a thread of its own.
    pub fn look<T: Send>(&self, look: impl FnOnce() -> T + Send) -> Result<T, Failure> {
        let as_them = || {
            match self {
                Self::Kept => {}
                Self::Bare => {
                    let none = CapabilitySet::empty();
                    let none =
                        CapabilitySets { effective: none, permitted: none, inheritable: none };
                    rustix::thread::set_capabilities(None, none).map_err(|e| {
                        Failure::new(Kind::General, format!("giving capabilities up: {e}"))
                    })?;
                }
                Self::Other(user) => user.assume_in_thread()?,
            }
            Ok(look())
        };
        std::thread::scope(|scope| scope.spawn(as_them).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// The choice, as a pure function of the request and the existing users.
fn choose(
    given: Option<&str>,
    keep: bool,
    root: bool,
    find: impl Fn(&str) -> Result<Option<User>, Failure>,
) -> Result<Identity, Failure> {
    let named = |user: User| if user.uid == 0 { Identity::Bare } else { Identity::Other(user) };
    match (given, keep, root) {
        (Some(_), _, false) => {
            Err(Failure::usage("--worker-user: only root can run its worker as another user")
                .hint("leave it out: the worker is of your own user, without any privilege"))
        }
        (Some(name), ..) => find(name)?.map(named).ok_or_else(|| {
            Failure::usage(format!("--worker-user {name}: there is no such user"))
                .hint(format!("make one: {}", MAKE.replace(USUAL, name)))
        }),
        (None, true, _) => Ok(Identity::Kept),
        (None, false, false) => Ok(Identity::Bare),
        (None, false, true) => Ok(find(USUAL)?.map_or(Identity::Bare, named)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, uid: u32) -> User {
        User { name: name.into(), uid, gid: uid, groups: vec![uid] }
    }

    #[test]
    fn root_gives_the_worker_a_user_if_there_is_one() {
        let there = |name: &str| {
            Ok(match name {
                "modelfs" => Some(user("modelfs", 998)),
                "other" | "7" => Some(user("other", 7)),
                "root" | "0" => Some(user("root", 0)),
                _ => None,
            })
        };
        let no_such_user = |_: &str| Ok(None);
        let other = Identity::Other(user("other", 7));
        let chosen = |given, keep, root| choose(given, keep, root, there).unwrap();
        assert_eq!(chosen(None, false, true), Identity::Other(user("modelfs", 998)));
        assert_eq!(chosen(Some("other"), false, true), other);
        assert_eq!(chosen(Some("7"), false, true), other);
        assert_eq!(chosen(Some("root"), false, true), Identity::Bare, "as without that user");
        assert_eq!(chosen(None, true, true), Identity::Kept);
        assert_eq!(choose(None, false, true, no_such_user).unwrap(), Identity::Bare);
        assert_eq!(chosen(None, false, false), Identity::Bare);
        assert_eq!(chosen(None, true, false), Identity::Kept);
        for (given, root) in [("other", false), ("gone", true)] {
            let failure = choose(Some(given), false, root, there).unwrap_err();
            assert_eq!(failure.exit_code, 2);
            assert!(failure.message.contains("--worker-user") && failure.hint.is_some());
        }
    }

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let root = User::find("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(User::find("0").unwrap(), Some(root));
        assert_eq!(User::find("no-such-user-here").unwrap(), None);
        assert_eq!(User::find("").unwrap(), None);
        // No such user: its folders can still be worked on.
        let stranger = User::of_folder(3_999_999_999, 5).unwrap();
        assert_eq!((stranger.uid, stranger.gid, stranger.groups), (3_999_999_999, 5, vec![]));
    }

    #[test]
    fn checking_access_as_another_user_does_not_change_our_user() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ours");
        std::fs::write(&file, "x").unwrap();
        let closed = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&file, closed).unwrap();
        let other = Identity::Other(user("other", 12_345));
        assert!(other.look(|| std::fs::read(&file)).unwrap().is_err());
        assert!(Identity::Bare.look(|| std::fs::read(&file)).unwrap().is_ok());
        assert!(std::fs::read(&file).is_ok());
    }
}
