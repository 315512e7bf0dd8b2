//! How the program is built and what a machine needs for it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What `scripts/deps.sh` tells an ordinary user to install on a machine that has only cargo.
fn packages_for(what: &str) -> String {
    let bin = tempfile::tempdir().unwrap();
    for (name, script) in [("cargo", "#!/bin/sh\n"), ("id", "#!/bin/sh\necho 1000\n")] {
        let path = bin.path().join(name);
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let script = project().join("scripts/deps.sh");
    let mut bash = Command::new("/bin/bash");
    let out = bash.arg(script).arg(what).env("PATH", bin.path()).output().unwrap();
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    let line = text.lines().find(|line| line.starts_with("please install:"));
    line.unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[test]
fn the_demo_needs_no_file_systems_of_the_tests() {
    let (demo, tests) = (packages_for("demo"), packages_for("tests"));
    for package in
        ["e2fsprogs", "xfsprogs", "btrfs-progs", "attr", "openssl", "curl", "docker-registry"]
    {
        assert!(!demo.contains(package), "{demo}");
        assert!(tests.contains(package), "{tests}");
    }
    for package in ["fuse3", "gcc", "python3"] {
        assert!(demo.contains(package) && tests.contains(package), "{demo}; {tests}");
    }
    let makefile = std::fs::read_to_string(project().join("Makefile")).unwrap();
    assert!(makefile.contains("\ndemo: deps-demo\n"), "make demo uses the short list");
}

#[test]
fn a_release_has_names_for_backtraces_but_no_line_tables() {
    let manifest = std::fs::read_to_string(project().join("Cargo.toml")).unwrap();
    let release = manifest.split("[profile.release]").nth(1).expect("a release profile");
    let release = release.split("\n[").next().unwrap_or_default();
    assert!(release.lines().any(|line| line == "strip = \"debuginfo\""), "{release}");
}
