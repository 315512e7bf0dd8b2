//! Every file of the fuzz corpus goes through the function that its target fuzzes.
//!
//! What fuzzing once found stays found, without a fuzzer.

use std::path::Path;

#[path = "../../fuzz/entries.rs"]
mod entries;

#[test]
fn hostile_documents_are_refused_in_a_line_or_keep_the_rules() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, entrance) in entries::TARGETS {
        let files = std::fs::read_dir(corpus.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut seen = 0;
        for file in files.map(|f| f.unwrap().path()) {
            let data = std::fs::read(&file).unwrap();
            assert!(data.len() <= 32 << 10, "{} is no small file", file.display());
            let done = std::panic::catch_unwind(|| entrance(&data));
            assert!(done.is_ok(), "{}: see above", file.display());
            seen += 1;
        }
        assert!(seen >= 5, "{name}: {seen} files");
    }
    let folders = std::fs::read_dir(&corpus).unwrap().count();
    assert_eq!(folders, entries::TARGETS.len(), "every corpus has a target");
}
