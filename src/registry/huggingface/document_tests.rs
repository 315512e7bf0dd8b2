//! Tests of `document.rs`.

use serde_json::json;

use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn repo() -> Repo {
    Repo::new(RepoType::Model, "o/n".parse().unwrap()).unwrap()
}

fn doc(entries: serde_json::Value) -> ManifestDoc {
    ManifestDoc::new(&repo(), COMMIT.parse().unwrap(), serde_json::from_value(entries).unwrap())
}

fn read(doc: &ManifestDoc) -> Manifest {
    let document = doc.write();
    parse_manifest(VersionId::new(sha256(&document)), &document).unwrap()
}

fn lfs(path: &str, bytes: &[u8]) -> serde_json::Value {
    let (digest, size) = (sha256(bytes), bytes.len() as u64);
    let oid = git_blob(lfs_pointer(&digest, size).as_bytes());
    json!({"type": "file", "path": path, "size": size, "oid": oid, "lfs": {"oid": digest.to_string()}})
}

fn plain(path: &str, bytes: &[u8]) -> serde_json::Value {
    json!({"type": "file", "path": path, "size": bytes.len(), "oid": git_blob(bytes)})
}

/// Why the one file of a tree is left out.
fn left_out(entry: serde_json::Value) -> String {
    let manifest = read(&doc(json!([entry])));
    assert_eq!((manifest.files().len(), manifest.left_out().count), (0, 1));
    manifest.left_out().first[0].clone()
}

#[test]
fn the_same_tree_in_any_order_is_the_same_document() {
    let (a, b) = (plain("a", b"1"), lfs("sub/b", b"22"));
    let folder = json!({"type": "directory", "path": "sub", "oid": COMMIT, "size": 0});
    let document = doc(json!([a, folder, b])).write();
    assert_eq!(document, doc(json!([b, a])).write());
    let digest = sha256(b"22");
    let oid = git_blob(lfs_pointer(&digest, 2).as_bytes());
    let want = format!(
        r#"{{"format":"modelfs.huggingface/1","type":"model","repo":"o/n","commit":"{COMMIT}","files":[{{"path":"a","size":1,"oid":"{}"}},{{"path":"sub/b","size":2,"oid":"{oid}","lfs":"{digest}"}}]}}"#,
        git_blob(b"1")
    );
    assert_eq!(String::from_utf8(document.clone()).unwrap(), want);
    assert!(is_manifest(&document) && !is_catalog(&document));
    assert!(!is_manifest(br#"{"total_size":0}"#));
}

#[test]
fn each_file_is_checked_by_what_the_commit_binds() {
    let manifest = read(&doc(json!([plain("a", b"1"), lfs("b", b"22"), plain("empty", b"")])));
    let [a, b] = manifest.objects() else { panic!("an empty file has no object") };
    assert_eq!((a.check, a.digest), (Check::GitBlob, git_blob(b"1").digest()));
    assert_eq!((b.check, b.digest), (Check::Whole, sha256(b"22")));
    assert_eq!(b.locator, Locator::Path(format!("o/n/resolve/{COMMIT}/b").into()));
    let sums: Vec<_> = manifest.files().iter().map(|f| f.sha256).collect();
    assert_eq!(sums, [None, Some(sha256(b"22")), None]);
    assert_eq!((manifest.total(), manifest.left_out().count), (3, 0));
}

#[test]
fn a_sha256_that_the_commit_does_not_bind_is_not_believed() {
    let mut other = lfs("x", b"true");
    other["lfs"]["oid"] = json!(sha256(b"fake").to_string());
    assert!(left_out(other).contains("does not bind"));
    let mut longer = lfs("x", b"true");
    longer["size"] = json!(5);
    assert!(left_out(longer).contains("does not bind"));
    let mut masked = lfs("x", b"true");
    masked["lfs"]["oid"] = json!("*".repeat(64));
    assert!(left_out(masked).contains("is not given"));
}

#[test]
fn files_that_cannot_be_verified_are_left_out_with_a_reason() {
    let mut empty = plain("x", b"bytes");
    empty["size"] = json!(0);
    assert!(left_out(empty).contains("not empty"));
    let mut large = plain("x", b"bytes");
    large["size"] = json!(MAX_LEAF + 1);
    assert!(left_out(large).contains("can only verify"));
    let mut wrong = plain("x", b"bytes");
    wrong["oid"] = json!("main");
    assert!(left_out(wrong).contains("not a git id"));
    for path in ["../x", "/etc/passwd", "a/../../b", "a\\b", "a\nb", "", ".modelfs/x"] {
        let why = left_out(plain(path, b"bytes"));
        assert!(!why.contains('\n'), "{why}");
    }
    let manifest = read(&doc(json!([plain("../x", b"1"), plain("good", b"1")])));
    assert_eq!(manifest.files().len(), 1, "the others are there");
}

#[test]
fn a_large_file_is_verified_as_a_whole_and_not_held_in_memory() {
    for (len, check) in [(MAX_LEAF, Check::Whole), (MAX_LEAF + 1, Check::WholeLarge)] {
        let digest = sha256(b"weights");
        let pointer = lfs_pointer(&digest, len);
        let file = json!({
            "type": "file", "path": "x", "size": len,
            "oid": git_blob(pointer.as_bytes()).to_string(),
            "lfs": {"oid": digest.to_string(), "size": len, "pointerSize": pointer.len()},
        });
        let manifest = read(&doc(json!([file])));
        let [object] = manifest.objects() else { panic!("one object") };
        assert_eq!((object.len, object.check, object.digest), (len, check, digest));
    }
}

#[test]
fn a_large_file_with_a_xet_hash_is_verified_by_ranges() {
    let xet = "0706050403020100".repeat(4);
    let of = |len: u64, xet: &str| {
        let digest = sha256(b"weights");
        let pointer = lfs_pointer(&digest, len);
        let file = json!({
            "type": "file", "path": "x", "size": len, "xetHash": xet,
            "oid": git_blob(pointer.as_bytes()).to_string(),
            "lfs": {"oid": digest.to_string(), "size": len, "pointerSize": pointer.len()},
        });
        let manifest = read(&doc(json!([file])));
        (manifest.objects()[0].check, manifest.objects()[0].digest == digest)
    };
    let root = Digest::from_bytes(std::array::from_fn(|i| (i % 8) as u8));
    assert_eq!(of(MIN_PROVEN + 1, &xet), (Check::Proof { root }, true));
    assert_eq!(of(MIN_PROVEN, &xet), (Check::Whole, true));
    assert_eq!(of(MAX_LEAF + 1, &"*".repeat(64)), (Check::WholeLarge, true));
}

#[test]
fn a_masked_xet_hash_is_none() {
    let with = |xet: &str| {
        let mut file = lfs("x", b"1");
        file["xetHash"] = json!(xet);
        String::from_utf8(doc(json!([file])).write()).unwrap()
    };
    assert!(!with(&"*".repeat(64)).contains("xet"));
    assert!(with(&"a".repeat(64)).contains(&format!(r#""xet":"{}""#, "a".repeat(64))));
}

#[test]
fn a_damaged_document_is_refused() {
    let good = String::from_utf8(doc(json!([plain("a", b"1")])).write()).unwrap();
    let zero = VersionId::new(Digest::from_bytes([0; 32]));
    for (from, to) in [
        ("\"o/n\"", "\"../n\""),
        ("\"o/n\"", "\"o/n/x\""),
        ("\"model\"", "\"space\""),
        (COMMIT, "main"),
        ("\"files\"", "\"total_size\":1,\"files\""),
        ("\"size\":1", "\"size\":-1"),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(good, bad);
        let error = parse_manifest(zero, bad.as_bytes()).unwrap_err();
        assert!(matches!(error, RegistryError::Invalid { .. }), "{error}");
    }
}

fn refs(value: serde_json::Value) -> CatalogDoc {
    CatalogDoc::new(&repo(), serde_json::from_value(value).unwrap())
}

fn one(name: &str, whole: &str, digit: char) -> serde_json::Value {
    json!({"name": name, "ref": whole, "targetCommit": digit.to_string().repeat(40)})
}

#[test]
fn references_become_versions_and_are_read_back() {
    let doc = refs(json!({
        "branches": [one("main", "refs/heads/main", 'a'), one("fix/a", "refs/heads/fix/a", 'b')],
        "tags": [one("v1", "refs/tags/v1", 'c')],
        "converts": [one("parquet", "refs/convert/parquet", 'd')],
    }));
    let catalog = doc.catalog().unwrap();
    let versions = catalog.versions("o", "n").unwrap();
    let targets: Vec<_> = versions.iter().map(|v| (v.name.as_str(), v.target.clone())).collect();
    let commit = |c: &str| VersionTarget::Revision(Revision::new(c.repeat(40)));
    let want = [
        ("fix--a", commit("b")),
        ("main", commit("a")),
        ("refs--convert--parquet", commit("d")),
        ("v1", commit("c")),
    ];
    assert_eq!(targets, want);
    assert_eq!(parse_catalog(&doc.write()).unwrap(), catalog);
    assert!(is_catalog(&doc.write()) && !is_manifest(&doc.write()));
}

#[test]
fn two_references_of_one_name_are_one_version_and_a_report() {
    let catalog = refs(json!({
        "branches": [one("a/b", "", 'a'), one("v1", "", 'b')],
        "tags": [one("v1", "", 'c'), one("a--b", "", 'd'), one("..", "", 'e'),
                 {"name": "x", "ref": "", "targetCommit": "none"}],
    }))
    .catalog()
    .unwrap();
    let found = |name: &str| match &catalog.version("o", "n", name).unwrap().target {
        VersionTarget::Revision(r) => r.as_str()[..1].to_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!((found("v1"), found("a--b")), ("b".into(), "d".into()));
    assert_eq!((catalog.len(), catalog.left_out().count), (2, 4));
}
