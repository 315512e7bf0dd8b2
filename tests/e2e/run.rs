//! `modelfs run` and `modelfs link`, and the daemon in place of the Hub.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::harness::{Place, Ran, User, eventually, is_mounted, signal};

fn published(place: &Place) {
    let source = place.path("source");
    fs::create_dir_all(source.join("onnx")).expect("a step of the test succeeds");
    fs::write(source.join("config.json"), "{}").expect("a step of the test succeeds");
    fs::write(source.join("onnx/model.onnx"), vec![7; 300_000])
        .expect("a step of the test succeeds");
    place.publish(&source, "acme/net", "1.0", &[]);
}

fn run(place: &Place, more: &[&str]) -> Ran {
    let registry = place.registry();
    let mut args =
        vec!["run", "--registry", registry.to_str().expect("temporary folders have UTF-8 names")];
    args.extend(more);
    place.run(args)
}

/// Every modelfs mount below the test's folder.
fn mounts(place: &Place) -> Vec<PathBuf> {
    let all = fs::read_to_string("/proc/self/mounts").expect("a step of the test succeeds");
    let points = all.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    points.filter(|point| point.starts_with(place.dir.path())).collect()
}

#[test]
fn a_command_finds_models_on_a_mount_that_is_gone_afterwards() {
    let place = Place::new();
    published(&place);
    let script = "echo $MODELFS_MODELS; cat \"$HF_HUB_CACHE\"/models--acme--net/refs/main; \
        echo \" $HF_HUB_OFFLINE\"; cat \"$1\"; exit 7";
    let ran = run(&place, &["--", "sh", "-c", script, "sh", "modelfs:acme/net@1.0/config.json"]);
    assert_eq!(ran.code, 7, "{ran:?}");
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[1].len() == 42 && lines[1].ends_with(" 1") && lines[2] == "{}", "{ran:?}");
    let mountpoint = Path::new(lines[0]);
    assert!(!is_mounted(mountpoint) && !mountpoint.exists(), "{ran:?}");
    assert_eq!(ran.err, "", "the daemon's log is not the command's");
}

#[test]
fn an_ordinary_user_can_run_a_command_with_a_mount() {
    let place = Place::of(User::Ordinary);
    published(&place);
    let ran = run(&place, &["--", "cat", "hf://acme/net@1.0/config.json"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "{}"), "{ran:?}");
    assert!(!ran.err.contains("error"), "{ran:?}");
}

#[test]
fn a_commands_end_is_ours_and_what_cannot_start_says_why() {
    let place = Place::new();
    published(&place);
    assert_eq!(run(&place, &["--", "sh", "-c", "kill -9 $$"]).code, 128 + 9);
    let none = run(&place, &["--", "no-such-program"]);
    assert!(none.code == 127 && none.err.contains("no-such-program"), "{none:?}");
    let unknown = run(&place, &["--", "cat", "modelfs:acme/net@9"]);
    assert!(unknown.code == 3 && unknown.err.contains("acme/net/9"), "{unknown:?}");
    let wrong = run(&place, &["--", "cat", "modelfs:acme"]);
    assert!(wrong.code == 2 && wrong.err.contains("GROUP/MODEL@VERSION"), "{wrong:?}");
    let as_is = run(&place, &["--as-is", "--", "echo", "hf://acme/net"]);
    assert_eq!((as_is.code, as_is.out.as_str()), (0, "hf://acme/net\n"), "{as_is:?}");
    let unreachable = place.run(["run", "--registry", "/nowhere", "--", "true"]);
    assert!(unreachable.code == 5 && unreachable.err.contains("/nowhere"), "{unreachable:?}");
    assert!(mounts(&place).is_empty());
}

/// A command on a mount of its own that has said that it runs; and its mount point.
fn started(place: &Place, script: &str) -> (Child, PathBuf) {
    let mut command = place.modelfs(["run", "--registry"]);
    command.arg(place.registry()).args(["--", "sh", "-c", script]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("a step of the test succeeds");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("a step of the test succeeds"))
        .read_line(&mut line)
        .expect("a step of the test succeeds");
    let mountpoint = PathBuf::from(line.trim());
    assert!(is_mounted(&mountpoint), "{line:?}");
    (child, mountpoint)
}

#[test]
fn signals_go_to_the_command_and_the_mount_ends_after_it() {
    let place = Place::new();
    published(&place);
    // It still reads from the mount when the signal has come.
    let script = "trap 'ls $MODELFS_MODELS/acme; exit 5' TERM; echo $MODELFS_MODELS; \
        while :; do sleep 0.05; done";
    let (mut child, mountpoint) = started(&place, script);
    assert!(signal(child.id(), "TERM"));
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert!(!is_mounted(&mountpoint));
}

#[test]
fn a_mount_of_its_own_does_not_outlive_a_run_that_was_killed() {
    let place = Place::new();
    published(&place);
    let (mut child, mountpoint) = started(&place, "echo $MODELFS_MODELS; exec sleep 1");
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the mount is gone", || !is_mounted(&mountpoint));
}

#[test]
fn the_mount_of_a_running_daemon_is_used_and_stays() {
    let place = Place::new();
    published(&place);
    let daemon = place.mount_folder(&[]);
    let ran = run(&place, &["--", "sh", "-c", "echo $MODELFS_MODELS"]);
    assert_eq!(ran.out.trim(), place.mountpoint().to_str().unwrap(), "{ran:?}");
    assert!(is_mounted(&place.mountpoint()));
    let other = place.run(["run", "--registry", "https://127.0.0.1:1", "--", "true"]);
    assert_eq!(other.code, 2, "it serves another registry: {other:?}");
    let online = run(&place, &["--online", "--", "true"]);
    assert!(online.code == 2 && online.err.contains("--hub-endpoint"), "{online:?}");
    daemon.stop();
}

/// A request to the daemon in place of the Hub; status, head and body.
fn request(url: &str, path: &str, token: Option<&str>, more: &str) -> (u16, String, Vec<u8>) {
    try_request(url, path, token, more).expect("it answers")
}

fn try_request(
    url: &str,
    path: &str,
    token: Option<&str>,
    more: &str,
) -> std::io::Result<(u16, String, Vec<u8>)> {
    let address = url.strip_prefix("http://").expect("a step of the test succeeds");
    let mut stream = TcpStream::connect(address)?;
    let token = token.map_or_else(String::new, |t| format!("Authorization: Bearer {t}\r\n"));
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{token}{more}\r\n"
    )
    .expect("a step of the test succeeds");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(answer[..end].to_vec()).expect("a step of the test succeeds");
    let status = head
        .split(' ')
        .nth(1)
        .expect("a step of the test succeeds")
        .parse()
        .expect("a step of the test succeeds");
    Ok((status, head, answer[end + 4..].to_vec()))
}

#[test]
fn a_command_that_asks_the_hub_is_answered_by_the_daemon() {
    let place = Place::new();
    published(&place);
    let mut command = place.modelfs(["run", "--online", "--registry"]);
    command.arg(place.registry());
    command.args(["--", "sh", "-c", "echo $HF_ENDPOINT $HF_TOKEN $HF_HUB_OFFLINE; read wait"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let [url, token] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };

    assert_eq!(request(url, "/api/models/acme/net", None, "").0, 401);
    assert_eq!(request(url, "/api/models/acme/net", Some("hf_guess"), "").0, 401);
    let (status, _, body) = request(url, "/api/models/acme/net/revision/1.0", Some(token), "");
    let model: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &model["siblings"][0]["rfilename"]), (200, &"config.json".into()));
    let commit = model["sha"].as_str().unwrap();
    let tree = format!("/api/models/acme/net/tree/{commit}?recursive=True&limit=2");
    let (_, head, body) = request(url, &tree, Some(token), "");
    let page: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((page.as_array().unwrap().len(), &page[1]["type"]), (2, &"directory".into()));
    assert!(head.contains("cursor=2>; rel=\"next\""), "{head}");
    let file = "/acme/net/resolve/main/onnx/model.onnx";
    let (status, head, body) = request(url, file, Some(token), "Range: bytes=10-19\r\n");
    assert_eq!((status, body.as_slice()), (206, &[7; 10][..]), "{head}");
    assert!(head.contains(&format!("x-repo-commit: {commit}")), "{head}");
    assert!(head.contains("content-range: bytes 10-19/300000"), "{head}");
    assert_eq!(request(url, file, Some(token), "").2.len(), 300_000);
    let (status, head, _) = request(url, "/acme/net/resolve/main/none", Some(token), "");
    assert!(status == 404 && head.contains("x-error-code: EntryNotFound"), "{head}");
    let (status, head, _) = request(url, "/acme/none/resolve/main/x", Some(token), "");
    assert!(status == 404 && head.contains("x-error-code: RepoNotFound"), "{head}");
    let (status, head, _) = request(url, "/acme/net/resolve/v9/x", Some(token), "");
    assert!(status == 404 && head.contains("x-error-code: RevisionNotFound"), "{head}");

    drop(child.stdin.take());
    child.wait().unwrap();
    let status = place.ok(["status", "--json"]);
    assert!(!status.contains(token), "the token is in no status");
}

#[test]
fn the_daemon_keeps_its_token_when_its_worker_is_replaced() {
    let place = Place::new();
    published(&place);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let daemon = place.mount_folder(&["--hub-endpoint", &free.to_string()]);
    let token = fs::read_to_string(place.cache().join("hub-token")).unwrap();
    let url = format!("http://{free}");
    let answers = || {
        let path = "/api/models/acme/net/revision/1.0";
        try_request(&url, path, Some(&token), "").is_ok_and(|answer| answer.0 == 200)
    };
    eventually("it answers", answers);
    let worker = daemon.worker();
    assert!(signal(worker, "KILL"));
    eventually("the worker is replaced", || daemon.worker() != worker);
    eventually("the next worker answers", answers);
    let ran = run(&place, &["--online", "--", "sh", "-c", "echo $HF_ENDPOINT $HF_TOKEN"]);
    assert_eq!(ran.out.trim(), format!("{url} {token}"), "{ran:?}");
    daemon.stop();
}

#[test]
fn an_address_that_others_can_reach_is_refused() {
    let place = Place::new();
    published(&place);
    let registry = place.registry();
    let mount = ["mount", "models", "--hub-endpoint", "0.0.0.0:8090", "--registry"];
    let ran = place.run(mount.into_iter().chain([registry.to_str().unwrap()]));
    assert!(ran.code == 2 && ran.err.contains("127.0.0.1:PORT"), "{ran:?}");
}

#[test]
fn a_link_lets_the_users_own_cache_have_a_model_of_the_mount() {
    let place = Place::new();
    published(&place);
    let hub = place.path("own-cache");
    let link = hub.join("models--acme--net");
    let command = |args: &[&str]| {
        let mut command = place.modelfs(args);
        command.env("HF_HUB_CACHE", &hub);
        Ran::from(command.output().unwrap())
    };
    let unmounted = command(&["link", "acme/net"]);
    assert_eq!(unmounted.code, 4, "{unmounted:?}");
    let daemon = place.mount_folder(&[]);
    assert_eq!(command(&["link", "acme/none"]).code, 3);
    for _ in 0..2 {
        let made = command(&["link", "acme/net"]);
        assert_eq!(made.code, 0, "{made:?}");
        assert_eq!(fs::read(link.join("refs/1.0")).unwrap().len(), 40);
    }
    let removed = command(&["link", "--remove", "acme/net"]);
    assert!(removed.code == 0 && !link.is_symlink(), "{removed:?}");
    fs::create_dir(&link).unwrap();
    let own = command(&["link", "acme/net"]);
    assert!(own.code == 2 && own.err.contains("downloaded there"), "{own:?}");
    daemon.stop();
}
