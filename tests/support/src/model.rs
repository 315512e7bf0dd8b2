//! Makes model trees for tests: bytes that no two seeds share, files of given sizes, safetensors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// `len` bytes that look random and are the same for the same seed.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len.next_multiple_of(8));
    fill(&mut state(seed), &mut out, len);
    out
}

/// Writes the same as [`bytes`] into a file, whatever the size.
pub fn write_bytes(path: &Path, seed: u64, len: u64) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).expect("a file can be made");
    let mut state = state(seed);
    let mut block = Vec::new();
    let mut left = len;
    while left > 0 {
        block.clear();
        // A multiple of the generator's word, so that blocks join without a seam.
        fill(&mut state, &mut block, left.min(1 << 20) as usize);
        file.write_all(&block).expect("room on the disk");
        left -= block.len() as u64;
    }
}

/// Spreads small seeds; xorshift must not start at 0.
fn state(seed: u64) -> u64 {
    seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

fn fill(x: &mut u64, out: &mut Vec<u8>, len: usize) {
    while out.len() < len {
        *x ^= *x << 13;
        *x ^= *x >> 7;
        *x ^= *x << 17;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out.truncate(len);
}

/// A safetensors file of `count` tensors of `len` bytes each (type U8).
pub fn safetensors(seed: u64, count: usize, len: usize) -> Vec<u8> {
    let tensors: serde_json::Map<String, serde_json::Value> = (0..count)
        .map(|i| {
            let at = [i * len, (i + 1) * len];
            let tensor = serde_json::json!({"dtype": "U8", "shape": [len], "data_offsets": at});
            (format!("layer.{i:04}.weight"), tensor)
        })
        .collect();
    let mut header = serde_json::to_vec(&tensors).expect("plain values");
    // The format wants the data aligned to 8 bytes, with spaces to fill up.
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header);
    out.extend(bytes(seed, count * len));
    out
}

/// A folder of files that knows what is in it. Removed when dropped.
#[derive(Debug)]
pub struct ModelDir {
    dir: tempfile::TempDir,
    files: BTreeMap<String, Vec<u8>>,
}

impl Default for ModelDir {
    fn default() -> Self {
        Self::new()
    }
}

impl ModelDir {
    /// An empty folder.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        Self { dir, files: BTreeMap::new() }
    }

    /// With files of these sizes; the content depends on path and size only.
    pub fn of(files: &[(&str, usize)]) -> Self {
        let mut out = Self::new();
        for (path, len) in files {
            let seed = path.bytes().fold(0u64, |s, b| s.wrapping_mul(31).wrapping_add(b.into()));
            out.put(path, bytes(seed, *len));
        }
        out
    }

    /// What a small language model looks like: configuration, tokenizer and two shards of `shard`
    /// bytes or a little more.
    pub fn language_model(shard: usize) -> Self {
        let mut out = Self::of(&[("tokenizer/merges.txt", 40_000), ("empty.lock", 0)]);
        out.put("config.json", &b"{\"model_type\":\"test\",\"hidden_size\":8}\n"[..]);
        for i in 1..=2u64 {
            let file = safetensors(i, 4, shard.div_ceil(4));
            out.put(&format!("model-0000{i}-of-00002.safetensors"), file);
        }
        out
    }

    /// Writes a file.
    pub fn put(&mut self, path: &str, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        let at = self.dir.path().join(path);
        std::fs::create_dir_all(at.parent().expect("within the folder")).expect("a folder");
        std::fs::write(at, &bytes).expect("a file");
        self.files.insert(path.to_owned(), bytes);
    }

    /// Removes a file.
    pub fn remove(&mut self, path: &str) {
        self.files.remove(path);
        std::fs::remove_file(self.dir.path().join(path)).expect("it was there");
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Every file's path and bytes.
    pub fn files(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.files
    }

    /// One file's bytes.
    pub fn bytes(&self, path: &str) -> &[u8] {
        &self.files[path]
    }
}

/// A registry's folder with versions published to it. Removed when dropped.
#[derive(Debug)]
pub struct TestRegistry {
    dir: tempfile::TempDir,
}

impl Default for TestRegistry {
    fn default() -> Self {
        Self::new()
    }
}

impl TestRegistry {
    /// An empty one.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder") }
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What is to be published, with everything as usual: to be changed and published.
    pub fn request(&self, version: &str, model: &ModelDir) -> modelfs::publish::PublishRequest {
        let version = version.parse().expect("group/model@version");
        modelfs::publish::PublishRequest::new(model.path(), version, self.path())
    }

    /// Publishes a model as `group/model@version` in chunks of `chunk_size` bytes.
    pub fn publish(
        &self,
        version: &str,
        model: &ModelDir,
        chunk_size: u64,
    ) -> modelfs::publish::Published {
        let request =
            modelfs::publish::PublishRequest { chunk_size, ..self.request(version, model) };
        modelfs::publish::publish(&request, &|_| ()).expect("it can be published")
    }

    /// The files of all objects.
    pub fn objects(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path().join("data")).expect("something is published");
        let mut out: Vec<_> = entries.map(|e| e.expect("an entry").path()).collect();
        out.sort();
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_the_same_bytes_as_memory() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("f");
        write_bytes(&path, 3, (2 << 20) + 5);
        assert!(std::fs::read(&path).expect("it") == bytes(3, (2 << 20) + 5));
    }

    #[test]
    fn bytes_depend_on_the_seed_and_on_nothing_else() {
        assert_eq!(bytes(1, 1000), bytes(1, 1000));
        assert_eq!(bytes(1, 1000)[..10], bytes(1, 10));
        assert_ne!(bytes(0, 16), bytes(1, 16));
        assert_ne!(bytes(1, 16), bytes(2, 16));
        let all = bytes(7, 1 << 16);
        for value in 0..=255u8 {
            let n = all.iter().filter(|b| **b == value).count();
            assert!((128..512).contains(&n), "{value}: {n} times of about 256");
        }
    }

    #[test]
    fn safetensors_say_where_their_tensors_are() {
        let file = safetensors(1, 3, 10);
        let len = u64::from_le_bytes(file[..8].try_into().expect("eight")) as usize;
        assert_eq!(len % 8, 0);
        let header: serde_json::Value = serde_json::from_slice(&file[8..8 + len]).expect("JSON");
        assert_eq!(header["layer.0002.weight"]["data_offsets"], serde_json::json!([20, 30]));
        assert_eq!(file.len(), 8 + len + 30);
    }

    #[test]
    fn a_model_is_published_as_it_is_on_disk() {
        let mut model = ModelDir::language_model(100_000);
        assert_eq!(
            std::fs::read(model.path().join("config.json")).expect("it"),
            model.bytes("config.json")
        );
        model.remove("empty.lock");
        let registry = TestRegistry::new();
        let published = registry.publish("g/m@v", &model, 65_536);
        assert_eq!(published.files, 4);
        assert_eq!(published.bytes, model.files().values().map(|b| b.len() as u64).sum::<u64>());
        assert!(registry.objects().len() > 4);
    }
}
