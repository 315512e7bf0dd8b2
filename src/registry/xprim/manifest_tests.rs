//! Tests of `manifest.rs`, one for each rule.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model::FileIx;
use crate::model::hash::sha256;

fn d(n: u8) -> Digest {
    Digest::from_bytes([n; 32])
}

/// 25 bytes in chunks of 10: `a` 12, `b/empty` 0, `b/c` 13.
fn plain() -> Value {
    json!({
        "total_size": 25, "chunk_size": 10, "chunks": [d(1), d(2), d(3)],
        "files": [{"path": "a", "size": 12}, {"path": "b/empty", "size": 0},
                  {"path": "b/c", "size": 13}],
    })
}

/// The same, with every extension.
fn extended() -> Value {
    let mut m = plain();
    m["files"][0]["sha256"] = json!(d(9));
    m["chunk_sizes"] = json!([12, 9, 4]);
    m["leaf_size"] = json!(4096);
    m["leaf_digest"] = json!("blake3");
    m["leaves"] = json!([d(4), d(5), d(6)]);
    m
}

fn read(m: &Value) -> Result<Manifest, RegistryError> {
    let body = m.to_string();
    parse(sha256(body.as_bytes()), body.as_bytes())
}

#[track_caller]
fn refused(m: &Value, why: &str) {
    let error = read(m).unwrap_err().to_string();
    assert!(error.starts_with("invalid registry response: manifest "), "{error}");
    assert!(error.contains(why), "{error}");
    assert!(!error.contains('\n'), "{error}");
}

fn with(mut m: Value, field: &str, value: Value) -> Value {
    m[field] = value;
    m
}

fn slices(m: &Manifest, file: u32) -> Vec<(u32, u64, u64)> {
    let of = |s: &Slice| (s.object.0, s.range.start(), s.range.end());
    m.slices(FileIx(file)).iter().map(of).collect()
}

#[test]
fn the_plain_format() {
    let m = read(&plain()).unwrap();
    assert_eq!(m.total(), 25);
    assert_eq!(m.objects().iter().map(|o| o.len).collect::<Vec<_>>(), [10, 10, 5]);
    assert!(m.objects().iter().all(|o| o.check == Check::Whole));
    assert_eq!(slices(&m, 0), [(0, 0, 10), (1, 0, 2)]);
    assert_eq!(slices(&m, 1), [], "an empty file has no slice");
    assert_eq!(slices(&m, 2), [(1, 2, 10), (2, 0, 5)]);
    assert_eq!(m.file(FileIx(0)).sha256, None);
}

#[test]
fn format_extensions_are_parsed() {
    let m = read(&extended()).unwrap();
    assert_eq!(m.objects().iter().map(|o| o.len).collect::<Vec<_>>(), [12, 9, 4]);
    let check = Check::Leaves { size: 4096, digest: HashAlgorithm::Blake3, list: d(5) };
    assert_eq!(m.objects()[1].check, check);
    assert_eq!(slices(&m, 0), [(0, 0, 12)]);
    assert_eq!(slices(&m, 2), [(1, 0, 9), (2, 0, 4)]);
    assert_eq!(m.file(FileIx(0)).sha256, Some(d(9)));
    let mut sha = extended();
    sha.as_object_mut().unwrap().remove("leaf_digest");
    let sha = read(&sha).unwrap();
    let check = Check::Leaves { size: 4096, digest: HashAlgorithm::Sha256, list: d(4) };
    assert_eq!(sha.objects()[0].check, check, "absent: SHA-256");
}

#[test]
fn a_version_without_files_is_valid() {
    let m = json!({"total_size": 0, "chunk_size": 10, "chunks": [],
                   "files": [{"path": "empty", "size": 0}]});
    assert_eq!(read(&m).unwrap().files().len(), 1);
    assert_eq!(read(&with(m, "chunk_sizes", json!([]))).unwrap().total(), 0);
}

#[test]
fn unknown_fields_are_ignored_however_deep() {
    let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
    let body = plain().to_string().replacen('{', &format!("{{\"new\":{deep},"), 1);
    assert_eq!(parse(d(0), body.as_bytes()).unwrap().files().len(), 3);
}

#[test]
fn an_invalid_manifest_is_refused() {
    for (body, why) in [
        ("", "EOF"),
        ("[]", "a manifest object"),
        ("{}", "total_size"),
        ("{\"total_size\":0,\"total_size\":0}", "total_size occurs twice"),
    ] {
        let error = parse(d(0), body.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let trailing = plain().to_string() + "{}";
    assert!(parse(d(0), trailing.as_bytes()).unwrap_err().to_string().contains("trailing"));
    for field in ["total_size", "chunk_size", "chunks", "files"] {
        let mut m = plain();
        m.as_object_mut().unwrap().remove(field);
        refused(&m, &format!("missing field `{field}`"));
        refused(&with(plain(), field, json!("x")), &format!("{field}: invalid type"));
    }
    for field in ["chunk_sizes", "leaf_size", "leaf_digest", "leaves"] {
        refused(&with(extended(), field, json!({"x": 1})), &format!("{field}: "));
    }
}

#[test]
fn errors_name_the_requested_item() {
    let upper = d(0xab).to_string().to_uppercase();
    for hex in [json!("zz"), json!(upper), json!(1)] {
        refused(&with(plain(), "chunks", json!([d(1), hex, d(3)])), "chunks[1]: ");
        refused(&with(extended(), "leaves", json!([d(1), d(2), hex])), "leaves[2]: ");
        let mut m = extended();
        m["files"][2]["sha256"] = hex;
        refused(&m, "files[2]: ");
    }
    let mut m = plain();
    m["files"][1].as_object_mut().unwrap().remove("size");
    refused(&m, "files[1]: missing field `size`");
    m["files"][1]["size"] = json!(-1);
    refused(&m, "files[1]: invalid value");
    refused(&with(extended(), "leaf_digest", json!("md5")), "leaf_digest: unknown variant `md5`");
}

#[test]
fn sizes_add_up() {
    refused(&with(plain(), "total_size", json!(24)), "total_size: 24 but the files' sizes");
    refused(&with(plain(), "total_size", json!(26)), "add up to 25");
    let mut m = plain();
    m["files"][0]["size"] = json!(u64::MAX);
    refused(&m, "total_size: 25 but the files' sizes add up to more than can be counted");
    // What wraps around to the right sum is no right sum.
    m["files"][1]["size"] = json!(13);
    m["files"][2]["size"] = json!(13);
    refused(&m, "more than can be counted");
    let huge = json!({"total_size": u64::MAX, "chunk_size": u64::MAX, "chunks": [d(1)],
                      "files": [{"path": "a", "size": u64::MAX}]});
    refused(&huge, "chunks[0]");
}

#[test]
fn chunks_fit_the_fixed_size() {
    refused(&with(plain(), "chunk_size", json!(0)), "chunk_size: is 0");
    refused(&with(extended(), "chunk_size", json!(0)), "chunk_size: is 0");
    refused(&with(plain(), "chunks", json!([d(1), d(2)])), "chunks: 2 of them");
    refused(&with(plain(), "chunks", json!([d(1), d(2), d(3), d(4)])), "chunks: 4 of them");
    refused(&with(plain(), "chunk_size", json!(5)), "chunks: 3 of them, but 25 bytes");
}

#[test]
fn chunk_sizes_fit() {
    refused(&with(extended(), "chunk_sizes", json!([25])), "chunk_sizes: 1 of them for 3 chunks");
    refused(&with(extended(), "chunk_sizes", json!([25, 0, 0])), "chunk_sizes[1]: is 0");
    refused(&with(extended(), "chunk_sizes", json!([12, 9, 5])), "chunk_sizes: do not add up");
    let wrap = json!([u64::MAX, 20, 6]);
    refused(&with(extended(), "chunk_sizes", wrap), "chunk_sizes: do not add up");
}

#[test]
fn leaves_fit() {
    refused(&with(extended(), "leaves", json!([d(1)])), "leaves: 1 of them for 3 chunks");
    refused(&with(extended(), "leaf_size", json!(0)), "leaf_size: 0 is not between");
    refused(&with(extended(), "leaf_size", json!(u64::MAX)), "leaf_size: ");
    refused(&with(extended(), "leaf_size", Value::Null), "leaf_size: ");
    let mut m = extended();
    m.as_object_mut().unwrap().remove("leaf_size");
    refused(&m, "leaf_size: is missing beside leaves");
    m = extended();
    m.as_object_mut().unwrap().remove("leaves");
    refused(&m, "leaves: are missing beside leaf_size");
}

#[test]
fn one_name_is_one_chunk() {
    let twice = json!([d(1), d(1), d(3)]);
    assert_eq!(read(&with(plain(), "chunks", twice.clone())).unwrap().objects().len(), 3);
    refused(
        &with(plain(), "chunks", json!([d(1), d(2), d(1)])),
        "chunks[2]: contradicts chunks[0]",
    );
    refused(&with(extended(), "chunks", twice.clone()), "chunks[1]: contradicts chunks[0]");
    let mut m = with(extended(), "chunks", twice);
    m["chunk_sizes"] = json!([10, 10, 5]);
    refused(&m, "chunks[1]: contradicts chunks[0]");
    m["leaves"] = json!([d(4), d(4), d(6)]);
    read(&m).unwrap();
}

#[test]
fn paths_are_checked() {
    let path = |p: &str| {
        let mut m = plain();
        m["files"][2]["path"] = json!(p);
        m
    };
    for bad in ["../x", "/x", "a\\b", "", "b//c", "x\0", ".modelfs/x", &"x".repeat(256)] {
        refused(&path(bad), "files[2].path ");
    }
    refused(&path(&["d"; 65].join("/")), "files[2].path is too long or too deep");
    refused(&path("a"), "files[2].path: occurs twice");
    refused(&path("a/b"), "files[2].path: has another file of the version as a folder");
    refused(&path("b"), "files[1].path: has another file");
}

#[test]
fn lists_and_folders_have_limits() {
    let files = vec!["{\"path\":\"a\",\"size\":0}"; MAX_FILES + 1].join(",");
    let body = |files: &str| {
        format!("{{\"total_size\":0,\"chunk_size\":1,\"chunks\":[],\"files\":[{files}]}}")
    };
    let error = parse(d(0), body(&files).as_bytes()).unwrap_err().to_string();
    assert!(error.contains("files: more than 1000000 of them"), "{error}");
    let sizes = vec!["1"; MAX_OBJECTS + 1].join(",");
    let error = parse(d(0), format!("{{\"chunk_sizes\":[{sizes}]}}").as_bytes()).unwrap_err();
    assert!(error.to_string().contains("chunk_sizes: more than 4000000 of them"), "{error}");
    let below = ["d"; 62].join("/");
    let many: Vec<_> =
        (0..17_000).map(|n| format!("{{\"path\":\"{n}/{below}/f\",\"size\":0}}")).collect();
    let error = parse(d(0), body(&many.join(",")).as_bytes()).unwrap_err().to_string();
    assert!(error.contains("more than 1000000 folders"), "{error}");
    assert_eq!(
        parse(d(0), body(&many[..15_000].join(",")).as_bytes()).unwrap().files().len(),
        15_000
    );
}

#[test]
fn errors_are_short_whatever_was_sent() {
    let long = "x".repeat(1 << 20);
    for body in [
        format!("{{\"files\":\"{long}\"}}"),
        format!("{{\"leaf_digest\":\"{long}\"}}"),
        format!("{{\"leaf_digest\":\"a\\u001b\\nb{long}\"}}"),
    ] {
        let error = parse(d(0), body.as_bytes()).unwrap_err().to_string();
        assert!(error.len() < 600 && !error.contains(char::is_control), "{error:.900}");
    }
}

#[test]
fn documents_have_a_limit() {
    let big = vec![b' '; MAX_MANIFEST as usize + 1];
    let error = parse(d(0), &big).unwrap_err().to_string();
    assert!(error.contains("more than 67108864 bytes"), "{error}");
}

#[test]
fn a_chunk_without_leaves_fits_in_memory() {
    let m = json!({"total_size": 1u64 << 40, "chunk_size": 1u64 << 40, "chunks": [d(1)],
                   "files": [{"path": "a", "size": 1u64 << 40}]});
    refused(&m, "chunks[0]: ");
}

#[test]
fn written_bytes_never_change() {
    let doc = ManifestDoc::read(extended().to_string().as_bytes()).unwrap();
    let text = String::from_utf8(doc.write()).unwrap();
    assert!(text.starts_with("{\"total_size\":25,\"chunk_size\":10,\"chunks\":[\"0101"), "{text}");
    assert!(
        text.contains("],\"chunk_sizes\":[12,9,4],\"leaf_size\":4096,\"leaf_digest\":\"blake3\"")
    );
    let plain = ManifestDoc::read(plain().to_string().as_bytes()).unwrap().write();
    assert!(!String::from_utf8(plain).unwrap().contains("leaf"), "no field that is not there");
}

proptest! {
    #[test]
    fn files_tile_the_chunks(
        sizes in proptest::collection::vec(0u64..50, 0..12),
        chunk_size in 1u64..40,
    ) {
        let total: u64 = sizes.iter().sum();
        let chunks = (0..total.div_ceil(chunk_size)).map(|i| sha256(&i.to_le_bytes())).collect();
        let file = |(i, size): (usize, &u64)| FileDoc { path: format!("f{i}"), size: *size, sha256: None };
        let files = sizes.iter().enumerate().map(file).collect();
        let doc = ManifestDoc { total_size: total, chunk_size, chunks, files, ..Default::default() };
        let body = doc.write();
        prop_assert_eq!(&ManifestDoc::read(&body).unwrap(), &doc);
        let m = parse(sha256(&body), &body).unwrap();
        let mut at = 0;
        for (i, size) in sizes.iter().enumerate() {
            let mut len = 0;
            for s in m.slices(FileIx(i as u32)) {
                prop_assert_eq!(u64::from(s.object.0) * chunk_size + s.range.start(), at);
                at += s.range.len();
                len += s.range.len();
            }
            prop_assert_eq!(len, *size);
        }
        prop_assert_eq!(at, total);
    }

    #[test]
    fn anything_is_read_or_refused(
        field in 0usize..8, number in any::<u64>(), other in any::<u64>(), which in 0usize..3
    ) {
        const FIELDS: [&str; 8] = ["total_size", "chunk_size", "chunks", "files", "chunk_sizes",
                                   "leaf_size", "leaf_digest", "leaves"];
        let mut m = extended();
        match FIELDS[field] {
            "files" => m["files"][which]["size"] = json!(number),
            "chunk_sizes" => m["chunk_sizes"][which] = json!(number),
            name => m[name] = json!(number),
        }
        let _ = read(&m);
        m["total_size"] = json!(other);
        let _ = read(&m);
        m.as_object_mut().unwrap().remove("chunk_sizes");
        let _ = read(&m);
    }
}
