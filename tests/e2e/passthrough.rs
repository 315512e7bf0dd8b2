//! Complete files are read by the kernel itself, one mode per inode at a time.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

use modelfs_test_support::mapped::map;
use modelfs_test_support::{bytes, write_bytes};

use crate::harness::{Place, eventually, signal, xattr};

/// How often the daemon read for somebody: passthrough reads never reach it.
fn reads_of(pid: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).expect("own child");
    let line = io.lines().find(|l| l.starts_with("rchar:")).expect("rchar");
    line["rchar:".len()..].trim().parse().expect("a number")
}

#[test]
fn a_complete_file_is_read_by_the_kernel() {
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    let bytes = bytes(7, 8 << 20);
    fs::write(plain.join("w.bin"), &bytes).expect("a file");
    place.publish(&plain, "org/net", "v1", &[]);
    let daemon = place.mount_folder(&[]);
    assert_eq!(daemon.status()["daemon"]["passthrough"], true, "root on this kernel has it");
    let path = daemon.path("org/net/v1/w.bin");
    let device = fs::metadata(daemon.path("")).expect("it is mounted").dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let bdi = format!("/sys/class/bdi/{major}:{minor}");
    let ahead = fs::read_to_string(format!("{bdi}/read_ahead_kb")).expect("Linux says it");
    assert_eq!(ahead.trim(), "512", "the kernel asks for more than 128 KiB at a time");

    // Cached mode while it is incomplete, and for as long as a handle stays open.
    let first = File::open(&path).expect("opens");
    let mut buffer = vec![0; bytes.len()];
    first.read_exact_at(&mut buffer, 0).expect("reads");
    assert!(buffer == bytes);
    eventually("complete", || xattr(&path, "cached") == Some((8 << 20).to_string()));
    let second = File::open(&path).expect("a second handle joins the mode of the first");
    second.read_exact_at(&mut buffer, 0).expect("reads");
    assert!(buffer == bytes);
    drop((first, second));

    // After the last close: passthrough. Dropping the page cache makes reads go to the backing file.
    eventually("passthrough", || {
        let file = File::open(&path).expect("opens");
        let before = reads_of(daemon.worker());
        drop_page_cache(&file);
        file.read_exact_at(&mut buffer, 0).expect("reads");
        assert!(buffer == bytes);
        reads_of(daemon.worker()) - before < 1 << 20
    });
    let (a, b) = (File::open(&path).expect("opens"), File::open(&path).expect("the same backing"));
    a.read_exact_at(&mut buffer, 0).expect("reads");
    b.read_exact_at(&mut buffer[..4096], 4096).expect("reads");
    assert!(buffer[..4096] == bytes[4096..8192]);

    // What is open by passthrough is not evicted under its reader.
    place.run(["evict", "org/net@v1"]);
    a.read_exact_at(&mut buffer, 0).expect("reads");
    assert!(buffer == bytes);
    drop((a, b));

    // And after an eviction it is cached mode again, with the same bytes.
    eventually("evicted", || {
        place.run(["evict", "org/net@v1"]);
        xattr(&path, "cached").as_deref() == Some("0")
    });
    assert!(fs::read(&path).expect("reads") == bytes);
    daemon.stop();
}

fn drop_page_cache(file: &File) {
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).expect("fadvise");
}

#[test]
fn what_is_mapped_is_not_evicted_although_it_was_closed() {
    let place = Place::new();
    let (plain, other) = (place.path("plain"), place.path("other"));
    let bytes = bytes(9, 8 << 20);
    for (folder, names) in [(&plain, &["w.bin"][..]), (&other, &["a.bin", "b.bin"])] {
        fs::create_dir(folder).expect("a folder");
        for (n, name) in names.iter().enumerate() {
            let len = if folder == &plain { 8 << 20 } else { 20 << 20 };
            write_bytes(&folder.join(name), 9 + n as u64, len);
        }
    }
    assert!(fs::read(plain.join("w.bin")).expect("own file") == bytes);
    place.publish(&plain, "org/net", "v1", &[]);
    place.publish(&other, "org/net", "v2", &[]);
    let daemon = place.mount_folder(&["--cache-size", "32MiB"]);
    let path = daemon.path("org/net/v1/w.bin");
    for killed in [false, true] {
        place.ok(["prefetch", "org/net@v1"]);
        let file = File::open(&path).expect("opens by passthrough");
        let mapped = map(&file);
        drop(file);
        // The kernel tells of the close while the map goes on.
        std::thread::sleep(std::time::Duration::from_millis(300));
        if killed {
            signal(daemon.worker(), "KILL");
            eventually("another worker", || xattr(&path, "cached").is_some());
        }
        for _ in 0..3 {
            place.run(["evict", "--all"]);
            for name in ["a.bin", "b.bin"] {
                let read = fs::read(daemon.path(&format!("org/net/v2/{name}"))).expect("reads");
                assert!(read == fs::read(other.join(name)).expect("own file"));
            }
        }
        assert_eq!(xattr(&path, "cached"), Some((8 << 20).to_string()), "in use");
        assert!(mapped[..] == bytes, "a wrong byte in a map");
        drop(mapped);
        eventually("it can be evicted", || {
            place.run(["evict", "--all"]);
            xattr(&path, "cached").as_deref() == Some("0")
        });
    }
    daemon.stop();
}

#[test]
fn many_threads_open_close_and_evict_at_once() {
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    let bytes = bytes(8, 3 << 20);
    fs::write(plain.join("w.bin"), &bytes).expect("a file");
    place.publish(&plain, "org/net", "v1", &[]);
    let daemon = place.mount_folder(&[]);
    let path = daemon.path("org/net/v1/w.bin");
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let (path, bytes) = (&path, &bytes);
            scope.spawn(move || {
                for round in 0..60u64 {
                    let file = File::open(path).expect("an open never fails for its mode");
                    let at = (thread * 31 + round * 65_537) % (2 << 20);
                    let mut buffer = vec![0; 300_000];
                    file.read_exact_at(&mut buffer, at).expect("reads");
                    assert!(buffer == bytes[at as usize..at as usize + 300_000]);
                }
            });
        }
        for _ in 0..10 {
            place.run(["evict", "--all"]);
        }
    });
    daemon.stop();
}
