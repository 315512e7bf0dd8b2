//! Where the bench takes place: one temporary folder with data, registry, server and mounts.
//!
//! Invariant: servers and mounts end with their values, also on a panic; nothing outside the folder
//! is written. One thing runs at a time.

mod data;
mod mounts;
mod plain;
mod server;

use std::cell::OnceCell;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

pub use data::{Catalog, Model, Models};
pub use mounts::{By, Mount, Rclone, Setting};
pub use plain::{curl_files, curl_objects};
pub use server::{Net, Nginx};

use crate::scale::Scale;

/// A kernel gives pages back some two seconds after they became free: those of what ran before are
/// gone by then, those that are freed now are still there for what runs next.
const GIVEN_BACK: Duration = Duration::from_millis(2600);
/// The ordinary user, who has no privilege at all; the tests use the same.
const ORDINARY: &str = "modelfs-test";

/// Who runs a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    Root,
    Ordinary,
}

/// The folder, what is in it, and the server.
pub struct Arena {
    // Before the folder, which is removed when nothing is in use any more.
    nginx: Nginx,
    pub models: Models,
    pub scale: Scale,
    /// Only cases whose title has this.
    only: String,
    catalog: OnceCell<Catalog>,
    /// The user and group of [`ORDINARY`], or why there is none.
    ordinary: OnceCell<Result<(u32, u32), String>>,
    dir: TempDir,
}

impl Arena {
    pub fn new(scale: Scale, only: String) -> Self {
        // Beside the build, not in /tmp, which may be memory.
        let base = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
        let base = base.canonicalize().expect("the build has made it");
        let dir = tempfile::Builder::new().prefix("bench.").tempdir_in(base).expect("a folder");
        // The ordinary user runs the programs from here and has mounts here.
        set_mode(dir.path(), 0o755);
        for folder in ["bin", "served", "mnt", "cache", "run", "scratch"] {
            fs::create_dir(dir.path().join(folder)).expect("own folder");
        }
        let here = std::env::current_exe().expect("a program has one");
        for (name, from) in [("modelfs", here.with_file_name("modelfs")), ("reader", here)] {
            let to = dir.path().join("bin").join(name);
            fs::copy(&from, &to).unwrap_or_else(|e| {
                panic!("{}: {e}: cargo build --release first", from.display());
            });
            set_mode(&to, 0o755);
        }
        if let Some(from) = std::env::var_os("MODELFS_BENCH_OTHER") {
            let to = dir.path().join(mounts::OTHER_BUILD);
            fs::copy(&from, &to).unwrap_or_else(|e| {
                panic!("{}: {e}: MODELFS_BENCH_OTHER names no program", from.display());
            });
            set_mode(&to, 0o755);
        }
        let nginx = Nginx::start(dir.path());
        let models = Models::new(dir.path());
        let (catalog, ordinary) = (OnceCell::new(), OnceCell::new());
        Self { nginx, models, scale, only, catalog, ordinary, dir }
    }

    /// Whether a case with this title is asked for.
    pub fn wants(&self, title: &str) -> bool {
        title.contains(&self.only)
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Whether another build of modelfs takes part.
    pub fn has_other_build(&self) -> bool {
        self.path(mounts::OTHER_BUILD).exists()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// The server, as near and as fast as it is.
    pub fn nginx(&self) -> &Nginx {
        &self.nginx
    }

    /// The registry of many models.
    pub fn catalog(&self) -> &Catalog {
        self.catalog.get_or_init(|| Catalog::make(self.root(), self.scale.catalog_models))
    }

    fn ids(&self) -> Result<(u32, u32), String> {
        let look = || {
            let id = |flag: &str| -> Option<u32> {
                let out = Command::new("id").args([flag, ORDINARY]).stderr(Stdio::null()).output();
                String::from_utf8(out.ok()?.stdout).ok()?.trim().parse().ok()
            };
            if id("-u").is_none() {
                let _ = Command::new("useradd")
                    .args(["--system", "--no-create-home", "--shell", "/usr/sbin/nologin"])
                    .arg(ORDINARY)
                    .output();
            }
            let ids = id("-u").zip(id("-g")).ok_or(format!("the user {ORDINARY} is not there"))?;
            let mut test = Command::new("test");
            test.arg("-x").arg(self.path("bin/modelfs")).uid(ids.0).gid(ids.1).current_dir("/");
            match test.status() {
                Ok(status) if status.success() => Ok(ids),
                _ => Err(format!("the user {ORDINARY} cannot enter the build folder")),
            }
        };
        self.ordinary.get_or_init(look).clone()
    }

    /// Makes a folder that belongs to this user, empty.
    pub fn fresh_folder(&self, name: &str, user: User) -> Result<PathBuf, String> {
        let path = self.path(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        self.give(&path, user)?;
        Ok(path)
    }

    /// Gives a folder to this user.
    pub fn give(&self, path: &Path, user: User) -> Result<(), String> {
        if user == User::Ordinary {
            let (uid, gid) = self.ids()?;
            chown(path, Some(uid), Some(gid)).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        Ok(())
    }

    /// A program that runs as this user, who must have been given a folder before.
    pub fn program(&self, program: &Path, user: User) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").env("HOME", self.root());
        if user == User::Ordinary {
            let (uid, gid) = self.ids().expect("asked for when the folder was given");
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Makes memory that the machine has at hand: a virtual machine gives free pages back to its
    /// host, and filling a page cache with pages fetched from there again is many times slower
    /// than anything measured here. Also reads what the server will serve, so that it serves from
    /// memory. Whatever is measured must begin at once.
    pub fn settle(&self, served: &[PathBuf], fills: u64) -> Result<(), String> {
        let failed = |e: std::io::Error| format!("settling: {e}");
        for path in served {
            let mut file = fs::File::open(path).map_err(failed)?;
            std::io::copy(&mut file, &mut std::io::sink()).map_err(failed)?;
        }
        let scratch = self.path("scratch/settle");
        let mut file = fs::File::create(&scratch).map_err(failed)?;
        let zeros = vec![0; 1 << 20];
        for _ in 0..fills >> 20 {
            std::io::Write::write_all(&mut file, &zeros).map_err(failed)?;
        }
        drop(file);
        std::thread::sleep(GIVEN_BACK);
        fs::remove_file(scratch).map_err(failed)
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("own file");
}

/// Makes the kernel forget every clean page, name and inode.
pub fn drop_caches() {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").expect("root may");
}
