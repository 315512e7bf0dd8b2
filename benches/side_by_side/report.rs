//! Figures as a table for people, and into the page that keeps them.
//!
//! Invariant: what stands between the page's markers is what the last full run measured.

use std::fmt::Write;
use std::path::Path;

use crate::cases::{Case, Contender};

const BEGIN: &str = "<!-- figures: written by make bench -->";
const END: &str = "<!-- end of figures -->";

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// The middle half of the rounds, as a share of the median.
fn spread(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |quarter: usize| sorted[(sorted.len() - 1) * quarter / 4];
    (at(3) - at(1)) / median(figures)
}

fn ratio(case: &Case, contender: &Contender) -> String {
    let own = median(&contender.figures);
    let against = |ix: usize| own / median(&case.contenders[ix].figures);
    if contender.goals.is_empty() {
        return if std::ptr::eq(contender, &case.contenders[0]) {
            String::new()
        } else {
            format!("{:.2}", against(0))
        };
    }
    let shown = contender.goals.iter().map(|(ix, goal)| {
        let verdict = if against(*ix) >= *goal { "met" } else { "missed" };
        format!("{:.2} of {} (goal {goal}: {verdict})", against(*ix), case.contenders[*ix].name)
    });
    shown.collect::<Vec<_>>().join("; ")
}

/// A Markdown table, aligned so that it reads well as plain text too.
pub fn table(cases: &[Case]) -> String {
    let mut rows = vec![["case", "contender", "median", "spread", "ratio"].map(str::to_owned)];
    for case in cases {
        for (n, c) in case.contenders.iter().enumerate() {
            rows.push([
                if n == 0 { case.title.clone() } else { String::new() },
                c.name.clone(),
                format!("{:.0} {}", median(&c.figures), case.unit),
                if c.figures.len() > 1 {
                    format!("{:.0} %", spread(&c.figures) * 100.0)
                } else {
                    String::new()
                },
                ratio(case, c),
            ]);
        }
    }
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut out = String::new();
    for (n, row) in rows.iter().enumerate() {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, w)| format!("{cell:w$}")).collect();
        let _ = writeln!(out, "| {} |", cells.join(" | "));
        if n == 0 {
            let rules: Vec<_> = widths.iter().map(|w| "-".repeat(*w)).collect();
            let _ = writeln!(out, "|-{}-|", rules.join("-|-"));
        }
    }
    out
}

/// Puts the table between the page's markers.
pub fn write_into(page: &Path, cases: &[Case]) {
    let text = std::fs::read_to_string(page).expect("the page is part of the project");
    let (before, rest) = text.split_once(BEGIN).expect("the page has the opening marker");
    let (_, after) = rest.split_once(END).expect("the page has the closing marker");
    let new = format!("{before}{BEGIN}\n\n{}\n{END}{after}", table(cases));
    std::fs::write(page, new).expect("the page can be written");
}
