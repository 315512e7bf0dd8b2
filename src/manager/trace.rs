//! `trace`: show, import or forget the recorded load of a version.
//!
//! Invariant: a document from outside is kept only if it can be read; it is a hint and nothing more.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::ManagerError;
use super::lookup::{Lookup, resolve};
use super::manager::{Command, Manager};
use super::progress::ProgressSink;
use super::reference::Ref;
use crate::base::blocking::blocking;
use crate::model::Digest;
use crate::model::trace::TraceDoc;

/// Asks for the recorded load of a version.
#[derive(Debug, Serialize, Deserialize)]
pub struct GetTrace {
    /// Which.
    pub reference: Ref,
}

/// Stores a load that was recorded elsewhere.
#[derive(Debug, Serialize, Deserialize)]
pub struct ImportTrace {
    /// The document, as exported.
    pub document: Box<RawValue>,
}

/// Forgets the recorded load of a version.
#[derive(Debug, Serialize, Deserialize)]
pub struct ForgetTrace {
    /// Which.
    pub reference: Ref,
}

/// A recorded load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trace {
    /// The version that was asked for, if one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<Ref>,
    /// Its manifest.
    pub hash: Digest,
    /// Files that the load touched.
    pub files: u64,
    /// Runs of bytes that it touched.
    pub steps: u64,
    /// Their bytes.
    pub bytes: u64,
    /// All of it, as it is exported.
    pub document: TraceDoc,
}

/// A recorded load that was forgotten.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TraceForgotten {
    /// Of which version.
    #[serde(flatten)]
    pub reference: Ref,
    /// Its manifest.
    pub hash: Digest,
}

impl Trace {
    fn new(reference: Option<Ref>, document: TraceDoc) -> Self {
        let bytes = document.listed().map(|(_, _, len)| len).fold(0, u64::saturating_add);
        let (files, steps) = (document.file_count() as u64, document.listed().len() as u64);
        Self { reference, hash: document.manifest, files, steps, bytes, document }
    }
}

/// The manifest of a version that is known here.
async fn manifest(manager: &Manager, reference: &Ref) -> Result<Digest, ManagerError> {
    let version = resolve(manager, &reference.parse()?, Lookup::Offline).await?;
    Ok(version.found.hash)
}

impl Command for GetTrace {
    type Answer = Trace;

    async fn run(self, manager: Manager, _: ProgressSink) -> Result<Trace, ManagerError> {
        let hash = manifest(&manager, &self.reference).await?;
        blocking(move || {
            // The load may be under way.
            if let Some(fetcher) = manager.fetcher() {
                fetcher.save_traces();
            }
            let Some(body) = manager.store().trace(&hash)? else {
                return Err(ManagerError::NoTrace { reference: self.reference });
            };
            let document = TraceDoc::parse(&body).map_err(ManagerError::DamagedTrace)?;
            Ok(Trace::new(Some(self.reference), document))
        })
        .await?
    }
}

impl Command for ImportTrace {
    type Answer = Trace;

    async fn run(self, manager: Manager, _: ProgressSink) -> Result<Trace, ManagerError> {
        blocking(move || {
            let document = TraceDoc::parse(self.document.get().as_bytes())
                .map_err(ManagerError::InvalidTrace)?;
            manager.store().save_trace(&document.manifest, &document.to_json())?;
            Ok(Trace::new(None, document))
        })
        .await?
    }
}

impl Command for ForgetTrace {
    type Answer = TraceForgotten;

    async fn run(self, manager: Manager, _: ProgressSink) -> Result<TraceForgotten, ManagerError> {
        let hash = manifest(&manager, &self.reference).await?;
        blocking(move || match manager.store().forget_trace(&hash)? {
            true => Ok(TraceForgotten { reference: self.reference, hash }),
            false => Err(ManagerError::NoTrace { reference: self.reference }),
        })
        .await?
    }
}
