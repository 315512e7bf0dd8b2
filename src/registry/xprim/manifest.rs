//! The manifest document: `{ total_size, chunk_size, chunks, files }` and our extensions.
//!
//! [`ManifestDoc`] is what stands in the document; [`ManifestDoc::check`] holds every rule by which
//! it becomes a `Manifest`. Invariant: what is written can be read, and the same values are always
//! written as the same bytes, since the SHA-256 of those bytes is the version's identity.
//! Pure functions and plain values.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::MAX_MANIFEST;
use crate::base::ObjectRange;
use crate::model::{
    Check, Digest, HashAlgorithm, MAX_FILES, MAX_OBJECTS, Manifest, ManifestBuilder, ManifestError,
    Object, ObjectIx, Slice,
};
use crate::registry::error::RegistryError;

/// A file as the manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDoc {
    /// Its path within the version.
    pub path: String,
    /// Its bytes.
    pub size: u64,
    /// Extension: the SHA-256 of its bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<Digest>,
}

/// What stands in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct ManifestDoc {
    /// The bytes of all files together.
    pub total_size: u64,
    /// The bytes of each chunk but the last; with `chunk_sizes`, the maximum of them.
    pub chunk_size: u64,
    /// The SHA-256 of each chunk.
    pub chunks: Vec<Digest>,
    /// The files, in the order of the stream.
    pub files: Vec<FileDoc>,
    /// Extension: the bytes of each chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunk_sizes: Option<Vec<u64>>,
    /// Extension: the bytes of each leaf of a chunk but its last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaf_size: Option<u64>,
    /// Extension: what leaves are hashed with; absent: SHA-256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaf_digest: Option<HashAlgorithm>,
    /// Extension: the SHA-256 of each chunk's leaf list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaves: Option<Vec<Digest>>,
}

/// Reads a manifest whose SHA-256 is `hash`.
pub fn parse(hash: Digest, body: &[u8]) -> Result<Manifest, RegistryError> {
    let wrong = |e: ManifestError| RegistryError::manifest(&hash, &e);
    ManifestDoc::read(body).and_then(|doc| doc.check(hash)).map_err(wrong)
}

impl ManifestDoc {
    /// Reads the document; the rules between its fields are [`ManifestDoc::check`]'s.
    pub fn read(body: &[u8]) -> Result<Self, ManifestError> {
        if body.len() as u64 > MAX_MANIFEST {
            let why = format!("more than {MAX_MANIFEST} bytes");
            return Err(ManifestError::field("document", why));
        }
        serde_json::from_slice(body).map_err(|e| ManifestError::field("document", e.to_string()))
    }

    /// The document: fields in the order above, no spaces. Always the same for the same values.
    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers, strings and lists can always be written")
    }

    /// Checks everything and makes it a manifest.
    pub fn check(&self, hash: Digest) -> Result<Manifest, ManifestError> {
        let bad = |field: &str, why: String| Err(ManifestError::field(field, why));
        if self.chunk_size == 0 {
            return bad("chunk_size", "is 0".into());
        }
        let sum = self.files.iter().try_fold(0u64, |sum, f| sum.checked_add(f.size));
        if sum != Some(self.total_size) {
            let sum = sum.map_or("more than can be counted".into(), |s| s.to_string());
            return bad(
                "total_size",
                format!("{} but the files' sizes add up to {sum}", self.total_size),
            );
        }
        let mut builder = ManifestBuilder::new(hash);
        let objects = self.objects(&mut builder)?;
        self.slices(&mut builder, &objects)?;
        builder.build()
    }

    /// How long each chunk is.
    fn lengths(&self) -> Result<Vec<u64>, ManifestError> {
        let bad = |field: &str, why: String| Err(ManifestError::field(field, why));
        let chunks = self.chunks.len();
        let Some(sizes) = &self.chunk_sizes else {
            let want = self.total_size.div_ceil(self.chunk_size);
            if want != chunks as u64 {
                return bad(
                    "chunks",
                    format!(
                        "{chunks} of them, but {} bytes in chunks of {} are {want}",
                        self.total_size, self.chunk_size
                    ),
                );
            }
            let last = self.total_size - self.chunk_size * want.saturating_sub(1);
            let length = |i| if i + 1 == chunks { last } else { self.chunk_size };
            return Ok((0..chunks).map(length).collect());
        };
        if sizes.len() != chunks {
            return bad("chunk_sizes", format!("{} of them for {chunks} chunks", sizes.len()));
        }
        if let Some(i) = sizes.iter().position(|size| *size == 0) {
            return bad(&format!("chunk_sizes[{i}]"), "is 0".into());
        }
        let sum = sizes.iter().try_fold(0u64, |sum, size| sum.checked_add(*size));
        if sum != Some(self.total_size) {
            return bad("chunk_sizes", format!("do not add up to total_size {}", self.total_size));
        }
        Ok(sizes.clone())
    }

    /// Adds the chunks; returns where in the stream each begins, and the stream's end.
    fn objects(&self, builder: &mut ManifestBuilder) -> Result<Vec<u64>, ManifestError> {
        let bad = |field: &str, why: String| Err(ManifestError::field(field, why));
        let lengths = self.lengths()?;
        let check = match (&self.leaves, self.leaf_size) {
            (None, None) => None,
            (Some(_), None) => return bad("leaf_size", "is missing beside leaves".into()),
            (None, Some(_)) => return bad("leaves", "are missing beside leaf_size".into()),
            (Some(leaves), Some(size)) if leaves.len() == lengths.len() => Some((leaves, size)),
            (Some(leaves), _) => {
                return bad(
                    "leaves",
                    format!("{} of them for {} chunks", leaves.len(), lengths.len()),
                );
            }
        };
        let digest = self.leaf_digest.unwrap_or(HashAlgorithm::Sha256);
        let mut seen: HashMap<Digest, usize> = HashMap::with_capacity(lengths.len());
        let mut starts = Vec::with_capacity(lengths.len() + 1);
        starts.push(0);
        let mut at = 0u64;
        for (i, (&name, &len)) in self.chunks.iter().zip(&lengths).enumerate() {
            let first = *seen.entry(name).or_insert(i);
            if lengths[first] != len || check.is_some_and(|(l, _)| l[first] != l[i]) {
                return bad(&format!("chunks[{i}]"), format!("contradicts chunks[{first}]"));
            }
            let check = match check {
                Some((leaves, size)) => Check::Leaves { size, digest, list: leaves[i] },
                None => Check::Whole,
            };
            builder.object(Object::new(name, len, check))?;
            // `lengths` add up to total_size without overflow.
            at += len;
            starts.push(at);
        }
        Ok(starts)
    }

    fn slices(&self, builder: &mut ManifestBuilder, starts: &[u64]) -> Result<(), ManifestError> {
        let mut at = 0u64;
        let mut chunk = 0usize;
        for file in &self.files {
            let end = at + file.size;
            let mut slices = Vec::new();
            while at < end {
                // The chunks and the files add up to the same, so there is a chunk at every byte.
                let (start, stop) = (starts[chunk], starts[chunk + 1]);
                let upto = end.min(stop);
                let range = ObjectRange::new(at - start, upto - start);
                slices.push(Slice { object: ObjectIx(chunk as u32), range });
                at = upto;
                if at == stop {
                    chunk += 1;
                }
            }
            builder.file(&file.path, file.sha256, slices)?;
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for ManifestDoc {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(Doc)
    }
}

struct Doc;

impl<'de> Visitor<'de> for Doc {
    type Value = ManifestDoc;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a manifest object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ManifestDoc, A::Error> {
        fn set<T, E: serde::de::Error>(
            slot: &mut Option<T>,
            key: &str,
            value: Result<T, E>,
        ) -> Result<(), E> {
            let value = value.map_err(|e| E::custom(format!("{key}: {e}")))?;
            match slot.replace(value) {
                None => Ok(()),
                Some(_) => Err(E::custom(format!("{key} occurs twice"))),
            }
        }
        let (mut total_size, mut chunk_size, mut chunks, mut files) = (None, None, None, None);
        let (mut chunk_sizes, mut leaf_size, mut leaf_digest) = (None, None, None);
        let mut leaves = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "total_size" => set(&mut total_size, &key, map.next_value())?,
                "chunk_size" => set(&mut chunk_size, &key, map.next_value())?,
                "chunks" => set(&mut chunks, &key, map.next_value_seed(CHUNKS))?,
                "files" => set(&mut files, &key, map.next_value_seed(FILES))?,
                "chunk_sizes" => set(&mut chunk_sizes, &key, map.next_value_seed(CHUNK_SIZES))?,
                "leaves" => set(&mut leaves, &key, map.next_value_seed(LEAVES))?,
                "leaf_size" => set(&mut leaf_size, &key, map.next_value())?,
                "leaf_digest" => set(&mut leaf_digest, &key, map.next_value())?,
                _ => drop(map.next_value::<serde::de::IgnoredAny>()?),
            }
        }
        let missing = A::Error::missing_field;
        Ok(ManifestDoc {
            total_size: total_size.ok_or_else(|| missing("total_size"))?,
            chunk_size: chunk_size.ok_or_else(|| missing("chunk_size"))?,
            chunks: chunks.ok_or_else(|| missing("chunks"))?,
            files: files.ok_or_else(|| missing("files"))?,
            chunk_sizes,
            leaf_size,
            leaf_digest,
            leaves,
        })
    }
}

/// A list whose errors say which item is wrong. It is read no further than it may be long: in
/// memory an item can take many times what it takes in the document.
struct List<T> {
    field: &'static str,
    most: usize,
    items: PhantomData<T>,
}

const FILES: List<FileDoc> = List::new("files", MAX_FILES);
const CHUNKS: List<Digest> = List::new("chunks", MAX_OBJECTS);
const CHUNK_SIZES: List<u64> = List::new("chunk_sizes", MAX_OBJECTS);
const LEAVES: List<Digest> = List::new("leaves", MAX_OBJECTS);

impl<T> List<T> {
    const fn new(field: &'static str, most: usize) -> Self {
        Self { field, most, items: PhantomData }
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for List<T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Vec<T>, D::Error> {
        d.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut out = Vec::new();
        loop {
            match seq.next_element() {
                Ok(Some(_)) if out.len() == self.most => {
                    let (field, most) = (self.field, self.most);
                    return Err(A::Error::custom(format!("{field}: more than {most} of them")));
                }
                Ok(Some(item)) => out.push(item),
                Ok(None) => return Ok(out),
                Err(e) => {
                    let (field, at) = (self.field, out.len());
                    return Err(A::Error::custom(format!("{field}[{at}]: {e}")));
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
