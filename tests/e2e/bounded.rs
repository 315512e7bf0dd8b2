//! What fits into a cache, and what becomes of the rest: never more than the limit is taken, checked
//! against the disk while readers pull ten times as much through it; little room costs no bytes.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use modelfs::model::hash::Hasher;
use modelfs::model::{Digest, HashAlgorithm};
use modelfs_test_support::{FsKind, LoopFs, Server, bytes, write_bytes};

use crate::harness::{Place, eventually, xattr};

const LIMIT: u64 = 256 << 20;
const FILES: u64 = 4;
const FILE: u64 = 768 << 20;

fn digest_of(path: &Path) -> Digest {
    let mut file = File::open(path).expect("opens");
    let mut hasher = Hasher::new(HashAlgorithm::Blake3);
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

/// A folder with one file of these bytes, published.
fn publish(place: &Place, bytes: &[u8], model: &str, version: &str) {
    let plain = place.path(&format!("plain-{version}"));
    fs::create_dir(&plain).expect("a folder");
    fs::write(plain.join("w.bin"), bytes).expect("a file");
    place.publish(&plain, model, version, &[]);
}

#[test]
fn a_file_of_zeros_is_prefetched_completely() {
    const SIZE: u64 = 100 << 20;
    let place = Place::new();
    publish(&place, &vec![0; SIZE as usize], "org/net", "v1");
    let registry = place.registry();
    let registry = registry.to_str().expect("UTF-8");
    let ran = place.run(["prefetch", "org/net@v1", "--json", "--registry", registry]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains(&format!("\"present\":{SIZE}")), "{ran:?}");
}

#[test]
fn pins_beyond_a_lowered_limit_keep_no_name_from_being_found() {
    let place = Place::new();
    let (pinned, new) = (bytes(1, 24 << 20), bytes(2, 1 << 20));
    publish(&place, &pinned, "org/net", "v1");
    let registry = place.registry();
    let registry = registry.to_str().expect("UTF-8").to_owned();
    for command in ["prefetch", "pin"] {
        place.ok([command, "org/net@v1", "--registry", &registry]);
    }
    let daemon = place.mount(&registry, &["--cache-size", "8MiB", "--catalog-ttl", "1s"]);
    assert!(fs::read(daemon.path("org/net/v1/w.bin")).expect("pinned and complete") == pinned);
    publish(&place, &new, "other/net", "v2");
    let path = daemon.path("other/net/v2");
    eventually("the new version is found", || path.is_dir());
    assert_eq!(fs::read_dir(&path).expect("lists").count(), 1);
    assert!(fs::read(path.join("w.bin")).expect("through memory") == new);
    daemon.stop();
}

#[test]
fn a_disk_smaller_than_the_limit_has_a_file_fetched_about_once() {
    const SIZE: usize = 87 << 20;
    let place = Place::new();
    let disk = LoopFs::at(FsKind::Ext4, &place.cache());
    disk.fill(40 << 20);
    let bytes = bytes(5, SIZE);
    publish(&place, &bytes, "org/net", "v1");
    let server = Server::start(&place.registry());
    let daemon = place.mount(&server.url(), &["--cache-size", "50GiB"]);
    let mut file = File::open(daemon.path("org/net/v1/w.bin")).expect("opens");
    let mut buffer = vec![0; 1 << 20];
    for want in bytes.chunks(buffer.len()) {
        file.read_exact(&mut buffer[..want.len()]).expect("reads");
        assert!(buffer[..want.len()] == *want, "a wrong byte");
    }
    let sent = server.bytes_sent();
    println!("{sent} bytes for {SIZE}");
    assert!(sent < SIZE as u64 * 5 / 4, "{sent} bytes for {SIZE}");
    let status = place.ok(["status"]);
    assert!(status.contains("the cache cannot grow beyond"), "{status}");
    let prefetched = place.run(["prefetch", "org/net@v1"]);
    assert_eq!(prefetched.code, 7, "{prefetched:?}");
    assert!(prefetched.err.contains("the disk is full"), "{prefetched:?}");
    let log = daemon.stop();
    assert!(log.contains("less room for the cache than its limit allows"), "{log}");
}

#[test]
fn a_catalog_that_changes_again_and_again_pushes_no_data_out() {
    const VERSIONS: usize = 20_000;
    let place = Place::new();
    let bytes = bytes(6, 40 << 20);
    publish(&place, &bytes, "org/net", "v1");
    let catalog = place.registry().join("models.json");
    let text = fs::read(&catalog).expect("published");
    let published: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let daemon = place.mount_folder(&["--cache-size", "100MiB", "--catalog-ttl", "1s"]);
    let file = daemon.path("org/net/v1/w.bin");
    let cached = || xattr(&file, "cached").expect("every file says it");
    eventually("all of it is cached", || {
        fs::read(&file).expect("reads") == bytes && cached() == bytes.len().to_string()
    });
    // open, not listed any more, not cached
    let other = modelfs_test_support::bytes(7, 1 << 20);
    publish(&place, &other, "gone/net", "v2");
    let gone = daemon.path("gone/net/v2/w.bin");
    eventually("the other version is listed", || gone.exists());
    let mut open = File::open(&gone).expect("opens");
    let index = || fs::metadata(place.cache().join("index.db")).expect("an index").len();
    for round in 0..15 {
        if round == 7 {
            place.ok(["restart"]);
        }
        let mut versions = serde_json::Map::new();
        for n in 0..VERSIONS {
            let hash = modelfs::model::hash::sha256(format!("{round} {n}").as_bytes());
            versions.insert(format!("v{n}"), serde_json::json!({ "hash": hash }));
        }
        let hash = modelfs::model::hash::sha256(b"marker");
        versions.insert(format!("round-{round}"), serde_json::json!({ "hash": hash }));
        let mut all = published.clone();
        all["many"] = serde_json::json!({ "names": versions });
        let new = place.registry().join("models.json.new");
        fs::write(&new, serde_json::to_vec(&all).expect("JSON")).expect("a file");
        fs::rename(new, &catalog).expect("own folder");
        let folder = daemon.path("many/names");
        eventually("the new listing", || folder.join(format!("round-{round}")).is_dir());
        assert_eq!(fs::read_dir(&folder).expect("lists").count(), VERSIONS + 1, "round {round}");
        assert_eq!(cached(), bytes.len().to_string(), "round {round}: {} in the index", index());
    }
    eventually("what is not listed any more is forgotten", || index() < 32 << 20);
    assert!(!gone.exists());
    let mut read = Vec::new();
    open.read_to_end(&mut read).expect("what is open stays readable");
    assert!(read == other);
    let cache = daemon.status()["cache"].clone();
    assert!(cache["used"].as_u64() <= cache["limit"].as_u64(), "{cache}");
    daemon.stop();
}
