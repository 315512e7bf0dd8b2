//! The worker's end of the link to its supervisor: joining it, and asking it for what needs privileges.
//!
//! Invariant: a worker serves only what its supervisor sent it, and ends with it. One thread receives and
//! passes messages on; any thread sends. Only the thread for opens waits for an answer; tasks that need a
//! login do so without a thread.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use modelfs::config::Config;
use modelfs::model::SourceIx;
use modelfs::registry::{Credentials, Logins};
use modelfs::store::StoreLock;
use modelfs::vfs::{Handle, Ino};
use modelfs_platform::{BackingNumber, MountBroker, Open};
use tokio::sync::{mpsc as tokio_mpsc, oneshot};

use crate::error::{Failure, Kind};
use crate::supervisor::link::Link;
use crate::supervisor::messages::{FromWorker, Locations, Login, PROTOCOL, ToWorker, Welcome};
use crate::wiring;

/// Environment variable that is set for a worker; its standard input is the link.
pub const VARIABLE: &str = "MODELFS_WORKER";

/// Whether this process is a worker.
pub fn is_worker() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// What a worker was given.
pub struct Joined {
    /// What the supervisor said of the mount.
    pub welcome: Welcome,
    /// The store's lock.
    pub lock: StoreLock,
    /// The control socket.
    pub listener: UnixListener,
    /// The supervisor.
    pub supervisor: Arc<Supervisor>,
    /// The supervisor's user, who may send commands.
    pub owner: u32,
}

/// A connection to serve.
pub struct Assignment {
    pub device: OwnedFd,
    pub offer: Vec<u8>,
    pub open: Vec<Open>,
    pub takes_over: bool,
    pub no_passthrough: Option<String>,
}

/// What the supervisor may want at any time.
#[derive(Debug)]
pub enum Wish {
    /// Commit and end without answering the kernel.
    Retire,
    /// The outcome of the restart that was requested.
    Restarted(Result<(), String>),
    /// Nothing any more: the supervisor has died.
    Orphaned,
}

/// Answers that are being waited for.
#[derive(Default)]
struct Waiting {
    answered: Option<mpsc::Sender<Result<(), String>>>,
    registered: HashMap<u64, mpsc::Sender<Result<u32, i32>>>,
    logins: HashMap<u64, oneshot::Sender<Result<Option<Login>, String>>>,
    /// A registration that timed out: no other one is sent until it is answered.
    late: Option<u64>,
    /// The supervisor has died: nothing will be answered.
    orphaned: bool,
}

/// The supervisor, as its worker sees it.
pub struct Supervisor {
    link: Link,
    waiting: Mutex<Waiting>,
    asks: AtomicU64,
}

fn broken(error: &io::Error) -> Failure {
    Failure::new(Kind::General, format!("the link to the supervisor failed: {error}"))
}

/// What the supervisor sends to a worker that listens.
pub struct Told {
    /// Resolves when the store is this worker's.
    pub begin: oneshot::Receiver<()>,
    /// The connection.
    pub assigned: oneshot::Receiver<Assignment>,
    /// Everything else.
    pub wishes: tokio_mpsc::UnboundedReceiver<Wish>,
}

/// How long an open waits for the supervisor before the file is served without passthrough: a healthy
/// supervisor answers at once.
const ANSWERS: Duration = Duration::from_secs(1);

/// How long a login is waited for: the supervisor may run a program, and lets it run for 20 s; another one may be
/// before it.
const LOGIN: Duration = Duration::from_secs(45);

/// Introduces this worker and waits for the supervisor's welcome; also returns the configuration.
/// `from_arguments` makes it of this process's arguments, for an older supervisor that does not send it.
pub fn join(
    from_arguments: impl FnOnce(Option<Locations>) -> Result<Config, Failure>,
) -> Result<(Joined, Config), Failure> {
    let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(|e| broken(&e))?;
    let link = Link::of(stdin);
    let version = env!("CARGO_PKG_VERSION").to_owned();
    link.send(&FromWorker::Hello { protocol: PROTOCOL, version }, &[]).map_err(|e| broken(&e))?;
    let owner = link.owner().map_err(|e| broken(&e))?;
    let gone = || Failure::new(Kind::Interrupted, "the supervisor does not want this worker");
    let (message, beside) = link.receive().map_err(|e| broken(&e))?.ok_or_else(gone)?;
    let mut beside = beside.into_iter();
    let (ToWorker::Welcome(mut welcome), Some(lock), Some(listener)) =
        (message, beside.next(), beside.next())
    else {
        return Err(Failure::new(Kind::General, "the supervisor does not begin with a welcome"));
    };
    let config = match welcome.config.take() {
        Some(config) => config,
        None => {
            let locations = welcome.locations.take();
            welcome.log_file = locations.as_ref().and_then(|l| l.log.clone());
            from_arguments(locations)?
        }
    };
    let cache = wiring::places(&config)?.cache;
    let joined = Joined {
        welcome: *welcome,
        lock: StoreLock::inherit(&cache, File::from(lock)),
        listener: UnixListener::from(listener),
        supervisor: Arc::new(Supervisor {
            link,
            waiting: Mutex::default(),
            asks: AtomicU64::new(0),
        }),
        owner,
    };
    Ok((joined, config))
}

/// Reports why this worker cannot join.
pub fn cannot(failure: &Failure) {
    if let Ok(stdin) = io::stdin().as_fd().try_clone_to_owned() {
        let _ = Link::of(stdin).send(&FromWorker::Failed(failure.clone()), &[]);
    }
}

impl Supervisor {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message.
    pub fn say(&self, message: &FromWorker) {
        if let Err(error) = self.link.send(message, &[]) {
            tracing::debug!(%error, "the supervisor does not listen");
        }
    }

    /// Sends a message that may be lost: does not wait for a supervisor that is stopped.
    pub fn tell(&self, message: &FromWorker) {
        if let Err(error) = self.link.try_send(message) {
            tracing::debug!(%error, "the supervisor does not listen");
        }
    }

    /// Starts to receive messages and to answer pings. Must be called within the tokio runtime: a pong
    /// proves that it schedules tasks.
    pub fn listen(self: &Arc<Self>) -> Result<Told, Failure> {
        let (begins, begin) = oneshot::channel();
        let (assign, assigned) = oneshot::channel();
        let (wish, wishes) = tokio_mpsc::unbounded_channel();
        let (this, runtime) = (Arc::clone(self), tokio::runtime::Handle::current());
        std::thread::Builder::new()
            .name("supervisor".into())
            .spawn(move || this.receive(begins, assign, &wish, &runtime))
            .map_err(|e| broken(&e))?;
        Ok(Told { begin, assigned, wishes })
    }

    /// The logins of a source, which the supervisor looks up.
    pub fn logins_of(self: &Arc<Self>, source: SourceIx) -> Arc<dyn Logins> {
        Arc::new(AskedLogins { supervisor: Arc::clone(self), source })
    }

    fn receive(
        self: &Arc<Self>,
        begin: oneshot::Sender<()>,
        assign: oneshot::Sender<Assignment>,
        wish: &tokio_mpsc::UnboundedSender<Wish>,
        runtime: &tokio::runtime::Handle,
    ) {
        let (mut begin, mut assign, mut open) = (Some(begin), Some(assign), Vec::new());
        loop {
            let (message, mut beside) = match self.link.receive() {
                Ok(Some(received)) => received,
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "a message of the supervisor cannot be understood");
                    break;
                }
            };
            match message {
                ToWorker::Open(files) => open.extend(files.into_iter().map(Open::from)),
                ToWorker::Serve { offer, takes_over, no_passthrough } => {
                    if let (Some(assign), Some(device)) = (assign.take(), beside.pop()) {
                        let open = std::mem::take(&mut open);
                        let _ = assign.send(Assignment {
                            device,
                            offer,
                            open,
                            takes_over,
                            no_passthrough,
                        });
                    }
                }
                ToWorker::Answered(outcome) => {
                    if let Some(who) = self.waiting().answered.take() {
                        let _ = who.send(outcome);
                    }
                }
                ToWorker::Registered { ask, number } => {
                    let mut waiting = self.waiting();
                    waiting.late.take_if(|late| *late == ask);
                    if let Some(who) = waiting.registered.remove(&ask) {
                        let _ = who.send(number);
                    }
                }
                ToWorker::Login { ask, login } => {
                    if let Some(who) = self.waiting().logins.remove(&ask) {
                        let _ = who.send(login);
                    }
                }
                ToWorker::Restarted(outcome) => drop(wish.send(Wish::Restarted(outcome))),
                ToWorker::Retire => drop(wish.send(Wish::Retire)),
                // On the runtime's pool, which is what must not hang.
                ToWorker::Ping => {
                    let this = Arc::clone(self);
                    drop(runtime.spawn(async move { this.tell(&FromWorker::Pong) }));
                }
                ToWorker::Begin => drop(begin.take().map(|begin| begin.send(()))),
                ToWorker::Welcome(_) => tracing::debug!("the supervisor sent a second welcome"),
            }
        }
        // Dropping the senders wakes all who wait.
        *self.waiting() = Waiting { orphaned: true, ..Waiting::default() };
        let _ = wish.send(Wish::Orphaned);
    }
}

/// The logins of a source, asked of the supervisor.
struct AskedLogins {
    supervisor: Arc<Supervisor>,
    source: SourceIx,
}

impl std::fmt::Debug for AskedLogins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AskedLogins").field(&self.source).finish()
    }
}

#[async_trait]
impl Logins for AskedLogins {
    async fn login(&self, repository: &str) -> Result<Option<Credentials>, String> {
        let (tell, told) = oneshot::channel();
        let supervisor = &self.supervisor;
        let ask = supervisor.asks.fetch_add(1, Ordering::Relaxed);
        {
            let mut waiting = supervisor.waiting();
            if waiting.orphaned {
                return Err(alone().to_string());
            }
            waiting.logins.insert(ask, tell);
        }
        let (source, repository) = (self.source.0, repository.to_owned());
        supervisor.say(&FromWorker::Login { ask, source, repository });
        let answer = tokio::time::timeout(LOGIN, told).await;
        supervisor.waiting().logins.remove(&ask);
        match answer {
            Ok(Ok(login)) => Ok(login?.map(Into::into)),
            Ok(Err(_)) => Err(alone().to_string()),
            Err(_) => Err(late().to_string()),
        }
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the supervisor does not answer")
}

fn alone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the supervisor has died")
}

impl MountBroker for Supervisor {
    fn answered(&self, reply: &[u8]) -> io::Result<()> {
        let (tell, told) = mpsc::channel();
        {
            let mut waiting = self.waiting();
            if waiting.orphaned {
                return Err(alone());
            }
            waiting.answered = Some(tell);
        }
        self.link.send(&FromWorker::Answered { reply: reply.to_vec() }, &[])?;
        told.recv().map_err(|_| alone())?.map_err(io::Error::other)
    }

    fn register(&self, ino: Ino, file: &File) -> io::Result<BackingNumber> {
        let (tell, told) = mpsc::channel();
        let ask = self.asks.fetch_add(1, Ordering::Relaxed);
        {
            let mut waiting = self.waiting();
            if waiting.orphaned {
                return Err(alone());
            }
            if waiting.late.is_some() {
                return Err(late());
            }
            waiting.registered.insert(ask, tell);
        }
        self.link.send(&FromWorker::Register { ask, ino: ino.0 }, &[file.as_fd()])?;
        match told.recv_timeout(ANSWERS) {
            Ok(number) => number.map(BackingNumber).map_err(io::Error::from_raw_os_error),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(alone()),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let mut waiting = self.waiting();
                // The supervisor takes the number back when it hears how the file was opened.
                if waiting.registered.remove(&ask).is_some() {
                    waiting.late = Some(ask);
                }
                Err(late())
            }
        }
    }

    fn serves(&self) {
        self.tell(&FromWorker::Served);
    }

    fn opened(&self, open: Open) {
        self.say(&FromWorker::Opened(open.into()));
    }

    fn released(&self, ino: Ino, handle: Handle) {
        self.say(&FromWorker::Released { ino: ino.0, handle: handle.0 });
    }
}
