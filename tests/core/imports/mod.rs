//! Which file may import which: no circles, and in the library downwards only.

mod file;
mod graph;

use std::path::Path;

use graph::{Crate, Import};

/// Modules by one name of their path, each with those that it may import beside itself.
type Rules = [(&'static str, &'static [&'static str])];

/// The module above those that rules name.
const FACE: &str = "(face)";

/// The library's layers.
const LAYERS: &Rules = &[
    (FACE, &[]),
    ("base", &[]),
    ("model", &["base"]),
    ("config", &["model", "base"]),
    ("store", &["model", "base"]),
    ("trust", &["model", "base"]),
    ("registry", &["trust", "model", "base"]),
    ("publish", &["registry", "trust", "model", "base"]),
    ("fetch", &["registry", "store", "trust", "config", "model", "base"]),
    ("vfs", &["fetch", "registry", "store", "model", "base"]),
    ("manager", &["vfs", "fetch", "registry", "store", "model", "base"]),
];

/// The parts of the store, by the first name below `store`.
const STORE: &Rules = &[
    (FACE, &[]),
    ("types", &[]),
    ("evidence", &[]),
    ("sidecar", &[]),
    ("error", &["types"]),
    ("disk", &["error", "types", "evidence"]),
    ("state", &["types", "evidence", "sidecar"]),
    // of `state` the plain value `PartSet` only
    ("index", &["state", "disk", "error", "types", "evidence"]),
    ("engine", &["state", "index", "disk", "error", "types", "evidence", "sidecar"]),
    ("blob", &["engine", "state", "disk", "error", "types"]),
    ("local_copies", &["blob", "engine", "index", "error"]),
    ("store", &["local_copies", "blob", "engine", "state", "index", "disk", "error", "types"]),
];

/// The parts of fetching, by the first name below `fetch`.
const FETCH: &Rules = &[
    (FACE, &[]),
    ("options", &[]),
    ("error", &[]),
    ("source", &["options", "error"]),
    ("sources", &["source", "error"]),
    ("cached_file", &["source", "error"]),
    ("plan", &[]),
    ("schedule", &["plan", "error"]),
    ("transfer", &["schedule", "plan", "cached_file", "source", "options", "error"]),
    ("prefetch", &["transfer", "schedule", "plan", "cached_file", "source", "error"]),
    ("file_reader", &["prefetch", "transfer", "schedule", "cached_file", "error"]),
    (
        "fetcher",
        &[
            "file_reader",
            "prefetch",
            "transfer",
            "cached_file",
            "sources",
            "source",
            "options",
            "error",
        ],
    ),
];

const CRATES: [&str; 4] =
    ["src/lib.rs", "platform/src/lib.rs", "mountd/src/lib.rs", "mountd/src/main.rs"];

fn read(root: &str) -> Crate {
    Crate::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(root))
}

fn text(import: &Import) -> String {
    let from = match import.from.join("/") {
        root if root.is_empty() => "(root)".to_owned(),
        module => module,
    };
    format!("{from}:{} {}", import.line, import.path)
}

fn cycles(of: &Crate) -> Vec<String> {
    let lines = |cycle: &Vec<Import>| cycle.iter().map(text).collect::<Vec<_>>().join("\n    ");
    of.cycles().iter().map(lines).collect()
}

/// Imports that rules do not allow. `depth`: which name of a module's path the rules are about.
fn against<'a>(
    rules: &Rules,
    depth: usize,
    imports: impl Iterator<Item = &'a Import>,
) -> Vec<String> {
    let part = |module: &graph::Module| module.get(depth).map_or(FACE, String::as_str).to_owned();
    let wrong = |import: &&Import| {
        let (from, to) = (part(&import.from), part(&import.to));
        let rule = rules.iter().find(|(name, _)| *name == from);
        let (_, below) = rule.unwrap_or_else(|| panic!("the rules do not name {from}"));
        from != to && !below.contains(&to.as_str())
    };
    imports.filter(wrong).map(text).collect()
}

#[test]
fn no_file_imports_itself_by_way_of_others() {
    let of =
        |root: &str| cycles(&read(root)).iter().map(|c| format!("{root}:\n    {c}\n")).collect();
    let found: Vec<String> = CRATES.into_iter().map(of).collect();
    assert_eq!(found.concat(), "", "import cycles");
}

#[test]
fn layers_of_the_library_import_downwards_only() {
    let found = against(LAYERS, 0, read("src/lib.rs").imports().iter());
    assert!(found.is_empty(), "imports upwards or sideways:\n{}", found.join("\n"));
}

#[test]
fn parts_of_the_store_import_downwards_only() {
    let all = read("src/lib.rs").imports();
    let inside = |module: &graph::Module| module.first().is_some_and(|layer| layer == "store");
    let within = || all.iter().filter(|import| inside(&import.from) && inside(&import.to));
    let index_beyond_part_set = |import: &&Import| {
        let [from, to] = [&import.from, &import.to].map(|m| m.get(1).map(String::as_str));
        from == Some("index") && to == Some("state") && import.to[2] != "part_set"
    };
    let mut found = against(STORE, 1, within());
    found.extend(within().filter(index_beyond_part_set).map(text));
    assert!(found.is_empty(), "imports upwards or sideways:\n{}", found.join("\n"));
}

#[test]
fn parts_of_fetching_import_downwards_only() {
    let all = read("src/lib.rs").imports();
    let inside = |module: &graph::Module| module.first().is_some_and(|layer| layer == "fetch");
    let within = all.iter().filter(|import| inside(&import.from) && inside(&import.to));
    let found = against(FETCH, 1, within);
    assert!(found.is_empty(), "imports upwards or sideways:\n{}", found.join("\n"));
}

/// A crate of these files.
fn planted(files: &[(&str, &str)]) -> Crate {
    let mut out = Crate::default();
    for (module, text) in files {
        out.add(module.split('/').filter(|s| !s.is_empty()).map(str::to_owned).collect(), text);
    }
    out
}

#[test]
fn a_planted_cycle_is_found_by_use_by_path_and_in_macros() {
    let parent = ("a", "pub mod b;\npub mod c;\npub struct Own;\npub use b::One;\n");
    for body in [
        "use super::Own;\npub struct One;",
        "pub struct One(crate::a::Own);",
        "pub struct One;\nfn f() { println!(\"{:?}\", super::Own) }",
    ] {
        let user = "use super::One;\npub fn two() -> One { One }";
        let own = format!("{}fn uses() -> c::Two {{}}\n", parent.1);
        let c = "use super::b::One;\npub struct Two(One);";
        let all =
            planted(&[("", "mod a;\nmod d;"), ("a", &own), ("a/b", body), ("a/c", c), ("d", user)]);
        let found = cycles(&all);
        assert_eq!(found.len(), 1, "{body}: {found:?}");
        assert!(found[0].contains("a/b") && found[0].contains("a/c"), "{found:?}");
    }
}

#[test]
fn reexports_and_imports_of_tests_are_not_cycles() {
    let all = planted(&[
        ("", "mod a;"),
        ("a", "mod b;\nmod c;\npub use b::One;\npub use c::Two;\n#[cfg(test)]\nmod tests;"),
        (
            "a/b",
            "use super::Two;\npub struct One(Two);\n#[cfg(test)]\nmod t { use super::super::One; }",
        ),
        ("a/c", "pub struct Two;"),
    ]);
    assert_eq!(cycles(&all), [""; 0]);
}

#[test]
fn a_planted_import_upwards_is_found() {
    let all = planted(&[
        ("", "pub mod model;\npub mod store;\npub mod registry;"),
        ("model", "use crate::store::Store;"),
        ("store", "use crate::registry::Get;\nuse crate::model::Name;\npub struct Store;"),
        ("registry", "pub use crate::model::Name;\npub struct Get;"),
    ]);
    let found = against(LAYERS, 0, all.imports().iter());
    assert_eq!(found, ["model:1 crate::store::Store", "store:1 crate::registry::Get"]);
}
