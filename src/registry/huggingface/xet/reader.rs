//! Reads of ranges of files that are verified against the file's Xet hash.
//!
//! Invariant: a body ends without an error only if all of its bytes lead to the Xet hash at their place.
//! What is then known of the file's tree is remembered. Concurrency: shared; a body is owned by its reader.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::super::client::Hub;
use super::access::FileOf;
use super::chunks::Chunks;
use super::client::{Proved, Service};
use super::proofs::{FileProofs, Proofs};
use crate::base::ObjectRange;
use crate::registry::api::ProvenBody;
use crate::registry::error::RegistryError;
use crate::registry::transport::http_client::HttpClient;
use crate::trust::xet::{Cover, Node, Proof, XetHash, verify};

/// Maximum number of bytes that are verified together, and held in memory by whoever reads them. The
/// service makes a window as large as it likes: a run of zeros has no boundary that it finds good.
const MAX_WINDOW: u64 = 64 << 20;

/// Reads of files that have a Xet hash.
pub struct Xet {
    service: Arc<Service>,
    proofs: Proofs,
}

/// What verifies a range.
enum Evidence {
    /// Nodes that are known to be there.
    Nodes(Cover),
    /// A proof of one window, which is the range.
    Proof(Proof),
}

impl Xet {
    /// Reads with this client, which follows no redirects.
    pub fn new(http: HttpClient) -> Self {
        Self { service: Arc::new(Service::new(http)), proofs: Proofs::new() }
    }

    /// A range of the file that covers `range`, verified. `range` is neither empty nor past the end.
    pub async fn read(
        &self,
        hub: &Hub,
        file: FileOf<'_>,
        root: XetHash,
        len: u64,
        range: ObjectRange,
    ) -> Result<ProvenBody, RegistryError> {
        let known = self.proofs.of(root, len);
        let unproven = |why: String| RegistryError::Unproven { what: file.what.to_owned(), why };
        if let Some(why) = known.refused() {
            return Err(unproven(why));
        }
        let (evidence, range) = match known.cover(range) {
            Some(cover) => {
                let range = cover.range();
                (Evidence::Nodes(cover), ObjectRange::new(range.start, range.end))
            }
            None => {
                let proof = match self.service.proof(hub, file, &root, range).await? {
                    Proved::Proof(proof) => proof,
                    Proved::Refused(why) => {
                        known.refuse(&why);
                        return Err(unproven(why));
                    }
                };
                let window = window(&proof, range, len)
                    .map_err(|why| RegistryError::WrongBytes { what: file.what.into(), why })?;
                if window.len() > MAX_WINDOW {
                    let why = format!("the proof is one of {} bytes", window.len());
                    known.refuse(&why);
                    return Err(unproven(why));
                }
                (Evidence::Proof(proof), window)
            }
        };
        let (terms, place) = self.service.terms(hub, file, &root, range).await?;
        let what = format!("{} bytes {}-{}", file.what, range.start(), range.end() - 1);
        let chunks = Chunks::new(Arc::clone(&self.service), place, what, terms);
        let skip = chunks.skip();
        let body =
            Body { chunks, known, evidence, root, len, range, skip, at: 0, nodes: Vec::new() };
        Ok(ProvenBody { range, bytes: stream::unfold(Some(body), Body::next).boxed() })
    }
}

/// The one window of a proof, if it covers the range and the proof is of a file of that length.
fn window(proof: &Proof, range: ObjectRange, len: u64) -> Result<ObjectRange, String> {
    if proof.file_size != len {
        return Err(format!("the proof is of a file of {} bytes", proof.file_size));
    }
    match &proof.windows[..] {
        [window] => {
            let [start, end] = window.dirty_byte_range;
            match start <= range.start() && range.end() <= end && end <= len {
                true => Ok(ObjectRange::new(start, end)),
                false => Err("the proof is of another range".into()),
            }
        }
        _ => Err("the proof has not one window".into()),
    }
}

/// A range that is being received.
struct Body {
    chunks: Chunks,
    known: Arc<FileProofs>,
    evidence: Evidence,
    root: XetHash,
    len: u64,
    range: ObjectRange,
    /// Bytes before the range that are still to come, in whole chunks.
    skip: u64,
    /// Bytes of the range that have come.
    at: u64,
    /// The chunks that have come.
    nodes: Vec<Node>,
}

impl Body {
    async fn next(this: Option<Self>) -> Option<(Result<Bytes, RegistryError>, Option<Self>)> {
        let mut this = this?;
        match this.chunk().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(this))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    }

    /// The next chunk of the range; after the last, whether all of them lead to the hash.
    async fn chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        while self.at < self.range.len() {
            let Some(bytes) = self.chunks.next().await? else {
                return Err(self.chunks.invalid("its chunks are shorter than its terms said"));
            };
            let size = bytes.len() as u64;
            // Where the range begins, a chunk begins: else the chunks cannot be the proved ones.
            if let Some(rest) = self.skip.checked_sub(size) {
                self.skip = rest;
                continue;
            }
            if self.skip > 0 || size > self.range.len() - self.at {
                return Err(self.wrong("chunks do not begin or end where the proof says".into()));
            }
            self.at += size;
            self.nodes.push(Node { hash: XetHash::of_chunk(&bytes), size });
            return Ok(Some(bytes));
        }
        self.verify()?;
        Ok(None)
    }

    fn verify(&mut self) -> Result<(), RegistryError> {
        let nodes = std::mem::take(&mut self.nodes);
        match &self.evidence {
            Evidence::Nodes(cover) => match cover.accepts(&nodes) {
                // From its chunks on, a part of a node can be read again without the rest.
                true => {
                    self.known.learn(cover.start, &nodes);
                    Ok(())
                }
                false => Err(self.wrong("the bytes do not match the file's Xet hash".into())),
            },
            Evidence::Proof(proof) => match verify(&self.root, self.len, proof, &[nodes]) {
                Ok(learned) => {
                    self.known.learn(0, &learned);
                    Ok(())
                }
                Err(why) => Err(self.wrong(why.to_string())),
            },
        }
    }

    fn wrong(&self, why: String) -> RegistryError {
        RegistryError::WrongBytes { what: self.chunks.what().to_owned(), why }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn proof(windows: &[[u64; 2]]) -> Proof {
        let windows: Vec<_> = windows.iter().map(|w| json!({"dirtyByteRange": w})).collect();
        let proof =
            json!({"fileSize": 100, "windows": windows, "hashRanges": [], "totalChunks": 1});
        serde_json::from_value(proof).unwrap()
    }

    #[test]
    fn a_proof_of_another_range_is_none() {
        let range = ObjectRange::new(10, 20);
        let good = window(&proof(&[[5, 30]]), range, 100).unwrap();
        assert_eq!((good.start(), good.end()), (5, 30));
        for bad in [&[[11, 30]][..], &[[5, 19]], &[[5, 101]], &[[30, 5]], &[], &[[0, 5], [5, 30]]] {
            assert!(window(&proof(bad), range, 100).is_err(), "{bad:?}");
        }
        assert!(window(&proof(&[[5, 30]]), range, 101).is_err(), "of another length");
    }
}
