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
}

fn main() {
    let quick = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--quick" => true,
        _ => {
            eprintln!("usage: side_by_side [--quick]");
            std::process::exit(2);
        }
    };
    let options = if quick {
        Options { size: 256 << 20, rounds: 3, page: None }
    } else {
        Options { size: 1 << 30, rounds: 5, page: Some(PathBuf::from("docs/performance.md")) }
    };
    let arena = Arena::new(options.size);
    let results = cases::run_all(&arena, options.rounds);
    println!("\n{}", report::table(&results));
    if let Some(page) = &options.page {
        report::write_into(page, &results);
        println!("written into {}", page.display());
    }
}
