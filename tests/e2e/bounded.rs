//! The cache never takes more than its limit, checked against the disk while readers pull ten
//! times as much through it.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use modelfs::base::hash::Hasher;
use modelfs::model::{Digest, LeafDigest};
use modelfs_test_support::{FsKind, LoopFs, write_bytes};

use crate::harness::Place;

const LIMIT: u64 = 256 << 20;
const FILES: u64 = 4;
const FILE: u64 = 768 << 20;

fn digest_of(path: &Path) -> Digest {
    let mut file = File::open(path).expect("opens");
    let mut hasher = Hasher::new(LeafDigest::Blake3);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).expect("reads") {
            0 => return hasher.finish(),
            n => hasher.update(&buffer[..n]),
        }
    }
}

#[test]
fn four_readers_pull_3_gib_through_256_mib() {
    let place = Place::new();
    // A file system of its own tells at one instant what everything on it takes; a walk over its
    // files would add up what never was there together.
    let disk = LoopFs::at(FsKind::Ext4, &place.cache());
    let empty = disk.free();
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    for n in 0..FILES {
        write_bytes(&plain.join(format!("shard-{n}.bin")), 100 + n, FILE);
    }
    place.publish(&plain, "org/big", "v1", &[]);
    let daemon = place.mount_folder(&["--cache-size", "256MiB"]);
    let (done, most, samples) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let used = empty.saturating_sub(disk.free());
                assert!(used <= LIMIT, "{used} bytes on disk");
                most.fetch_max(used, Ordering::Relaxed);
                samples.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        let readers: Vec<_> = (0..FILES)
            .map(|n| {
                let (plain, mounted) = (
                    plain.join(format!("shard-{n}.bin")),
                    daemon.path(&format!("org/big/v1/shard-{n}.bin")),
                );
                scope.spawn(move || assert_eq!(digest_of(&mounted), digest_of(&plain)))
            })
            .collect();
        let outcomes: Vec<_> = readers.into_iter().map(|r| r.join()).collect();
        done.store(true, Ordering::Relaxed);
        watcher.join().expect("the limit held");
        assert!(outcomes.iter().all(Result::is_ok), "a reader failed");
    });
    let status = daemon.status();
    assert!(status["cache"]["used"].as_u64().expect("a number") <= LIMIT);
    let (most, samples) = (most.into_inner(), samples.into_inner());
    println!("at most {most} of {LIMIT} bytes on disk, {samples} samples");
    assert!(samples > 20, "the disk was looked at all along");
    assert!(most > LIMIT / 2, "the cache was used");
    daemon.stop();
}
