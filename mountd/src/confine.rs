//! Confinement of a worker before it reads foreign data: it gives up root's user id, its capabilities,
//! the ways to regain them, and access to every file that it does not need.
//!
//! Invariant: a user that cannot be taken on is an error; a missing kernel feature is only reported,
//! since it is a second line of defence. Concurrency: call it before threads are started, since most of
//! this applies to the calling thread only.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus,
};
use modelfs::manager::Confinement;
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

use crate::error::Failure;
use crate::identity::{self, User};
use crate::reach::CERTIFICATES;

/// The newest rules that this program knows; older kernels apply the ones that they know.
const RULES: ABI = ABI::V5;
/// Read for name resolution, certificates, time zones and the like. The last one tells whether the
/// machine has restarted since the store was used.
const SYSTEM: [&str; 6] =
    ["/etc", "/usr", "/lib", "/lib64", "/proc/self", "/proc/sys/kernel/random/boot_id"];
/// Other places of a resolver's configuration.
const RESOLVERS: [&str; 2] = ["/run/systemd/resolve", "/run/resolvconf"];
/// Written as well as read, beside the cache.
const DEVICES: [&str; 3] = ["/dev/null", "/dev/urandom", "/dev/random"];

/// The state of a worker that keeps its privileges, as requested.
pub fn unconfined() -> Confinement {
    let missing = Some("switched off with --keep-privileges".to_owned());
    Confinement { unprivileged: false, landlock: false, user: ours(), missing }
}

fn ours() -> Option<u32> {
    Some(rustix::process::geteuid().as_raw())
}

/// Gives up what a worker does not need. `own`: folders that it writes; `read`: folders that it reads;
/// `user`: the user that it becomes, if another one.
pub fn confine(own: &[&Path], read: &[&Path], user: Option<&User>) -> Result<Confinement, Failure> {
    let mut missing = Vec::new();
    let gave_up = give_up_privileges().inspect_err(|e| missing.push(format!("privileges: {e}")));
    // Between the two: this step and the one before it need privileges.
    if let Some(user) = user {
        user.assume()?;
    }
    let dropped = drop_capabilities().inspect_err(|e| missing.push(format!("capabilities: {e}")));
    let landlock =
        restrict_files(own, read).inspect_err(|e| missing.push(format!("Landlock: {e}")));
    if ours() == Some(0) {
        missing.push(runs_as_root());
    }
    Ok(Confinement {
        unprivileged: gave_up.is_ok() && dropped.is_ok(),
        landlock: landlock.is_ok(),
        user: ours(),
        missing: (!missing.is_empty()).then(|| missing.join("; ")),
    })
}

/// What is missing if the worker runs as root, and what to do about it.
pub fn runs_as_root() -> String {
    format!(
        "worker runs as root without capabilities; create user '{}' to isolate it ({}) or give \
         --worker-user, and mount again",
        identity::USUAL,
        identity::MAKE
    )
}

/// Gives up the ways to regain privileges.
fn give_up_privileges() -> Result<(), rustix::io::Errno> {
    set_no_new_privs(true)?;
    // The bounding set first, while this is allowed: then no executed program can gain capabilities.
    for capability in CapabilitySet::all().iter() {
        match remove_capability_from_bounding_set(capability) {
            // Unprivileged from the start, or a capability that this kernel does not know.
            Ok(()) | Err(rustix::io::Errno::PERM | rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    // An exec as root must not restore them.
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

fn restrict_files(own: &[&Path], read: &[&Path]) -> Result<(), String> {
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
            Err("this kernel does not support it".to_owned())
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether this kernel has Landlock enabled: tested by creating rules that are never applied.
pub fn landlock_is_there() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .is_ok()
}

/// Allows a path, if it exists.
fn allow(
    rules: landlock::RulesetCreated,
    path: &Path,
    access: landlock::BitFlags<AccessFs>,
) -> Result<landlock::RulesetCreated, RulesetError> {
    let Ok(opened) = PathFd::new(path) else { return Ok(rules) };
    // Some access rights apply to folders only.
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(RULES) };
    rules.add_rule(PathBeneath::new(opened, access))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a thread of its own: rules and capabilities apply to a thread and cannot be undone.
    #[test]
    fn dropped_privileges_cannot_be_regained() {
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
