//! Speed as ratios, measured side by side in one run: the mount against the native file and `curl`.
//!
//! Invariant: contenders of a case run in turn (A B C, A B C, …) under the same conditions, and
//! only medians and ratios are reported; nothing asserts a time. One thing runs at a time.

mod arena;
mod cases;
mod report;

use std::path::PathBuf;

use arena::Arena;

/// What was asked for on the command line.
struct Options {
    /// Bytes of the file that is read.
    size: u64,
    /// Rounds of each case.
    rounds: usize,
    /// Where the figures are written, between markers.
    page: Option<PathBuf>,
    /// Only cases whose title has this.
    only: String,
}

const USAGE: &str = "usage: side_by_side [--quick] [WORDS OF A CASE'S TITLE]";

impl Options {
    /// A run of some cases leaves the page alone: it shows all of them, of one run.
    fn parse(mut words: Vec<String>) -> Self {
        let before = words.len();
        words.retain(|w| w != "--quick");
        let quick = words.len() < before;
        if let Some(flag) = words.iter().find(|w| w.starts_with('-')) {
            eprintln!("{flag} is no option of the bench\n{USAGE}");
            std::process::exit(2);
        }
        let page = (!quick && words.is_empty()).then(|| PathBuf::from("docs/performance.md"));
        let (size, rounds) = if quick { (256 << 20, 3) } else { (1 << 30, 5) };
        Self { size, rounds, page, only: words.join(" ") }
    }
}

fn main() {
    let options = Options::parse(std::env::args().skip(1).collect());
    let arena = Arena::new(options.size);
    let results = cases::run_all(&arena, options.rounds, &options.only);
    if results.is_empty() {
        eprintln!("no case's title has {:?}", options.only);
        std::process::exit(2);
    }
    println!("\n{}", report::table(&results));
    if let Some(page) = &options.page {
        report::write_into(page, &results);
        println!("written into {}", page.display());
    }
}
