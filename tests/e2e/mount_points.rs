//! Where may be mounted, and what is said where it may not.
//!
//! Every mount that must be refused is tried in a mount namespace and a process namespace of its own:
//! should the refusal fail, the mount hides nothing of this machine, and all of its processes end.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Daemon, Place, Ran, is_mounted};

/// A refusal takes milliseconds. Longer than this, and it has been mounted.
const REFUSES: Duration = Duration::from_secs(20);

fn published() -> Place {
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    fs::write(plain.join("w.bin"), "weights").expect("a file");
    place.publish(&plain, "org/net", "v1", &[]);
    place
}

/// `modelfs mount` with these arguments; `before` is done first, in the same namespace.
fn try_to(place: &Place, before: &str, args: &[&OsStr]) -> Ran {
    let modelfs = place.modelfs(["mount"]);
    let mut command = place.program("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]);
    command.arg(format!("{before}\nexec \"$@\"")).arg("sh");
    command.arg(modelfs.get_program()).args(modelfs.get_args()).args(args);
    ends(command)
}

fn ends(mut command: Command) -> Ran {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("unshare starts");
    let started = Instant::now();
    while child.try_wait().expect("own child").is_none() {
        if started.elapsed() > REFUSES {
            let _ = child.kill();
            let _ = child.wait();
            panic!("it was not refused: {command:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ran::from(child.wait_with_output().expect("own child"))
}

/// Refused with exit code 2 and a first line that says where and why; nothing was made for it.
fn refused(place: &Place, mountpoint: &Path, more: &[&OsStr], why: &str) {
    refused_after(place, "", mountpoint, more, why);
}

fn refused_after(place: &Place, before: &str, mountpoint: &Path, more: &[&OsStr], why: &str) {
    let had = entries(&place.cache());
    let registry = place.registry();
    let mut args = vec![mountpoint.as_os_str()];
    if !more.contains(&OsStr::new("--registry")) {
        args.extend([OsStr::new("--registry"), registry.as_os_str()]);
    }
    args.extend(more);
    let ran = try_to(place, before, &args);
    assert_eq!(ran.code, 2, "{}: {ran:?}", mountpoint.display());
    let first = ran.err.lines().next().unwrap_or_default();
    let starts = format!("error: {}: ", mountpoint.display());
    assert!(first.starts_with(&starts) && first.contains(why), "{why}: {ran:?}");
    assert_eq!(entries(&place.cache()), had, "nothing is changed");
}

fn entries(folder: &Path) -> Option<usize> {
    fs::read_dir(folder).ok().map(Iterator::count)
}

const ANYWAY: &str = "--allow-non-empty";

#[test]
fn the_root_folder_is_refused() {
    let place = published();
    for more in [&[][..], &[OsStr::new(ANYWAY)]] {
        refused(&place, Path::new("/"), more, "is the root folder");
    }
}

#[test]
fn a_folder_with_content_is_refused_unless_that_is_asked_for() {
    let place = published();
    let at = place.mountpoint();
    fs::write(at.join("notes"), "mine").expect("a file");
    refused(&place, &at, &[], "is not empty");
    let registry = place.registry();
    let ran = try_to(&place, "", &[at.as_os_str(), "--registry".as_ref(), registry.as_os_str()]);
    assert!(ran.err.contains(ANYWAY), "it says how it is done all the same: {ran:?}");

    let daemon = place.mount_folder(&[ANYWAY]);
    assert_eq!(fs::read(daemon.path("org/net/v1/w.bin")).expect("mounted"), b"weights");
    assert!(!at.join("notes").exists(), "hidden");
    daemon.stop();
    assert_eq!(fs::read(at.join("notes")).expect("there again"), b"mine");
}

#[test]
fn a_home_folder_is_refused_and_a_folder_in_it_is_not() {
    let place = published();
    let anyway = [OsStr::new(ANYWAY)];
    let home = place.path("homes/ann");
    fs::create_dir_all(&home).expect("a folder");
    let set = format!("export HOME='{}'", home.display());
    refused_after(&place, &set, &home, &[], "is a home folder");
    refused_after(&place, &set, &home, &anyway, "is a home folder");
    // One that holds it would hide it, too.
    refused_after(&place, &set, &place.path("homes"), &anyway, "contains a home folder");
    let root = Path::new("/root");
    assert!(root.is_dir(), "the home folder of root, who runs these tests");
    refused(&place, root, &anyway, "is a home folder");

    // The harness gives the place's own folder as the home folder.
    place.mount_folder(&[]).stop();
}

#[test]
fn a_mount_point_and_the_cache_stay_apart() {
    let place = published();
    let cache = place.cache();
    let inside = cache.join("blobs/aa");
    fs::create_dir_all(&inside).expect("a folder");
    for more in [&[][..], &[OsStr::new(ANYWAY)]] {
        refused(&place, &cache, more, "is the cache folder");
        refused(&place, &inside, more, "lies in the cache folder");
    }
    // One that is not there yet, below the mount point.
    let later = place.path("models/far/cache");
    let more = [OsStr::new("--cache-dir"), later.as_os_str()];
    refused(&place, &place.mountpoint(), &more, "contains the cache folder");
    assert!(!place.path("models/far").exists());
    // By another name: a link to it, the folder above it mounted elsewhere.
    let link = place.path("link");
    symlink(place.dir.path(), &link).expect("a link");
    let linked = link.join("cache");
    let more = [OsStr::new("--cache-dir"), linked.as_os_str()];
    refused(&place, &cache, &more, "is the cache folder");
    let twice = place.path("twice");
    fs::create_dir(&twice).expect("a folder");
    let bind = format!("mount --bind '{}' '{}'", place.dir.path().display(), twice.display());
    refused_after(&place, &bind, &twice.join("cache"), &[], "is the cache folder");
    refused_after(&place, &bind, &twice.join("cache/blobs"), &[], "lies in the cache folder");
    assert!(!is_mounted(&twice));
}

#[test]
fn a_mount_point_and_the_registrys_folder_stay_apart() {
    let place = published();
    let registry = place.registry();
    let data = registry.join("data");
    assert!(data.is_dir(), "chunks lie there");
    let url = format!("file://{}", registry.display());
    for name in [registry.as_os_str(), url.as_ref(), "registry".as_ref()] {
        let more = [OsStr::new("--registry"), name];
        refused(&place, &registry, &more, "is the registry's folder");
        refused(&place, &data, &more, "lies in the registry's folder");
    }
    let above = place.path("srv");
    fs::create_dir(&above).expect("a folder");
    let moved = above.join("registry");
    fs::rename(&registry, &moved).expect("own folders");
    let more = [OsStr::new("--registry"), moved.as_os_str(), OsStr::new(ANYWAY)];
    refused(&place, &above, &more, "contains the registry's folder");
    fs::rename(&moved, &registry).expect("own folders");
    // Beside it is as good as anywhere.
    let mut command = place.modelfs(["mount"]);
    command.arg(place.mountpoint()).args(["--registry", "registry"]);
    Daemon::start(&place, command).stop();
}
