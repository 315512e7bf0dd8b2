//! Commands that only look: what they leave behind, and which mounts `status` shows.
//!
//! Each test has folders of its own.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::cli::{two_versions, with_registry};
use crate::harness::{Daemon, Ran, eventually};

/// Commands that leave nothing behind, with how they end where nothing is cached.
const LOOKING: [(&[&str], i32); 11] = [
    (&["status"], 0),
    (&["list"], 0),
    (&["list", "--remote"], 0),
    (&["info", "org/net@v1"], 0),
    (&["path", "org/net@v1"], 4),
    (&["verify"], 0),
    (&["verify", "org/net@v1"], 4),
    (&["evict", "--all"], 4),
    (&["unpin", "org/net@v1"], 4),
    (&["trace", "show", "org/net@v1"], 4),
    (&["doctor"], 0),
];

/// Every path below a folder.
fn names(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        found.push(entry.path().display().to_string());
        if entry.path().is_dir() {
            found.extend(names(&entry.path()));
        }
    }
    found.sort();
    found
}

#[test]
fn commands_that_only_look_create_nothing() {
    let place = two_versions();
    // A model that was given by mistake, as clients of the Hugging Face hub keep it.
    let model = place.path("plain");
    fs::create_dir(model.join("blobs")).expect("a folder");
    fs::write(model.join("blobs/0a1b2c"), b"weights").expect("a file");
    fs::create_dir(place.path("tmp")).expect("a folder");
    let nowhere = place.path("not/yet");
    let before = names(place.dir.path());
    for cache in [&model, &nowhere, &place.cache()] {
        for (args, code) in LOOKING {
            let mut command = place.modelfs(args);
            command.env("MODELFS_REGISTRY", place.registry()).env("MODELFS_CACHE_DIR", cache);
            let ran = Ran::from(command.env("TMPDIR", place.path("tmp")).output().expect("runs"));
            assert_eq!(ran.code, code, "{args:?} on {}: {ran:?}", cache.display());
            assert_eq!(names(place.dir.path()), before, "after {args:?} on {}", cache.display());
        }
    }
}

#[test]
fn status_does_not_mind_that_another_registry_is_configured() {
    let place = two_versions();
    let daemon = place.mount_folder(&[]);
    let asked = |json: &[&str]| {
        let mut command = place.modelfs([&["status"], json].concat());
        Ran::from(command.env("MODELFS_REGISTRY", "/somewhere/else").output().expect("runs"))
    };
    let text = asked(&[]);
    assert_eq!(text.code, 0, "{text:?}");
    let registry = place.registry();
    let said = format!("serves {}, not /somewhere/else", registry.display());
    assert!(text.err.contains(&said), "{text:?}");
    let json = asked(&["--json"]);
    assert!(json.err.is_empty(), "{json:?}");
    assert_eq!(json.json()["registry"]["name"].as_str(), registry.to_str());
    daemon.stop();
}

#[test]
fn status_lists_every_mount_whatever_cache_is_asked_about() {
    let (one, two) = (two_versions(), two_versions());
    let first = one.mount_folder(&[]);
    // Another cache and another registry of the same user.
    let mut command = two.modelfs(["mount"]);
    command.arg(two.mountpoint()).arg("--registry").arg(two.registry());
    command.env("XDG_RUNTIME_DIR", one.path("run"));
    let mut second = Daemon::start(&two, command);
    let mounts = |args: &[&str]| -> Vec<Value> {
        let status = one.run([args, &["status", "--json"]].concat()).json();
        let ours = [one.mountpoint(), two.mountpoint()];
        let all = status["mounts"].as_array().expect("mounts").clone();
        all.into_iter()
            .filter(|m| ours.iter().any(|o| m["mountpoint"].as_str() == o.to_str()))
            .collect()
    };
    let elsewhere = one.path("no cache");
    let elsewhere = ["--json", "status", "--cache-dir", elsewhere.to_str().expect("UTF-8")];
    assert_eq!(one.run(elsewhere).json()["cache"]["absent"], true);
    let found = mounts(&[]);
    assert_eq!(found.len(), 2, "{found:?}");
    for (place, daemon) in [(&one, &first), (&two, &second)] {
        let at = place.mountpoint();
        let mount = found.iter().find(|m| m["mountpoint"].as_str() == at.to_str()).expect("listed");
        assert_eq!((&mount["answers"], &mount["pid"]), (&true.into(), &daemon.pid().into()));
        assert_eq!(mount["registry"].as_str(), place.registry().to_str());
        assert_eq!(mount["cache"].as_str(), place.cache().to_str());
    }
    let text = one.ok(["status"]);
    let others = text.split_once("other mounts").expect("there are some").1;
    let line = others.lines().find(|l| l.starts_with(two.mountpoint().to_str().expect("UTF-8")));
    assert!(line.is_some_and(|l| l.contains(&format!("process {}", second.pid()))), "{text}");

    // Dead, it is still there.
    second.kill();
    eventually("its mount does not answer", || {
        let all = mounts(&[]);
        all.len() == 2 && all.iter().any(|m| m["answers"] == false)
    });
    first.stop();
    let list = with_registry(&one, &["status"]);
    assert!(list.out.contains("does not answer"), "{list:?}");
}
