//! The reference model: whatever is done in whatever order, every read is what the plain file has.

use std::collections::BTreeMap;

use modelfs::base::units::ByteSize;
use modelfs::model::{FileIx, VersionRef};
use modelfs::store::Pin;
use modelfs_test_support::bytes;
use proptest::prelude::*;

use crate::stack::{OpenFile, Stack};

/// Files of each version: small ones share chunks, big ones have their own, two are the same.
const FILES: [(&str, usize); 7] = [
    ("config.json", 5),
    ("empty", 0),
    ("sub/vocab.txt", 70_001),
    ("sub/merges.txt", 130_000),
    ("a.safetensors", 3_100_000),
    ("b.safetensors", 2 << 20),
    ("twin.safetensors", 2 << 20),
];
const VERSIONS: [&str; 2] = ["org/net@v1", "org/net@v2"];
/// Less than two versions need, so that everything is evicted at some time.
const LIMIT: ByteSize = ByteSize::mib(12);

#[derive(Debug, Clone)]
enum Op {
    Open {
        version: usize,
        file: usize,
    },
    Read {
        handle: usize,
        at: u32,
        len: u32,
    },
    Close {
        handle: usize,
    },
    Evict {
        version: usize,
        force: bool,
    },
    Pin {
        version: usize,
    },
    Unpin {
        version: usize,
    },
    Prefetch {
        version: usize,
    },
    /// Some files get other content, the others stay.
    Change {
        version: usize,
        seed: u8,
    },
    Commit,
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let version = 0..VERSIONS.len();
    prop_oneof![
        4 => (version.clone(), 0..FILES.len()).prop_map(|(version, file)| Op::Open { version, file }),
        12 => (any::<usize>(), any::<u32>(), 0u32..400_000).prop_map(|(handle, at, len)| Op::Read { handle, at, len }),
        2 => any::<usize>().prop_map(|handle| Op::Close { handle }),
        2 => (version.clone(), any::<bool>()).prop_map(|(version, force)| Op::Evict { version, force }),
        1 => version.clone().prop_map(|version| Op::Pin { version }),
        1 => version.clone().prop_map(|version| Op::Unpin { version }),
        1 => version.clone().prop_map(|version| Op::Prefetch { version }),
        1 => (version, any::<u8>()).prop_map(|(version, seed)| Op::Change { version, seed }),
        1 => Just(Op::Commit),
        1 => Just(Op::Restart),
    ]
}

type Content = BTreeMap<&'static str, Vec<u8>>;

fn content(seed: u8, before: Option<&Content>) -> Content {
    let of = |(n, (path, size)): (usize, &(&'static str, usize))| {
        let kept = before.filter(|_| (usize::from(seed) + n) % 3 == 0);
        // The twin has the same bytes as its brother, in every version.
        let n = if *path == "twin.safetensors" { n - 1 } else { n };
        let bytes = || bytes(u64::from(seed) * 100 + n as u64, *size);
        (*path, kept.map_or_else(bytes, |c| c[path].clone()))
    };
    FILES.iter().enumerate().map(of).collect()
}

struct World {
    stack: Stack,
    versions: Vec<Content>,
    open: Vec<(OpenFile, Vec<u8>)>,
}

impl World {
    fn new() -> Self {
        let versions = vec![content(1, None), content(2, None)];
        let world = Self { stack: Stack::new(LIMIT), versions, open: Vec::new() };
        (0..VERSIONS.len()).for_each(|v| world.publish(v));
        world
    }

    fn publish(&self, version: usize) {
        let files: Vec<_> = self.versions[version].iter().map(|(p, b)| (*p, &b[..])).collect();
        self.stack.publish(VERSIONS[version], &files, |_| {});
    }

    fn pin(&mut self, version: usize) -> (Pin, Vec<modelfs::model::ContentKey>) {
        let reference: VersionRef = VERSIONS[version].parse().expect("a reference");
        let (source, runtime) = {
            let layers = self.stack.up();
            (layers.fetcher.sources().first().clone(), self.stack.runtime.handle().clone())
        };
        let manifest = runtime.block_on(async {
            let catalog = source.catalog().await.expect("a catalog");
            source
                .manifest(&catalog.find(&reference).and_then(|v| v.hash()).expect("there"))
                .await
                .expect("a manifest")
        });
        let keys = (0..manifest.files().len() as u32).map(FileIx);
        let keys = keys.filter(|f| manifest.file(*f).len > 0).map(|f| manifest.layout(f).key());
        let pin = Pin {
            source: source.name().clone(),
            version: reference,
            hash: manifest.hash(),
            owner: "test".to_owned(),
            since: std::time::SystemTime::UNIX_EPOCH,
        };
        (pin, keys.collect())
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Open { version, file } => {
                let (path, _) = FILES[file];
                let full = format!("{}/{path}", VERSIONS[version].replace('@', "/"));
                let open = self.stack.open(&full).expect("opens");
                self.open.push((open, self.versions[version][path].clone()));
            }
            Op::Read { handle, at, len } => {
                let Some(index) = handle.checked_rem(self.open.len()) else { return };
                let (file, want) = self.open.swap_remove(index);
                // Past the end at times.
                let at = u64::from(at) % (want.len() as u64 + 10_000);
                let got = self.stack.read(&file, at, len).expect("reads");
                let start = want.len().min(at as usize);
                let end = want.len().min(start + len as usize);
                assert!(got[..] == want[start..end], "{} bytes at {at} of {}", len, want.len());
                self.open.push((file, want));
            }
            Op::Close { handle } => {
                let Some(index) = handle.checked_rem(self.open.len()) else { return };
                let (file, _) = self.open.swap_remove(index);
                self.stack.up().vfs.release(file.ino, file.handle);
            }
            Op::Evict { version, force } => {
                let (_, keys) = self.pin(version);
                self.stack.up().store.evict(&keys, force).expect("evicts");
            }
            Op::Pin { version } => {
                let (pin, keys) = self.pin(version);
                self.stack.up().store.pin(&pin, &keys).expect("pins");
            }
            Op::Unpin { version } => {
                let (pin, _) = self.pin(version);
                let store = &self.stack.up().store;
                store.unpin(&pin.source, &pin.version, &pin.owner).expect("unpins");
            }
            Op::Prefetch { version } => {
                let (pin, _) = self.pin(version);
                let fetcher = self.stack.up().fetcher.clone();
                // It may not fit beside what is pinned; then it says so and breaks nothing.
                let _ = self.stack.runtime.block_on(async {
                    let manifest =
                        fetcher.sources().first().manifest(&pin.hash).await.expect("a manifest");
                    fetcher.prefetch(fetcher.sources().first(), &manifest, &|_| {}).await
                });
            }
            Op::Change { version, seed } => {
                self.versions[version] = content(seed, Some(&self.versions[version]));
                self.publish(version);
                let source = self.stack.up().fetcher.sources().first().clone();
                self.stack.runtime.block_on(source.refresh()).expect("refreshes");
            }
            Op::Commit => self.stack.up().store.commit().expect("commits"),
            Op::Restart => {
                // Open handles stay: the kernel still has them, and inodes mean the same. What was
                // open by passthrough is a file of the kernel's own, whatever the daemon does.
                self.stack.down();
            }
        }
        let usage = self.stack.up().store.usage();
        assert!(usage.used <= usage.limit, "{usage:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_read_is_what_the_plain_file_has(ops in proptest::collection::vec(op(), 1..60)) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
        }
        // In the end every open file is still readable to its last byte.
        for (file, want) in std::mem::take(&mut world.open) {
            let got = world.stack.read(&file, 0, want.len() as u32 + 1).expect("reads");
            prop_assert!(got[..] == want[..]);
        }
    }
}
