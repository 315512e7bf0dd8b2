//! The trace of a load: the order in which a program first touched a version's bytes.
//!
//! Invariant: a parsed document has at most [`MAX_STEPS`] steps and names each file once;
//! [`TraceDoc::steps`] drops what the version does not have. A trace is a hint: correctness never depends
//! on it. Plain values.

use serde::{Deserialize, Serialize};

use super::{Digest, FilePath, Manifest};
use crate::base::FileRange;
use crate::model::FileIx;

/// Maximum number of steps: a load of 100,000 tensors with a gap between any two.
pub const MAX_STEPS: usize = 100_000;
/// Maximum size of a document: [`MAX_STEPS`] steps, and the paths of a version with that many files.
pub const MAX_DOCUMENT: usize = 8 << 20;
/// The version of the document format.
const FORM: u32 = 1;

/// A range of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The file.
    pub file: FileIx,
    /// The bytes.
    pub range: FileRange,
}

/// A stored load, which is also exchanged between machines: JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceDoc {
    /// The version of the format.
    modelfs_trace: u32,
    /// The manifest of the version.
    pub manifest: Digest,
    /// The files that were touched.
    files: Vec<FilePath>,
    /// Index of the file, offset and length; in order.
    steps: Vec<(u32, u64, u64)>,
}

/// Why a document is not a valid trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// Not JSON of this format.
    #[error("not a trace: {0}")]
    Json(String),
    /// An unknown version of the format.
    #[error("a trace of form {0}, of which this program knows only {FORM}")]
    Form(u32),
    /// Over a limit.
    #[error("a trace with too many {0}")]
    TooMany(&'static str),
    /// A step in a file that is not listed, or a file listed twice.
    #[error("a trace whose files and steps do not fit")]
    Files,
}

impl TraceDoc {
    /// The document of these steps through a version.
    pub fn new(manifest: &Manifest, steps: &[Step]) -> Self {
        let mut files = Vec::new();
        let mut places = std::collections::HashMap::new();
        let steps = steps.iter().take(MAX_STEPS).map(|step| {
            let place = *places.entry(step.file).or_insert_with(|| {
                files.push(manifest.file(step.file).path.clone());
                files.len() as u32 - 1
            });
            (place, step.range.start(), step.range.len())
        });
        let steps = steps.collect();
        Self { modelfs_trace: FORM, manifest: manifest.hash(), files, steps }
    }

    /// Parses an untrusted document.
    pub fn parse(body: &[u8]) -> Result<Self, TraceError> {
        if body.len() > MAX_DOCUMENT {
            return Err(TraceError::TooMany("bytes"));
        }
        let doc: Self = serde_json::from_slice(body)
            .map_err(|e| TraceError::Json(crate::base::text::brief(&e.to_string(), 200)))?;
        if doc.modelfs_trace != FORM {
            return Err(TraceError::Form(doc.modelfs_trace));
        }
        if doc.steps.len() > MAX_STEPS {
            return Err(TraceError::TooMany("steps"));
        }
        let different: std::collections::HashSet<_> = doc.files.iter().collect();
        let known = |step: &(u32, u64, u64)| (step.0 as usize) < doc.files.len();
        if different.len() < doc.files.len() || !doc.steps.iter().all(known) {
            return Err(TraceError::Files);
        }
        Ok(doc)
    }

    /// Serializes the document.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers and names are JSON")
    }

    /// The steps that lie in this version, cut to the length of its files.
    pub fn steps(&self, manifest: &Manifest) -> Vec<Step> {
        let by_path: std::collections::HashMap<_, _> =
            (0u32..).zip(manifest.files()).map(|(ix, f)| (&f.path, (FileIx(ix), f.len))).collect();
        let here: Vec<_> = self.files.iter().map(|path| by_path.get(path).copied()).collect();
        let step = |(place, start, len): &(u32, u64, u64)| {
            let (file, end) = here[*place as usize]?;
            let range = FileRange::at(*start, *len).intersect(&FileRange::new(0, end));
            (!range.is_empty()).then_some(Step { file, range })
        };
        self.steps.iter().filter_map(step).collect()
    }

    /// The steps as stored: path, offset, length.
    pub fn listed(&self) -> impl ExactSizeIterator<Item = (&FilePath, u64, u64)> {
        self.steps.iter().map(|(place, start, len)| (&self.files[*place as usize], *start, *len))
    }

    /// Number of files touched.
    pub fn file_count(&self) -> usize {
        self.files.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Check, ManifestBuilder, Object, Slice};

    fn manifest() -> Manifest {
        let digest = |n: u8| Digest::from_bytes([n; 32]);
        let mut builder = ManifestBuilder::new(digest(9));
        for (n, path) in [(1, "a.bin"), (2, "sub/b.bin")] {
            let object = Object::new(digest(n), 1000, Check::Whole);
            let object = builder.object(object).unwrap();
            let slice = Slice { object, range: crate::base::ObjectRange::new(0, 1000) };
            builder.file(path, None, [slice]).unwrap();
        }
        builder.build().unwrap()
    }

    fn step(file: u32, start: u64, end: u64) -> Step {
        Step { file: FileIx(file), range: FileRange::new(start, end) }
    }

    #[test]
    fn a_trace_document_round_trips() {
        let manifest = manifest();
        let steps = [step(1, 0, 10), step(0, 500, 1000), step(1, 20, 30)];
        let doc = TraceDoc::new(&manifest, &steps);
        let read = TraceDoc::parse(&doc.to_json()).unwrap();
        assert_eq!(read, doc);
        assert_eq!((read.steps(&manifest), read.file_count()), (steps.to_vec(), 2));
        assert_eq!(
            read.listed().next().map(|(f, a, n)| (f.as_str(), a, n)),
            Some(("sub/b.bin", 0, 10))
        );
    }

    #[test]
    fn steps_that_lead_out_of_the_version_are_left_out() {
        let manifest = manifest();
        let doc = format!(
            r#"{{"modelfs_trace":1,"manifest":"{}","files":["a.bin","gone.bin"],
               "steps":[[0,990,100],[1,0,5],[0,1000,1],[0,0,0],[0,{max},{max}]]}}"#,
            manifest.hash(),
            max = u64::MAX
        );
        let doc = TraceDoc::parse(doc.as_bytes()).unwrap();
        assert_eq!(doc.steps(&manifest), [step(0, 990, 1000)]);
    }

    #[test]
    fn an_invalid_trace_is_refused() {
        let parse = |files: &str, steps: &str, form: u32| {
            let digest = Digest::from_bytes([1; 32]);
            let text = format!(
                r#"{{"modelfs_trace":{form},"manifest":"{digest}","files":{files},"steps":{steps}}}"#
            );
            TraceDoc::parse(text.as_bytes()).unwrap_err()
        };
        assert_eq!(parse("[]", "[]", 7), TraceError::Form(7));
        assert_eq!(parse("[]", "[[0,0,1]]", 1), TraceError::Files);
        assert_eq!(parse(r#"["a","a"]"#, "[]", 1), TraceError::Files);
        assert!(matches!(parse(r#"["../a"]"#, "[]", 1), TraceError::Json(_)));
        assert!(matches!(parse("[]", "[[0,-1,1]]", 1), TraceError::Json(_)));
        let long = vec![b' '; MAX_DOCUMENT + 1];
        assert_eq!(TraceDoc::parse(&long).unwrap_err(), TraceError::TooMany("bytes"));
    }
}
