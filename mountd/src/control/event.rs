//! The lines of a streamed answer.
//!
//! Invariant: any number of [`Event::Progress`], then one of the others. Plain values.

use modelfs::manager::Progress;
use serde::{Deserialize, Serialize};

use crate::error::Failure;

/// One line of a streamed answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event<T> {
    /// How far it is.
    Progress(Progress),
    /// It is done.
    Done(T),
    /// It failed.
    Error(Failure),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_a_stream_names_its_type() {
        let line = serde_json::to_string(&Event::<u8>::Progress(Progress::default())).unwrap();
        assert_eq!(line, r#"{"progress":{"total":0,"done":0,"at_start":0}}"#);
        assert_eq!(serde_json::to_string(&Event::Done(7)).unwrap(), r#"{"done":7}"#);
    }
}
