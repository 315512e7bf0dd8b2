//! `trees/<commit>.json`: what the Hugging Face cache remembers of a commit's files. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::hash::{git_blob, lfs_pointer};
use crate::model::{Check, Digest, FileIx, Manifest};

/// The version of the document's form.
const FORMAT: u32 = 1;
/// Bytes of a git id.
const GIT_ID: usize = 20;

#[derive(Serialize)]
struct TreeDocument<'a> {
    format_version: u32,
    files: BTreeMap<&'a str, FileEntry>,
}

#[derive(Serialize)]
struct FileEntry {
    size: u64,
    blob_id: String,
    #[serde(flatten)]
    lfs: Option<LfsEntry>,
}

#[derive(Serialize)]
struct LfsEntry {
    lfs_sha256: Digest,
    lfs_size: u64,
}

/// The document of a version.
pub fn write(manifest: &Manifest) -> Vec<u8> {
    let files = (0u32..).map(FileIx).zip(manifest.files());
    let files = files.map(|(ix, file)| {
        let lfs = file.sha256.map(|lfs_sha256| LfsEntry { lfs_sha256, lfs_size: file.len });
        (file.path.as_str(), FileEntry { size: file.len, blob_id: blob_id(manifest, ix), lfs })
    });
    let document = TreeDocument { format_version: FORMAT, files: files.collect() };
    serde_json::to_vec(&document).expect("maps with text keys have a JSON form")
}

/// The id of a file's git blob. Where that is not known, of the file's content: programs compare it only.
pub fn blob_id(manifest: &Manifest, ix: FileIx) -> String {
    let file = manifest.file(ix);
    if let Some(sha256) = &file.sha256 {
        return git_blob(lfs_pointer(sha256, file.len).as_bytes()).to_string();
    }
    if file.len == 0 {
        return git_blob(b"").to_string();
    }
    let digest = match manifest.slices(ix) {
        [one] if manifest.object(one.object).check == Check::GitBlob => {
            manifest.object(one.object).digest
        }
        _ => *manifest.layout(ix).key().digest(),
    };
    let mut text = digest.to_string();
    text.truncate(2 * GIT_ID);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ObjectRange;
    use crate::model::hash::sha256;
    use crate::model::{ManifestBuilder, Object, Slice};

    #[test]
    fn a_document_has_sizes_and_ids_as_the_hub_gives_them() {
        let mut b = ManifestBuilder::new(Digest::from_bytes([0; 32]));
        let whole = |object, len| Slice { object, range: ObjectRange::new(0, len) };
        let small = b.object(Object::git_blob(git_blob(b"{}"), 2, "x".into())).unwrap();
        let large = b.object(Object::new(sha256(b"weights"), 7, Check::Whole)).unwrap();
        b.file("config.json", None, [whole(small, 2)]).unwrap();
        b.file("a/model.bin", Some(sha256(b"weights")), [whole(large, 7)]).unwrap();
        b.file("empty", None, []).unwrap();
        let document: serde_json::Value =
            serde_json::from_slice(&write(&b.build().unwrap())).unwrap();
        let pointer = lfs_pointer(&sha256(b"weights"), 7);
        assert_eq!(
            document,
            serde_json::json!({"format_version": 1, "files": {
                "config.json": {"size": 2, "blob_id": git_blob(b"{}").to_string()},
                "empty": {"size": 0, "blob_id": git_blob(b"").to_string()},
                "a/model.bin": {
                    "size": 7,
                    "blob_id": git_blob(pointer.as_bytes()).to_string(),
                    "lfs_sha256": sha256(b"weights").to_string(),
                    "lfs_size": 7,
                },
            }})
        );
    }
}
