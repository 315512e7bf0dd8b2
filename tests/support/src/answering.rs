//! HTTP servers on this machine whose answers are functions of the requests.
//!
//! Runs on a thread of its own, so that tests that know nothing of tokio can use it. Dropping it stops all
//! of its servers.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

/// The thread, and what it serves.
pub struct Answering {
    runtime: Option<tokio::runtime::Runtime>,
}

impl Answering {
    /// A thread of this name that serves nothing yet.
    pub fn start(name: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(name)
            .enable_all()
            .build()
            .expect("a runtime");
        Self { runtime: Some(runtime) }
    }

    /// Answers at a free port of 127.0.0.1 from now on.
    pub fn serve<B>(
        &self,
        answer: impl Fn(&Request<Incoming>) -> Response<B> + Clone + Send + 'static,
    ) -> SocketAddr
    where
        B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        listener.set_nonblocking(true).expect("a socket");
        let runtime = self.runtime.as_ref().expect("taken when it is dropped");
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            while let Ok((stream, _)) = listener.accept().await {
                let answer = answer.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let answer = answer(&request);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    // A client may leave, and a truncated body breaks its connection.
                    let stream = TokioIo::new(stream);
                    let _ = http1::Builder::new().serve_connection(stream, service).await;
                });
            }
        });
        address
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
