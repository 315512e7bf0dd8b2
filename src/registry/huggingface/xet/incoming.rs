//! Bytes as they arrive, taken in portions: an exact number of them, or a line.
//!
//! Invariant: a portion is whole, or there is an error; no more is held than the portion and the piece
//! that brought its end. Concurrency: owned by one task.

use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use crate::registry::error::RegistryError;

/// Maximum length of a line: those between parts have some eighty characters.
const MAX_LINE: usize = 1024;

/// Bytes that arrive.
pub struct Incoming {
    what: String,
    pieces: BoxStream<'static, Result<Bytes, RegistryError>>,
    held: BytesMut,
}

impl Incoming {
    /// The bytes of these pieces; `what` names them in errors.
    pub fn new(
        what: String,
        pieces: impl futures_util::Stream<Item = Result<Bytes, RegistryError>> + Send + 'static,
    ) -> Self {
        Self { what, pieces: pieces.boxed(), held: BytesMut::new() }
    }

    /// An error that says what is wrong with what arrived.
    pub fn invalid(&self, why: impl Into<String>) -> RegistryError {
        RegistryError::Invalid { what: self.what.clone(), why: why.into() }
    }

    async fn more(&mut self) -> Result<(), RegistryError> {
        match self.pieces.next().await {
            Some(piece) => {
                self.held.extend_from_slice(&piece?);
                Ok(())
            }
            None => Err(RegistryError::Unreachable {
                what: self.what.clone(),
                why: "the answer ends before its end".into(),
            }),
        }
    }

    /// The next `count` bytes.
    pub async fn exact(&mut self, count: usize) -> Result<Bytes, RegistryError> {
        while self.held.len() < count {
            self.more().await?;
        }
        Ok(self.held.split_to(count).freeze())
    }

    /// The next line, without its end.
    pub async fn line(&mut self) -> Result<String, RegistryError> {
        loop {
            if let Some(end) = self.held.iter().take(MAX_LINE).position(|b| *b == b'\n') {
                let line = self.held.split_to(end);
                self.held.advance(1);
                let line = line.strip_suffix(b"\r").unwrap_or(&line);
                return String::from_utf8(line.to_vec())
                    .map_err(|_| self.invalid("a line between parts is no text"));
            }
            if self.held.len() >= MAX_LINE {
                return Err(self.invalid("a line between parts is too long"));
            }
            self.more().await?;
        }
    }
}

#[cfg(test)]
pub mod tests {
    use futures_util::stream;

    use super::*;

    /// Bytes that arrive in pieces of this size, and nothing after.
    pub fn in_pieces(bytes: &[u8], size: usize) -> Incoming {
        let pieces: Vec<_> = bytes.chunks(size).map(|p| Ok(Bytes::copy_from_slice(p))).collect();
        Incoming::new("x".into(), stream::iter(pieces))
    }

    #[tokio::test]
    async fn portions_are_whole_however_the_bytes_arrive() {
        for size in 1..20 {
            let mut incoming = in_pieces(b"line\r\nother\n\r\nbytes", size);
            assert_eq!(incoming.line().await.unwrap(), "line");
            assert_eq!(incoming.line().await.unwrap(), "other");
            assert_eq!(incoming.line().await.unwrap(), "");
            assert_eq!(incoming.exact(3).await.unwrap(), b"byt"[..]);
            assert_eq!(incoming.exact(0).await.unwrap(), b""[..]);
            let error = incoming.exact(3).await.unwrap_err();
            assert!(error.is_transient(), "{error}");
        }
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_refused() {
        let mut incoming = in_pieces(&[b'x'; 5000], 100);
        assert!(matches!(incoming.line().await, Err(RegistryError::Invalid { .. })));
        let mut no_text = in_pieces(b"\xff\n", 1);
        assert!(matches!(no_text.line().await, Err(RegistryError::Invalid { .. })));
    }
}
