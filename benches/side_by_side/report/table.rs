//! Figures as tables for people, and into the page that keeps them.
//!
//! Invariant: one row for each contender, and one more for each further goal of it; one that could
//! not run says so in its row.

use std::fmt::Write;
use std::path::Path;

use super::machine::Machine;
use super::{ratio_text, words};
use crate::case::{Case, Outcome, shown};

const BEGIN: &str = "<!-- figures: written by make bench -->";
const END: &str = "<!-- end of figures -->";
const HEAD: [&str; 6] = ["case", "contender", "median", "spread", "ratio to the first", "goal"];

type Row = [String; 6];

/// A bar in a cell would end it.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// `at least 0.95 × native file: 0.971, met`.
fn verdict(o: &Outcome) -> String {
    let verdict = if o.met { "met" } else { "**missed**" };
    let ratio = o.ratio.map_or("none".to_owned(), ratio_text);
    format!("{}: {ratio}, {verdict}", words(o.goal.bound, &o.than))
}

fn rows(case: &Case) -> Vec<Row> {
    let mut out = Vec::new();
    for (place, c) in case.contenders.iter().enumerate() {
        let title = if place == 0 { case.heading.title.clone() } else { String::new() };
        let median = match (c.median(), &c.trouble) {
            (_, Some(why)) => format!("**cannot run**: {why}"),
            (Some(m), None) => format!("{} {}", shown(m), case.heading.unit),
            (None, None) => "**not run**".to_owned(),
        };
        let spread = c.spread().map(|s| format!("{:.0} %", s * 100.0)).unwrap_or_default();
        let ratio = case.ratio(place).filter(|_| place > 0).map(ratio_text).unwrap_or_default();
        let mut goals = case.outcomes(place).into_iter().map(|o| cell(&verdict(&o)));
        let first = goals.next().unwrap_or_default();
        out.push([cell(&title), cell(&c.name), cell(&median), spread, ratio, first]);
        for more in goals {
            let mut row = Row::default();
            row[5] = more;
            out.push(row);
        }
    }
    out
}

fn aligned(rows: &[Row]) -> String {
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
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

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |c| c.to_uppercase().chain(chars).collect())
}

/// Markdown tables, one for each theme, aligned so that they read well as plain text too.
pub fn table(cases: &[Case]) -> String {
    let mut out = String::new();
    for group in cases.chunk_by(|a, b| a.heading.theme == b.heading.theme) {
        let mut all: Vec<Row> = vec![HEAD.map(str::to_owned)];
        all.extend(group.iter().flat_map(rows));
        let _ = writeln!(out, "### {}\n\n{}", capital(group[0].heading.theme), aligned(&all));
        for note in group.iter().filter_map(|c| c.heading.note) {
            let _ = writeln!(out, "{note}\n");
        }
    }
    out
}

/// How many goals were met, which were not, and who could not run.
pub fn summary(cases: &[Case]) -> String {
    let (mut met, mut missed, mut absent) = (0, Vec::new(), Vec::new());
    for case in cases {
        for (place, c) in case.contenders.iter().enumerate() {
            let who = format!("{}, {}", case.heading.title, c.name);
            for o in case.outcomes(place) {
                if o.met {
                    met += 1;
                } else {
                    missed.push(format!("{who}: {}", verdict(&o)));
                }
            }
            if let Some(why) = &c.trouble {
                absent.push(format!("**COULD NOT RUN** {who}: {why}"));
            }
        }
    }
    let mut out = format!("{met} of {} goals met.\n\n", met + missed.len());
    for line in missed.into_iter().chain(absent) {
        let _ = writeln!(out, "- {line}");
    }
    out
}

/// Puts the tables between the page's markers.
pub fn write_into(page: &Path, cases: &[Case], machine: &Machine) -> std::io::Result<()> {
    let text = std::fs::read_to_string(page)?;
    let parts = text.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let (before, after) = parts.expect("the page has its markers");
    let (machine, summary, table) = (machine.words(), summary(cases), table(cases));
    let middle = format!("Measured on {machine}.\n{summary}\n{table}");
    std::fs::write(page, format!("{before}{BEGIN}\n\n{middle}{END}{after}"))
}
