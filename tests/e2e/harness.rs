//! What every test on a real mount needs: the binary, a daemon on folders of its own, cleaning up.
//!
//! Invariant: whatever a test does or however it ends, its daemon is killed by its id, its mount is
//! gone and its folders are removed. One value per test; nothing is shared between tests.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use modelfs_test_support::{HUB_TOKEN, HubServer};
use tempfile::TempDir;

/// Long enough for a loaded machine; nothing waits this long unless it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The binary under test, beside the test executable.
pub fn binary() -> PathBuf {
    let mut path = std::env::current_exe().expect("a test has an executable");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.push("modelfs");
    assert!(
        path.exists(),
        "{} is missing: run cargo build --workspace --bins first",
        path.display()
    );
    path
}

/// Who runs a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// Whoever runs the tests: root in CI.
    Me,
    /// An ordinary user without any privilege, made for the tests.
    Ordinary,
}

/// The name of the ordinary user.
pub const ORDINARY: &str = "modelfs-test";

/// The numbers of the ordinary user and of its group; it is made if it is not there.
pub fn ordinary_ids() -> (u32, u32) {
    let id = |flag: &str| -> Option<u32> {
        let out = Command::new("id").args([flag, ORDINARY]).output().ok()?;
        String::from_utf8(out.stdout).ok()?.trim().parse().ok()
    };
    if id("-u").is_none() {
        // Tests run side by side: the second one finds the user made, so failure is judged below.
        let _ = Command::new("useradd")
            .args(["--system", "--no-create-home", "--shell", "/usr/sbin/nologin", ORDINARY])
            .output();
    }
    match (id("-u"), id("-g")) {
        (Some(uid), Some(gid)) => (uid, gid),
        _ => panic!("the user {ORDINARY} could not be made: these tests need root and useradd"),
    }
}

/// Variables of the machine that commands of a test do not see: settings, logins and proxies of its own.
const MACHINE: [&str; 18] = [
    "MODELFS_REGISTRY",
    "MODELFS_LOG",
    "MODELFS_CONFIG",
    "XDG_CONFIG_HOME",
    "XDG_CACHE_HOME",
    "HF_TOKEN",
    "HF_HOME",
    "HF_ENDPOINT",
    "DOCKER_CONFIG",
    "REGISTRY_AUTH_FILE",
    "NETRC",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "NO_PROXY",
];

/// Folders of one test: cache, mount point, runtime folder. Commands run in this environment.
pub struct Place {
    pub dir: TempDir,
    pub user: User,
}

impl Place {
    pub fn new() -> Self {
        Self::of(User::Me)
    }

    /// Folders that belong to this user.
    pub fn of(user: User) -> Self {
        let dir =
            tempfile::Builder::new().prefix("modelfs-e2e.").tempdir().expect("a temporary folder");
        let place = Self { dir, user };
        for folder in ["models", "cache", "run", "registry"] {
            std::fs::create_dir(place.path(folder)).expect("a folder of the test's own");
        }
        set_mode(&place.path("run"), 0o700);
        set_mode(place.dir.path(), 0o755);
        if user == User::Ordinary {
            let (uid, gid) = ordinary_ids();
            for folder in ["", "models", "cache", "run", "registry"] {
                std::os::unix::fs::chown(place.path(folder), Some(uid), Some(gid))
                    .expect("root gives folders away");
            }
        }
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn mountpoint(&self) -> PathBuf {
        self.path("models")
    }

    pub fn cache(&self) -> PathBuf {
        self.path("cache")
    }

    pub fn registry(&self) -> PathBuf {
        self.path("registry")
    }

    /// A command of any program in this environment, as this user.
    pub fn program<S: AsRef<OsStr>>(&self, program: S) -> Command {
        let mut command = Command::new(program);
        command
            .env("MODELFS_CACHE_DIR", self.cache())
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("XDG_STATE_HOME", self.path("run"))
            .env("HOME", self.dir.path())
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        for name in MACHINE {
            command.env_remove(name);
        }
        if self.user == User::Ordinary {
            use std::os::unix::process::CommandExt;
            let (uid, gid) = ordinary_ids();
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Mounts a registry of a Hub, logged in.
    pub fn mount_hub(&self, hub: &HubServer, registry: &str, more: &[&str]) -> Daemon<'_> {
        let mut command = self.modelfs(["mount"]);
        command.arg(self.mountpoint()).args(["--registry", registry]).args(more);
        command.env("HF_ENDPOINT", hub.url()).env("HF_TOKEN", HUB_TOKEN);
        Daemon::start(self, command)
    }

    /// Installs the binary for this test alone, in place of whatever was there.
    pub fn install(&self) {
        self.install_copy(&binary());
    }

    /// Installs another program in its place. The copy is another process's: one that is started by
    /// another test meanwhile would hold ours open for writing, and nobody could run it.
    pub fn install_copy(&self, program: &Path) {
        let new = self.path("modelfs.new");
        let copied = Command::new("cp").arg(program).arg(&new).status();
        assert!(copied.expect("cp starts").success(), "a copy of the binary");
        set_mode(&new, 0o755);
        std::fs::rename(new, self.path("modelfs")).expect("own folder");
    }

    /// A `modelfs` command.
    pub fn modelfs<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        // An ordinary user cannot enter every build folder: it runs a copy.
        let (mut program, copy) = (binary(), self.path("modelfs"));
        if self.user == User::Ordinary && !copy.exists() {
            self.install();
        }
        if copy.exists() {
            program = copy;
        }
        let mut command = self.program(program);
        command.args(args);
        command
    }

    /// Runs a `modelfs` command to its end.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        Ran::from(self.modelfs(args).output().expect("the binary starts"))
    }

    /// Runs one that must succeed; its standard output.
    pub fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.out
    }

    /// Publishes a folder into this test's registry folder.
    pub fn publish(&self, source: &Path, model: &str, version: &str, more: &[&str]) {
        let registry = self.registry();
        let mut args: Vec<&OsStr> =
            vec!["publish".as_ref(), source.as_ref(), model.as_ref(), version.as_ref()];
        args.extend(["--registry".as_ref(), registry.as_os_str()]);
        args.extend(more.iter().map(OsStr::new));
        self.ok(args);
    }

    /// Mounts a registry and waits until it is ready.
    pub fn mount(&self, registry: &str, more: &[&str]) -> Daemon<'_> {
        let mut command = self.modelfs(["mount"]);
        command.arg(self.mountpoint()).args(["--registry", registry]).args(more);
        Daemon::start(self, command)
    }

    /// Mounts this test's registry folder.
    pub fn mount_folder(&self, more: &[&str]) -> Daemon<'_> {
        self.mount(self.registry().to_str().expect("temporary folders have UTF-8 names"), more)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        detach(&self.mountpoint());
    }
}

pub fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("own file");
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(out: Output) -> Self {
        Self {
            code: out.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&out.stdout).into_owned(),
            err: String::from_utf8_lossy(&out.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// The standard output as one JSON document.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// A running `modelfs mount`.
pub struct Daemon<'a> {
    place: &'a Place,
    child: Child,
    log: std::thread::JoinHandle<String>,
}

impl<'a> Daemon<'a> {
    /// By a command of any kind that becomes a `modelfs mount`.
    pub fn start(place: &'a Place, mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let mut err = child.stderr.take().expect("piped");
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = err.read_to_string(&mut text);
            text
        });
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut ready = String::new();
        out.read_line(&mut ready).expect("a pipe can be read");
        let mut daemon = Self { place, child, log };
        if ready.is_empty() {
            let how = daemon.child.wait().expect("own child");
            panic!("the daemon ended before it was ready, {how}: {}", daemon.end());
        }
        // The rest of its output must not fill the pipe.
        std::thread::spawn(move || {
            let mut rest = String::new();
            let _ = out.read_to_string(&mut rest);
        });
        assert!(is_mounted(&place.mountpoint()), "ready without a mount: {ready}");
        daemon
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process that answers reads.
    pub fn worker(&self) -> u32 {
        let pid = self.status()["daemon"]["worker"].as_u64().expect("a worker answers");
        pid.try_into().expect("process ids are small")
    }

    /// What it started: worker and guard.
    pub fn children(&self) -> Vec<u32> {
        let ours = |pid: &u32| parent(*pid) == Some(self.pid());
        let all = std::fs::read_dir("/proc").expect("/proc is mounted").flatten();
        all.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(ours).collect()
    }

    /// A path below the mount point.
    pub fn path(&self, path: &str) -> PathBuf {
        self.place.mountpoint().join(path)
    }

    /// Has its workers die at their start until it gives up: the cache folder is away meanwhile.
    pub fn give_up(&self) {
        let (cache, away, worker) =
            (self.place.cache(), self.place.path("cache.away"), self.worker());
        // The kernel asks for these before it asks for the reason, and keeps them.
        std::fs::metadata(self.place.mountpoint()).expect("it is served");
        assert!(signal(worker, "STOP"));
        std::fs::rename(&cache, &away).expect("own folder");
        std::fs::write(&cache, "no folder").expect("own folder");
        assert!(signal(worker, "KILL"));
        eventually("it gives up", || xattr(&self.place.mountpoint(), "error").is_some());
        std::fs::remove_file(&cache).expect("own file");
        std::fs::rename(&away, &cache).expect("own folder");
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        assert!(signal(self.pid(), name), "kill -{name}");
    }

    /// Waits for its end; its exit code and log.
    pub fn wait(mut self) -> (i32, String) {
        let started = Instant::now();
        loop {
            match self.child.try_wait().expect("own child") {
                Some(status) => return (status.code().unwrap_or(-1), self.end()),
                None if started.elapsed() > PATIENCE => {
                    let log = self.end();
                    panic!("the daemon does not end: {log}");
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Waits for the end of one that leaves its mount to another, and its guard, who holds the log.
    pub fn leave(mut self) -> i32 {
        eventually("it ends", || self.child.try_wait().expect("own child").is_some());
        let status = self.child.wait().expect("own child");
        std::mem::forget(self);
        status.code().unwrap_or(-1)
    }

    /// Ends it as a user would; it must end well and leave no mount.
    pub fn stop(self) -> String {
        let mountpoint = self.place.mountpoint();
        self.signal("TERM");
        let (code, log) = self.wait();
        assert_eq!(code, 0, "{log}");
        assert!(!is_mounted(&mountpoint), "a mount was left: {log}");
        log
    }

    /// Kills all of its processes without warning; its dead mount stays.
    pub fn kill(&mut self) {
        // Once it was waited for, its number may be another process's.
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // Still, so that it starts no other worker meanwhile.
        signal(self.pid(), "STOP");
        for child in self.children() {
            signal(child, "KILL");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Kills it without warning and clears the dead mount away.
    pub fn crash(self) {
        let mountpoint = self.place.mountpoint();
        drop(self.end());
        detach(&mountpoint);
    }

    /// Kills it if it still lives; its log.
    fn end(mut self) -> String {
        self.kill();
        let log = std::mem::replace(&mut self.log, std::thread::spawn(String::new));
        log.join().unwrap_or_default()
    }

    pub fn status(&self) -> serde_json::Value {
        self.place.run(["status", "--json"]).json()
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        self.kill();
        detach(&self.place.mountpoint());
    }
}

/// Sends a signal; whether there was somebody to get it.
pub fn signal(pid: u32, name: &str) -> bool {
    let mut kill = Command::new("kill");
    kill.args([&format!("-{name}"), &pid.to_string()]).stderr(Stdio::null());
    kill.status().is_ok_and(|s| s.success())
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may have blanks and brackets.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Whether something is mounted exactly there, dead or alive.
pub fn is_mounted(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
    mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|m| Path::new(m) == path))
}

/// Takes a mount away, whoever serves it.
pub fn detach(path: &Path) {
    if is_mounted(path) {
        let _ = Command::new("umount").arg("-l").arg(path).stderr(Stdio::null()).status();
    }
}

/// Waits until it holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder that can be listed");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.expect("an entry").file_name().into_string().expect("names are UTF-8")
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

/// An extended attribute as text; none if there is none.
pub fn xattr(path: &Path, name: &str) -> Option<String> {
    let mut buffer = vec![0u8; 4096];
    let len = rustix::fs::getxattr(path, format!("user.modelfs.{name}"), &mut buffer[..]).ok()?;
    buffer.truncate(len);
    String::from_utf8(buffer).ok()
}
