//! `modelfs restart`: replace the worker of a mount.
//!
//! Invariant: success is reported only when another worker answers.

use std::time::Duration;

use clap::Args;
use modelfs::manager::{GetStatus, Restart as Request, no_progress};
use rustix::process::Signal;
use serde::Serialize;

use super::args::Cache;
use super::daemons;
use super::output::Out;
use crate::control::backend;
use crate::control::client::Client;
use crate::control::peer::Peer;
use crate::error::{Failure, Kind};

/// How long a worker may take to make room before it is taken to hang.
const HANGS: Duration = Duration::from_secs(8);

/// How long the new worker may take to answer.
const STARTS: Duration = Duration::from_secs(30);

/// The pause between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(50);

/// Replace the process that serves a mount, without unmounting
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  modelfs restart

The new process runs the program that is now installed: use this to update. Files stay open, and the \
new process answers reads in progress. It also tries again where the daemon has given up.")]
pub struct Restart {
    #[command(flatten)]
    cache: Cache,
}

#[derive(Serialize)]
struct Restarted {
    worker: u32,
    version: String,
}

/// Runs the command.
pub async fn run(out: Out, args: Restart) -> Result<(), Failure> {
    let root = args.cache.root()?;
    let nothing = || Failure::new(Kind::NotCached, "nothing is mounted");
    let holder = backend::holder(&root).await?.ok_or_else(nothing)?;
    let socket = holder.socket.ok_or_else(nothing)?;
    let client = Client::new(&socket);
    let (call, quiet) = (Request {}, no_progress());
    let asked = async {
        match holder.trouble {
            None => tokio::time::timeout(HANGS, client.call(&call, &quiet)).await.ok(),
            Some(_) => None,
        }
    };
    let former = match asked.await {
        Some(answer) => Some(answer?.worker),
        // The worker does not answer: the supervisor is asked by signal.
        None => {
            Peer::of(&root, &socket).await?.signal(Signal::USR1)?;
            None
        }
    };
    let another = async {
        loop {
            let (call, quiet) = (GetStatus {}, no_progress());
            let asked = tokio::time::timeout(daemons::TIMEOUT, client.call(&call, &quiet)).await;
            if let Ok(Ok(status)) = asked
                && let Some(daemon) = status.daemon.filter(|d| former != Some(d.worker))
            {
                return daemon;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    let daemon = tokio::time::timeout(STARTS, another).await.map_err(|_| {
        Failure::new(Kind::General, "the new worker does not answer")
            .hint("the daemon's log may say why")
    })?;
    if let Some(why) = daemon.failed_restart {
        return Err(Failure::new(Kind::General, format!("restart failed: {why}"))
            .hint("the former program still serves"));
    }
    let restarted = Restarted { worker: daemon.worker, version: daemon.version };
    out.say(&restarted, |r| format!("process {} now serves, version {}", r.worker, r.version))
}
