//! The folder tree of one version, built from its manifest.
//!
//! Invariant: a position is a function of the manifest alone, so that every process numbers alike:
//! breadth first, each folder's entries contiguous and sorted by name. 0 is the version itself. Pure;
//! immutable once built. Names are slices of the manifest's paths: 24 bytes an entry.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::model::{FileIx, Manifest};

/// A place in a version's tree; 0 is its top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Position(pub(super) u32);

impl Position {
    /// The version's own folder.
    pub(super) const TOP: Self = Self(0);
}

#[derive(Debug, Clone)]
struct Node {
    parent: u32,
    /// The index of the file; of a folder: of any file below it, whose path contains its name.
    file: u32,
    /// The byte range of the name in that path: paths are at most 3072 bytes.
    name: Range<u16>,
    /// A folder's entries; empty for files.
    children: Range<u32>,
    /// Number of folders among them.
    folders: u32,
}

/// The tree of one version.
#[derive(Debug)]
pub(super) struct VersionTree {
    manifest: Arc<Manifest>,
    nodes: Vec<Node>,
}

/// A folder whose entries are not yet numbered: its position, its files in order, and the length of the
/// path prefix that leads to it.
struct Todo {
    position: u32,
    files: Range<usize>,
    prefix: usize,
}

impl VersionTree {
    /// Builds the tree. A million files take about a second.
    pub(super) fn new(manifest: Arc<Manifest>) -> Self {
        let path = |ix: u32| manifest.file(FileIx(ix)).path.as_str();
        let mut sorted: Vec<u32> = (0..manifest.files().len() as u32).collect();
        // Sorted by path component, so that the entries of a folder are contiguous whatever sorts before
        // '/'.
        sorted.sort_unstable_by(|a, b| path(*a).split('/').cmp(path(*b).split('/')));
        let top = Node { parent: 0, file: u32::MAX, name: 0..0, children: 0..0, folders: 0 };
        let mut nodes = vec![top];
        let mut queue = VecDeque::from([Todo { position: 0, files: 0..sorted.len(), prefix: 0 }]);
        while let Some(todo) = queue.pop_front() {
            let first = nodes.len() as u32;
            let mut folders = 0;
            let mut at = todo.files.start;
            while at < todo.files.end {
                let whole = path(sorted[at]);
                let end = whole[todo.prefix..].find('/').map(|n| n + todo.prefix);
                let mut next = at + 1;
                if let Some(end) = end {
                    let with_slash = &whole[..=end];
                    let rest = &sorted[at..todo.files.end];
                    next = at + rest.partition_point(|ix| path(*ix).starts_with(with_slash));
                    queue.push_back(Todo {
                        position: nodes.len() as u32,
                        files: at..next,
                        prefix: end + 1,
                    });
                    folders += 1;
                }
                nodes.push(Node {
                    parent: todo.position,
                    file: sorted[at],
                    name: todo.prefix as u16..end.unwrap_or(whole.len()) as u16,
                    children: 0..0,
                    folders: 0,
                });
                at = next;
            }
            let children = first..nodes.len() as u32;
            let folder = &mut nodes[todo.position as usize];
            (folder.children, folder.folders) = (children, folders);
        }
        nodes.shrink_to_fit();
        Self { manifest, nodes }
    }

    /// The manifest of the version.
    pub(super) fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// Memory cost, in units of about a hundred bytes: entries, plus objects of the manifest.
    pub(super) fn weight(&self) -> usize {
        self.nodes.len() + self.manifest.objects().len()
    }

    /// Whether the position exists.
    pub(super) fn has(&self, at: Position) -> bool {
        (at.0 as usize) < self.nodes.len()
    }

    fn node(&self, at: Position) -> &Node {
        &self.nodes[at.0 as usize]
    }

    /// The name within the parent folder; the top has none.
    pub(super) fn name(&self, at: Position) -> &str {
        let node = self.node(at);
        if at == Position::TOP {
            return "";
        }
        let path = self.manifest.file(FileIx(node.file)).path.as_str();
        &path[usize::from(node.name.start)..usize::from(node.name.end)]
    }

    /// The parent folder; that of the top is the top.
    pub(super) fn parent(&self, at: Position) -> Position {
        Position(self.node(at).parent)
    }

    /// The file at a position; `None` for folders.
    pub(super) fn file(&self, at: Position) -> Option<FileIx> {
        let node = self.node(at);
        if at == Position::TOP {
            return None;
        }
        let ix = FileIx(node.file);
        let path = self.manifest.file(ix).path.as_str();
        (path.len() == usize::from(node.name.end)).then_some(ix)
    }

    /// A folder's entries, sorted by name; none for files.
    pub(super) fn children(&self, at: Position) -> impl ExactSizeIterator<Item = Position> + use<> {
        self.node(at).children.clone().map(Position)
    }

    /// Number of folders among a folder's entries.
    pub(super) fn folders(&self, at: Position) -> u32 {
        self.node(at).folders
    }

    /// The entry of a folder with that name.
    pub(super) fn child(&self, at: Position, name: &str) -> Option<Position> {
        let Range { start, end } = self.node(at).children;
        let (mut low, mut high) = (start, end);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.name(Position(middle)).cmp(name) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(Position(middle)),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::model::{Digest, ManifestBuilder};

    fn tree(paths: &[&str]) -> Option<VersionTree> {
        let mut b = ManifestBuilder::new(Digest::from_bytes([0; 32]));
        for path in paths {
            b.file(path, None, []).ok()?;
        }
        Some(VersionTree::new(Arc::new(b.build().ok()?)))
    }

    /// Every path of the tree, folders with a slash at the end, found by walking down.
    fn walk(t: &VersionTree) -> BTreeMap<String, Position> {
        fn below(t: &VersionTree, at: Position, path: &str, out: &mut BTreeMap<String, Position>) {
            for child in t.children(at) {
                assert_eq!(t.parent(child), at);
                assert_eq!(t.child(at, t.name(child)), Some(child));
                let path = format!("{path}{}", t.name(child));
                match t.file(child) {
                    Some(ix) => {
                        assert_eq!(t.manifest().file(ix).path.as_str(), path);
                        assert_eq!(out.insert(path, child), None);
                    }
                    None => {
                        let path = format!("{path}/");
                        below(t, child, &path, out);
                        assert_eq!(out.insert(path, child), None);
                    }
                }
            }
        }
        let mut out = BTreeMap::new();
        below(t, Position::TOP, "", &mut out);
        out
    }

    #[test]
    fn names_that_sort_before_a_slash_do_not_split_a_folder() {
        let t = tree(&["a/x", "a-b", "a.b", "a/y", "b", "a/z/w"]).unwrap();
        let names: Vec<_> = t.children(Position::TOP).map(|p| t.name(p)).collect();
        assert_eq!(names, ["a", "a-b", "a.b", "b"]);
        let a = t.child(Position::TOP, "a").unwrap();
        assert_eq!((t.children(a).len(), t.folders(a), t.file(a)), (3, 1, None));
        assert_eq!(t.child(a, "z/w"), None);
        assert_eq!(t.child(Position::TOP, ""), None);
        assert!(t.has(Position(8)) && !t.has(Position(9)));
    }

    #[test]
    fn a_version_without_files_is_an_empty_folder() {
        let t = tree(&[]).unwrap();
        assert_eq!((t.children(Position::TOP).len(), t.folders(Position::TOP)), (0, 0));
    }

    #[test]
    fn positions_do_not_depend_on_the_order_in_the_manifest() {
        let (a, b) = (tree(&["x/1", "a", "x/0"]).unwrap(), tree(&["x/0", "x/1", "a"]).unwrap());
        assert_eq!(walk(&a), walk(&b));
    }

    proptest! {
        #[test]
        fn every_file_is_found_where_the_manifest_says(
            paths in prop::collection::btree_set("[a-c.-]{1,2}(/[a-c.-]{1,2}){0,4}", 0..40)
        ) {
            let list: Vec<&str> = paths.iter().map(String::as_str).collect();
            let Some(t) = tree(&list) else { return Ok(()) };
            let found = walk(&t);
            let files: BTreeSet<&str> =
                found.keys().map(String::as_str).filter(|p| !p.ends_with('/')).collect();
            prop_assert_eq!(files, list.iter().copied().collect::<BTreeSet<_>>());
            let folders: BTreeSet<&str> =
                list.iter().flat_map(|p| p.match_indices('/').map(|(i, _)| &p[..=i])).collect();
            let listed: BTreeSet<&str> =
                found.keys().map(String::as_str).filter(|p| p.ends_with('/')).collect();
            prop_assert_eq!(listed, folders);
            let positions: BTreeSet<Position> = found.values().copied().collect();
            prop_assert_eq!(positions.len(), found.len());
            prop_assert_eq!(t.nodes.len(), found.len() + 1);
            for at in (0..t.nodes.len() as u32).map(Position) {
                let folders = t.children(at).filter(|c| t.file(*c).is_none()).count();
                prop_assert_eq!(t.folders(at) as usize, folders);
            }
        }
    }
}
