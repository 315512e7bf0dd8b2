//! The log: to standard error, as much as was asked for.
//!
//! Invariant: set up once, at the start. A daemon writes a log; times are left out on a terminal, where
//! they are noise. A command writes messages, as it writes its errors. Whatever is in an event, it is
//! one line, and no terminal obeys it.

use std::fmt;
use std::io::{IsTerminal, Write};

use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::output::printable;

/// The variable that overrides the flags, in the usual syntax (`debug`, `modelfs=trace`).
pub const VARIABLE: &str = "MODELFS_LOG";

/// Others' traces can show what they send, credentials included: whatever was asked for, only ours
/// are written.
fn may_be_logged(event: &Metadata<'_>) -> bool {
    *event.level() <= Level::INFO || event.target().starts_with("modelfs")
}

/// What the flags ask for.
fn level(quiet: bool, verbose: u8, daemon: bool) -> &'static str {
    match (quiet, verbose) {
        (true, _) => "error",
        (_, 0) if daemon => "info",
        (_, 0) => "warn",
        (_, 1) if daemon => "info,modelfs=debug,modelfs_platform=debug",
        (_, 1) => "info",
        (_, 2) => "info,modelfs=debug,modelfs_platform=debug",
        (_, _) => "info,modelfs=trace,modelfs_platform=trace",
    }
}

/// Events as messages of a command: `warning: what happened field=value`.
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

/// Writes events, each of which comes in one piece.
struct Lines<W> {
    out: W,
    /// Escapes for colours are in them; the formatter escapes those of values.
    colours: bool,
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (line, end) = text.strip_suffix('\n').map_or((&*text, ""), |line| (line, "\n"));
        let shown = match self.colours {
            true => line.split('\u{1b}').map(printable).collect::<Vec<_>>().join("\u{1b}"),
            false => printable(line),
        };
        self.out.write_all(format!("{shown}{end}").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// Starts logging.
pub fn start(quiet: bool, verbose: u8, daemon: bool) {
    let asked = std::env::var(VARIABLE).ok().filter(|v| !v.is_empty());
    let parsed = asked.map(|text| EnvFilter::try_new(&text).map_err(|e| (text, e)));
    let (filter, wrong) = match parsed {
        Some(Ok(filter)) => (filter, None),
        Some(Err(wrong)) => (EnvFilter::new(level(quiet, verbose, daemon)), Some(wrong)),
        None => (EnvFilter::new(level(quiet, verbose, daemon)), None),
    };
    let terminal = std::io::stderr().is_terminal();
    let colours = terminal && std::env::var_os("NO_COLOR").is_none();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Lines { out: std::io::stderr(), colours })
        .with_ansi(colours)
        .with_target(verbose > 0);
    match (daemon, terminal) {
        (false, _) => log.event_format(Messages).finish().with(filter_fn(may_be_logged)).init(),
        (true, true) => log.without_time().finish().with(filter_fn(may_be_logged)).init(),
        (true, false) => log.finish().with(filter_fn(may_be_logged)).init(),
    }
    if let Some((text, error)) = wrong {
        tracing::warn!("{VARIABLE}={text} is not understood and ignored: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_that_no_terminal_obeys() {
        for (colours, shown) in [
            (false, "\\u{1b}[2mWARN a\\nerror: b\\u{202e}\\u{9b}\n"),
            (true, "\u{1b}[2mWARN a\\nerror: b\\u{202e}\\u{9b}\n"),
        ] {
            let mut lines = Lines { out: Vec::new(), colours };
            let event = "\u{1b}[2mWARN a\nerror: b\u{202e}\u{9b}\n";
            lines.write_all(event.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(lines.out).unwrap(), shown);
        }
    }

    #[test]
    fn every_level_is_understood_and_quiet_wins() {
        for verbose in 0..5 {
            for daemon in [false, true] {
                assert!(EnvFilter::try_new(level(false, verbose, daemon)).is_ok());
                assert_eq!(level(true, verbose, daemon), "error");
            }
        }
    }
}
