//! Who may keep a connection to the control socket, and for how long.
//!
//! Invariant: there are never more connections than [`MOST`], and whoever asks something is heard:
//! a connection that has asked nothing yet makes room for a new one, the oldest first; one that
//! has asked is never taken away. One list, of the task that accepts; the state of a connection is
//! shared with its task.

use std::future::Future;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;
use tokio::time::{Sleep, sleep};

/// Connections at once: many scripts may ask, but a loop gone wild must not eat the daemon's
/// descriptors.
pub const MOST: usize = 128;

/// How long an answer may wait to be taken: whoever is away for longer does not come back.
const TAKE: Duration = Duration::from_secs(60);

const NEW: u8 = 0;
const ASKED: u8 = 1;
const GONE: u8 = 2;

/// What a connection has done so far. It asks, or it has to go; never both.
#[derive(Debug, Clone, Default)]
pub struct Guest(Arc<AtomicU8>);

impl Guest {
    fn becomes(&self, what: u8) -> bool {
        self.0.compare_exchange(NEW, what, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Its request has arrived. `false`: too late, its place was given away.
    pub fn has_asked(&self) -> bool {
        self.becomes(ASKED)
    }
}

/// Those that are here, the oldest first.
#[derive(Debug, Default)]
pub struct Guests(Vec<(Guest, AbortHandle)>);

impl Guests {
    /// Makes room for one more. `false`: all that are here are being answered.
    pub fn make_room(&mut self) -> bool {
        self.0.retain(|(_, task)| !task.is_finished());
        if self.0.len() < MOST {
            return true;
        }
        let Some(at) = self.0.iter().position(|(guest, _)| guest.becomes(GONE)) else {
            return false;
        };
        self.0.remove(at).1.abort();
        true
    }

    /// One came in.
    pub fn add(&mut self, guest: Guest, task: AbortHandle) {
        self.0.push((guest, task));
    }
}

/// A connection whose other end has to take what is written within [`TAKE`].
pub struct Patient<S> {
    inner: S,
    late: Option<Pin<Box<Sleep>>>,
}

impl<S: Unpin> Patient<S> {
    /// Around a connection.
    pub fn new(inner: S) -> Self {
        Self { inner, late: None }
    }

    fn write<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<Result<T>>,
    ) -> Poll<Result<T>> {
        if let Poll::Ready(done) = write(Pin::new(&mut self.inner), cx) {
            self.late = None;
            return Poll::Ready(done);
        }
        let late = self.late.get_or_insert_with(|| Box::pin(sleep(TAKE)));
        ready!(late.as_mut().poll(cx));
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "nobody takes the answer")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        self.get_mut().write(cx, |inner, cx| inner.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        self.get_mut().write(cx, |inner, cx| inner.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.get_mut().write(cx, |inner, cx| inner.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn who_has_asked_nothing_makes_room_and_who_has_stays() {
        let mut here = Guests::default();
        let waits = || tokio::spawn(std::future::pending::<()>());
        let guests: Vec<_> = (0..MOST).map(|_| (Guest::default(), waits())).collect();
        for (guest, task) in &guests {
            assert!(here.make_room());
            here.add(guest.clone(), task.abort_handle());
        }
        assert!(guests[0].0.has_asked());
        assert!(here.make_room());
        assert!(!guests[1].0.has_asked(), "the oldest that had not asked is gone");
        here.add(Guest::default(), waits().abort_handle());
        for (guest, _) in &guests[2..] {
            assert!(guest.has_asked());
        }
        assert!(here.make_room(), "the last one has asked nothing");
        let last = Guest::default();
        assert!(last.has_asked());
        here.add(last, waits().abort_handle());
        assert!(!here.make_room(), "all are being answered");
        let mut guests = guests.into_iter();
        let (_, answered) = guests.next().unwrap();
        answered.abort();
        assert!(answered.await.is_err_and(|e| e.is_cancelled()));
        assert!(here.make_room(), "one has its answer");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_is_given_up() {
        let (ours, theirs) = tokio::io::duplex(1000);
        let error = Patient::new(ours).write_all(&[0; 2000]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(theirs);
    }
}
