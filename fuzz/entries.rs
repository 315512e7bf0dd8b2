//! What is done with hostile bytes: one function for each kind of document that somebody else
//! writes.
//!
//! Shared by the fuzz targets beside and, by path, by the test that runs every file of `corpus/`
//! through the same functions. Invariant: each of them returns for any bytes at all, or panics
//! because a promise is broken: what is refused is refused in one short line, what is accepted
//! keeps the format's rules, and what is written is read back as the same. Pure functions.

use std::collections::HashSet;
use std::fmt::Display;
use std::time::Instant;

use modelfs::base::FileRange;
use modelfs::base::units::{ByteSize, parse_duration};
use modelfs::config::{self, Config, Level};
use modelfs::manager::Ref;
use modelfs::model::hash::sha256;
use modelfs::model::tensors::{self, Header};
use modelfs::model::trace::TraceDoc;
use modelfs::model::{
    BlobLayout, FileIx, FilePath, MAX_TOTAL, Manifest, Name, PartIx, SegmentIx, VersionRef,
};
use modelfs::registry::xprim::{self, Entry, ManifestDoc};
use modelfs::store::Holder;
use modelfs_mountd::control::routes::{self, Route, Visitor};

/// A function that takes any bytes.
pub type Entrance = fn(&[u8]);

/// All of them, by the name of their target and corpus.
pub const TARGETS: [(&str, Entrance); 12] = [
    ("catalog", catalog),
    ("manifest", manifest),
    ("leaf_list", leaf_list),
    ("control", control),
    ("reference", reference),
    ("units", units),
    ("blob_layout", blob_layout),
    ("lock_file", lock_file),
    ("safetensors", safetensors),
    ("gguf", gguf),
    ("trace", trace),
    ("config", config),
];

/// The longest refusal that fits a log line, whatever was refused.
const LINE: usize = 600;

/// More parts than this are counted, not looked at one by one.
const LOOKED_AT: u32 = 1 << 12;

fn one_short_line(error: &impl Display) {
    let text = error.to_string();
    let length = text.chars().count();
    assert!(length <= LINE, "{length} characters of error");
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

/// The first bytes of a weights file, of which there is more: whatever is asked for comes.
fn weights(first: &[u8], len: u64) {
    for have in [4, 16, first.len() / 2, first.len()] {
        let have = &first[..have.min(first.len())];
        match tensors::header(have, len) {
            Header::Needs(more) => {
                assert!(more > have.len() as u64 && more <= len.min(tensors::MAX_HEADER));
            }
            Header::Known(map) => {
                let mut end = 0;
                for extent in map.extents() {
                    assert!(!extent.is_empty() && extent.start() >= end && extent.end() <= len);
                    assert_eq!(map.begun_in(FileRange::at(extent.end(), 0)), None);
                    end = extent.end();
                }
            }
            Header::Unknown => {}
        }
    }
}

/// A safetensors file: the length of its header is the fuzzer's, or right.
pub fn safetensors(data: &[u8]) {
    weights(data, data.len() as u64 * 4);
    let whole = [&(data.len() as u64).to_le_bytes()[..], data].concat();
    weights(&whole, 1 << 30);
}

/// A GGUF file.
pub fn gguf(data: &[u8]) {
    weights(data, u64::MAX);
    weights(&[&b"GGUF\x03\0\0\0"[..], data].concat(), 1 << 30);
}

/// A recorded load from another machine.
pub fn trace(data: &[u8]) {
    let doc = match TraceDoc::parse(data) {
        Ok(doc) => doc,
        Err(error) => return one_short_line(&error),
    };
    assert_eq!(TraceDoc::parse(&doc.to_json()).as_ref(), Ok(&doc), "what is written is read back");
    // Of a version with none of its files: nothing of it is followed.
    let empty = modelfs::model::ManifestBuilder::new(doc.manifest).build().expect("no files");
    assert!(doc.steps(&empty).is_empty());
    for (file, _, _) in doc.listed() {
        assert_eq!(FilePath::new(file.as_str()).as_ref(), Ok(file));
    }
}

/// `models.json`.
pub fn catalog(data: &[u8]) {
    let found = match xprim::parse_catalog(data) {
        Ok(found) => found,
        Err(error) => return one_short_line(&error),
    };
    assert_eq!(found.iter().count(), found.len());
    let mut before = None;
    for (group, model, entry) in found.iter() {
        for name in [group, model, &entry.name].into_iter().chain(&entry.alias_of) {
            assert_eq!(Name::new(name.as_str()).as_ref(), Ok(name));
        }
        let at = Some((group, model, &entry.name));
        assert!(before < at, "in order, and nothing twice");
        before = at;
        let same = found.version(group.as_str(), model.as_str(), entry.name.as_str());
        assert_eq!(same, Some(entry));
    }
    // Publishing into it changes one entry and nothing else.
    let version: VersionRef = "fuzz/fuzz@fuzz".parse().expect("a reference");
    let entry = Entry { hash: sha256(data), alias_of: None, metadata: Default::default() };
    let Ok(written) = xprim::with_entry(Some(data), &version, &entry) else { return };
    let again = xprim::parse_catalog(&written).expect("what is written can be read");
    assert_eq!(again.find(&version).and_then(|e| e.hash()), Some(entry.hash));
    let others = |c: &modelfs::model::Catalog| -> Vec<_> {
        let all = c.iter().map(|(g, m, v)| (g.clone(), m.clone(), v.clone()));
        all.filter(|(g, m, v)| [g, m, &v.name].iter().any(|n| n.as_str() != "fuzz")).collect()
    };
    assert_eq!(others(&again), others(&found));
    let twice = xprim::with_entry(Some(&written), &version, &entry);
    assert!(twice.is_ok_and(|twice| twice == written), "the same again is the same");
}

/// A manifest.
pub fn manifest(data: &[u8]) {
    let hash = sha256(data);
    if let Err(error) = xprim::parse_manifest(hash, data) {
        one_short_line(&error);
    }
    let Ok(doc) = ManifestDoc::read(data) else { return };
    let again = ManifestDoc::read(&doc.write());
    assert_eq!(again.as_ref(), Ok(&doc), "what is written is read back");
    let Ok(found) = doc.check(hash) else { return };
    assert_eq!(found.files().len(), doc.files.len());
    assert_eq!(found.total(), doc.total_size);
    assert!(found.total() <= MAX_TOTAL);
    assert_eq!(found.files().iter().map(|f| f.len).sum::<u64>(), found.total());
    assert_eq!(found.objects().iter().map(|o| o.len).sum::<u64>(), found.total());
    let mut paths = HashSet::new();
    for (at, file) in found.files().iter().enumerate() {
        let path = file.path.as_str();
        assert_eq!(FilePath::new(path).as_ref(), Ok(&file.path));
        assert!(paths.insert(path), "{path:?} twice");
        assert_eq!(path, doc.files[at].path);
    }
    for path in &paths {
        let folders = path.match_indices('/').map(|(end, _)| &path[..end]);
        assert!(!folders.into_iter().any(|f| paths.contains(f)), "{path:?} lies in a file");
    }
    slices(&found);
}

/// The slices of the files are the objects, one after another, each byte once.
fn slices(found: &Manifest) {
    let starts: Vec<u64> =
        found.objects().iter().scan(0, |at, o| Some(std::mem::replace(at, *at + o.len))).collect();
    let mut at = 0;
    for ix in (0..found.files().len() as u32).map(FileIx) {
        let file = at;
        for slice in found.slices(ix) {
            assert!(slice.range.end() <= found.object(slice.object).len);
            assert_eq!(starts[slice.object.0 as usize] + slice.range.start(), at);
            at += slice.range.len();
        }
        assert_eq!(at - file, found.file(ix).len);
        let layout = found.layout(ix);
        assert_eq!(layout.len(), found.file(ix).len);
        looked_over(&layout);
    }
    assert_eq!(at, found.total());
}

/// Parts and segments cover the file without gap or overlap.
fn looked_over(layout: &BlobLayout) {
    let again = BlobLayout::decode(&layout.encode()).expect("what is written can be read");
    assert_eq!(again.key(), layout.key());
    assert_eq!(again.part_count(), layout.part_count());
    let many = layout.part_count() > LOOKED_AT;
    let count = layout.part_count().min(LOOKED_AT);
    let mut at = 0;
    for ix in (0..count).map(PartIx) {
        let part = layout.part(ix);
        assert_eq!(part.file.start(), at);
        assert!(!part.file.is_empty() && part.leaf_range.contains(&part.object));
        assert_eq!(layout.part_at(at), ix);
        assert!(layout.parts_of_leaf(part.piece, part.leaf).iter().any(|of_leaf| of_leaf == ix));
        let segment = layout.parts_of_segment(layout.segment_of(ix));
        assert!((segment.start..segment.end).contains(&ix.0));
        at = part.file.end();
    }
    assert!(many || at == layout.len());
    if let Some(last) = layout.part_count().checked_sub(1) {
        let part = layout.part(PartIx(last));
        assert_eq!(part.file.end(), layout.len());
        assert_eq!(layout.part_at(layout.len() - 1), PartIx(last));
        let end = layout.parts_of_segment(SegmentIx(layout.segment_count() - 1)).end;
        assert_eq!(end, layout.part_count());
        let all = layout.parts_in(FileRange::new(0, u64::MAX));
        assert_eq!(all, layout.all_parts());
    }
}

/// A leaf list; the first byte says how many leaves were asked for.
pub fn leaf_list(data: &[u8]) {
    let Some((leaves, list)) = data.split_first() else { return };
    match xprim::parse_leaves(&sha256(list), list, (*leaves).into()) {
        Ok(found) => {
            assert_eq!(found.len(), usize::from(*leaves));
            let written: Vec<u8> = found.iter().flat_map(|d| *d.as_bytes()).collect();
            assert_eq!(written, list);
        }
        Err(error) => {
            one_short_line(&error);
            assert_ne!(list.len(), usize::from(*leaves) * 32);
        }
    }
    for leaves in [u64::MAX, u64::MAX / 32 + 1, list.len() as u64] {
        let found = xprim::parse_leaves(&sha256(list), list, leaves);
        assert!(found.is_err() || list.is_empty());
    }
}

/// A control request: its path on the first line, its body after that.
pub fn control(data: &[u8]) {
    struct Request<'a> {
        path: &'a str,
        body: &'a [u8],
    }
    impl Visitor for Request<'_> {
        fn visit<R: Route>(&mut self) {
            if R::PATH == self.path {
                requested::<R>(self.body);
            }
        }
    }
    let end = data.iter().position(|b| *b == b'\n').unwrap_or(data.len());
    let body = data.get(end + 1..).unwrap_or_default();
    let path = std::str::from_utf8(&data[..end]).unwrap_or_default();
    routes::visit_all(&mut Request { path, body });
}

fn requested<R: Route>(body: &[u8]) {
    let request: R = match routes::parse(body) {
        Ok(request) => request,
        Err(failure) => {
            assert_eq!(failure.exit_code, 2);
            return one_short_line(&failure);
        }
    };
    let text = serde_json::to_vec(&request).expect("plain data");
    let again: R = serde_json::from_slice(&text).expect("what is written can be read");
    assert_eq!(serde_json::to_vec(&again).ok().as_deref(), Some(&text[..]));
    let fields: serde_json::Value = serde_json::from_slice(&text).expect("what is written is JSON");
    let reference = fields.get("reference").filter(|reference| !reference.is_null());
    let Some(said) = reference.cloned() else { return };
    let said: Ref = serde_json::from_value(said).expect("the reference that was read");
    match said.parse() {
        Ok(found) => assert_eq!(Ref::from(&found), said, "a reference means what it says"),
        Err(error) => one_short_line(&error),
    }
}

/// A version as people name it, in one word or two.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let words: Vec<String> = text.splitn(2, ' ').map(str::to_owned).collect();
    for found in [text.parse::<VersionRef>(), VersionRef::from_words(&words)] {
        match found {
            Ok(found) => {
                for name in [&found.model.group, &found.model.model, &found.version] {
                    assert_eq!(Name::new(name.as_str()).as_ref(), Ok(name));
                }
                assert_eq!(found.to_string().parse(), Ok(found.clone()), "{found}");
                let told = Ref::from(&found);
                assert_eq!(told.parse(), Ok(found.clone()));
                assert_eq!(told.to_string(), found.to_string());
            }
            Err(error) => one_short_line(&error),
        }
    }
}

/// A size or a duration as people write it.
pub fn units(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.parse::<ByteSize>() {
        Ok(size) => {
            let shown: ByteSize = size.to_string().parse().expect("what is shown can be read");
            // One digit after the point, of at least one before it.
            assert!(shown.0.abs_diff(size.0) <= size.0 / 18 + 1, "{size:?} as {size}: {shown:?}");
        }
        Err(error) => one_short_line(&error),
    }
    match parse_duration(text) {
        Ok(time) => assert!(Instant::now().checked_add(time * 2).is_some(), "{time:?}"),
        Err(error) => one_short_line(&error),
    }
}

/// A layout as the index and the sidecars keep it.
pub fn blob_layout(data: &[u8]) {
    match BlobLayout::decode(data) {
        Ok(layout) => {
            assert_eq!(layout.encode(), data);
            assert_eq!(layout.key().digest(), &sha256(data));
            let all = layout.pieces().iter().map(|p| p.file.len());
            assert_eq!(all.sum::<u64>(), layout.len());
            looked_over(&layout);
        }
        Err(error) => one_short_line(&error),
    }
}

/// What stands in a store's lock file.
pub fn lock_file(data: &[u8]) {
    let Some(holder) = Holder::parse(data) else { return };
    let written = serde_json::to_vec(&holder).expect("what came as JSON can be JSON");
    assert_eq!(Holder::parse(&written), Some(holder));
}

/// A file of settings. A project's may be written by strangers.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for level in [Level::System, Level::Project] {
        let layer = config::parse(text, std::path::Path::new("/work/modelfs.toml"), level);
        match layer.and_then(|layer| Config::resolve([layer])) {
            Ok(config) => {
                let sent = serde_json::to_string(&config).expect("plain values");
                let received: Config = serde_json::from_str(&sent).expect("it is what was sent");
                assert_eq!(received, config);
            }
            Err(error) => one_short_line(&error),
        }
    }
}
