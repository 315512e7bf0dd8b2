//! Which files of a sharded model are fetched ahead when one of them is read for the first time. Pure.
//!
//! A file that can be verified only as a whole makes its reader wait for all of it; the next ones come
//! meanwhile. The order of their paths is the order of the model's index. Other files are read in part, so
//! nothing is fetched ahead of them here.

use crate::model::{Check, File, FileIx, Manifest};

/// Number of files that are fetched ahead of one that is read: enough that a program that loads one after
/// another finds the next one here, without dividing the line among all.
const SHARDS: usize = 2;
/// The share of the cache that they may take: what they push out may be needed, and they may not.
const SHARE: u64 = 4;

/// The files to fetch when `file` is read for the first time, in a cache with this much room for data.
pub fn next_shards(manifest: &Manifest, file: FileIx, room: u64) -> Vec<FileIx> {
    if !is_whole_large(manifest, file) {
        return Vec::new();
    }
    let kind = kind(manifest.file(file));
    let all = (0u32..).map(FileIx).zip(manifest.files());
    let mut shards: Vec<_> = all
        .filter(|(ix, other)| self::kind(other) == kind && is_whole_large(manifest, *ix))
        .collect();
    shards.sort_by(|(_, a), (_, b)| a.path.as_str().cmp(b.path.as_str()));
    let mut left = room / SHARE;
    let after = shards.into_iter().skip_while(|(ix, _)| *ix != file).skip(1).take(SHARDS);
    let fits = after.take_while(|(_, file)| {
        let fits = file.len <= left;
        left = left.saturating_sub(file.len);
        fits
    });
    fits.map(|(ix, _)| ix).collect()
}

fn is_whole_large(manifest: &Manifest, file: FileIx) -> bool {
    let mut slices = manifest.slices(file).iter();
    slices.any(|slice| manifest.object(slice.object).check == Check::WholeLarge)
}

/// Folder and extension: what the shards of one model have in common.
fn kind(file: &File) -> (&str, &str) {
    let path = file.path.as_str();
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    (folder, name.rsplit_once('.').map_or("", |(_, extension)| extension))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ObjectRange;
    use crate::model::{Digest, MAX_LEAF, ManifestBuilder, Object, Slice};

    const LEN: u64 = MAX_LEAF + 1;

    /// The shards that are fetched when the one at `path` is read.
    fn after(files: &[(&str, u64)], path: &str, room: u64) -> Vec<String> {
        let mut builder = ManifestBuilder::new(Digest::from_bytes([9; 32]));
        for (n, (path, len)) in files.iter().enumerate() {
            let object =
                Object::new(Digest::from_bytes([n as u8; 32]), *len, Check::of_whole(*len));
            let object = builder.object(object).unwrap();
            builder.file(path, None, [Slice { object, range: ObjectRange::new(0, *len) }]).unwrap();
        }
        let manifest = builder.build().unwrap();
        let ix = manifest.files().iter().position(|f| f.path.as_str() == path).unwrap();
        let found = next_shards(&manifest, FileIx(ix as u32), room);
        found.into_iter().map(|ix| manifest.file(ix).path.as_str().to_owned()).collect()
    }

    const MODEL: [(&str, u64); 7] = [
        ("m-3.safetensors", LEN),
        ("m-1.safetensors", LEN),
        ("m-4.safetensors", LEN),
        ("m-2.safetensors", LEN),
        ("config.json", 10),
        ("m-2.bin", LEN),
        ("onnx/m-2.safetensors", LEN),
    ];

    #[test]
    fn the_next_two_shards_follow_in_the_order_of_their_paths() {
        let after = |path| after(&MODEL, path, 1 << 40);
        assert_eq!(after("m-1.safetensors"), ["m-2.safetensors", "m-3.safetensors"]);
        assert_eq!(after("m-3.safetensors"), ["m-4.safetensors"]);
        for last in ["m-4.safetensors", "m-2.bin", "onnx/m-2.safetensors", "config.json"] {
            assert!(after(last).is_empty(), "{last}");
        }
    }

    #[test]
    fn files_that_are_read_in_part_bring_no_others_and_are_not_brought() {
        let files = [("1.bin", LEN), ("2.bin", 10), ("3.bin", LEN)];
        assert_eq!(after(&files, "1.bin", 1 << 40), ["3.bin"]);
        assert!(after(&files, "2.bin", 1 << 40).is_empty());
    }

    #[test]
    fn they_take_a_quarter_of_the_cache_at_most() {
        let after = |room| after(&MODEL, "m-1.safetensors", room).len();
        assert_eq!(
            [after(4 * LEN - 1), after(4 * LEN), after(8 * LEN - 1), after(8 * LEN)],
            [0, 1, 1, 2]
        );
    }
}
