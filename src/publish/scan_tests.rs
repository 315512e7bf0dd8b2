//! Tests of `scan.rs`.

use std::os::unix::fs::symlink;

use super::*;
use crate::model::NameError;

fn put(dir: &Path, path: &str) {
    let at = dir.join(path);
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    fs::write(at, path).unwrap();
}

fn tree(paths: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    paths.iter().for_each(|p| put(dir.path(), p));
    dir
}

fn paths(scan: &Scan) -> Vec<&str> {
    scan.files.iter().map(|f| f.path.as_str()).collect()
}

#[track_caller]
fn problems(dir: &Path) -> Vec<(String, Why)> {
    match scan(dir) {
        Err(PublishError::Problems(p)) => p.into_iter().map(|p| (p.path, p.why)).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn hidden_files_are_files_and_housekeeping_is_left_out() {
    let dir = tree(&[
        ".gitattributes",
        ".git/config",
        ".cache/huggingface/x",
        "sub/.cache/y",
        "sub/.DS_Store",
        "sub/.git/x",
        "a",
    ]);
    fs::create_dir_all(dir.path().join("empty/inner")).unwrap();
    let scan = scan(dir.path()).unwrap();
    assert_eq!(paths(&scan), [".gitattributes", "a", "sub/.cache/y"]);
    assert_eq!(scan.left_out, [".cache", ".git", "sub/.DS_Store", "sub/.git"]);
    assert_eq!(scan.empty_folders, ["empty/inner"]);
}

#[test]
fn links_that_stay_inside_are_followed() {
    let dir = tree(&["blobs/one", "deep/er/two"]);
    let at = dir.path();
    symlink("../blobs/one", at.join("deep/link")).unwrap();
    symlink("deep", at.join("folder")).unwrap();
    symlink(at.join("blobs/one"), at.join("absolute")).unwrap();
    let scan = scan(at).unwrap();
    let want =
        ["absolute", "blobs/one", "deep/er/two", "deep/link", "folder/er/two", "folder/link"];
    assert_eq!(paths(&scan), want);
    assert_eq!(scan.files[3].stamp.size, "blobs/one".len() as u64);
}

#[test]
fn links_that_leave_are_named_with_their_target() {
    let outside = tree(&["secret"]);
    let dir = tree(&["a"]);
    let at = dir.path();
    let secret = fs::canonicalize(outside.path().join("secret")).unwrap();
    symlink(&secret, at.join("out")).unwrap();
    symlink(outside.path(), at.join("out_folder")).unwrap();
    symlink("nowhere", at.join("dangling")).unwrap();
    symlink("self", at.join("self")).unwrap();
    symlink(".", at.join("up")).unwrap();
    // The text of the link stays inside; its final target does not.
    symlink("out", at.join("twice")).unwrap();
    let folder = fs::canonicalize(outside.path()).unwrap();
    let want = [
        ("dangling".to_owned(), Why::Dangling { target: "nowhere".into() }),
        ("out".to_owned(), Why::Outside { target: secret.clone() }),
        ("out_folder".to_owned(), Why::Outside { target: folder }),
        ("self".to_owned(), Why::Circle),
        ("twice".to_owned(), Why::Outside { target: secret.clone() }),
        ("up".to_owned(), Why::Circle),
    ];
    assert_eq!(problems(at), want);
    let text = scan(at).unwrap_err().to_string();
    let line = format!("\n  'out' is a link that leaves the folder: it leads to {secret:?}\n");
    assert!(text.contains(&line), "{text}");
}

#[test]
fn a_cycle_of_folder_links_is_refused() {
    let dir = tree(&["a/b/c", "x/y"]);
    symlink("../../x", dir.path().join("a/b/to_x")).unwrap();
    symlink("../a", dir.path().join("x/to_a")).unwrap();
    let found = problems(dir.path());
    assert!(found.len() == 2 && found.iter().all(|p| p.1 == Why::Circle), "{found:?}");
}

#[test]
fn a_snapshot_of_a_hugging_face_cache_is_a_folder_like_others() {
    let dir = tree(&["models--o--m/blobs/abc", "models--o--m/refs/main", "elsewhere"]);
    let snapshot = dir.path().join("models--o--m/snapshots/rev1");
    fs::create_dir_all(&snapshot).unwrap();
    symlink("../../blobs/abc", snapshot.join("config.json")).unwrap();
    let found = scan(&snapshot).unwrap();
    assert_eq!(paths(&found), ["config.json"]);
    assert_eq!(fs::read_to_string(&found.files[0].real).unwrap(), "models--o--m/blobs/abc");
    symlink("../../refs/main", snapshot.join("main")).unwrap();
    symlink("../../../elsewhere", snapshot.join("other")).unwrap();
    let found = problems(&snapshot);
    assert!(found.len() == 2 && found.iter().all(|p| matches!(p.1, Why::Outside { .. })));
    // The same links are rejected under another folder name.
    let other = dir.path().join("models--o--m/elsewhere/rev1");
    fs::create_dir_all(&other).unwrap();
    symlink("../../blobs/abc", other.join("config.json")).unwrap();
    assert!(matches!(problems(&other)[0].1, Why::Outside { .. }));
}

#[test]
fn all_invalid_names_are_reported_together() {
    let dir = tree(&["a:b", "con", "new\nline", "back\\slash", "ok", ".modelfs/x", "d./x"]);
    let odd = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff");
    fs::write(dir.path().join(odd), "").unwrap();
    let found = problems(dir.path());
    let of = |why: NameError| Why::Name(why);
    let want = [
        (".modelfs".to_owned(), of(NameError::Reserved)),
        ("a:b".to_owned(), of(NameError::NotPortable)),
        ("back\\slash".to_owned(), of(NameError::Separator)),
        ("con".to_owned(), of(NameError::NotPortable)),
        ("d.".to_owned(), of(NameError::NotPortable)),
        ("new\nline".to_owned(), of(NameError::Control)),
        ("\u{fffd}".to_owned(), Why::NotUtf8),
    ];
    assert_eq!(found, want);
}

#[test]
fn names_that_collide_on_other_systems_are_refused() {
    let dir = tree(&["Model.bin", "model.bin", "A/x", "a/y", "a/z", "caf\u{e9}", "cafe\u{301}"]);
    let found = problems(dir.path());
    let clash = |path: &str, other: &str| (path.to_owned(), Why::Clash { other: other.to_owned() });
    let want =
        [clash("a", "A"), clash("caf\u{e9}", "cafe\u{301}"), clash("model.bin", "Model.bin")];
    assert_eq!(found, want);
    let dir = tree(&["stra\u{df}e", "STRASSE"]);
    assert_eq!(problems(dir.path()).len(), 1);
    assert_eq!(scan(tree(&["a/x", "b/x", "aa"]).path()).unwrap().files.len(), 3);
}

#[test]
fn special_files_and_too_deep_folders_are_refused() {
    let dir = tree(&["a"]);
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert_eq!(problems(dir.path()), [("socket".to_owned(), Why::Special)]);
    let dir = tree(&[&vec!["d"; 80].join("/")]);
    assert_eq!(problems(dir.path())[0].1, Why::Name(NameError::TooLong));
}

#[test]
fn an_empty_folder_is_refused() {
    let dir = tree(&[".git/x"]);
    assert!(matches!(scan(dir.path()), Err(PublishError::Empty(_))));
    let file = tree(&["f"]);
    assert!(matches!(scan(&file.path().join("f")), Err(PublishError::Request(_))));
    assert!(matches!(scan(&file.path().join("gone")), Err(PublishError::Io { .. })));
}
