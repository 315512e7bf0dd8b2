//! Whom `modelfs restart` signals when no worker answers: the daemon itself, or nobody.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, chown, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use modelfs_test_support::bytes;

use crate::harness::{ORDINARY, Place, eventually, ordinary_ids, set_mode, signal};

/// A process that a stray signal would end.
struct Bystander(Child);

impl Bystander {
    fn new() -> Self {
        let mut sleep = Command::new("sleep");
        sleep.arg("1000").stdin(Stdio::null());
        Self(sleep.spawn().expect("sleep starts"))
    }

    /// Listens at a socket, as root.
    fn listening(socket: &Path) -> Self {
        let listen = "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); \
                      s.listen(); time.sleep(1000)";
        let mut python = Command::new("python3");
        python.args(["-c", listen]).arg(socket).stdin(Stdio::null());
        let this = Self(python.spawn().expect("python starts"));
        eventually("it listens", || std::os::unix::net::UnixStream::connect(socket).is_ok());
        this
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().expect("own child").is_none()
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn published(place: &Place) -> Vec<u8> {
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    let bytes = bytes(17, 300_000);
    fs::write(plain.join("w.bin"), &bytes).expect("a file");
    place.publish(&plain, "org/net", "v1", &[]);
    bytes
}

/// The lock as the cache's owner may have written it, held.
fn lock(place: &Place, pid: u32, socket: &Path) -> File {
    let (uid, gid) = ordinary_ids();
    chown(place.cache(), Some(uid), Some(gid)).expect("root gives folders away");
    let path = place.cache().join("lock");
    let mut lock = File::create(&path).expect("own folder");
    chown(&path, Some(uid), Some(gid)).expect("root gives files away");
    lock.lock().expect("nobody else has it");
    let holder = serde_json::json!({
        "pid": pid, "mountpoint": "/m", "socket": socket, "trouble": "its worker died",
    });
    lock.write_all(holder.to_string().as_bytes()).expect("a small file");
    lock
}

#[test]
fn root_signals_no_process_that_a_lock_file_names() {
    let place = Place::new();
    let mut named = Bystander::new();
    let socket = place.path("no.sock");
    let held = lock(&place, named.pid(), &socket);
    let ran = place.run(["restart"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains(socket.to_str().expect("UTF-8")), "{ran:?}");
    assert!(named.lives(), "{ran:?}");
    drop(held);

    // A socket of root's, by its own name and by one that daemons' sockets have.
    let socket = place.path("roots.sock");
    let mut listening = Bystander::listening(&socket);
    let link = place.path("0123456789abcdef.sock");
    symlink(&socket, &link).expect("a link");
    for socket in [&socket, &link] {
        let held = lock(&place, named.pid(), socket);
        let ran = place.run(["restart"]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.err.contains("another user's process"), "{ran:?}");
        assert!(named.lives() && listening.lives(), "{ran:?}");
        drop(held);
    }
    // A folder that others may write to, in which they may put a socket by such a name.
    let open = place.path("open");
    fs::create_dir(&open).expect("a folder");
    set_mode(&open, 0o777);
    let moved = open.join("0123456789abcdef.sock");
    fs::rename(&socket, &moved).expect("own folders");
    let held = lock(&place, named.pid(), &moved);
    let ran = place.run(["restart"]);
    assert!(ran.code == 1 && named.lives() && listening.lives(), "{ran:?}");
    drop(held);
}

#[test]
fn a_daemon_whose_worker_hangs_is_restarted_although_its_cache_is_another_users() {
    let place = Place::new();
    let bytes = published(&place);
    let daemon = place.mount_folder(&["--worker-user", ORDINARY]);
    let before = daemon.worker();
    assert!(signal(before, "STOP"));
    place.ok(["restart"]);
    assert_ne!(daemon.worker(), before);
    assert_eq!(fs::read(daemon.path("org/net/v1/w.bin")).expect("reads"), bytes);
    daemon.stop();
}

/// Starts the daemon in a process namespace of its own, where its number is the one given.
const INSIDE: &str = "\
echo $(($1 - 1)) >/proc/sys/kernel/ns_last_pid
shift
\"$@\" &
wait
";

#[test]
fn a_daemon_in_a_container_is_restarted_and_no_process_outside_that_has_its_number() {
    let place = Place::new();
    let bytes = published(&place);
    let mut outside = Bystander::new();
    let modelfs = place.modelfs(["mount"]);
    let mut command = place.program("unshare");
    command.args(["--pid", "--fork", "--kill-child", "sh", "-c", INSIDE, "sh"]);
    command.arg(outside.pid().to_string()).arg(modelfs.get_program()).args(modelfs.get_args());
    command.arg(place.mountpoint()).arg("--registry").arg(place.registry());
    let daemon = crate::harness::Daemon::start(&place, command);
    let status = daemon.status();
    assert_eq!(status["daemon"]["pid"], outside.pid(), "its number in there: {status}");
    let open = File::open(daemon.path("org/net/v1/w.bin")).expect("opens");
    // Seen from here, the worker has another number: it is the one that has the mount's connection.
    let worker = inner(&daemon, status["daemon"]["worker"].as_u64().expect("a number"));
    assert!(signal(worker, "STOP"));
    let ran = place.run(["restart"]);
    assert!(outside.lives(), "{ran:?}");
    assert_eq!(ran.code, 0, "{ran:?}");
    let mut read = vec![0; bytes.len()];
    open.read_exact_at(&mut read, 0).expect("the next worker answers");
    assert!(read == bytes, "a wrong byte");
    place.ok(["unmount"]);
    assert_eq!(daemon.wait().0, 0);
}

/// The process below this daemon that has this number in its own namespace.
fn inner(daemon: &crate::harness::Daemon<'_>, number: u64) -> u32 {
    let is = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let numbers: Vec<&str> = numbers.unwrap_or_default().split_whitespace().collect();
        numbers.len() > 1
            && numbers.last() == Some(&number.to_string().as_str())
            && same_namespace(*pid, daemon.pid())
    };
    let all = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    all.into_iter().find(is).expect("the worker lives")
}

/// Whether a process is in the namespace that this one made for its children.
fn same_namespace(pid: u32, maker: u32) -> bool {
    let of = |path: String| fs::read_link(path).ok();
    let theirs = of(format!("/proc/{pid}/ns/pid"));
    theirs.is_some() && theirs == of(format!("/proc/{maker}/ns/pid_for_children"))
}
