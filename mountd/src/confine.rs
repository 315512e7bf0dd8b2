//! What a worker gives up before it reads the first byte of anybody's: its user, if that is root,
//! capabilities, the way to get them back, and every file that is not its business.
//!
//! Invariant: called before threads are started, since most of it is the calling thread's alone.
//! What the kernel lacks is told, not an error: it is a second wall. A user that cannot be taken on
//! is an error.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus,
};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

use crate::error::Failure;
use crate::identity::{self, User};
use crate::reach::CERTIFICATES;

/// The newest rules that this program knows; older kernels take what they know of them.
const RULES: ABI = ABI::V5;
/// What name resolution, certificates, time zones and the like are read from.
/// The last tells whether the machine has restarted since the store was used.
const SYSTEM: [&str; 6] =
    ["/etc", "/usr", "/lib", "/lib64", "/proc/self", "/proc/sys/kernel/random/boot_id"];
/// Where else a resolver's configuration may really lie.
const RESOLVERS: [&str; 2] = ["/run/systemd/resolve", "/run/resolvconf"];
/// What is written as well as read beside the cache.
const DEVICES: [&str; 3] = ["/dev/null", "/dev/urandom", "/dev/random"];

/// What came of it, for `status`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Confinement {
    /// Whether the process has no capabilities and cannot get any.
    pub unprivileged: bool,
    /// Whether it reaches no files but its own.
    pub landlock: bool,
    /// The number of its user; none: not said by that version.
    #[serde(default)]
    pub user: Option<u32>,
    /// What is missing, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

impl Confinement {
    /// None, as was asked for.
    pub fn off() -> Self {
        let missing = Some("switched off with --keep-privileges".to_owned());
        Self { unprivileged: false, landlock: false, user: ours(), missing }
    }
}

fn ours() -> Option<u32> {
    Some(rustix::process::geteuid().as_raw())
}

/// Gives up what a worker does not need. `own`: folders that it writes to; `read`: that it reads;
/// `user`: who it is from now on, if somebody else.
pub fn confine(own: &[&Path], read: &[&Path], user: Option<&User>) -> Result<Confinement, Failure> {
    let mut missing = Vec::new();
    let forsworn = forswear().inspect_err(|e| missing.push(format!("privileges: {e}")));
    // In between: forswearing takes privileges, and so does becoming somebody else.
    if let Some(user) = user {
        user.assume()?;
    }
    let dropped = drop_capabilities().inspect_err(|e| missing.push(format!("capabilities: {e}")));
    let landlock = fence(own, read).inspect_err(|e| missing.push(format!("Landlock: {e}")));
    if ours() == Some(0) {
        missing.push(format!("a user of its own: {}", rootly()));
    }
    Ok(Confinement {
        unprivileged: forsworn.is_ok() && dropped.is_ok(),
        landlock: landlock.is_ok(),
        user: ours(),
        missing: (!missing.is_empty()).then(|| missing.join("; ")),
    })
}

/// What to do about a worker with root's number.
pub fn rootly() -> String {
    format!(
        "it has root's number, without capabilities; have a user {} ({}) or give --worker-user, and mount again",
        identity::USUAL,
        identity::MAKE
    )
}

/// Gives up the ways to get more.
fn forswear() -> Result<(), rustix::io::Errno> {
    set_no_new_privs(true)?;
    // From the bounding set first, while we may: then no program that we became could have them.
    for capability in CapabilitySet::all().iter() {
        match remove_capability_from_bounding_set(capability) {
            // Not privileged to begin with, or a capability that this kernel does not know.
            Ok(()) | Err(rustix::io::Errno::PERM | rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    // Root's number must not bring them back by an exec.
    let bits = CapabilitiesSecureBits::NO_ROOT | CapabilitiesSecureBits::NO_ROOT_LOCKED;
    match rustix::thread::set_capabilities_secure_bits(bits) {
        Ok(()) | Err(rustix::io::Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

fn drop_capabilities() -> Result<(), rustix::io::Errno> {
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}

fn fence(own: &[&Path], read: &[&Path]) -> Result<(), String> {
    let brought = CERTIFICATES.iter().filter_map(std::env::var_os).map(PathBuf::from);
    let readable: Vec<PathBuf> = SYSTEM
        .iter()
        .chain(&RESOLVERS)
        .map(PathBuf::from)
        .chain(brought)
        .chain(read.iter().map(|p| p.to_path_buf()))
        .collect();
    let writable = own.iter().map(|p| p.to_path_buf()).chain(DEVICES.iter().map(PathBuf::from));
    let status = (|| {
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(RULES))?
            .create()?;
        for path in readable {
            rules = allow(rules, &path, AccessFs::from_read(RULES))?;
        }
        for path in writable {
            rules = allow(rules, &path, AccessFs::from_all(RULES))?;
        }
        rules.restrict_self()
    })();
    match status {
        Ok(status) if status.ruleset == RulesetStatus::NotEnforced => {
            Err("this kernel does not have it".to_owned())
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether this kernel has Landlock, switched on: asked by making rules that are never applied.
pub fn landlock_is_there() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .is_ok()
}

/// Lets a path in, if it is there.
fn allow(
    rules: landlock::RulesetCreated,
    path: &Path,
    access: landlock::BitFlags<AccessFs>,
) -> Result<landlock::RulesetCreated, RulesetError> {
    let Ok(opened) = PathFd::new(path) else { return Ok(rules) };
    // Some rights make sense for folders only.
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(RULES) };
    rules.add_rule(PathBeneath::new(opened, access))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a thread of its own: rules and capabilities are a thread's, and cannot be taken back.
    #[test]
    fn what_is_given_up_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (own, other) = (dir.path().join("own"), dir.path().join("other"));
        std::fs::create_dir(&own).unwrap();
        std::fs::write(&other, "x").unwrap();
        let (ours, theirs) = (own.clone(), other.clone());
        let (confined, effective) = std::thread::spawn(move || {
            let confined = confine(&[&ours], &[], None).unwrap();
            std::fs::write(ours.join("new"), "y").unwrap();
            std::fs::rename(ours.join("new"), ours.join("renamed")).unwrap();
            if confined.landlock {
                assert!(std::fs::read(&theirs).is_err(), "another's file");
                assert!(std::fs::read("/etc/passwd").is_ok());
                assert!(std::fs::write("/etc/modelfs-test", "x").is_err());
            }
            (confined, rustix::thread::capabilities(None).unwrap().effective)
        })
        .join()
        .unwrap();
        assert!(confined.unprivileged, "{confined:?}");
        assert_eq!(effective, CapabilitySet::empty());
        assert_eq!(std::fs::read(own.join("renamed")).unwrap(), b"y");
    }
}
