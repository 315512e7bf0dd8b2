//! Blocks that are stored once: what another blob has is shared where the file system can do that,
//! and never fetched twice anywhere.

use std::fs::{self, File};
use std::path::Path;

use modelfs_test_support::{FsKind, LoopFs, Server, bytes};

use crate::harness::Place;

/// What both versions begin with, in whole chunks.
const SAME: usize = 32 << 20;
/// What they do not share.
const OWN: usize = 4 << 20;

fn taken(at: &Path) -> u64 {
    File::open(at).and_then(|f| Ok(rustix::fs::syncfs(&f)?)).expect("synced");
    let s = rustix::fs::statvfs(at).expect("mounted");
    (s.f_blocks - s.f_bfree) * s.f_frsize
}

fn a_version_that_shares_chunks(kind: FsKind) {
    let place = Place::new();
    let fs = LoopFs::at(kind, &place.cache());
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    let mut versions = Vec::new();
    for n in 1..3 {
        let mut all = bytes(1, SAME);
        all.extend(bytes(10 + n, OWN));
        fs::write(plain.join("w.bin"), &all).expect("a file");
        place.publish(&plain, "org/net", &format!("v{n}"), &["--chunk-size", "4MiB"]);
        versions.push(all);
    }
    let server = Server::start(&place.registry());
    let daemon = place.mount(&server.url(), &["--cache-size", "200MiB"]);
    let mut took = Vec::new();
    for (n, all) in versions.iter().enumerate() {
        let (sent, before) = (server.bytes_sent(), taken(fs.path()));
        let path = daemon.path(&format!("org/net/v{}/w.bin", n + 1));
        assert!(fs::read(&path).expect("reads") == *all, "a wrong byte");
        let pinned = place.run(["prefetch", &format!("org/net@v{}", n + 1)]);
        assert_eq!(pinned.code, 0, "{pinned:?}");
        took.push((server.bytes_sent() - sent, taken(fs.path()).saturating_sub(before)));
    }
    println!("{kind:?}: fetched and took on disk, first and second version: {took:?}");
    assert!(took[0].0 >= (SAME + OWN) as u64);
    assert!(took[1].0 < 2 * OWN as u64, "fetched twice: {took:?}");
    assert!(took[0].1 >= (SAME + OWN) as u64 * 9 / 10);
    if kind.shares_blocks() {
        assert!(took[1].1 < (SAME / 2) as u64, "stored twice: {took:?}");
    }
    // one goes, the other keeps all of its bytes
    place.ok(["evict", "org/net@v1"]);
    server.go_away();
    let path = daemon.path("org/net/v2/w.bin");
    let file = File::open(&path).expect("opens");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advice");
    assert!(fs::read(&path).expect("reads") == versions[1], "a wrong byte");
    drop(file);
    assert_eq!(place.run(["verify"]).code, 0);
    daemon.stop();
}

#[test]
fn shared_chunks_on_xfs_are_stored_once() {
    a_version_that_shares_chunks(FsKind::Xfs);
}

#[test]
fn shared_chunks_on_btrfs_are_stored_once() {
    a_version_that_shares_chunks(FsKind::Btrfs);
}

#[test]
fn shared_chunks_on_ext4_are_fetched_once() {
    a_version_that_shares_chunks(FsKind::Ext4);
}
