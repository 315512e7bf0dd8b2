//! The log: to standard error, at the requested level.
//!
//! Invariant: set up once, at the start. A daemon writes a log, without times if it goes to a terminal.
//! A command writes messages, in the form of its errors. An event is always one line, without control
//! sequences from its values. Each callsite may write a burst of [`AT_ONCE`] lines, then one line every
//! [`EACH`]; the next line states how many were left out. Concurrency: one lock around the counts, held
//! for a lookup.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use modelfs::config::{Origin, Setting};
use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::output::printable;

/// The variable that overrides the flags, in the usual syntax (`debug`, `modelfs=trace`).
pub const VARIABLE: &str = "MODELFS_LOG";

/// Debug events of dependencies can contain what they send, credentials included. So only ours are
/// written, whatever level was requested.
fn may_be_logged(event: &Metadata<'_>) -> bool {
    *event.level() <= Level::INFO || event.target().starts_with("modelfs")
}

/// What the flags ask of the log.
#[derive(Debug, Clone, Copy)]
pub struct Verbosity {
    /// Errors only.
    pub quiet: bool,
    /// How much more than usual.
    pub verbose: u8,
}

/// The level that the flags request.
fn level(asked: Verbosity, daemon: bool) -> &'static str {
    match (asked.quiet, asked.verbose) {
        (true, _) => "error",
        (_, 0) if daemon => "info",
        (_, 0) => "warn",
        (_, 1) if daemon => "info,modelfs=debug,modelfs_platform=debug",
        (_, 1) => "info",
        (_, 2) => "info,modelfs=debug,modelfs_platform=debug",
        (_, _) => "info,modelfs=trace,modelfs_platform=trace",
    }
}

/// Formats events as messages of a command: `warning: what happened field=value`.
struct Messages;

impl<S, N> FormatEvent<S, N> for Messages
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(to, "{}: ", word(*event.metadata().level()))?;
        context.format_fields(to.by_ref(), event)?;
        writeln!(to)
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// Maximum burst of lines from one callsite: enough to see the problem and what it affects.
const AT_ONCE: u32 = 20;

/// Interval between lines after the burst: the log of a whole day of errors is read in minutes.
const EACH: Duration = Duration::from_secs(5);

/// The rate limit of one callsite.
#[derive(Debug, Default)]
struct Written {
    /// When its written lines no longer count.
    spent: Option<Instant>,
    /// Lines left out since the last written one.
    left_out: u64,
}

impl Written {
    /// Whether it may write a line now; if so, how many were left out before it.
    fn line(&mut self, now: Instant) -> Option<u64> {
        let spent = self.spent.map_or(now, |at| at.max(now));
        if spent.duration_since(now) > EACH * (AT_ONCE - 1) {
            self.left_out += 1;
            return None;
        }
        self.spent = Some(spent + EACH);
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Rate limits for all callsites. Debug and trace events are exempt: they were requested explicitly.
#[derive(Debug, Default)]
struct Limits(Mutex<HashMap<Identifier, Written>>);

impl Limits {
    fn line(&self, event: &Metadata<'_>) -> Option<u64> {
        if *event.level() > Level::INFO {
            return Some(0);
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(event.callsite()).or_default().line(Instant::now())
    }
}

/// Makes a writer for each event.
struct Log {
    colours: bool,
    limits: Limits,
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Lines<Box<dyn Write>>;

    fn make_writer(&'a self) -> Self::Writer {
        Lines { out: Box::new(io::stderr()), colours: self.colours, left_out: 0 }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Self::Writer {
        match self.limits.line(event) {
            Some(left_out) => Lines { left_out, ..self.make_writer() },
            None => Lines { out: Box::new(io::sink()), colours: false, left_out: 0 },
        }
    }
}

/// Writes events; each arrives in one call.
struct Lines<W> {
    out: W,
    /// Events contain colour escapes; the formatter has already escaped those in values.
    colours: bool,
    /// Number of lines from this callsite that were left out before this one.
    left_out: u64,
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (line, end) = text.strip_suffix('\n').map_or((&*text, ""), |line| (line, "\n"));
        let shown = match self.colours {
            true => line.split('\u{1b}').map(printable).collect::<Vec<_>>().join("\u{1b}"),
            false => printable(line),
        };
        let left_out = match std::mem::take(&mut self.left_out) {
            0 => String::new(),
            1 => " (one more line like this was left out before it)".to_owned(),
            n => format!(" ({n} more lines like this were left out before it)"),
        };
        self.out.write_all(format!("{shown}{left_out}{end}").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// What a daemon logs: the variable overrides the flags, and these a file.
pub fn filter(configured: Option<&Setting<String>>, asked: Verbosity) -> Setting<String> {
    let by_flag = match asked {
        Verbosity { quiet: true, .. } => Some("--quiet"),
        Verbosity { verbose: 0, .. } => None,
        Verbosity { .. } => Some("--verbose"),
    };
    match (configured, by_flag) {
        (Some(given @ Setting { origin: Origin::Environment { .. }, .. }), _)
        | (Some(given), None) => given.clone(),
        (_, Some(flag)) => Setting::argument(flag, level(asked, true).to_owned()),
        (None, None) => Setting::default(level(asked, true).to_owned()),
    }
}

/// Starts the log of a command.
pub fn start_command(asked: Verbosity) {
    let variable = std::env::var(VARIABLE).ok().filter(|v| !v.is_empty());
    let (filter, wrong) = match &variable {
        Some(text) => parsed(text, VARIABLE, level(asked, false)),
        None => (EnvFilter::new(level(asked, false)), None),
    };
    let (colours, log) = (colours(), tracing_subscriber::fmt());
    log.with_env_filter(filter)
        .with_writer(Log { colours, limits: Limits::default() })
        .with_ansi(colours)
        .with_target(asked.verbose > 0)
        .event_format(Messages)
        .finish()
        .with(filter_fn(may_be_logged))
        .init();
    warn_of(wrong);
}

/// Starts the log of a daemon; `filter`: what [`filter`] returned.
pub fn start_daemon(filter: Option<&Setting<String>>) {
    let usual = level(Verbosity { quiet: false, verbose: 0 }, true);
    let (filter, wrong, plain) = match filter {
        Some(Setting { value, origin }) => {
            let (filter, wrong) = parsed(value, &origin.to_string(), usual);
            (filter, wrong, value == usual || value == "error")
        }
        None => (EnvFilter::new(usual), None, true),
    };
    let colours = colours();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Log { colours, limits: Limits::default() })
        .with_ansi(colours)
        // Who asks for more than usual wants to know where it comes from.
        .with_target(!plain);
    match std::io::stderr().is_terminal() {
        true => log.without_time().finish().with(filter_fn(may_be_logged)).init(),
        false => log.finish().with(filter_fn(may_be_logged)).init(),
    }
    warn_of(wrong);
}

fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// The filter that a text means, else the usual one and what to say about it.
fn parsed(text: &str, origin: &str, usual: &str) -> (EnvFilter, Option<String>) {
    match EnvFilter::try_new(text) {
        Ok(filter) => (filter, None),
        Err(error) => {
            let wrong = format!("{origin}: '{text}' is not understood and ignored: {error}");
            (EnvFilter::new(usual), Some(wrong))
        }
    }
}

fn warn_of(wrong: Option<String>) {
    if let Some(wrong) = wrong {
        tracing::warn!("{wrong}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_event_is_one_line_without_terminal_escapes() {
        for (colours, shown) in [
            (false, "\\u{1b}[2mWARN a\\nerror: b\\u{202e}\\u{9b}\n"),
            (true, "\u{1b}[2mWARN a\\nerror: b\\u{202e}\\u{9b}\n"),
        ] {
            let mut lines = Lines { out: Vec::new(), colours, left_out: 0 };
            let event = "\u{1b}[2mWARN a\nerror: b\u{202e}\u{9b}\n";
            lines.write_all(event.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(lines.out).unwrap(), shown);
        }
    }

    #[test]
    fn repeated_log_lines_are_limited_and_the_number_left_out_is_logged() {
        let (mut written, start) = (Written::default(), Instant::now());
        for _ in 0..AT_ONCE {
            assert_eq!(written.line(start), Some(0));
        }
        for _ in 0..1000 {
            assert_eq!(written.line(start), None);
        }
        assert_eq!(written.line(start + EACH), Some(1000));
        assert_eq!(written.line(start + EACH), None);
        assert_eq!(written.line(start + EACH * 2), Some(1));
        let quiet = start + EACH * 100;
        assert_eq!((0..99).filter_map(|_| written.line(quiet)).count(), AT_ONCE as usize);
        let mut lines = Lines { out: Vec::new(), colours: false, left_out: 1000 };
        lines.write_all(b"WARN a\n").unwrap();
        lines.write_all(b"WARN a\n").unwrap();
        let text = String::from_utf8(lines.out).unwrap();
        let want = "WARN a (1000 more lines like this were left out before it)\nWARN a\n";
        assert_eq!(text, want);
    }

    #[test]
    fn every_level_is_understood_and_quiet_wins() {
        for verbose in 0..5 {
            for daemon in [false, true] {
                let loud = Verbosity { quiet: false, verbose };
                assert!(EnvFilter::try_new(level(loud, daemon)).is_ok());
                assert_eq!(level(Verbosity { quiet: true, ..loud }, daemon), "error");
            }
        }
    }

    #[test]
    fn the_variable_overrides_the_flags_and_these_a_file() {
        let given = |origin| Setting { value: "trace".to_owned(), origin };
        let variable = given(Origin::Environment { variable: VARIABLE.to_owned() });
        let file = given(Origin::Other);
        let [plain, loud, quiet] = [(false, 0), (false, 2), (true, 0)]
            .map(|(quiet, verbose)| Verbosity { quiet, verbose });
        assert_eq!(filter(Some(&variable), quiet), variable);
        assert_eq!(filter(Some(&file), plain), file);
        assert_eq!(filter(Some(&file), quiet), Setting::argument("--quiet", "error".to_owned()));
        assert_eq!(filter(None, loud).origin.to_string(), "--verbose");
        assert_eq!(filter(None, plain), Setting::default("info".to_owned()));
    }
}
