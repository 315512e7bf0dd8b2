//! The figures for programs: every round of every contender, and what became of each goal.
//!
//! Invariant: the same result that the table shows; no time or place, so that two runs compare.

use serde_json::{Value, json};

use super::machine::Machine;
use crate::case::{Bound, Case};

/// Four digits say all that there is.
fn rounded(figure: f64) -> f64 {
    if figure == 0.0 || !figure.is_finite() {
        return figure;
    }
    let scale = 10f64.powi(3 - figure.abs().log10().floor() as i32);
    (figure * scale).round() / scale
}

fn contender(case: &Case, place: usize) -> Value {
    let c = &case.contenders[place];
    let goals = case.outcomes(place).into_iter().map(|o| {
        let (kind, bound) = match o.goal.bound {
            Bound::Least(b) => ("at_least", b),
            Bound::Most(b) => ("at_most", b),
        };
        json!({kind: bound, "of": o.than, "ratio": o.ratio.map(rounded), "met": o.met})
    });
    let goals: Vec<_> = goals.collect();
    let mut out = json!({
        "name": c.name,
        "median": c.median().map(rounded),
        "spread": c.spread().map(rounded),
        "rounds": c.figures.iter().copied().map(rounded).collect::<Vec<_>>(),
    });
    if !goals.is_empty() {
        out["goals"] = goals.into();
    }
    if let Some(why) = &c.trouble {
        out["cannot_run"] = why.as_str().into();
    }
    out
}

/// The document.
pub fn document(cases: &[Case], machine: &Machine) -> String {
    let of = |case: &Case| {
        let all: Vec<_> = (0..case.contenders.len()).map(|n| contender(case, n)).collect();
        json!({"theme": case.heading.theme, "title": case.heading.title,
            "unit": case.heading.unit, "contenders": all})
    };
    let machine = json!({"cores": machine.cores, "memory_gib": machine.memory_gib,
        "processor": machine.processor, "flags": machine.flags, "kernel": machine.kernel, "load_average": machine.load});
    let all: Vec<_> = cases.iter().map(of).collect();
    let text = serde_json::to_string_pretty(&json!({"machine": machine, "cases": all}));
    text.expect("plain values") + "\n"
}
