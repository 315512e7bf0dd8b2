//! How settings reach the processes that use them.

use std::fs::{self, File};
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use modelfs_test_support::bytes;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::harness::{Daemon, Place, Ran, eventually, signal};

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
        let ran = Ran::from(command.env(variable, value).output().expect("starts"));
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.starts_with(&format!("error: {variable}: ")), "{ran:?}");
        assert!(ran.err.contains(said), "{ran:?}");
    }
    let mut command = place.modelfs(["mount", "models", "--registry", "r", "--keep-privileges"]);
    let both = command.env("MODELFS_WORKER_USER", "ann").output().expect("starts");
    let both = Ran::from(both);
    assert_eq!(both.code, 2, "{both:?}");
    assert!(both.err.contains("MODELFS_WORKER_USER"), "{both:?}");
    assert!(both.err.contains("--keep-privileges"), "{both:?}");
}

/// Writes a file of settings as its owner alone may write it.
fn settings(place: &Place, at: &str, text: &str) -> std::path::PathBuf {
    let path = place.path(at);
    fs::create_dir_all(path.parent().expect("a folder")).expect("own folder");
    fs::write(&path, text).expect("own file");
    crate::harness::set_mode(&path, 0o644);
    path
}

const USER_FILE: &str = ".config/modelfs/modelfs.toml";

/// The value and the origin of a setting, as `config show` says in this folder.
fn shown(place: &Place, folder: &str, key: &str) -> (String, String) {
    let mut command = place.modelfs(["config", "show", "--json"]);
    let ran = Ran::from(command.current_dir(place.path(folder)).output().expect("starts"));
    let shown = ran.json();
    let all = shown["settings"].as_array().expect("a list");
    let entry = all.iter().find(|entry| entry["key"] == key).expect("every setting is shown");
    let (value, origin) = (entry["value"].as_str().unwrap_or_default(), &entry["origin"]);
    let origin = match origin["path"].as_str() {
        Some(path) => format!("{path}:{}:{}", origin["line"], origin["column"]),
        None => origin["variable"].as_str().unwrap_or("default").to_owned(),
    };
    (value.to_owned(), origin)
}

#[test]
fn a_setting_comes_from_the_nearest_place_that_has_it_and_config_show_says_which() {
    let place = Place::new();
    fs::create_dir_all(place.path("project/sub")).expect("own folder");
    let threads = |folder: &str| shown(&place, folder, "threads");
    assert_eq!(threads("."), ("4".to_owned(), "default".to_owned()));
    let user = settings(&place, USER_FILE, "threads = 5\nhang_timeout = \"9s\"");
    assert_eq!(threads("project"), ("5".to_owned(), format!("{}:1:1", user.display())));
    let project = settings(&place, "project/modelfs.toml", "\n  threads = 6");
    let from_project = ("6".to_owned(), format!("{}:2:3", project.display()));
    assert_eq!(threads("project/sub"), from_project);
    assert_eq!(threads(".").0, "5", "outside of the project");
    assert_eq!(shown(&place, "project", "hang_timeout").0, "9s");
    assert_eq!(shown(&place, ".", "cache_dir").1, "MODELFS_CACHE_DIR");
    let text = place.ok(["config", "show", "--origin"]);
    assert!(text.contains("modelfs.toml:1:1") && text.contains("MODELFS_CACHE_DIR"), "{text}");
    let named = settings(&place, "named.toml", "max_restarts = 1");
    let named = place.ok(["config", "show", "--config", named.to_str().expect("UTF-8")]);
    assert!(!named.contains("9s"), "a file that is named replaces the user's: {named}");
    let gone = place.run(["config", "show", "--config", "gone.toml"]);
    assert!(gone.code == 2 && gone.err.contains("gone.toml"), "{gone:?}");
}

/// A command with this file in place of `/etc/modelfs/modelfs.toml`, for it alone.
fn with_system_file(place: &Place, text: &str, args: &[&str]) -> Ran {
    settings(place, "etc/modelfs/modelfs.toml", text);
    let mut command = place.program("unshare");
    command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc && exec \"$@\""]);
    command.arg(place.path("etc")).arg(crate::harness::binary()).args(args);
    Ran::from(command.output().expect("unshare starts"))
}

#[test]
fn the_systems_policy_holds_for_files_and_flags_below_it() {
    let place = Place::new();
    let policy = "[policy]\nallowed_hosts = [\"*.example.org\"]\n";
    let shown = with_system_file(&place, policy, &["config", "show"]);
    assert!(shown.out.contains("*.example.org"), "{shown:?}");
    let elsewhere = ["mount", "models", "--registry", "http://127.0.0.1:1"];
    let refused = with_system_file(&place, policy, &elsewhere);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.err.contains("127.0.0.1"), "{refused:?}");
    assert!(refused.err.contains("/etc/modelfs/modelfs.toml:2:1"), "{refused:?}");
    let widened = "[policy]\nallowed_hosts = [\"evil.example\"]\n\
                   [[source]]\nname = \"a\"\nurl = \"https://evil.example\"";
    settings(&place, USER_FILE, widened);
    let refused = with_system_file(&place, policy, &["config", "check"]);
    assert!(refused.code == 2 && refused.err.contains("evil.example"), "{refused:?}");
    assert_eq!(place.run(["config", "check"]).code, 0, "without the system's policy");
}

#[test]
fn a_projects_file_that_another_user_may_have_written_is_refused() {
    let place = Place::new();
    let file = settings(&place, "modelfs.toml", "threads = 6");
    let (uid, _) = crate::harness::ordinary_ids();
    std::os::unix::fs::chown(&file, Some(uid), None).expect("root gives files away");
    let refused = place.run(["config", "show"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.err.contains("another user"), "{refused:?}");
    assert!(refused.err.contains("--config"), "what to do: {refused:?}");
    std::os::unix::fs::chown(&file, Some(0), None).expect("root takes files back");
    crate::harness::set_mode(&file, 0o666);
    let refused = place.run(["status"]);
    assert!(refused.code == 2 && refused.err.contains("every user"), "{refused:?}");
}

#[test]
fn a_mistake_in_a_file_is_shown_with_its_place_and_what_was_meant() {
    let place = Place::new();
    let file = settings(&place, "x.toml", "threads = 4\ncache-size = \"1GiB\"");
    let wrong = place.run(["config", "check", file.to_str().expect("UTF-8")]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
    assert!(wrong.err.contains(&format!("{}:2:1: ", file.display())), "{wrong:?}");
    assert!(wrong.err.contains("did you mean cache_size?"), "{wrong:?}");
    let secret = "[[source]]\nname = \"a\"\nurl = \"https://h\"\ntoken = \"s3cret\"";
    let file = settings(&place, "x.toml", secret);
    let wrong = place.run(["config", "check", file.to_str().expect("UTF-8"), "--json"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
    assert!(wrong.err.contains("token_file") && !wrong.err.contains("s3cret"), "{wrong:?}");
    let file = settings(&place, "x.toml", "threads = 4");
    assert_eq!(
        place.ok(["config", "check", file.to_str().expect("UTF-8")]),
        format!("{}: ok\n", file.display())
    );
}

#[test]
fn a_mount_needs_no_flags_where_one_source_is_configured() {
    let place = Place::new();
    let bytes = published(&place);
    let text = "cache_size = \"300MiB\"\nno_passthrough = true\nmountpoint = \"models\"\n\
                [[source]]\nname = \"lab\"\nurl = \"registry\"\nttl = \"5s\"\n";
    settings(&place, "modelfs.toml", text);
    let daemon = Daemon::start(&place, place.modelfs(["mount"]));
    assert!(fs::read(daemon.path("org/net/v1/w.bin")).expect("reads") == bytes);
    let status = daemon.status();
    assert_eq!(status["cache"]["limit"], 300 << 20);
    assert_eq!(status["daemon"]["passthrough"], false);
    place.ok(["restart"]);
    assert_eq!(daemon.status()["daemon"]["passthrough"], false, "the next worker, too");
    daemon.stop();
    // The other commands find the registry, too, and a daemon that serves another one is no error to them.
    assert!(place.ok(["list", "--remote"]).contains("org/net@v1"));
    fs::create_dir(place.path("other")).expect("own folder");
    fs::write(place.path("other/models.json"), "{}").expect("own file");
    let daemon = place.mount(place.path("other").to_str().expect("UTF-8"), &[]);
    place.ok(["list"]);
    daemon.stop();
}

#[test]
fn a_mount_refuses_settings_of_sources_that_it_cannot_keep_yet() {
    let place = Place::new();
    let one = "[[source]]\nname = \"one\"\nurl = \"registry\"\n";
    for (text, said) in [
        (format!("{one}verify = \"stream\""), "verify"),
        (format!("{one}username = \"me\""), "username"),
        ("[[source]]\nname = \"data\"\nurl = \"s3://bucket\"".to_owned(), "s3://"),
    ] {
        settings(&place, USER_FILE, &text);
        let refused = place.run(["mount", "models"]);
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.err.contains(said), "{refused:?}");
        assert!(refused.err.contains(USER_FILE), "where it stands: {refused:?}");
    }
}

#[test]
fn sources_are_added_and_removed_and_the_rest_of_the_file_stays() {
    let place = Place::new();
    assert!(place.ok(["source", "list"]).contains("modelfs source add"));
    place.ok(["source", "add", "lab", "registry", "--group", "org-*", "--priority", "-5"]);
    let file = place.path(USER_FILE);
    let mode = |path: &std::path::Path| {
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).expect("there").permissions())
            & 0o777
    };
    assert_eq!(mode(&file), 0o600);
    let written = fs::read_to_string(&file).expect("there");
    assert!(written.contains(&format!("url = \"{}\"", place.registry().display())), "{written}");
    let commented = format!("# mine\nthreads = 3 # few\n\n{written}");
    fs::write(&file, &commented).expect("own file");
    place.ok(["source", "add", "web", "https://models.example.org/x"]);
    let listed = place.ok(["source", "list"]);
    assert!(listed.find("lab") < listed.find("web") && listed.contains("org-*"), "{listed}");
    let again = place.run(["source", "add", "web", "https://h"]);
    assert!(again.code == 2 && again.err.contains("already"), "{again:?}");
    for wrong in [
        &["source", "add", "x", "https://u:s3cret@h"][..],
        &["source", "add", "Not A Name", "https://h"],
        &["source", "add", "x", "https://h", "--ttl", "soon"],
    ] {
        let refused = place.run(wrong);
        assert!(refused.code == 2 && !refused.err.contains("s3cret"), "{refused:?}");
    }
    place.ok(["source", "remove", "web"]);
    assert_eq!(fs::read_to_string(&file).expect("there"), commented);
    assert_eq!(mode(&file), 0o600);
    let gone = place.run(["source", "remove", "web"]);
    assert!(gone.code == 1 && gone.err.contains("source list"), "{gone:?}");
    crate::harness::set_mode(&file, 0o640);
    place.ok(["source", "remove", "lab"]);
    assert_eq!(mode(&file), 0o640, "the mode stays");
    place.ok(["source", "add", "here", "registry", "--project"]);
    assert!(fs::read_to_string(place.path("modelfs.toml")).expect("there").contains("here"));
    let added = ["source", "add", "there", "registry", "--config", "new.toml"];
    place.ok(added);
    place.ok(["config", "check", "new.toml"]);
    assert!(fs::read_to_string(place.path("new.toml")).expect("there").contains("there"));
}

#[test]
fn two_commands_at_once_lose_no_source() {
    let place = Place::new();
    let add = |n: usize| place.modelfs(["source", "add", &format!("s{n}"), "registry"]);
    let all: Vec<_> = (0..12).map(|n| add(n).spawn().expect("the binary starts")).collect();
    for mut child in all {
        assert!(child.wait().expect("own child").success());
    }
    let listed = place.ok(["source", "list"]);
    assert_eq!(listed.lines().count(), 13, "{listed}");
}

#[test]
fn a_command_in_a_mount_whose_worker_hangs_does_not_look_for_settings_there() {
    let place = Place::new();
    published(&place);
    let daemon = place.mount_folder(&["--hang-timeout", "0s", "--no-passthrough"]);
    let folder = daemon.path("org");
    let mut command = place.program("sh");
    // It is in the folder before the worker stops.
    let script = "echo there; read go; exec timeout -s KILL 20 \"$0\" config show";
    command.args(["-c", script]).arg(crate::harness::binary()).current_dir(&folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let worker = daemon.worker();
    let mut child = command.spawn().expect("sh starts");
    let mut there = [0; 6];
    child.stdout.as_mut().expect("piped").read_exact(&mut there).expect("it says so");
    assert!(signal(worker, "STOP"));
    child.stdin.take().expect("piped").write_all(b"\n").expect("it reads");
    let ran = Ran::from(child.wait_with_output().expect("own child"));
    assert!(signal(worker, "CONT"));
    assert_eq!(ran.code, 0, "{ran:?}");
    daemon.stop();
}
