//! What modelfs puts into every version.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::walk::tree;

/// `.modelfs/manifest.json`: there for those who know its name.
pub fn the_manifest_opens_but_is_not_listed(plain: &Path, mounted: &Path) {
    let (folder, file) = (mounted.join(".modelfs"), mounted.join(".modelfs/manifest.json"));
    assert!(!tree(mounted).keys().any(|p| p.starts_with(".modelfs")));
    let body = std::fs::read(&file).expect("it opens");
    let found = file.metadata().expect("stat");
    assert_eq!((found.len(), found.mode() & 0o7777), (body.len() as u64, 0o644));
    let manifest: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert!(manifest.is_object());
    let listed: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder itself can be listed")
        .map(|e| e.expect("an entry").file_name())
        .collect();
    assert_eq!(listed, ["manifest.json"]);
    assert!(folder.join("other").symlink_metadata().is_err());
    for below in tree(plain).into_iter().filter(|(_, len)| len.is_none()).map(|(path, _)| path) {
        assert!(mounted.join(below).join(".modelfs").symlink_metadata().is_err());
    }
}
