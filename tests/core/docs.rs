//! Promises in the documentation name their tests: the tests must be there.

use std::path::{Path, PathBuf};

/// `file::test` as the tables of the documents write it.
fn named(text: &str) -> Vec<(&str, &str)> {
    let lines = text.lines().filter(|line| line.starts_with('|'));
    let quoted = lines.flat_map(|line| line.split('`').skip(1).step_by(2));
    quoted.filter_map(|q| q.split_once("::")).collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of ours").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_test_that_a_document_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for folder in ["src", "platform", "mountd", "tests"] {
        sources(&root.join(folder), &mut files);
    }
    let mut missing = Vec::new();
    let mut count = 0;
    for document in ["semantics.md", "reliability.md"] {
        let text = std::fs::read_to_string(root.join("docs").join(document)).expect(document);
        for (module, test) in named(&text) {
            count += 1;
            let has = |path: &PathBuf| {
                path.with_extension("").components().any(|c| c.as_os_str() == module)
                    && std::fs::read_to_string(path).is_ok_and(|s| {
                        s.contains(&format!("fn {test}(")) || s.contains(&format!("fn {test}<"))
                    })
            };
            if !files.iter().any(has) {
                missing.push(format!("{document}: {module}::{test}"));
            }
        }
    }
    assert!(count > 30, "only {count} tests are named");
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}
