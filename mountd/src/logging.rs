//! The log: to standard error, as much as was asked for.
//!
//! Invariant: set up once, at the start. Times are left out on a terminal, where they are noise.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// The variable that overrides the flags, in the usual syntax (`debug`, `modelfs=trace`).
pub const VARIABLE: &str = "MODELFS_LOG";

/// What the flags ask for.
fn level(quiet: bool, verbose: u8, daemon: bool) -> &'static str {
    match (quiet, verbose) {
        (true, _) => "error",
        (_, 0) if daemon => "info",
        (_, 0) => "warn",
        (_, 1) if daemon => "info,modelfs=debug,modelfs_platform=debug",
        (_, 1) => "info",
        (_, 2) => "info,modelfs=debug,modelfs_platform=debug",
        // Others' traces can show what they send, credentials included: only ours.
        (_, _) => "debug,modelfs=trace,modelfs_platform=trace,hyper=info,reqwest=info,rustls=info",
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
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal && std::env::var_os("NO_COLOR").is_none())
        .with_target(verbose > 0);
    match terminal {
        true => log.without_time().init(),
        false => log.init(),
    }
    if let Some((text, error)) = wrong {
        tracing::warn!("{VARIABLE}={text} is not understood and ignored: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
