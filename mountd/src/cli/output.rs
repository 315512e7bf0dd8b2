//! What is printed, and how a command ends.
//!
//! Invariant: a registry's text never reaches a terminal unescaped; a closed output (`| head`) is no error; with `--json`, standard output holds JSON and nothing else.

use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

use serde::Serialize;

use crate::error::{Failure, Kind};

/// How to print.
#[derive(Debug, Clone, Copy)]
pub struct Out {
    /// JSON instead of text.
    pub json: bool,
    /// Print errors only.
    pub quiet: bool,
}

impl Out {
    /// Prints the answer to a question, also with `--quiet`.
    pub fn show<T: Serialize>(
        &self,
        answer: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match self.json {
            true => print_json(answer),
            false => print(&safe(&text(answer))),
        }
    }

    /// Prints a name for a script: unescaped, unless the output is a terminal.
    pub fn name<T: Serialize>(
        &self,
        answer: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match self.json || std::io::stdout().is_terminal() {
            true => self.show(answer, text),
            false => print(&text(answer)),
        }
    }

    /// Prints a warning on standard error, but not with `--quiet`. With `--json` the answer itself must
    /// contain it.
    pub fn warn(&self, text: &str) {
        self.note(&format!("warning: {text}"));
    }

    /// The same without calling it a warning.
    pub fn note(&self, text: &str) {
        if !self.quiet && !self.json {
            // If this fails, there is no other place to report it.
            let _ = writeln!(std::io::stderr(), "{}", safe(text));
        }
    }

    /// Prints what was done, but not with `--quiet`.
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

/// JSON that cannot control a terminal: the same document, with JSON escapes.
fn json<T: Serialize>(value: &T) -> String {
    let text = serde_json::to_string(value).expect("answers are plain data with string keys");
    if !text.contains(hidden) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match hidden(c) {
            // Only strings contain anything but ASCII.
            true => c.encode_utf16(&mut [0; 2]).iter().for_each(|u| out += &format!("\\u{u:04x}")),
            false => out.push(c),
        }
    }
    out
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

/// Control characters, and those that change the direction of writing or have no width.
pub fn hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Each line of a text made [`printable`].
fn safe(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// Text that cannot control a terminal: [`hidden`] characters are escaped.
pub fn printable(text: &str) -> String {
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

/// Prints why a command failed.
pub fn failed(failure: &Failure, as_json: bool) -> ExitCode {
    let text = match as_json {
        true => json(&Error { error: failure }),
        false => {
            // Our own line breaks (lists of problems) stay; each line is made safe.
            let hint = failure.hint.as_deref().map(printable);
            let hint = hint.map_or_else(String::new, |h| format!("\n  {h}"));
            format!("error: {}{hint}", safe(&failure.message))
        }
    };
    // If this fails, there is no other place to report it.
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(failure.kind.exit_code())
}

/// Prints clap's message: help and version are no errors.
pub fn wrong_arguments(error: &clap::Error) -> ExitCode {
    let as_json = std::env::args_os().any(|a| a == "--json");
    let text = error.to_string();
    if !error.use_stderr() || !as_json {
        // Arguments may have been pasted from somewhere else; escaped text is shown without colours.
        let _ = match safe(&text) == text.trim_end_matches('\n') {
            true => error.print(),
            false => writeln!(std::io::stderr(), "{}", safe(&text)),
        };
        return ExitCode::from(u8::from(error.use_stderr()) * Kind::Usage.exit_code());
    }
    let first = text.lines().next().unwrap_or_default();
    failed(&Failure::usage(first.trim_start_matches("error: ")).hint("see --help"), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_text_contains_no_terminal_escapes() {
        assert_eq!(printable("plain ünï 模型"), "plain ünï 模型");
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(printable("x\u{202e}y\u{200b}"), "x\\u{202e}y\\u{200b}");
        assert_eq!(printable("\u{9b}31m"), "\\u{9b}31m");
        assert_eq!(printable("a\u{e0041}"), "a\\u{e0041}");
        assert_eq!(safe("a\u{7}\nb\n"), "a\\u{7}\nb");
    }

    #[test]
    fn json_is_the_same_document_and_printable() {
        let value = serde_json::json!({"a\u{9b}\u{202e}": ["\u{1b}[2J\u{e0041}", "ü模"]});
        let text = json(&value);
        assert!(!text.contains(hidden) && text.contains("ü模"), "{text:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
