//! Speed as ratios, measured side by side in one run: mounts against native files, `curl`, `rclone`.
//!
//! Invariant: contenders of a case run in turn (A B C, A B C, …) under the same conditions, and
//! only medians and ratios are reported; nothing asserts a time. One thing runs at a time.

mod arena;
mod case;
mod cases;
mod million;
mod reading;
mod report;
mod scale;

use std::path::Path;

use arena::Arena;
use scale::Scale;

/// What was asked for on the command line.
struct Options {
    scale: Scale,
    /// Whether the documents are written anew.
    writes: bool,
    /// Only cases whose title has this.
    only: String,
}

const USAGE: &str = "usage: side_by_side [--quick|--tiny] [WORDS OF A CASE'S TITLE]";

impl Options {
    /// A run of some cases leaves the documents alone: they show all of them, of one run.
    fn parse(mut words: Vec<String>) -> Self {
        let mut scale = Scale::FULL;
        words.retain(|word| match word.as_str() {
            "--quick" => {
                scale = Scale::QUICK;
                false
            }
            "--tiny" => {
                scale = Scale::TINY;
                false
            }
            _ => true,
        });
        if let Some(flag) = words.iter().find(|w| w.starts_with('-')) {
            eprintln!("{flag} is no option of the bench\n{USAGE}");
            std::process::exit(2);
        }
        let writes = !scale.quick && words.is_empty();
        Self { scale, writes, only: words.join(" ") }
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|w| w == reading::FLAG) {
        reading::main(&words[1..]);
        return;
    }
    let options = Options::parse(words);
    // Before anything runs: its load is what others do.
    let machine = report::Machine::look();
    let started = std::time::Instant::now();
    let arena = Arena::new(options.scale, options.only);
    let results = cases::run_all(&arena);
    // Its servers end with it, and not with an exit of the process.
    drop(arena);
    if results.is_empty() {
        eprintln!("no case's title has these words\n{USAGE}");
        std::process::exit(2);
    }
    println!("\n{}\n{}", report::table(&results), report::summary(&results));
    println!("measured on {}", machine.words());
    println!("{} s in all", started.elapsed().as_secs());
    // Where it tells, a picture of any run can be had without touching the documents.
    let docs = std::env::var_os("MODELFS_BENCH_DOCS");
    if options.writes || docs.is_some() {
        let docs = docs.unwrap_or_else(|| "docs".into());
        report::write_all(Path::new(&docs), &results, &machine)
            .expect("the documents can be written");
        println!("written into performance.md, .json and .svg");
    }
}
