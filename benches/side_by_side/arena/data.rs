//! Models, as plain folders and published, and a catalog of many; each made when first asked for.
//!
//! Invariant: what was made does not change, so that a baseline and a mount hold the same bytes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use modelfs::model::hash::sha256;
use modelfs_test_support::{bytes, safetensors, write_bytes};
use serde_json::{Value, json};

/// The group that all models are in.
const GROUP: &str = "bench";
/// Tensors of a shard whose headers are read: some hundred, as in a large model's shards.
const TENSORS: usize = 300;

/// A published version and the folder that it was made of.
pub struct Model {
    /// `bench/name/version`, as it stands below a mount point.
    pub place: String,
    /// The plain files.
    pub folder: PathBuf,
    /// The names of the files, in order.
    pub files: Vec<String>,
    /// All of their bytes.
    pub bytes: u64,
    /// The paths of its chunks in the registry, in order.
    pub chunks: Vec<PathBuf>,
}

impl Model {
    /// The plain files' paths.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.files.iter().map(|f| self.folder.join(f)).collect()
    }

    /// Where the plain files are below what the server serves.
    pub fn served(&self) -> String {
        format!("source/{}", self.folder.file_name().expect("a name").to_string_lossy())
    }
}

/// All models by place.
pub struct Models {
    served: PathBuf,
    modelfs: PathBuf,
    made: RefCell<HashMap<String, Rc<Model>>>,
}

impl Models {
    pub fn new(root: &Path) -> Self {
        let (served, modelfs) = (root.join("served"), root.join("bin/modelfs"));
        Self { served, modelfs, made: RefCell::default() }
    }

    fn get(&self, name: &str, version: &str, more: &[&str], fill: impl FnOnce(&Path)) -> Rc<Model> {
        let place = format!("{GROUP}/{name}/{version}");
        if let Some(made) = self.made.borrow().get(&place) {
            return made.clone();
        }
        let folder = self.served.join("source").join(name);
        if !folder.exists() {
            eprintln!("making {name}");
            fs::create_dir_all(&folder).expect("own folder");
            fill(&folder);
        }
        let status = Command::new(&self.modelfs)
            .args(["publish", "--quiet"])
            .arg(&folder)
            .args([&format!("{GROUP}/{name}"), version, "--registry"])
            .arg(self.served.join("registry"))
            .args(more)
            .status();
        assert!(status.is_ok_and(|s| s.success()), "publish {place}");
        let model = Rc::new(self.look(name, version, place.clone(), folder));
        self.made.borrow_mut().insert(place, model.clone());
        model
    }

    fn look(&self, name: &str, version: &str, place: String, folder: PathBuf) -> Model {
        let registry = self.served.join("registry");
        let read = |path: PathBuf| -> Value {
            serde_json::from_slice(&fs::read(path).expect("published")).expect("JSON")
        };
        let catalog = read(registry.join("models.json"));
        let hash = catalog[GROUP][name][version]["hash"].as_str().expect("a hash");
        let manifest = read(registry.join("data").join(hash));
        let chunks = manifest["chunks"].as_array().expect("a list").iter();
        let chunks = chunks.map(|c| registry.join("data").join(c.as_str().expect("a digest")));
        let files = manifest["files"].as_array().expect("a list").iter();
        Model {
            place,
            folder,
            chunks: chunks.collect(),
            files: files.map(|f| f["path"].as_str().expect("a path").to_owned()).collect(),
            bytes: manifest["total_size"].as_u64().expect("a number"),
        }
    }

    /// One file of so many bytes; with BLAKE3 leaves, as `publish` makes them.
    pub fn one(&self, size: u64) -> Rc<Model> {
        self.get(&format!("one-{}", size >> 20), "leaves", &[], |at| {
            write_bytes(&at.join("model.safetensors"), size, size);
        })
    }

    /// The same bytes without leaves: only the SHA-256 of chunks.
    pub fn one_plain(&self, size: u64) -> Rc<Model> {
        self.one(size);
        let more = ["--leaf-size", "none"];
        self.get(&format!("one-{}", size >> 20), "plain", &more, |_| unreachable!("it is made"))
    }

    /// Shards of so many bytes with tensors of 4 MiB.
    pub fn sharded(&self, shards: usize, bytes: u64) -> Rc<Model> {
        self.get("sharded", "v1", &[], |at| {
            let tensors = (bytes >> 22) as usize;
            shards_into(at, shards, |seed| safetensors(seed, tensors, 4 << 20));
        })
    }

    /// Many shards of so many bytes with some hundred tensors each.
    pub fn headers(&self, shards: usize, bytes: u64) -> Rc<Model> {
        self.get("headers", "v1", &[], |at| {
            let len = bytes as usize / TENSORS / 64 * 64;
            shards_into(at, shards, |seed| safetensors(1000 + seed, TENSORS, len));
        })
    }
}

fn shards_into(at: &Path, shards: usize, shard: impl Fn(u64) -> Vec<u8>) {
    for n in 1..=shards {
        let name = format!("model-{n:05}-of-{shards:05}.safetensors");
        fs::write(at.join(name), shard(n as u64)).expect("room on the disk");
    }
}

/// Files of each of a catalog's models.
const FILES_EACH: usize = 10;
const FILE_BYTES: usize = 16;

/// A registry of many small models, and the same as plain folders.
pub struct Catalog {
    /// The plain folders.
    pub folder: PathBuf,
    /// Where the registry is below what the server serves.
    pub served: &'static str,
    /// Files in all.
    pub files: usize,
}

impl Catalog {
    /// Writes the documents directly: ten thousand times `publish` would sync as often.
    pub fn make(root: &Path, models: usize) -> Self {
        eprintln!("making a catalog of {models} models");
        let served = "catalog";
        let (folder, registry) = (root.join("many"), root.join("served").join(served));
        let data = registry.join("data");
        fs::create_dir_all(&data).expect("own folder");
        let body = bytes(1, FILES_EACH * FILE_BYTES);
        let chunk = sha256(&body).to_string();
        fs::write(data.join(&chunk), &body).expect("own folder");
        let mut catalog = serde_json::Map::new();
        for n in 0..models {
            let name = format!("model-{n:05}");
            let native = folder.join(GROUP).join(&name).join("v1");
            fs::create_dir_all(&native).expect("own folder");
            let names: Vec<_> = (0..FILES_EACH).map(|f| format!("{name}-{f}.bin")).collect();
            for (file, bytes) in names.iter().zip(body.chunks(FILE_BYTES)) {
                fs::write(native.join(file), bytes).expect("own folder");
            }
            let files: Vec<_> =
                names.iter().map(|f| json!({"path": f, "size": FILE_BYTES})).collect();
            let manifest = json!({"total_size": body.len(), "chunk_size": body.len(),
                "chunks": [chunk], "files": files});
            let manifest = manifest.to_string();
            let hash = sha256(manifest.as_bytes()).to_string();
            fs::write(data.join(&hash), manifest).expect("own folder");
            catalog.insert(name, json!({"v1": {"hash": hash}}));
        }
        let catalog = json!({GROUP: catalog}).to_string();
        fs::write(registry.join("models.json"), catalog).expect("own folder");
        Self { folder, served, files: models * FILES_EACH }
    }
}
