//! How far a command is: a bar on a terminal, lines of JSON where promised; and what it is waiting for.
//!
//! Invariant: standard output is used only with `--json`. Nothing is drawn before there is something
//! to show. Without a terminal, an outage is reported once. Shared by threads; a line of JSON is
//! printed at most every [`EVERY`].

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use modelfs::manager::{Progress, ProgressSink, Waiting};

use super::output::{Out, print_json, printable};
use crate::control::event::Event;

/// Between two lines of JSON: often enough for a reader, too seldom to fill a log.
const EVERY: Duration = Duration::from_millis(500);

const TEMPLATE: &str = "{msg} [{bar:30}] {percent:>3}%  {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta} left";

/// Replaces the bar while nothing arrives.
const WAITING: &str = "{wide_msg}";

/// Shows how far something is.
pub struct Meter {
    out: Out,
    what: &'static str,
    bar: ProgressBar,
    json: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    started: bool,
    /// Whether an outage was reported.
    waiting: bool,
    printed: Option<Instant>,
}

impl Meter {
    /// For a command that does `what`; `lines`: with `--json`, print a line of JSON now and then.
    pub fn new(out: Out, what: &'static str, lines: bool) -> Self {
        let bar = match out.json || out.quiet {
            true => ProgressBar::hidden(),
            // Hidden all the same if that is no terminal.
            false => ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()),
        };
        // A message that is set later would draw an empty bar.
        let bar = bar.with_message(what);
        set_style(&bar, TEMPLATE);
        Self { out, what, bar, json: out.json && lines, state: Arc::default() }
    }

    /// Shows the request that is being waited for at this moment and its registry; none: nothing is.
    pub fn waits(&self, waiting: Option<(String, Waiting)>) {
        let Ok(mut state) = self.state.lock() else { return };
        let said = std::mem::replace(&mut state.waiting, waiting.is_some());
        match waiting {
            Some((registry, waiting)) => {
                let text = waiting_text(&registry, &waiting);
                if !self.bar.is_hidden() {
                    set_style(&self.bar, WAITING);
                    self.bar.set_message(text);
                } else if !said {
                    self.out.note(&text);
                }
            }
            None if said => {
                set_style(&self.bar, TEMPLATE);
                self.bar.set_message(self.what);
            }
            None => {}
        }
    }

    /// Receives the progress that is shown.
    pub fn sink(&self) -> ProgressSink {
        let (bar, json, state) = (self.bar.clone(), self.json, self.state.clone());
        Arc::new(move |p| {
            let Ok(mut state) = state.lock() else { return };
            if !state.started {
                state.started = true;
                bar.set_length(p.total);
                // What was there before was not fetched at this speed.
                bar.set_position(p.at_start);
                bar.reset_eta();
            }
            bar.set_length(p.total);
            bar.set_position(p.done);
            if json && due(&mut state, &p, Instant::now()) {
                let _ = print_json(&Event::<()>::Progress(p));
            }
        })
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn set_style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("#>-"));
    }
}

fn waiting_text(registry: &str, waiting: &Waiting) -> String {
    let Waiting { why, seconds_left } = waiting;
    printable(&format!("waiting for {registry}, for at most {seconds_left}s more: {why}"))
}

fn due(state: &mut State, p: &Progress, now: Instant) -> bool {
    let due = state.printed.is_none_or(|at| now - at >= EVERY) || p.done >= p.total;
    if due {
        state.printed = Some(now);
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_lines_are_rate_limited_and_the_last_one_is_printed() {
        let (mut state, now) = (State::default(), Instant::now());
        let at = |done| Progress { total: 10, done, at_start: 0 };
        assert!(due(&mut state, &at(0), now));
        assert!(!due(&mut state, &at(1), now + EVERY / 2));
        assert!(due(&mut state, &at(2), now + EVERY));
        assert!(due(&mut state, &at(10), now + EVERY));
    }

    #[test]
    fn the_progress_bar_template_is_valid() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
        assert!(ProgressStyle::with_template(WAITING).is_ok());
    }

    #[test]
    fn a_wait_is_reported_in_one_line_with_its_deadline() {
        let waiting = Waiting { why: "the catalog: refused\n".into(), seconds_left: 42 };
        let text = waiting_text("http://h", &waiting);
        assert_eq!(text, "waiting for http://h, for at most 42s more: the catalog: refused\\n");
    }
}
