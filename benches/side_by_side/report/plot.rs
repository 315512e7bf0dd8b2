//! The picture: every goal as a bar, from the goal's line to the right if it is met, else to the left.
//!
//! Invariant: a bar's length says by what factor the goal is surpassed or missed, whichever way the
//! ratio has to go; the axis is logarithmic. Plain SVG without scripts, legible on light and dark.

use std::fmt::Write;

use super::{ratio_text, words};
use crate::case::{Bound, Case};

const ROW: usize = 24;
const THEME: usize = 36;
const TOP: usize = 84;
const BOTTOM: usize = 24;
/// Where labels end and bars may be.
const LEFT: f64 = 500.0;
const RIGHT: f64 = 800.0;
const WIDTH: usize = 1180;
/// The factor at either end of the axis; what goes beyond is cut and has an arrow.
const FARTHEST: f64 = 8.0;
const MET: &str = "#2a9d6f";
const MISSED: &str = "#d1495b";
const STYLE: &str = "<style>
text { font-family: system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; font-size: 12px; fill: #24292f }
.title { font-size: 18px; font-weight: 600 }
.theme { font-size: 13px; font-weight: 600 }
.label { text-anchor: end }
.tick { text-anchor: middle; font-size: 11px; fill: #57606a }
.missed { fill: #b3293c }
.grid { stroke: #d8dee4; stroke-dasharray: 3 4 }
.goal { stroke: #24292f; stroke-width: 1.5 }
</style>
<rect width='100%' height='100%' rx='8' fill='white'/>
";

/// Where a factor lies on the axis.
fn x(factor: f64) -> f64 {
    let share = factor.ln() / FARTHEST.ln();
    f64::midpoint(LEFT, RIGHT) + share.clamp(-1.0, 1.0) * (RIGHT - LEFT) / 2.0
}

fn text(out: &mut String, x: f64, y: f64, class: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(out, "<text x='{x:.1}' y='{y:.1}' class='{class}'>{words}</text>");
}

/// One goal of one contender.
struct Bar {
    label: String,
    /// Above 1: surpassed by that factor. None: it did not run.
    factor: Option<f64>,
    met: bool,
    words: String,
}

fn bars(case: &Case) -> Vec<Bar> {
    let of = |place: usize| {
        let name = case.contenders[place].name.replace("modelfs, ", "");
        let label = match name.as_str() {
            "modelfs" | "in the store" => case.heading.title.clone(),
            _ => format!("{} · {name}", case.heading.title),
        };
        case.outcomes(place).into_iter().map(move |o| {
            let factor = o.ratio.map(|r| match o.goal.bound {
                Bound::Least(bound) => r / bound,
                Bound::Most(bound) => bound / r.max(f64::MIN_POSITIVE),
            });
            let ratio = o.ratio.map_or("could not run".to_owned(), ratio_text);
            let goal = words(o.goal.bound, &o.than);
            let words = format!("{ratio}   ({goal})");
            Bar { label: label.clone(), factor, met: o.met, words }
        })
    };
    (0..case.contenders.len()).flat_map(of).collect()
}

fn draw(out: &mut String, y: f64, bar: &Bar) {
    text(out, LEFT - 16.0, y + 16.0, "label", &bar.label);
    let (goal, end) = (x(1.0), x(bar.factor.unwrap_or(1.0 / FARTHEST)));
    let colour = if bar.met { MET } else { MISSED };
    // A goal met to the point is still to be seen.
    let (from, len, top) = (goal.min(end), (end - goal).abs().max(2.0), y + 5.0);
    let size = format!("width='{len:.1}' height='14' rx='2'");
    let _ = writeln!(out, "<rect x='{from:.1}' y='{top}' {size} fill='{colour}'/>");
    if bar.factor.is_some_and(|f| !(1.0 / FARTHEST..=FARTHEST).contains(&f)) {
        let tip = if end > goal { end + 9.0 } else { end - 9.0 };
        let (middle, low) = (y + 12.0, y + 19.0);
        let points = format!("{end:.1},{top} {tip:.1},{middle} {end:.1},{low}");
        let _ = writeln!(out, "<polygon points='{points}' fill='{colour}'/>");
    }
    let class = if bar.met { "value" } else { "value missed" };
    text(out, RIGHT + 20.0, y + 16.0, class, &bar.words);
}

fn axis(out: &mut String, height: usize) {
    let marks =
        [(0.125, "8 × worse"), (0.5, "2 ×"), (1.0, "goal"), (2.0, "2 ×"), (8.0, "8 × better")];
    for (factor, name) in marks {
        let (at, from, to) = (x(factor), TOP - 6, height - BOTTOM);
        let class = if name == "goal" { "goal" } else { "grid" };
        let ends = format!("x1='{at:.1}' y1='{from}' x2='{at:.1}' y2='{to}'");
        let _ = writeln!(out, "<line {ends} class='{class}'/>");
        text(out, at, TOP as f64 - 12.0, "tick", name);
    }
}

/// The whole picture.
pub fn picture(cases: &[Case]) -> String {
    let groups: Vec<(&str, Vec<Bar>)> = cases
        .chunk_by(|a, b| a.heading.theme == b.heading.theme)
        .map(|group| (group[0].heading.theme, group.iter().flat_map(bars).collect::<Vec<_>>()))
        .filter(|(_, bars)| !bars.is_empty())
        .collect();
    let rows: usize = groups.iter().map(|(_, bars)| THEME + ROW * bars.len()).sum();
    let height = TOP + rows + BOTTOM;
    let mut out = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' \
         height='{height}' role='img' aria-label='Ratios of modelfs against its goals'>\n{STYLE}"
    );
    let all = || groups.iter().flat_map(|(_, bars)| bars);
    let (met, count) = (all().filter(|b| b.met).count(), all().count());
    text(&mut out, 24.0, 34.0, "title", &format!("modelfs: {met} of {count} goals met"));
    axis(&mut out, height);
    let mut y = TOP;
    for (theme, bars) in &groups {
        text(&mut out, 24.0, y as f64 + 25.0, "theme", theme);
        y += THEME;
        for bar in bars {
            draw(&mut out, y as f64, bar);
            y += ROW;
        }
    }
    out + "</svg>\n"
}
