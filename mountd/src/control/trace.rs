//! Commands about recorded loads: look at one, take one that was recorded elsewhere, forget one.
//!
//! Invariant: a document from outside is kept only if it can be read; it is a hint and nothing more.

use std::sync::Arc;

use modelfs::model::trace::TraceDoc;

use super::answers::{Traced, Untraced};
use super::ops::{Ask, Ops, Run, blocking};
use super::types::{ForgetTrace, GetTrace, ImportTrace, ProgressSink, Ref};
use crate::error::{Failure, Kind};

fn none(reference: &Ref) -> Failure {
    Failure::new(Kind::NotCached, format!("no load of {reference} was recorded"))
        .hint("a load is recorded when a program reads the version for the first time")
}

fn traced(reference: Option<Ref>, document: TraceDoc) -> Traced {
    let bytes = document.listed().map(|(_, _, len)| len).fold(0, u64::saturating_add);
    let (files, steps) = (document.file_count() as u64, document.listed().len() as u64);
    Traced { reference, hash: document.manifest, files, steps, bytes, document }
}

impl Run for GetTrace {
    async fn run(self, ops: Arc<Ops>, _: ProgressSink) -> Result<Traced, Failure> {
        let hash = ops.find_known(&self.reference.parse()?, Ask::Memory).await?.found.hash;
        blocking(move || {
            // Also of a load that is just under way.
            if let Some(fetcher) = &ops.fetcher {
                fetcher.keep_traces();
            }
            let body = ops.store.trace(&hash)?.ok_or_else(|| none(&self.reference))?;
            let document = TraceDoc::parse(&body)
                .map_err(|e| Failure::new(Kind::Storage, format!("the index has {e}")))?;
            Ok(traced(Some(self.reference), document))
        })
        .await
    }
}

impl Run for ImportTrace {
    async fn run(self, ops: Arc<Ops>, _: ProgressSink) -> Result<Traced, Failure> {
        blocking(move || {
            let document = TraceDoc::parse(self.document.get().as_bytes())
                .map_err(|e| Failure::usage(e.to_string()))?;
            ops.store.save_trace(&document.manifest, &document.to_json())?;
            Ok(traced(None, document))
        })
        .await
    }
}

impl Run for ForgetTrace {
    async fn run(self, ops: Arc<Ops>, _: ProgressSink) -> Result<Untraced, Failure> {
        let hash = ops.find_known(&self.reference.parse()?, Ask::Memory).await?.found.hash;
        blocking(move || match ops.store.forget_trace(&hash)? {
            true => Ok(Untraced { reference: self.reference, hash }),
            false => Err(none(&self.reference)),
        })
        .await
    }
}
