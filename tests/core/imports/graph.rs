//! Which file of a crate imports which, and where that goes in circles.
//!
//! A name counts as imported from the file that defines it, wherever it is passed on. Pure, but for
//! reading the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::file::{Named, SourceFile};

/// `["store", "index"]`; empty: the crate's root.
pub type Module = Vec<String>;

/// How often a name may be passed on from file to file.
const PASSED_ON: usize = 16;

/// One file that imports another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    pub from: Module,
    pub line: usize,
    pub to: Module,
    /// As it is written there.
    pub path: String,
}

/// The files of a crate.
#[derive(Debug, Default)]
pub struct Crate {
    files: BTreeMap<Module, SourceFile>,
}

impl Crate {
    /// Reads a crate from its root file on.
    pub fn read(root: &Path) -> Self {
        let mut this = Self::default();
        let folder = root.parent().expect("a file lies in a folder").to_owned();
        this.read_module(Vec::new(), root, &folder);
        this
    }

    fn read_module(&mut self, module: Module, file: &Path, folder: &Path) {
        let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{file:?}: {e}"));
        self.add(module.clone(), &text);
        for name in self.files[&module].modules.clone() {
            let below = folder.join(&name);
            let candidates: [PathBuf; 2] = [below.with_extension("rs"), below.join("mod.rs")];
            let file = candidates.iter().find(|c| c.exists());
            let file = file.unwrap_or_else(|| panic!("no file for the module {below:?}"));
            self.read_module([&module[..], &[name]].concat(), file, &below);
        }
    }

    /// Adds a file by its text.
    pub fn add(&mut self, module: Module, text: &str) {
        let file = SourceFile::parse(text).unwrap_or_else(|e| panic!("{module:?}: {e}"));
        self.files.insert(module, file);
    }

    /// All imports between different files, each once.
    pub fn imports(&self) -> BTreeSet<Import> {
        let mut out = BTreeSet::new();
        for (module, file) in &self.files {
            let uses = file.uses.values().filter(|import| !import.passed_on);
            for Named { path, line } in uses.map(|u| &u.named).chain(&file.paths) {
                let to = self.definer(module, path, PASSED_ON).filter(|to| to != module);
                let import =
                    |to| Import { from: module.clone(), line: *line, to, path: path.join("::") };
                out.extend(to.map(import));
            }
            for glob in &file.globs {
                let path = glob.join("::");
                let to = self.module(module, glob).filter(|to| to != module);
                out.extend(to.map(|to| Import { from: module.clone(), line: 0, to, path }));
            }
        }
        out
    }

    /// The module that a path names, if it is one of this crate.
    fn module(&self, from: &Module, path: &[String]) -> Option<Module> {
        let (mut at, rest) = self.start(from, path)?;
        for name in rest {
            at = self.child(&at, name)?;
        }
        Some(at)
    }

    fn child(&self, module: &Module, name: &str) -> Option<Module> {
        let below = [&module[..], &[name.to_owned()]].concat();
        self.files.contains_key(&below).then_some(below)
    }

    /// Where a path begins, and what is left of it then.
    fn start<'p>(&self, from: &Module, path: &'p [String]) -> Option<(Module, &'p [String])> {
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Vec::new(),
            "self" => from.clone(),
            "super" => from[..from.len().checked_sub(1)?].to_vec(),
            name => self.child(from, name)?,
        };
        while rest.first().is_some_and(|name| name == "super") {
            at.pop();
            rest = &rest[1..];
        }
        Some((at, rest))
    }

    /// The file that defines what a path names; none for modules and for what other crates define.
    fn definer(&self, from: &Module, path: &[String], depth: usize) -> Option<Module> {
        let depth = depth.checked_sub(1)?;
        let Some((mut at, mut rest)) = self.start(from, path) else {
            let (first, rest) = path.split_first()?;
            let import = self.files[from].uses.get(first)?;
            return self.definer(from, &[&import.named.path[..], rest].concat(), depth);
        };
        while let Some((name, more)) = rest.split_first() {
            let Some(below) = self.child(&at, name) else { break };
            (at, rest) = (below, more);
        }
        let name = rest.first()?;
        let file = &self.files[&at];
        if file.items.contains(name) {
            return Some(at);
        }
        if let Some(import) = file.uses.get(name) {
            let path = [&import.named.path[..], &rest[1..]].concat();
            return self.definer(&at, &path, depth);
        }
        let through = |glob: &Vec<String>| self.definer(&at, &[&glob[..], rest].concat(), depth);
        // What a macro defined has no item; it is defined where it is named.
        file.globs.iter().find_map(through).or(Some(at.clone()))
    }

    /// One circle of imports for each file that lies on one, the shortest, each circle once.
    pub fn cycles(&self) -> Vec<Vec<Import>> {
        let imports = self.imports();
        let mut by_file: BTreeMap<&Module, BTreeMap<&Module, &Import>> = BTreeMap::new();
        for import in &imports {
            by_file.entry(&import.from).or_default().entry(&import.to).or_insert(import);
        }
        let mut found: BTreeMap<BTreeSet<&Module>, Vec<Import>> = BTreeMap::new();
        for start in by_file.keys() {
            if let Some(cycle) = shortest(&by_file, start) {
                let files = cycle.iter().map(|import| &import.from).collect();
                found.entry(files).or_insert_with(|| cycle.into_iter().cloned().collect());
            }
        }
        found.into_values().collect()
    }
}

/// The shortest way from a file back to itself.
fn shortest<'a>(
    by_file: &BTreeMap<&'a Module, BTreeMap<&'a Module, &'a Import>>,
    start: &'a Module,
) -> Option<Vec<&'a Import>> {
    let mut came: BTreeMap<&Module, &Import> = BTreeMap::new();
    let mut next = std::collections::VecDeque::from([start]);
    while let Some(at) = next.pop_front() {
        for (to, import) in by_file.get(at).into_iter().flatten() {
            if *to == start {
                let mut way = vec![*import];
                while way[way.len() - 1].from != *start {
                    way.push(came[&way[way.len() - 1].from]);
                }
                way.reverse();
                return Some(way);
            }
            if !came.contains_key(to) {
                came.insert(to, import);
                next.push_back(to);
            }
        }
    }
    None
}
