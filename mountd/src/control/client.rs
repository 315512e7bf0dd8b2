//! The commands' end of the control API: one request per connection to the daemon's socket.
//!
//! Invariant: the daemon's failures come out unchanged. Dropping a call closes its connection, which stops
//! the work. When a worker dies before it has answered, its successor is asked again: it has the same
//! store. A client is a plain value.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use modelfs::manager::ProgressSink;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::event::Event;
use super::routes::{Route, Style};
use crate::error::{Failure, Kind};

/// How long a live daemon may take to accept: it does nothing else on that thread.
pub(super) const CONNECT: Duration = Duration::from_secs(5);

/// How often an answer may be lost before that is an error, and the pause before the next attempt.
const LOST: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

/// The connection was there and broke before the answer was complete.
struct Lost(Failure);

/// A daemon that can be asked.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The daemon that listens there.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    fn broken(&self, why: impl std::fmt::Display) -> Failure {
        Failure::new(
            Kind::General,
            format!("the daemon at {} does not answer: {why}", self.socket.display()),
        )
        .hint("`modelfs status` and the daemon's log may say more")
    }

    /// Sends a command and waits for the answer; commands with a streamed answer report `progress`.
    pub async fn call<R: Route>(
        &self,
        command: &R,
        progress: &ProgressSink,
    ) -> Result<R::Answer, Failure> {
        let mut lost = 0;
        loop {
            let stream = tokio::time::timeout(CONNECT, UnixStream::connect(&self.socket))
                .await
                .map_err(|e| self.broken(e))?
                .map_err(|e| self.broken(e))?;
            match self.ask(stream, command, progress).await {
                Ok(answer) => return answer,
                Err(Lost(failure)) if R::STYLE == Style::Once || lost == LOST => {
                    return Err(failure);
                }
                Err(Lost(_)) => lost += 1,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn ask<R: Route>(
        &self,
        stream: UnixStream,
        command: &R,
        progress: &ProgressSink,
    ) -> Result<Result<R::Answer, Failure>, Lost> {
        let response = self.send(stream, command).await?;
        let ok = response.status().is_success();
        let body = response.into_body();
        if !ok || R::STYLE != Style::Stream {
            let body = body.collect().await.map_err(|e| Lost(self.broken(e)))?.to_bytes();
            return Ok(match ok {
                true => self.parse(&body),
                false => self.parse::<Failure>(&body).and_then(Err),
            });
        }
        self.follow(body, progress).await
    }

    async fn send<R: Route>(
        &self,
        stream: UnixStream,
        command: &R,
    ) -> Result<Response<Incoming>, Lost> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| Lost(self.broken(e)))?;
        tokio::spawn(connection);
        let body = serde_json::to_vec(command).expect("requests are plain data with string keys");
        let request = Request::builder()
            .method(Method::POST)
            .uri(R::PATH)
            .header(hyper::header::HOST, "modelfs")
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .body(Full::<Bytes>::from(body))
            .expect("the path and headers are constants");
        sender.send_request(request).await.map_err(|e| Lost(self.broken(e)))
    }

    async fn follow<T: DeserializeOwned>(
        &self,
        mut body: Incoming,
        progress: &ProgressSink,
    ) -> Result<Result<T, Failure>, Lost> {
        let mut lines = Lines::default();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| Lost(self.broken(e)))?;
            lines.push(frame.data_ref().map_or(&[], |d| d));
            while let Some(line) = lines.next() {
                match self.parse(&line) {
                    Ok(Event::Progress(p)) => progress(p),
                    Ok(Event::Done(answer)) => return Ok(Ok(answer)),
                    Ok(Event::Error(failure)) | Err(failure) => return Ok(Err(failure)),
                }
            }
        }
        Err(Lost(self.broken("it ended before it had finished")))
    }

    fn parse<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Failure> {
        serde_json::from_slice(body).map_err(|e| {
            self.broken(format!("its answer cannot be understood ({e})"))
                .hint("the daemon may be of another version: unmount and mount again")
        })
    }
}

/// Cuts what arrives into lines.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let end = self.0.iter().position(|&b| b == b'\n')?;
        Some(self.0.drain(..=end).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_lines_are_reassembled_across_frames() {
        let mut lines = Lines::default();
        lines.push(b"ab");
        assert_eq!(lines.next(), None);
        lines.push(b"c\nd\ne");
        assert_eq!(lines.next().unwrap(), b"abc\n");
        assert_eq!(lines.next().unwrap(), b"d\n");
        assert_eq!(lines.next(), None);
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_there_is_named() {
        let client = Client::new(Path::new("/nowhere/x.sock"));
        let quiet = modelfs::manager::no_progress();
        let failure = client.call(&modelfs::manager::GetStatus {}, &quiet).await.unwrap_err();
        assert!(failure.message.contains("/nowhere/x.sock"), "{failure}");
    }
}
