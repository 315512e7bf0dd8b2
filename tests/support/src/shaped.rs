//! A proxy that makes a local server as slow and as far away as one behind a given line.
//!
//! For TCP, between a client and a server of this machine, where the kernel has no `netem`. Each
//! direction is one lane that all connections share; making a connection costs a round trip before
//! its first byte goes out. There is no loss and no slow start, so the line is better than a real one.
//! Invariant: bytes come out in order and complete, or the connection breaks; a connection holds no
//! more than its window. It runs on a thread of its own and ends when dropped.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::line::{Lane, Line, Window};

/// Read and sent at once: half a millisecond of 1 Gbit/s.
const BLOCK: usize = 64 << 10;

/// One direction for all connections.
struct Direction {
    lane: Mutex<Lane>,
    line: Line,
    carried: AtomicU64,
}

impl Direction {
    fn new(line: Line) -> Self {
        let lane = Mutex::new(Lane::new(line, Instant::now()));
        Self { lane, line, carried: AtomicU64::new(0) }
    }

    fn lane(&self) -> MutexGuard<'_, Lane> {
        self.lane.lock().expect("nobody panics while holding it")
    }
}

struct Shared {
    target: SocketAddr,
    up: Direction,
    down: Direction,
    connections: AtomicU64,
}

/// A running proxy.
pub struct ShapedProxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl ShapedProxy {
    /// Puts a line before `target`, on a port of its own.
    pub fn start(target: SocketAddr, line: Line) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("shaped-line")
            .enable_all()
            .build()
            .expect("a runtime");
        let listener =
            runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port of this machine");
        let address = listener.local_addr().expect("it is bound");
        let (up, down) = (Direction::new(line), Direction::new(line));
        let shared = Arc::new(Shared { target, up, down, connections: AtomicU64::new(0) });
        runtime.spawn(accept(shared.clone(), listener));
        Self { shared, address, runtime: Some(runtime) }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that came out at clients so far, headers included.
    pub fn delivered(&self) -> u64 {
        self.shared.down.carried.load(Ordering::SeqCst)
    }

    /// Connections made so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for ShapedProxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Not `drop`: that waits, which is forbidden within another runtime.
            runtime.shutdown_background();
        }
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    while let Ok((client, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(connection(shared.clone(), client));
    }
}

/// Carries both ways until both ends are done, or one breaks; then both are closed.
async fn connection(shared: Arc<Shared>, client: TcpStream) -> io::Result<()> {
    // The client believes to be connected at once: what it sends first waits for what a real
    // connection's three messages take.
    let made = Instant::now() + shared.up.line.round_trip;
    let server = TcpStream::connect(shared.target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(
        carry(&shared.up, from_client, to_server, made),
        carry(&shared.down, from_server, to_client, made),
    )?;
    Ok(())
}

/// Bytes and when they arrive; none: the end.
type Parcel = (Instant, Vec<u8>);

async fn carry(
    direction: &Direction,
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    made: Instant,
) -> io::Result<()> {
    let window = direction.line.window();
    // A receiver that is slower than the line holds the sender back, too.
    let (parcels, arriving) = mpsc::channel((window as usize / BLOCK).max(2));
    tokio::try_join!(
        send(direction, from, parcels, Window::new(window), made),
        arrive(direction, to, arriving),
    )?;
    Ok(())
}

async fn send(
    direction: &Direction,
    mut from: OwnedReadHalf,
    parcels: mpsc::Sender<Parcel>,
    mut window: Window,
    made: Instant,
) -> io::Result<()> {
    loop {
        let mut block = Vec::with_capacity(BLOCK);
        let got = from.read_buf(&mut block).await?;
        if got == 0 {
            let end = Instant::now().max(made) + direction.line.delay();
            // A receiver that is gone has no use for the end.
            let _ = parcels.send((end, Vec::new())).await;
            return Ok(());
        }
        until(made).await;
        let arrives = loop {
            let now = Instant::now();
            let open = {
                let mut lane = direction.lane();
                let open = lane.open_at(now).max(window.open_at(now));
                if open <= now {
                    break lane.send(now, got as u64);
                }
                open
            };
            until(open).await;
        };
        window.sent(got as u64, arrives + direction.line.delay());
        if parcels.send((arrives, block)).await.is_err() {
            return Ok(());
        }
    }
}

async fn arrive(
    direction: &Direction,
    mut to: OwnedWriteHalf,
    mut arriving: mpsc::Receiver<Parcel>,
) -> io::Result<()> {
    while let Some((at, bytes)) = arriving.recv().await {
        until(at).await;
        if bytes.is_empty() {
            break;
        }
        to.write_all(&bytes).await?;
        direction.carried.fetch_add(bytes.len() as u64, Ordering::SeqCst);
    }
    to.shutdown().await
}

async fn until(at: Instant) {
    // Times that have passed cost no turn of the runtime.
    if at.saturating_duration_since(Instant::now()) > Duration::ZERO {
        tokio::time::sleep_until(at.into()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn the_test_line_delivers_all_bytes_in_order() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let line = Line { round_trip: Duration::from_millis(2), bits_per_second: None };
        let proxy = ShapedProxy::start(listener.local_addr().unwrap(), line);
        let sent = crate::bytes(5, (3 << 20) + 17);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut server, _) = listener.accept().unwrap();
                let mut asked = Vec::new();
                server.read_to_end(&mut asked).unwrap();
                assert_eq!(asked, b"all of it");
                server.write_all(&sent).unwrap();
            });
            let mut client = std::net::TcpStream::connect(proxy.address()).unwrap();
            client.write_all(b"all of it").unwrap();
            // The end of one direction leaves the other one open.
            client.shutdown(std::net::Shutdown::Write).unwrap();
            let mut got = Vec::new();
            client.read_to_end(&mut got).unwrap();
            assert!(got == sent);
        });
        assert_eq!((proxy.delivered(), proxy.connections()), (sent.len() as u64, 1));
    }
}
