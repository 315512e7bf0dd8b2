//! Files in memory, for tests: counts what it is asked for.
//!
//! Concurrency: shared; its lock is never held across an await.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::api::{Document, Resource, Transport};
use crate::base::ObjectRange;
use crate::model::hash::sha256;
use crate::registry::api::{ObjectBody, Validator};
use crate::registry::error::RegistryError;

/// The bytes of one piece of a body: many pieces even for small objects, as from a network.
const PIECE: usize = 64 << 10;

/// What was asked for: a whole file, or a range of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The path.
    pub path: String,
    /// The range, if one was asked for.
    pub range: Option<ObjectRange>,
    /// The bytes that were sent; unread parts of a body are counted too.
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<String, Bytes>,
    requests: Vec<Request>,
}

/// Files in memory.
#[derive(Debug)]
pub struct MemoryTransport {
    name: String,
    state: Mutex<State>,
}

impl MemoryTransport {
    /// No files.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }

    /// Puts a file in place.
    pub fn put(&self, path: String, bytes: Bytes) {
        self.state().files.insert(path, bytes);
    }

    /// The bytes of a file.
    pub fn get(&self, path: &str) -> Option<Bytes> {
        self.state().files.get(path).cloned()
    }

    /// Removes a file.
    pub fn remove(&self, path: &str) {
        self.state().files.remove(path);
    }

    /// What was asked for since the last [`MemoryTransport::forget_requests`].
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// Forgets what was asked for.
    pub fn forget_requests(&self) {
        self.state().requests.clear();
    }

    /// Notes a request. Returns its index, and the file.
    fn request(
        &self,
        file: Resource<'_>,
        range: Option<ObjectRange>,
    ) -> Result<(usize, Bytes), RegistryError> {
        let mut state = self.state();
        state.requests.push(Request { path: file.path.to_owned(), range, bytes: 0 });
        let missing = || RegistryError::Missing { what: file.shown.to_owned() };
        let found = state.files.get(file.path).cloned().ok_or_else(missing)?;
        Ok((state.requests.len() - 1, found))
    }

    fn sent(&self, request: usize, bytes: u64) {
        if let Some(request) = self.state().requests.get_mut(request) {
            request.bytes = bytes;
        }
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    fn name(&self) -> &str {
        &self.name
    }

    async fn document(
        &self,
        file: Resource<'_>,
        limit: u64,
        known: &Validator,
    ) -> Result<Document, RegistryError> {
        let (request, body) = self.request(file, None)?;
        let etag = Some(format!("\"{}\"", sha256(&body)));
        let validator = Validator { etag, last_modified: None };
        if *known == validator {
            return Ok(Document::Unchanged);
        }
        if body.len() as u64 > limit {
            let (what, why) = (file.shown.to_owned(), format!("more than {limit} bytes"));
            return Err(RegistryError::Invalid { what, why });
        }
        self.sent(request, body.len() as u64);
        Ok(Document::Changed { body, validator })
    }

    async fn range(
        &self,
        file: Resource<'_>,
        len: u64,
        range: ObjectRange,
    ) -> Result<ObjectBody, RegistryError> {
        let (request, body) = self.request(file, Some(range))?;
        if body.len() as u64 != len {
            let why = format!("is {} bytes, not {len}", body.len());
            return Err(RegistryError::Invalid { what: file.shown.to_owned(), why });
        }
        self.sent(request, range.len());
        let body = body.slice(range.start() as usize..range.end() as usize);
        let starts = (0..body.len()).step_by(PIECE);
        let pieces = starts.map(move |at| Ok(body.slice(at..body.len().min(at + PIECE))));
        Ok(stream::iter(pieces).boxed())
    }

    fn preconnect(&self, _: &str) {}
}
