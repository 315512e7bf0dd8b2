//! A service manager with a store of descriptors, as far as a daemon sees one.
//!
//! Invariant: it keeps what it is sent by name until it is told to let go or goes itself, as systemd
//! does, and hands it to the next daemon from number 3 on. `systemctl` is a script that says what the
//! manager wrote down. One thread receives.

use std::fs;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::harness::{Daemon, Place, eventually, set_mode};

pub const UNIT: &str = "modelfs.service";

/// Becomes the daemon with the descriptors that come by standard input. A process of its own, so
/// that no other test's child gets them too.
const START: &str = "\
import array, os, socket, sys
link = socket.socket(fileno=os.dup(0))
names, beside, _, _ = link.recvmsg(1000, socket.CMSG_SPACE(16 * 4))
fds = array.array('i')
for _, _, data in beside: fds.frombytes(data)
high = [os.dup2(fd, 100 + n) for n, fd in enumerate(fds)]
for fd in list(fds) + [link.detach()]: os.close(fd)
for n, fd in enumerate(high):
    os.dup2(fd, 3 + n, inheritable=True)
    os.close(fd)
os.dup2(os.open('/dev/null', os.O_RDONLY), 0)
if high: os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(high)), LISTEN_FDNAMES=names.decode()[:-1])
os.execv(sys.argv[1], sys.argv[1:])
";

type Store = Arc<Mutex<Vec<(String, OwnedFd)>>>;

pub struct Manager<'a> {
    place: &'a Place,
    store: Store,
}

impl<'a> Manager<'a> {
    pub fn new(place: &'a Place) -> Self {
        let store = Store::default();
        let bin = place.path("bin");
        fs::create_dir(&bin).expect("own folder");
        let this = Self { place, store: Arc::clone(&store) };
        this.job("");
        let count = place.path("stored");
        fs::write(&count, "0").expect("own folder");
        let script = format!(
            "#!/bin/sh\ncase \"$1\" in list-jobs) cat '{}';; show) cat '{}';; *) exit 1;; esac\n",
            this.jobs().display(),
            count.display()
        );
        fs::write(bin.join("systemctl"), script).expect("own folder");
        set_mode(&bin.join("systemctl"), 0o755);
        let socket = UnixDatagram::bind(this.socket()).expect("own folder");
        std::thread::spawn(move || {
            while let Some((text, beside)) = receive(&socket) {
                let mut kept = store.lock().expect("no panic here");
                let line = |of: &str| text.lines().find_map(|l| l.strip_prefix(of));
                let name = line("FDNAME=").unwrap_or("stored").to_owned();
                if line("FDSTORE=1").is_some() {
                    kept.extend(beside.into_iter().map(|fd| (name.clone(), fd)));
                } else if line("FDSTOREREMOVE=1").is_some() {
                    kept.retain(|(other, _)| *other != name);
                }
                // The test's folder may be gone; then nobody asks.
                let _ = fs::write(&count, kept.len().to_string());
            }
        });
        this
    }

    fn socket(&self) -> PathBuf {
        self.place.path("run/notify")
    }

    fn jobs(&self) -> PathBuf {
        self.place.path("jobs")
    }

    /// What is under way, of which kind; nothing if empty.
    pub fn job(&self, kind: &str) {
        let line =
            if kind.is_empty() { String::new() } else { format!("7 {UNIT} {kind} running\n") };
        fs::write(self.jobs(), line).expect("own folder");
    }

    /// The names of what it keeps.
    pub fn kept(&self) -> Vec<String> {
        let kept = self.store.lock().expect("no panic there");
        let mut names: Vec<_> = kept.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    }

    /// Puts something else in the place of what it keeps by a name.
    pub fn replace(&self, name: &str, by: OwnedFd) {
        let mut kept = self.store.lock().expect("no panic there");
        let place = kept.iter_mut().find(|(other, _)| other == name).expect("it is kept");
        place.1 = by;
    }

    /// Lets go of all, as at the end of a unit.
    pub fn let_go(&self) {
        self.store.lock().expect("no panic there").clear();
    }

    /// Starts the daemon with what is kept.
    pub fn start(&self, more: &[&str]) -> Daemon<'a> {
        Daemon::start(self.place, self.command(self.place.mountpoint(), more))
    }

    /// What starts it, at any mount point.
    pub fn command(&self, mountpoint: PathBuf, more: &[&str]) -> Command {
        let daemon = self.place.modelfs(["mount"]);
        let path = std::env::var("PATH").expect("tests have one");
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .expect("a pair");
        let kept = self.store.lock().expect("no panic there");
        let names: Vec<_> = kept.iter().map(|(name, _)| name.as_str()).collect();
        let descriptors: Vec<_> = kept.iter().map(|(_, fd)| fd.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        }
        // Never empty, which would be the end of the stream; the last name is no one's.
        let names = format!("{}:", names.join(":"));
        let slices = [IoSlice::new(names.as_bytes())];
        sendmsg(&ours, &slices, &mut control, SendFlags::empty()).expect("room for it");
        let mut command = self.place.program("python3");
        command.args(["-c", START]).arg(daemon.get_program()).args(daemon.get_args());
        command.arg(mountpoint).arg("--registry").arg(self.place.registry()).args(more);
        command
            .env("NOTIFY_SOCKET", self.socket())
            .env("MODELFS_UNIT", UNIT)
            .env("PATH", format!("{}:{path}", self.place.path("bin").display()))
            .env_remove("MANAGERPID")
            .stdin(Stdio::from(theirs));
        command
    }

    /// The first half of a restart: the daemon ends, and all is kept.
    pub fn stop_for_restart(&self, daemon: Daemon<'_>) {
        self.job("restart");
        daemon.signal("TERM");
        assert_eq!(daemon.leave(), 0);
        self.job("start");
        assert_eq!(self.kept(), ["modelfs-device", "modelfs-guard", "modelfs-state"]);
    }

    /// Nothing is kept any more.
    pub fn keeps_nothing(&self) {
        eventually("nothing is kept", || self.kept().is_empty());
    }
}

impl Drop for Manager<'_> {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// A datagram and what came beside it.
fn receive(socket: &UnixDatagram) -> Option<(String, Vec<OwnedFd>)> {
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    let beside = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    Some((String::from_utf8_lossy(&bytes[..received.bytes]).into_owned(), beside))
}
