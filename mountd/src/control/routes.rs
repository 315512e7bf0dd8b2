//! The control API's routes: one line per command.
//!
//! Invariant: additions only within `/v1`; sizes are bytes, times RFC 3339 in UTC; names are as the
//! registry gives them, so clients escape them before printing. A [`Route`] ties a command to its path, so
//! server and client cannot disagree. Plain values.

use modelfs::base::text::{MESSAGE, brief};
use modelfs::manager::{
    Command, Evict, ForgetTrace, GetHubEndpoint, GetInfo, GetList, GetPath, GetStatus, GetTrace,
    ImportTrace, Pin, Prefetch, Refresh, Restart, Unmount, Unpin, Verify,
};
use modelfs::model::trace::MAX_DOCUMENT;

use crate::error::Failure;

/// How a command is asked for and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// It only looks: GET does as well as POST.
    Read,
    /// It changes something; asked again when its answer is lost, since twice is the same as once.
    Change,
    /// It changes something, and twice is not the same as once: never asked again.
    Once,
    /// It takes long: the answer is a stream of [`Event`](super::event::Event) lines.
    Stream,
}

/// The largest request in bytes: references and owners are a few hundred.
const MAX_BODY: usize = 64 << 10;

/// A command's place in the API.
pub trait Route: Command + Sync {
    /// Its path.
    const PATH: &'static str;
    /// How it is asked for and answered.
    const STYLE: Style;
    /// The largest request in bytes.
    const MAX_BODY: usize = MAX_BODY;
}

/// What is done with every route.
pub trait Visitor {
    /// Called once for each.
    fn visit<R: Route>(&mut self);
}

macro_rules! routes {
    ($($path:literal $style:ident $command:ty $(, at most $max:expr)?;)*) => {
        $(impl Route for $command {
            const PATH: &'static str = $path;
            const STYLE: Style = Style::$style;
            $(const MAX_BODY: usize = $max;)?
        })*

        /// Visits every route.
        pub fn visit_all(visitor: &mut impl Visitor) {
            $(visitor.visit::<$command>();)*
        }
    };
}

routes! {
    "/v1/status" Read GetStatus;
    "/v1/list" Read GetList;
    "/v1/info" Read GetInfo;
    "/v1/path" Read GetPath;
    "/v1/hub-endpoint" Read GetHubEndpoint;
    "/v1/refresh" Change Refresh;
    "/v1/prefetch" Stream Prefetch;
    "/v1/verify" Stream Verify;
    "/v1/pin" Change Pin;
    "/v1/unpin" Change Unpin;
    "/v1/evict" Change Evict;
    "/v1/trace" Read GetTrace;
    // A JSON document inside a JSON document.
    "/v1/trace/import" Change ImportTrace, at most 2 * MAX_DOCUMENT;
    "/v1/trace/forget" Change ForgetTrace;
    "/v1/restart" Once Restart;
    "/v1/unmount" Once Unmount;
}

/// Reads a request's body; an empty one stands for a request without fields.
pub fn parse<R: Route>(body: &[u8]) -> Result<R, Failure> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body)
        .map_err(|e| Failure::usage(brief(&format!("the request's body: {e}"), MESSAGE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_without_a_body_have_their_defaults() {
        assert!(!parse::<GetList>(b"").unwrap().remote);
        parse::<GetStatus>(b"{}").unwrap();
    }

    #[test]
    fn every_configured_path_is_distinct() {
        struct Paths(Vec<&'static str>);
        impl Visitor for Paths {
            fn visit<R: Route>(&mut self) {
                self.0.push(R::PATH);
            }
        }
        let mut paths = Paths(Vec::new());
        visit_all(&mut paths);
        let count = paths.0.len();
        paths.0.sort_unstable();
        paths.0.dedup();
        assert_eq!(paths.0.len(), count);
    }
}
