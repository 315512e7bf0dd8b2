//! The unit is restarted: whoever reads notices nothing but a pause, and a stop leaves nothing.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use modelfs_test_support::{bytes, mapped};

use crate::harness::{Daemon, Place, Ran, eventually, is_mounted, signal};
use crate::service_manager::Manager;

const SIZE: usize = 16 << 20;

fn published(place: &Place) -> Vec<u8> {
    let plain = place.path("plain");
    fs::create_dir_all(&plain).expect("a folder");
    let bytes = bytes(31, SIZE);
    fs::write(plain.join("w.bin"), &bytes).expect("a file");
    place.publish(&plain, "org/net", "v1", &["--chunk-size", "4MiB"]);
    bytes
}

/// So that pages come from the daemon and not from memory.
fn reads(file: &File, bytes: &[u8]) {
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).expect("fadvise");
    let mut buffer = vec![0; bytes.len()];
    file.read_exact_at(&mut buffer, 0).expect("no read fails");
    assert!(buffer == bytes, "a wrong byte");
}

fn device(place: &Place) -> u64 {
    fs::metadata(place.mountpoint()).expect("somebody answers").dev()
}

#[test]
fn a_restart_of_the_unit_keeps_the_mount_with_all_that_is_open() {
    let place = Place::new();
    let bytes = published(&place);
    let manager = Manager::new(&place);
    let mut daemon = manager.start(&["--no-passthrough"]);
    let path = daemon.path("org/net/v1/w.bin");
    let (was, file) = (device(&place), File::open(&path).expect("opens"));
    let map = mapped::map(&file);
    assert_eq!(map[5], bytes[5]);
    for _ in 0..3 {
        let worker = daemon.worker();
        manager.stop_for_restart(daemon);
        assert!(!Path::new(&format!("/proc/{worker}")).exists(), "its last commit was waited for");
        // While nobody serves what is not in memory: it waits for the next one.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("fadvise");
        let again = path.clone();
        let reading = std::thread::spawn(move || fs::read(again));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!reading.is_finished());
        daemon = manager.start(&["--no-passthrough"]);
        assert!(reading.join().expect("no panic").expect("no read fails") == bytes);
        manager.keeps_nothing();
        assert_eq!(device(&place), was, "the same mount");
        reads(&file, &bytes);
        reads(&File::open(&path).expect("opens"), &bytes);
        assert_eq!(map[9 << 20], bytes[9 << 20]);
    }
    assert!(map[..] == bytes[..]);
    let since = daemon.status()["daemon"]["since"].clone();
    assert_eq!(daemon.status()["daemon"]["restarts"], 3, "{since}");
    drop((map, file));
    manager.job("stop");
    daemon.stop();
    manager.keeps_nothing();
}

#[test]
fn a_read_in_flight_is_answered_after_the_restart() {
    let place = Place::new();
    let bytes = published(&place);
    let manager = Manager::new(&place);
    let daemon = manager.start(&["--no-passthrough"]);
    let file = File::open(daemon.path("org/net/v1/w.bin")).expect("opens");
    // A worker that took the request and answers nothing: its supervisor kills it in the end.
    assert!(signal(daemon.worker(), "STOP"));
    let reading = std::thread::spawn(move || {
        let mut buffer = vec![0; 300_000];
        file.read_exact_at(&mut buffer, 6 << 20).map(|()| buffer)
    });
    std::thread::sleep(Duration::from_millis(300));
    manager.stop_for_restart(daemon);
    assert!(!reading.is_finished());
    let daemon = manager.start(&["--no-passthrough"]);
    let read = reading.join().expect("no panic").expect("no error reaches it");
    assert!(read == bytes[6 << 20..(6 << 20) + 300_000], "a wrong byte");
    daemon.stop();
}

#[test]
fn passthrough_goes_on_between_two_daemons_and_keeps_its_number() {
    let place = Place::new();
    let bytes = published(&place);
    let manager = Manager::new(&place);
    let daemon = manager.start(&[]);
    place.ok(["prefetch", "org/net@v1"]);
    let path = daemon.path("org/net/v1/w.bin");
    let before = File::open(&path).expect("opens by passthrough");
    reads(&before, &bytes);
    manager.stop_for_restart(daemon);
    reads(&before, &bytes);
    let daemon = manager.start(&[]);
    // A second number for the same inode would be refused by the kernel: EIO.
    let after = File::open(&path).expect("opens by the same number");
    reads(&before, &bytes);
    reads(&after, &bytes);
    drop((before, after));
    // The number goes with its last handle, that of the former daemon among them.
    eventually("it can be evicted", || {
        place.run(["evict", "--all"]);
        crate::harness::xattr(&path, "cached").as_deref() == Some("0")
    });
    assert!(fs::read(&path).expect("reads") == bytes);
    daemon.stop();
}

#[test]
fn a_stop_an_unmount_and_a_manager_that_lets_go_leave_no_mount() {
    let place = Place::new();
    let bytes = published(&place);
    let manager = Manager::new(&place);
    for job in ["stop", "start", ""] {
        let daemon = manager.start(&[]);
        manager.job(job);
        daemon.stop();
        assert!(manager.kept().is_empty(), "{job}");
    }
    // By command, it goes even while a restart is under way.
    let daemon = manager.start(&[]);
    manager.job("restart");
    place.ok(["unmount"]);
    assert_eq!(daemon.wait().0, 0);
    assert!(!is_mounted(&place.mountpoint()) && manager.kept().is_empty());
    // The second half of a restart does not come.
    let daemon = manager.start(&[]);
    let file = File::open(daemon.path("org/net/v1/w.bin")).expect("opens");
    manager.stop_for_restart(daemon);
    assert!(is_mounted(&place.mountpoint()));
    manager.let_go();
    eventually("the guard takes it away", || !is_mounted(&place.mountpoint()));
    assert!(file.read_at(&mut [0; 10], 0).is_err());
    // Or the daemon that comes is not told what to mount.
    let daemon = manager.start(&[]);
    manager.stop_for_restart(daemon);
    let mut wrong = manager.command(place.mountpoint(), &["--no-such-option"]);
    let ran = Ran::from(wrong.output().expect("starts"));
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(!is_mounted(&place.mountpoint()));
    manager.keeps_nothing();
    // Killed: the guard is there, and what comes next mounts anew.
    let daemon = manager.start(&[]);
    daemon.signal("KILL");
    eventually("the mount is gone", || !is_mounted(&place.mountpoint()));
    drop(daemon);
    let daemon = manager.start(&[]);
    assert!(fs::read(daemon.path("org/net/v1/w.bin")).expect("reads") == bytes);
    daemon.stop();
}

#[test]
fn a_mount_that_cannot_be_resumed_is_unmounted_and_reported_in_one_line() {
    let place = Place::new();
    let bytes = published(&place);
    let manager = Manager::new(&place);
    let good = |daemon: Daemon<'_>, why: &str| {
        assert!(fs::read(daemon.path("org/net/v1/w.bin")).expect("reads") == bytes);
        manager.keeps_nothing();
        manager.job("stop");
        let log = daemon.stop();
        let said: Vec<_> = log.lines().filter(|l| l.contains("mounting anew")).collect();
        assert!(said.len() == 1 && said[0].contains(why), "{why}: {log}");
    };
    // Garbage, another form, no state.
    let texts = ["", "nonsense", r#"{"form":7}"#, r#"{"form":1,"root":"/"}"#];
    for (text, why) in texts.into_iter().zip(["not understood"; 4]) {
        let daemon = manager.start(&[]);
        manager.stop_for_restart(daemon);
        let mut state = tempfile::tempfile_in(place.dir.path()).expect("own folder");
        state.write_all(text.as_bytes()).expect("own file");
        manager.replace("modelfs-state", state.into());
        good(manager.start(&[]), why);
    }
    // A descriptor that is none of a mount.
    let daemon = manager.start(&[]);
    manager.stop_for_restart(daemon);
    manager.replace("modelfs-device", File::open("/dev/null").expect("there").into());
    good(manager.start(&[]), "none of a mount");
    // Unmounted meanwhile.
    let daemon = manager.start(&[]);
    manager.stop_for_restart(daemon);
    place.ok(["unmount".as_ref(), place.mountpoint().as_os_str()]);
    good(manager.start(&[]), "not mounted any more");
    // Wanted for others, or with another cache folder.
    for (more, why) in [("--allow-other", "other readers"), ("--cache-dir=new", "cache folder")] {
        let daemon = manager.start(&[]);
        manager.stop_for_restart(daemon);
        good(manager.start(&[more]), why);
    }
    // Wanted elsewhere: nothing stays where it was.
    let daemon = manager.start(&[]);
    manager.stop_for_restart(daemon);
    let elsewhere = place.path("elsewhere");
    fs::create_dir(&elsewhere).expect("own folder");
    let mut command = manager.command(elsewhere.clone(), &[]);
    let mut child =
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("python starts");
    eventually("mounted there", || elsewhere.join("org/net/v1/w.bin").exists());
    assert!(!is_mounted(&place.mountpoint()));
    assert!(signal(child.id(), "TERM"));
    assert!(child.wait().expect("own child").success());
    assert!(!is_mounted(&elsewhere));
}
