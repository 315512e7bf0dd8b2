//! What a run found, written three ways from one result: a table, JSON, a picture.
//!
//! Invariant: what stands in the documents is what the last full run measured, all of one run.

mod json;
mod machine;
mod plot;
mod table;

use std::path::Path;

use crate::case::{Bound, Case};

pub use machine::Machine;
pub use table::{summary, table};

/// The words of a goal: `at least 0.95 × native file`.
fn words(bound: Bound, than: &str) -> String {
    match bound {
        Bound::Least(ratio) => format!("at least {ratio} × {than}"),
        Bound::Most(ratio) => format!("at most {ratio} × {than}"),
    }
}

/// A ratio with as many digits as goals have, and one more.
fn ratio_text(ratio: f64) -> String {
    match ratio {
        r if r >= 10.0 => format!("{r:.1}"),
        r if r >= 0.1 => format!("{r:.3}"),
        r => format!("{r:.4}"),
    }
}

/// Writes the page's figures, the JSON and the picture into a folder.
pub fn write_all(docs: &Path, cases: &[Case], machine: &Machine) -> std::io::Result<()> {
    table::write_into(&docs.join("performance.md"), cases, machine)?;
    std::fs::write(docs.join("performance.json"), json::document(cases, machine))?;
    std::fs::write(docs.join("performance.svg"), plot::picture(cases))
}
