//! Mounts: of modelfs in each of its modes, and of `rclone`, the peer that everybody has.
//!
//! Invariant: a mount that is dropped is gone, whatever state its daemon is in; daemons are ended by
//! their ids. Mounts have mount points, caches and sockets of their own, so several stand at once.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::data::Model;
use super::{Arena, User};

/// The other build of modelfs, below the arena's folder.
pub const OTHER_BUILD: &str = "bin/modelfs-other";
/// The longest that a mount may take to come up, or to go.
const PATIENCE: Duration = Duration::from_secs(30);

/// How modelfs is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// By root: the kernel reads complete files itself.
    Passthrough,
    /// By root, with every read through the daemon.
    Cached,
    /// By a user without privileges, which comes to the same and goes through `fusermount3`.
    Ordinary,
    /// As `Passthrough`, by the other build of modelfs that the run compares with.
    OtherBuild,
}

impl By {
    pub fn user(self) -> User {
        if self == Self::Ordinary { User::Ordinary } else { User::Root }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Passthrough => "modelfs, passthrough",
            Self::Cached => "modelfs, cached mode",
            Self::Ordinary => "modelfs, ordinary user",
            Self::OtherBuild => "modelfs, other build, passthrough",
        }
    }

    fn program(self) -> &'static str {
        if self == Self::OtherBuild { OTHER_BUILD } else { "bin/modelfs" }
    }
}

/// How a mount is made.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    pub by: By,
    /// The registry.
    pub url: &'a str,
    /// The cache's name. Mounts that stand at once have different ones.
    pub cache: &'a str,
    /// As `--cache-size` has it.
    pub size: &'a str,
}

/// A running `modelfs mount`.
pub struct Mount {
    child: Child,
    at: PathBuf,
    user: User,
    /// From its start to the line that says it is ready.
    pub took: Duration,
}

impl Mount {
    /// Mounts with an empty cache.
    pub fn fresh(arena: &Arena, setting: Setting<'_>) -> Result<Self, String> {
        arena.fresh_folder(&format!("cache/{}", setting.cache), setting.by.user())?;
        Self::start(arena, setting)
    }

    /// Mounts with the cache as the last mount of this name left it.
    pub fn start(arena: &Arena, setting: Setting<'_>) -> Result<Self, String> {
        let Setting { by, url, cache, size } = setting;
        let user = by.user();
        let at = arena.path(&format!("mnt/{cache}"));
        fs::create_dir_all(&at).map_err(|e| format!("{}: {e}", at.display()))?;
        arena.give(&at, user)?;
        let run = arena.fresh_folder(&format!("run/{cache}"), user)?;
        let log_path = arena.path(&format!("run/{cache}.log"));
        let log = File::create(&log_path).map_err(|e| e.to_string())?;
        let mut command = arena.program(&arena.path(by.program()), user);
        command.arg("mount").arg(&at).args(["--registry", url, "--cache-size", size]);
        command.arg("--cache-dir").arg(arena.path(&format!("cache/{cache}")));
        if by == By::Cached {
            command.arg("--no-passthrough");
        }
        command.env("XDG_RUNTIME_DIR", &run).env("XDG_STATE_HOME", &run);
        command.env_remove("MODELFS_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let started = Instant::now();
        let mut child = command.spawn().map_err(|e| format!("modelfs: {e}"))?;
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut ready = String::new();
        let said = out.read_line(&mut ready);
        let mount = Self { child, at, user, took: started.elapsed() };
        if said.is_err() || ready.is_empty() {
            return Err(format!("modelfs mount: {}", last_words(&log_path)));
        }
        // What else it prints must not meet a closed pipe.
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        Ok(mount)
    }

    pub fn user(&self) -> User {
        self.user
    }

    pub fn folder(&self, model: &Model) -> PathBuf {
        self.at.join(&model.place)
    }

    /// The first file of a model.
    pub fn file(&self, model: &Model) -> PathBuf {
        self.folder(model).join(&model.files[0])
    }

    pub fn root(&self) -> &Path {
        &self.at
    }

    /// Its processes: supervisor, worker, guard.
    fn processes(&self) -> Vec<u32> {
        let mut all = vec![self.child.id()];
        let mut at = 0;
        while let Some(pid) = all.get(at).copied() {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            for task in tasks {
                let children = fs::read_to_string(task.path().join("children"));
                let children = children.unwrap_or_default();
                all.extend(children.split_whitespace().filter_map(|p| p.parse::<u32>().ok()));
            }
            at += 1;
        }
        all
    }

    /// A line of `/proc/<pid>/status`, in bytes, of all of its processes together.
    pub fn memory(&self, line: &str) -> u64 {
        let of = |pid: u32| -> Option<u64> {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find(|l| l.starts_with(line))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        self.processes().into_iter().filter_map(of).sum::<u64>() << 10
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        end(&mut self.child, &self.at);
    }
}

/// A running `rclone mount` with its disk cache.
pub struct Rclone {
    child: Child,
    at: PathBuf,
}

impl Rclone {
    /// Mounts what is served at a URL, with an empty cache.
    pub fn fresh(arena: &Arena, url: &str) -> Result<Self, String> {
        let at = arena.path("mnt/rclone");
        fs::create_dir_all(&at).map_err(|e| format!("{}: {e}", at.display()))?;
        let cache = arena.fresh_folder("cache/rclone", User::Root)?;
        let log_path = arena.path("run/rclone.log");
        let log = File::create(&log_path).map_err(|e| e.to_string())?;
        let mut command = arena.program(Path::new("rclone"), User::Root);
        command.args(["mount", ":http:"]).arg(&at).args(["--http-url", url, "--read-only"]);
        command.args(["--vfs-cache-mode", "full", "--config", ""]).arg("--cache-dir").arg(cache);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().map_err(|e| format!("rclone: {e}"))?;
        let mut mount = Self { child, at };
        let started = Instant::now();
        while !is_mounted(&mount.at) {
            if started.elapsed() > PATIENCE || mount.child.try_wait().is_ok_and(|s| s.is_some()) {
                return Err(format!("rclone mount: {}", last_words(&log_path)));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(mount)
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.at.join(below)
    }
}

impl Drop for Rclone {
    fn drop(&mut self) {
        end(&mut self.child, &self.at);
    }
}

fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.trim().lines().last().unwrap_or("it said nothing").to_owned()
}

fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
    mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|m| Path::new(m) == path))
}

/// Ends a daemon as a user would; by force if that takes too long.
fn end(child: &mut Child, at: &Path) {
    let pid = child.id().to_string();
    let _ = Command::new("kill").args(["-TERM", &pid]).stderr(Stdio::null()).status();
    let started = Instant::now();
    while matches!(child.try_wait(), Ok(None)) && started.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
    if is_mounted(at) {
        let _ = Command::new("umount").arg("-l").arg(at).stderr(Stdio::null()).status();
    }
}
