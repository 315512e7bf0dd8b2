//! End-to-end tests of publishing: what is published is read back through a registry.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::base::ObjectRange;
use crate::model::{Check, FileIx, Leaves, Manifest, VersionId};
use crate::registry::{Listing, Registry, Validator, open, read_object};

type Tree = BTreeMap<String, Vec<u8>>;

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    (0..len).map(step).collect()
}

fn tree(files: &[(&str, u64, usize)]) -> Tree {
    files.iter().map(|(path, seed, len)| (path.to_string(), bytes(*seed, *len))).collect()
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn registry(&self) -> PathBuf {
        self.dir.path().join("registry")
    }

    fn request(&self, name: &str, files: &Tree) -> PublishRequest {
        let source = self.dir.path().join(name.replace('/', "_"));
        let _ = fs::remove_dir_all(&source);
        for (path, bytes) in files {
            let at = source.join(path);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, bytes).unwrap();
        }
        let version = format!("g/m@{name}").parse().unwrap();
        PublishRequest::new(source, version, self.registry())
    }

    fn publish(&self, name: &str, files: &Tree) -> Published {
        publish(&self.request(name, files), &|_| ()).unwrap()
    }

    fn open(&self) -> Arc<dyn Registry> {
        open(self.registry().to_str().unwrap()).unwrap()
    }

    fn catalog(&self) -> Catalog {
        xprim::parse_catalog(&fs::read(self.registry().join("models.json")).unwrap()).unwrap()
    }

    fn manifest_body(&self, hash: Digest) -> Vec<u8> {
        fs::read(self.registry().join(xprim::object_path(&hash))).unwrap()
    }
}

/// Reads every object of a version, checks every leaf, and assembles the files.
fn read_back(registry: &dyn Registry, version: &VersionRef) -> (Manifest, Tree) {
    let run = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    run.block_on(async {
        let Listing::Changed { catalog, .. } = registry.list(&Validator::default()).await.unwrap()
        else {
            panic!("nothing was known")
        };
        let hash = catalog.find(version).unwrap().hash().unwrap();
        let manifest = registry.manifest(&VersionId::new(hash)).await.unwrap().manifest;
        let mut objects = Vec::new();
        for o in manifest.objects() {
            let all = ObjectRange::new(0, o.len);
            let object = read_object(registry, o, all).await.unwrap();
            assert_eq!(sha256(&object), o.digest);
            if let Check::Leaves { size, digest, .. } = o.check {
                let want: Vec<_> = object.chunks(size as usize).map(|l| digest.hash(l)).collect();
                let leaves = registry.leaves(o, all).await.unwrap();
                assert_eq!(leaves, Leaves::new(digest, 0, want.into()));
            }
            objects.push(object);
        }
        let mut out = Tree::new();
        for (i, file) in manifest.files().iter().enumerate() {
            let slices = manifest.slices(FileIx(i as u32)).iter();
            let part = |r: ObjectRange| r.start() as usize..r.end() as usize;
            let slices: Vec<_> =
                slices.map(|s| &objects[s.object.0 as usize][part(s.range)]).collect();
            let bytes = slices.concat();
            assert_eq!(file.sha256, Some(sha256(&bytes)));
            out.insert(file.path.to_string(), bytes);
        }
        (manifest, out)
    })
}

#[test]
fn published_bytes_equal_the_source_files() {
    let files = tree(&[
        ("config.json", 1, 700),
        ("empty", 0, 0),
        ("sub/tokenizer.json", 2, 300_000),
        ("model-1.bin", 3, 2_500_000),
        ("model-2.bin", 4, 1_048_576),
        ("z.txt", 5, 1),
    ]);
    let place = Place::new();
    let mut n = 0;
    for leaf in [None, Some((131_072, HashAlgorithm::Blake3)), Some((4096, HashAlgorithm::Sha256))]
    {
        for fixed_chunks in [false, true] {
            let name = format!("v{n}");
            n += 1;
            let request = PublishRequest {
                leaf,
                fixed_chunks,
                chunk_size: 1_000_000,
                ..place.request(&name, &files)
            };
            let published = publish(&request, &|_| ()).unwrap();
            assert_eq!((published.files, published.bytes), (6, 3_849_277));
            let (manifest, back) = read_back(&*place.open(), &request.version);
            assert!(back == files, "{leaf:?} {fixed_chunks}");
            assert_eq!(manifest.hash(), published.manifest);
            assert_eq!(published.chunks_total, manifest.objects().len() as u64);
        }
    }
    assert_eq!(place.catalog().len(), 6);
}

#[test]
fn the_plain_layout_is_what_the_formats_first_client_reads() {
    let files = tree(&[("a", 1, 5000), ("b/c", 2, 2_000_000), ("d", 3, 10)]);
    let place = Place::new();
    let base = place.request("v", &files);
    let request = PublishRequest { leaf: None, fixed_chunks: true, chunk_size: 65_536, ..base };
    let hash = publish(&request, &|_| ()).unwrap().manifest;
    // The format's first client knows only `chunks` and `files`.
    let doc: serde_json::Value = serde_json::from_slice(&place.manifest_body(hash)).unwrap();
    for ours in ["chunk_sizes", "leaf_size", "leaf_digest", "leaves"] {
        assert!(doc.get(ours).is_none(), "{ours}");
    }
    let data = place.registry().join("data");
    let chunk = |c: &serde_json::Value| fs::read(data.join(c.as_str().unwrap())).unwrap();
    let mut stream: Vec<u8> = doc["chunks"].as_array().unwrap().iter().flat_map(chunk).collect();
    assert_eq!(stream.len() as u64, doc["total_size"].as_u64().unwrap());
    for file in doc["files"].as_array().unwrap() {
        let rest = stream.split_off(file["size"].as_u64().unwrap() as usize);
        assert!(stream == files[file["path"].as_str().unwrap()]);
        stream = rest;
    }
}

#[test]
fn the_same_files_give_the_same_manifest() {
    let files = tree(&[("b", 1, 2_000_000), ("a", 2, 3_000_000), ("c/d", 3, 50), ("c/a", 4, 50)]);
    let (one, two) = (Place::new(), Place::new());
    let first = one.publish("v", &files);
    let second = two.publish("another", &files);
    assert_eq!(first.manifest, second.manifest);
    let (a, b) = (one.manifest_body(first.manifest), two.manifest_body(second.manifest));
    assert_eq!(a, b);
    let text = String::from_utf8(a).unwrap();
    let order: Vec<_> =
        ["\"c/a\"", "\"c/d\"", "\"a\"", "\"b\""].iter().map(|p| text.find(p)).collect();
    assert!(order.is_sorted(), "those that share chunks first, then by path: {text}");
}

#[test]
fn one_changed_file_adds_its_own_chunks_only() {
    let mut files = tree(&[
        ("a.json", 1, 900),
        ("m1.bin", 2, 3_000_000),
        ("m2.bin", 3, 2_200_000),
        ("m3.bin", 4, 1_100_000),
    ]);
    let place = Place::new();
    let request = |name: &str, files: &Tree| PublishRequest {
        chunk_size: 1_000_000,
        ..place.request(name, files)
    };
    let first = publish(&request("v1", &files), &|_| ()).unwrap();
    assert_eq!((first.chunks_total, first.chunks_new), (9, 9));
    // Longer, so that everything after it moves.
    files.insert("m1.bin".into(), bytes(9, 3_000_100));
    let second = publish(&request("v2", &files), &|_| ()).unwrap();
    assert_eq!((second.chunks_total, second.chunks_new, second.bytes_new), (10, 4, 3_000_100));
    files.insert("0.json".into(), bytes(10, 80));
    let third = publish(&request("v3", &files), &|_| ()).unwrap();
    assert_eq!((third.chunks_new, third.bytes_new), (1, 980), "the small ones share a chunk");
}

#[test]
fn publishing_again_says_so_and_replacing_must_be_asked_for() {
    let place = Place::new();
    let files = tree(&[("a", 1, 100)]);
    let stamped = |time: &str, files: &Tree| PublishRequest {
        metadata: vec![("published_at".into(), time.into()), ("by".into(), "me".into())],
        ..place.request("v", files)
    };
    let first = publish(&stamped("2024-05-01T10:00:00Z", &files), &|_| ()).unwrap();
    assert!(!first.already_there);
    let catalog = fs::read(place.registry().join("models.json")).unwrap();
    let again = publish(&stamped("2025-05-01T10:00:00Z", &files), &|_| ()).unwrap();
    assert!(again.already_there && !again.replaced && again.chunks_new == 0);
    assert_eq!(fs::read(place.registry().join("models.json")).unwrap(), catalog, "untouched");
    let other = tree(&[("a", 2, 100)]);
    let mut request = stamped("2025-05-01T10:00:00Z", &other);
    let error = publish(&request, &|_| ()).unwrap_err();
    assert!(
        matches!(&error, PublishError::Taken { hash, .. } if *hash == first.manifest),
        "{error}"
    );
    assert_eq!(fs::read(place.registry().join("models.json")).unwrap(), catalog);
    request.replace = true;
    let replaced = publish(&request, &|_| ()).unwrap();
    assert!(replaced.replaced);
    let catalog = place.catalog();
    let entry = catalog.find(&request.version).unwrap();
    assert_eq!(entry.hash(), Some(replaced.manifest));
    assert_eq!(entry.published, humantime::parse_rfc3339("2025-05-01T10:00:00Z").ok());
    assert!(entry.metadata.as_ref().unwrap().contains("\"by\":\"me\""));
}

#[test]
fn an_alias_names_an_existing_version() {
    let place = Place::new();
    let files = tree(&[("a", 1, 100)]);
    let hash = place.publish("v1", &files).manifest;
    let latest: VersionRef = "g/m@latest".parse().unwrap();
    let v1 = Name::new("v1").unwrap();
    let alias = |replace| publish_alias(&place.registry(), &latest, &v1, &[], replace);
    assert!(alias(false).unwrap());
    assert!(!alias(false).unwrap(), "already there");
    let catalog = place.catalog();
    let entry = catalog.find(&latest).unwrap();
    assert_eq!((entry.hash(), entry.alias_of.as_ref()), (Some(hash), Some(&v1)));
    assert!(entry.published.is_some());
    // Moved to another version.
    let v2 = place.publish("v2", &tree(&[("a", 2, 100)])).manifest;
    let to = Name::new("v2").unwrap();
    let moved = publish_alias(&place.registry(), &latest, &to, &[], false);
    assert!(matches!(moved, Err(PublishError::Taken { .. })));
    assert!(publish_alias(&place.registry(), &latest, &to, &[], true).unwrap());
    assert_eq!(place.catalog().find(&latest).unwrap().hash(), Some(v2));
    let gone = publish_alias(&place.registry(), &latest, &Name::new("v9").unwrap(), &[], true);
    assert!(matches!(gone, Err(PublishError::NoTarget(_))));
    let itself = publish_alias(&place.registry(), &latest, &latest.version, &[], true);
    assert!(matches!(itself, Err(PublishError::Request(_))));
    // A folder may be published as an alias only of a version with the same content.
    let request = PublishRequest { alias_of: Some(v1), ..place.request("stable", &files) };
    assert_eq!(publish(&request, &|_| ()).unwrap().manifest, hash);
    let request = PublishRequest { alias_of: Some(to), ..place.request("best", &files) };
    assert!(matches!(publish(&request, &|_| ()), Err(PublishError::NotAlias(_))));
    assert!(
        publish_alias(
            &place.dir.path().join("none"),
            &latest,
            &request.version.version,
            &[],
            false
        )
        .is_err()
    );
}

#[test]
fn many_publishers_at_once_all_end_in_the_catalog() {
    let place = Place::new();
    let shared = bytes(7, 1_200_000);
    let requests: Vec<_> = (0..8u64)
        .map(|i| {
            let mut files = tree(&[("own", i, 1000)]);
            files.insert("shared".into(), shared.clone());
            (place.request(&format!("v{i}"), &files), files)
        })
        .collect();
    std::thread::scope(|s| {
        for (request, _) in &requests {
            s.spawn(move || publish(request, &|_| ()).unwrap());
        }
    });
    let folder = place.open();
    for (request, files) in &requests {
        assert!(read_back(&*folder, &request.version).1 == *files);
    }
}

#[test]
fn a_publisher_that_dies_before_writing_the_catalog_changes_nothing() {
    let place = Place::new();
    let files = tree(&[("a", 1, 100), ("b", 2, 2_000_000)]);
    let v1 = place.publish("v1", &files);
    let before = fs::read(place.registry().join("models.json")).unwrap();
    // The publisher dies after its last object: the panic unwinds out of `publish` at the last progress
    // report.
    let request = place.request("v2", &tree(&[("a", 3, 100), ("b", 4, 2_000_000)]));
    let die = |p: Progress| assert!(p.bytes_done < p.bytes_total, "killed");
    let run = std::panic::AssertUnwindSafe(|| publish(&request, &die));
    assert!(std::panic::catch_unwind(run).is_err());
    assert_eq!(fs::read(place.registry().join("models.json")).unwrap(), before);
    let folder = place.open();
    let version = "g/m@v1".parse().unwrap();
    assert_eq!(read_back(&*folder, &version).0.hash(), v1.manifest);
    let again = publish(&request, &|_| ()).unwrap();
    assert_eq!(again.chunks_new, 0, "what it wrote is found");
    assert_eq!(place.catalog().len(), 2);
}

#[test]
fn a_catalog_that_is_not_valid_is_left_alone() {
    let place = Place::new();
    let request = place.request("v", &tree(&[("a", 1, 100)]));
    fs::create_dir(place.registry()).unwrap();
    fs::write(place.registry().join("models.json"), "{\"g\": 1}").unwrap();
    assert!(matches!(publish(&request, &|_| ()), Err(PublishError::Catalog(_))));
    assert_eq!(fs::read(place.registry().join("models.json")).unwrap(), b"{\"g\": 1}");
}

#[test]
fn contradictory_publish_options_are_refused() {
    let place = Place::new();
    let good = place.request("v", &tree(&[("a", 1, 100)]));
    let refused = |request: PublishRequest| match publish(&request, &|_| ()) {
        Err(PublishError::Request(why)) => why,
        other => panic!("{other:?}"),
    };
    for chunk_size in [0, 4095, MAX_CHUNK + 1] {
        assert!(refused(PublishRequest { chunk_size, ..good.clone() }).contains("chunk"));
    }
    for size in [0, 4095, u64::MAX] {
        let leaf = Some((size, HashAlgorithm::Blake3));
        assert!(refused(PublishRequest { leaf, ..good.clone() }).contains("leaf"));
    }
    let inside = good.source.join("registry/deep");
    let why = refused(PublishRequest { registry: inside.clone(), ..good.clone() });
    assert!(why.contains("lies in the folder"), "{why}");
    assert!(!inside.exists() && !good.source.join("registry").exists(), "nothing was made");
    let metadata = vec![("published_at".into(), "now".into())];
    assert!(refused(PublishRequest { metadata, ..good.clone() }).contains("not a time"));
    let metadata = vec![("k".into(), "1".into()), ("k".into(), "2".into())];
    assert!(refused(PublishRequest { metadata, ..good.clone() }).contains("twice"));
    let version = "g/m@a:b".parse().unwrap();
    assert!(refused(PublishRequest { version, ..good }).contains("a:b"));
    assert!(!place.registry().exists());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn any_published_tree_is_read_back_equal(
        sizes in proptest::collection::vec(
            prop_oneof![Just(0usize), 1usize..5000, 1_040_000usize..1_060_000], 1..12),
        chunk_size in 4096u64..3_000_000,
        leaf in prop_oneof![
            Just(None),
            (4096u64..70_000, prop_oneof![Just(HashAlgorithm::Blake3), Just(HashAlgorithm::Sha256)])
                .prop_map(Some)],
        fixed_chunks: bool,
    ) {
        let names = |i: usize| format!("{}f{i}", ["", "a/", "b/c/"][i % 3]);
        let files: Tree = sizes.iter().enumerate()
            .map(|(i, len)| (names(i), bytes(i as u64, *len))).collect();
        let place = Place::new();
        let base = place.request("v", &files);
        let request = PublishRequest { chunk_size, leaf, fixed_chunks, ..base };
        publish(&request, &|_| ()).unwrap();
        let folder = place.open();
        prop_assert!(read_back(&*folder, &request.version).1 == files);
    }
}

#[test]
fn a_clock_before_1970_gives_a_version_no_time() {
    use std::time::{Duration, SystemTime};
    let epoch = SystemTime::UNIX_EPOCH;
    let published = |metadata: &[(String, String)], now| {
        Metadata::new(metadata).unwrap().with_time(now).get(PUBLISHED_AT).cloned()
    };
    assert_eq!(published(&[], epoch - Duration::from_secs(1)), None);
    assert_eq!(published(&[], epoch).as_deref(), Some("1970-01-01T00:00:00Z"));
    let given = [(PUBLISHED_AT.to_owned(), "2024-05-01T10:00:00Z".to_owned())];
    assert_eq!(published(&given, epoch - Duration::from_secs(1)), Some(given[0].1.clone()));
}
