//! The chunks of a range in file order, from requests that bring them in another.
//!
//! Invariant: each request is made once, when the first chunk that it brings is needed; a chunk is held
//! only while a later place of the range needs it; what is held is never more than the terms said that all
//! of the chunks have. Concurrency: owned by one task.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use reqwest::Url;

use super::client::Service;
use super::terms::Terms;
use super::xorb_reader::XorbReader;
use crate::registry::error::RegistryError;

/// The chunks of a range.
pub struct Chunks {
    service: Arc<Service>,
    /// Where the service is.
    place: Url,
    what: String,
    terms: Terms,
    /// The number of chunks that were given out.
    done: usize,
    /// Requests that were made, by their number.
    readers: HashMap<usize, XorbReader>,
    /// How often each chunk is still needed.
    needed: HashMap<(usize, u32), u32>,
    held: HashMap<(usize, u32), Bytes>,
    /// Bytes of the chunks that are held.
    held_bytes: u64,
}

impl Chunks {
    /// The chunks of these terms; nothing is requested yet.
    pub fn new(service: Arc<Service>, place: Url, what: String, terms: Terms) -> Self {
        let mut needed = HashMap::with_capacity(terms.chunks.len());
        for chunk in &terms.chunks {
            *needed.entry(*chunk).or_default() += 1;
        }
        let (readers, held) = (HashMap::new(), HashMap::new());
        Self { service, place, what, terms, done: 0, readers, needed, held, held_bytes: 0 }
    }

    /// How errors name the range.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Bytes of the first chunks that lie before the range.
    pub fn skip(&self) -> u64 {
        self.terms.skip
    }

    /// An error that says what is wrong with the chunks.
    pub fn invalid(&self, why: impl Into<String>) -> RegistryError {
        RegistryError::Invalid { what: self.what.clone(), why: why.into() }
    }

    /// The next chunk, decompressed; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let Some(chunk) = self.terms.chunks.get(self.done).copied() else { return Ok(None) };
        let bytes = match self.held.get(&chunk) {
            Some(bytes) => bytes.clone(),
            None => self.fetch(chunk).await?,
        };
        self.done += 1;
        let left = self.needed.get_mut(&chunk).expect("counted when it was listed");
        *left -= 1;
        match *left {
            0 => self.release(chunk),
            _ => self.hold(chunk, &bytes)?,
        }
        Ok(Some(bytes))
    }

    /// Reads on until this chunk comes, and holds what comes before and is needed later.
    async fn fetch(&mut self, chunk: (usize, u32)) -> Result<Bytes, RegistryError> {
        let (number, index) = chunk;
        if !self.readers.contains_key(&number) {
            let fetch = &self.terms.fetches[number];
            let reader = self.service.chunks(&self.what, &self.place, fetch).await?;
            self.readers.insert(number, reader);
        }
        loop {
            let reader = self.readers.get_mut(&number).expect("made above");
            let Some(stored) = reader.next().await? else {
                return Err(self.invalid("a chunk is needed that has passed"));
            };
            let came = (number, stored.index);
            if came.1 != index && self.needed.get(&came).is_none_or(|left| *left == 0) {
                continue;
            }
            let bytes = stored.decode().map_err(|why| self.invalid(why))?;
            if came.1 == index {
                return Ok(bytes);
            }
            self.hold(came, &bytes)?;
        }
    }

    /// Holds a chunk for a later place.
    fn hold(&mut self, chunk: (usize, u32), bytes: &Bytes) -> Result<(), RegistryError> {
        if self.held.contains_key(&chunk) {
            return Ok(());
        }
        self.held_bytes += bytes.len() as u64;
        if self.held_bytes > self.terms.bytes {
            return Err(self.invalid("its chunks are longer than its terms said"));
        }
        self.held.insert(chunk, bytes.clone());
        Ok(())
    }

    /// Drops a chunk that no later place needs.
    fn release(&mut self, chunk: (usize, u32)) {
        if let Some(bytes) = self.held.remove(&chunk) {
            self.held_bytes -= bytes.len() as u64;
        }
    }
}
