//! How settings reach the processes that use them.

use std::fs::{self, File};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use modelfs_test_support::bytes;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::harness::{Daemon, Place, eventually, signal};

fn published(place: &Place) -> Vec<u8> {
    let plain = place.path("plain");
    fs::create_dir_all(&plain).expect("a folder");
    let bytes = bytes(31, 1 << 20);
    fs::write(plain.join("w.bin"), &bytes).expect("a file");
    place.publish(&plain, "org/net", "v1", &["--chunk-size", "1MiB"]);
    bytes
}

fn arguments(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).expect("it lives");
    String::from_utf8_lossy(&line).replace('\0', " ")
}

#[test]
fn every_worker_is_configured_by_its_supervisor_and_has_no_arguments() {
    let place = Place::new();
    let bytes = published(&place);
    let mut command = place.modelfs(["mount"]);
    command.arg(place.mountpoint()).args(["--registry", "registry", "--cache-size", "300MiB"]);
    command.env("MODELFS_NO_PASSTHROUGH", "true").env("MODELFS_CACHE_SIZE", "1GiB");
    let daemon = Daemon::start(&place, command);
    let first = daemon.worker();
    let configured = |worker: u32| {
        let status = daemon.status();
        assert_eq!(status["daemon"]["passthrough"], false, "by the variable: {status}");
        let limit = status["cache"]["limit"].as_u64();
        assert_eq!(limit, Some(300 << 20), "the flag is above the variable: {status}");
        let arguments = arguments(worker);
        assert_eq!(arguments.split_whitespace().count(), 1, "{arguments}");
        assert!(fs::read(daemon.path("org/net/v1/w.bin")).expect("reads") == bytes);
    };
    configured(first);
    assert!(signal(first, "KILL"));
    eventually("another worker", || {
        let status = place.run(["status", "--json"]);
        status.code == 0 && status.json()["daemon"]["worker"] != first
    });
    configured(daemon.worker());
    place.ok(["restart"]);
    configured(daemon.worker());
    daemon.stop();
}

/// The next message of a worker.
fn receive(link: &OwnedFd) -> String {
    let mut bytes = vec![0; 64 << 10];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(link, &mut slices, &mut control, RecvFlags::empty()).expect("receives");
    String::from_utf8(bytes[..received.bytes].to_vec()).expect("JSON")
}

/// What a worker with these arguments says to the welcome of a supervisor whose program is older than
/// the configuration in it.
fn said_to_an_older_supervisor(place: &Place, arguments: &[&str]) -> [String; 2] {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .expect("a pair of sockets");
    let mut command = place.modelfs(arguments);
    command.env("MODELFS_WORKER", "1").stdin(Stdio::from(theirs)).stderr(Stdio::null());
    let mut worker = command.spawn().expect("the binary starts");
    drop(command);
    let hello = receive(&ours);
    let lock = File::create(place.cache().join("lock")).expect("own cache");
    let listener = UnixListener::bind(place.path("run").join("s")).expect("own folder");
    let welcome = serde_json::json!({"welcome": {
        "supervisor": std::process::id(),
        "socket": place.path("run").join("s"),
        "since": null,
        "restarts": 0,
        "locations": {
            "mountpoint": place.mountpoint(),
            "cache": place.cache(),
            "registry": place.registry(),
            "log": null,
        },
    }});
    let welcome = welcome.to_string();
    let beside = [lock.as_fd(), listener.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&beside)));
    let slices = [IoSlice::new(welcome.as_bytes())];
    sendmsg(&ours, &slices, &mut control, SendFlags::empty()).expect("sends");
    let answer = receive(&ours);
    worker.kill().expect("own child");
    worker.wait().expect("own child");
    fs::remove_file(place.path("run").join("s")).expect("own file");
    [hello, answer]
}

#[test]
fn a_supervisor_of_an_older_program_can_start_this_program_with_arguments() {
    let place = Place::new();
    published(&place);
    // Relative to a working directory that the old supervisor may have left; it says where things are.
    let arguments = ["mount", "gone/models", "--registry", "gone/registry", "--threads", "2"];
    let [hello, answer] = said_to_an_older_supervisor(&place, &arguments);
    assert!(hello.starts_with(r#"{"hello":{"protocol":2,"#), "{hello}");
    assert_eq!(answer, r#""checked""#);
    // The arguments do count.
    let [_, answer] = said_to_an_older_supervisor(&place, &["mount", "models", "--no-such-flag"]);
    assert!(answer.contains("failed") && answer.contains("--no-such-flag"), "{answer}");
}

#[test]
fn a_wrong_variable_is_named_with_what_to_do() {
    let place = Place::new();
    for (variable, value, said) in [
        ("MODELFS_CACHE_SIZE", "much", "50GiB"),
        ("MODELFS_READ_DEADLINE", "0", "longer than zero"),
        ("MODELFS_THREADS", "1000", "256"),
        ("MODELFS_ALLOW_OTHER", "perhaps", "true"),
    ] {
        let mut command = place.modelfs(["mount", "models", "--registry", "registry"]);
        let ran = crate::harness::Ran::from(command.env(variable, value).output().expect("starts"));
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.starts_with(&format!("error: {variable}: ")), "{ran:?}");
        assert!(ran.err.contains(said), "{ran:?}");
    }
    let mut command = place.modelfs(["mount", "models", "--registry", "r", "--keep-privileges"]);
    let both = command.env("MODELFS_WORKER_USER", "ann").output().expect("starts");
    let both = crate::harness::Ran::from(both);
    assert_eq!(both.code, 2, "{both:?}");
    assert!(both.err.contains("MODELFS_WORKER_USER"), "{both:?}");
    assert!(both.err.contains("--keep-privileges"), "{both:?}");
}
