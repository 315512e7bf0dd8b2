//! What is printed, and how a command ends.
//!
//! Invariant: a registry's text never reaches a terminal unescaped; a reader that has gone away
//! (`| head`) is no error; with `--json`, standard output holds JSON and nothing else.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use serde::Serialize;

use crate::error::{Failure, Kind};

/// How to print.
#[derive(Debug, Clone, Copy)]
pub struct Out {
    /// JSON instead of text.
    pub json: bool,
    /// No text about what was done.
    pub quiet: bool,
}

impl Out {
    /// The answer to a question: printed also with `--quiet`.
    pub fn show<T: Serialize>(
        &self,
        answer: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match self.json {
            true => print(&json(answer)),
            false => print(&text(answer)),
        }
    }

    /// What was done: `--quiet` leaves the text out.
    pub fn say<T: Serialize>(
        &self,
        answer: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match self.quiet && !self.json {
            true => Ok(()),
            false => self.show(answer, text),
        }
    }
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("answers are plain data with string keys")
}

/// One JSON document on a line of its own.
pub fn print_json<T: Serialize>(value: &T) -> Result<(), Failure> {
    print(&json(value))
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{}", text.trim_end_matches('\n')).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Kind::General, format!("writing the output: {e}")))
        }
        _ => Ok(()),
    }
}

/// Text that a terminal shows and does not obey: control characters, and those that turn the
/// direction of writing or take no place, are escaped.
pub fn printable(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match hidden(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

#[derive(Serialize)]
struct Error<'a> {
    error: &'a Failure,
}

/// Says why a command failed.
pub fn failed(failure: &Failure, as_json: bool) -> ExitCode {
    let text = match as_json {
        true => json(&Error { error: failure }),
        false => {
            // Our own line breaks (lists of problems) stay; each line is made safe.
            let lines: Vec<_> = failure.message.lines().map(printable).collect();
            let hint = failure.hint.as_deref().map(printable);
            let hint = hint.map_or_else(String::new, |h| format!("\n  {h}"));
            format!("error: {}{hint}", lines.join("\n"))
        }
    };
    // Nobody is left to tell if this fails.
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(failure.kind.exit_code())
}

/// What clap has to say: help and version are no errors.
pub fn wrong_arguments(error: &clap::Error) -> ExitCode {
    let as_json = std::env::args_os().any(|a| a == "--json");
    if !error.use_stderr() || !as_json {
        let _ = error.print();
        return ExitCode::from(u8::from(error.use_stderr()) * Kind::Usage.exit_code());
    }
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    failed(&Failure::usage(first.trim_start_matches("error: ")).hint("see --help"), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_not_told_what_to_do() {
        assert_eq!(printable("plain ünï 模型"), "plain ünï 模型");
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(printable("x\u{202e}y\u{200b}"), "x\\u{202e}y\\u{200b}");
        assert_eq!(printable("\u{9b}31m"), "\\u{9b}31m");
    }
}
