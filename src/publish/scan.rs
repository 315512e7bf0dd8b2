//! Walks a folder and finds the files of the version, and the problems that prevent publishing.
//!
//! Invariant: the resulting paths can be stored on every system, are distinct on every system, and are
//! sorted; each file is read from inside the folder (or from the `blobs` beside a Hugging Face snapshot).
//! Concurrency: single-threaded; reads only.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use unicode_normalization::UnicodeNormalization;

use super::types::{Problem, PublishError, Why};
use crate::model::FilePath;

/// Names that are never published, at any depth: files of version control and desktops. (At the top also
/// `.cache`, where the Hugging Face client keeps its own files.)
pub const LEFT_OUT: [&str; 5] = [".git", ".hg", ".svn", ".DS_Store", "Thumbs.db"];
const LEFT_OUT_AT_TOP: &str = ".cache";

/// The stamp of a file: tells whether it has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Size in bytes.
    pub size: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

impl Stamp {
    /// The current stamp of a file.
    pub fn of(meta: &Metadata) -> Self {
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(meta);
        #[cfg(not(unix))]
        let inode = 0;
        Self { size: meta.len(), modified: meta.modified().ok(), inode }
    }
}

/// A file to publish.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its path in the version.
    pub path: FilePath,
    /// The path that it is read from.
    pub real: PathBuf,
    /// Its stamp when it was found.
    pub stamp: Stamp,
}

/// The content of a folder.
#[derive(Debug, Default)]
pub struct Scan {
    /// The files, by path.
    pub files: Vec<Found>,
    /// Empty folders.
    pub empty_folders: Vec<String>,
    /// Paths that were left out.
    pub left_out: Vec<String>,
}

/// Finds all files in `dir`.
pub fn scan(dir: &Path) -> Result<Scan, PublishError> {
    let root = fs::canonicalize(dir).map_err(PublishError::io(dir))?;
    if !root.is_dir() {
        return Err(PublishError::Request(format!("{} is not a folder", dir.display())));
    }
    let mut walk = Walk { roots: roots(&root), out: Scan::default(), problems: Vec::new() };
    walk.folder(&root, "", &mut vec![root.clone()])?;
    let Walk { mut out, mut problems, .. } = walk;
    out.files.sort_by(|a, b| a.path.cmp(&b.path));
    out.empty_folders.sort();
    out.left_out.sort();
    problems.extend(clashes(&out.files));
    if !problems.is_empty() {
        problems.sort_by(|a, b| a.path.cmp(&b.path));
        return Err(PublishError::Problems(problems));
    }
    match out.files.is_empty() {
        true => Err(PublishError::Empty(dir.to_owned())),
        false => Ok(out),
    }
}

/// The folders that links may lead into: the folder itself and, for a snapshot of a Hugging Face cache
/// (`<model>/snapshots/<revision>`), the `<model>/blobs` that all its links lead to.
fn roots(root: &Path) -> Vec<PathBuf> {
    let mut out = vec![root.to_owned()];
    let snapshots = root.parent().filter(|p| p.file_name().is_some_and(|n| n == "snapshots"));
    if let Some(blobs) = snapshots.and_then(Path::parent).map(|model| model.join("blobs"))
        && fs::symlink_metadata(&blobs).is_ok_and(|m| m.is_dir())
    {
        out.push(blobs);
    }
    out
}

struct Walk {
    roots: Vec<PathBuf>,
    out: Scan,
    problems: Vec<Problem>,
}

impl Walk {
    fn problem(&mut self, path: &str, why: impl Into<Why>) {
        self.problems.push(Problem { path: path.to_owned(), why: why.into() });
    }

    /// Walks one folder; `above` are the real paths of it and its ancestors in the walk. The depth is
    /// bounded by that of legal paths.
    fn folder(
        &mut self,
        real: &Path,
        path: &str,
        above: &mut Vec<PathBuf>,
    ) -> Result<(), PublishError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(real).map_err(PublishError::io(real))? {
            names.push(entry.map_err(PublishError::io(real))?.file_name());
        }
        names.sort();
        let mut empty = true;
        for name in names {
            let shown = join(path, &name.to_string_lossy());
            let Some(utf8) = name.to_str() else {
                self.problem(&shown, Why::NotUtf8);
                continue;
            };
            if LEFT_OUT.contains(&utf8) || (path.is_empty() && utf8 == LEFT_OUT_AT_TOP) {
                self.out.left_out.push(shown);
                continue;
            }
            empty = false;
            match FilePath::new(&shown).and_then(|p| p.portable().map(|()| p)) {
                Ok(file) => self.entry(&real.join(utf8), file, above)?,
                Err(why) => self.problem(&shown, why),
            }
        }
        if empty && !path.is_empty() {
            self.out.empty_folders.push(path.to_owned());
        }
        Ok(())
    }

    fn entry(
        &mut self,
        at: &Path,
        path: FilePath,
        above: &mut Vec<PathBuf>,
    ) -> Result<(), PublishError> {
        let mut meta = fs::symlink_metadata(at).map_err(PublishError::io(at))?;
        let mut real = at.to_owned();
        if meta.is_symlink() {
            match self.follow(at)? {
                Ok(target) => real = target,
                Err(why) => {
                    self.problem(path.as_str(), why);
                    return Ok(());
                }
            }
            meta = fs::metadata(&real).map_err(PublishError::io(&real))?;
        }
        if meta.is_dir() {
            if above.contains(&real) {
                self.problem(path.as_str(), Why::Circle);
                return Ok(());
            }
            above.push(real.clone());
            self.folder(&real, path.as_str(), above)?;
            above.pop();
        } else if meta.is_file() {
            self.out.files.push(Found { path, real, stamp: Stamp::of(&meta) });
        } else {
            self.problem(path.as_str(), Why::Special);
        }
        Ok(())
    }

    /// The final target of a link.
    fn follow(&self, link: &Path) -> Result<Result<PathBuf, Why>, PublishError> {
        let target = fs::read_link(link).map_err(PublishError::io(link))?;
        Ok(match fs::canonicalize(link) {
            Ok(end) if self.roots.iter().any(|root| end.starts_with(root)) => Ok(end),
            Ok(end) => Err(Why::Outside { target: end }),
            Err(e) if e.kind() == ErrorKind::NotFound => Err(Why::Dangling { target }),
            // ELOOP, whose kind has no stable name.
            Err(e) if e.raw_os_error() == loop_error() => Err(Why::Circle),
            Err(e) => return Err(PublishError::io(link)(e)),
        })
    }
}

fn loop_error() -> Option<i32> {
    #[cfg(unix)]
    return Some(rustix::io::Errno::LOOP.raw_os_error());
    #[cfg(not(unix))]
    None
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// The form in which systems that ignore case and Unicode form compare names. Upper, then lower case, so
/// that letters with several lower-case forms (ß, ſ, ς) compare equal.
fn folded(path: &str) -> String {
    path.nfd().flat_map(char::to_uppercase).flat_map(char::to_lowercase).nfd().collect()
}

/// Paths, folders included, that are distinct here but equal on other systems.
fn clashes(files: &[Found]) -> Vec<Problem> {
    let mut seen: HashMap<String, &str> = HashMap::new();
    let mut out: Vec<Problem> = Vec::new();
    for file in files {
        let path = file.path.as_str();
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for part in ends.map(|end| &path[..end]) {
            let first = *seen.entry(folded(part)).or_insert(part);
            if first != part {
                // Reported once per folder, not once per file in it.
                if out.last().is_none_or(|p| p.path != part) {
                    let why = Why::Clash { other: first.to_owned() };
                    out.push(Problem { path: part.to_owned(), why });
                }
                break;
            }
        }
    }
    out
}

#[cfg(test)]
#[cfg(unix)]
#[allow(clippy::unwrap_used)]
#[path = "scan_tests.rs"]
mod tests;
