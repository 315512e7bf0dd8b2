//! Where the bench takes place: data, registry, server, mounts, all in one temporary folder.
//!
//! Invariant: servers and mounts end with their values, also on a panic.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use modelfs_test_support::write_bytes;
use tempfile::TempDir;

/// A kernel gives pages back some two seconds after they became free: those of what ran before are
/// gone by then, those that are freed now are still there for what runs next.
const GIVEN_BACK: Duration = Duration::from_millis(2600);

/// Data, registries and a server.
pub struct Arena {
    dir: TempDir,
    /// Bytes of each weights file.
    pub size: u64,
    port: u16,
    server: Child,
}

/// How a mount is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The kernel reads complete files itself.
    Passthrough,
    /// Every read through the daemon, as for an ordinary user.
    Cached,
}

fn binary() -> PathBuf {
    let mut path = std::env::current_exe().expect("a program has one");
    path.set_file_name("modelfs");
    assert!(path.exists(), "{} is missing: cargo build --release", path.display());
    path
}

impl Arena {
    /// Makes data, publishes it with BLAKE3 leaves (`leaves`) and without (`plain`), serves both.
    pub fn new(size: u64) -> Self {
        // Beside the build, not in /tmp, which may be memory.
        let base = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
        let dir = tempfile::Builder::new().prefix("bench.").tempdir_in(base).expect("a folder");
        let root = dir.path().canonicalize().expect("it exists");
        fs::create_dir(root.join("source")).expect("a folder");
        eprintln!("making {} MiB of data and publishing it", size >> 20);
        write_bytes(&root.join("source/model.safetensors"), 1, size);
        let publish = |version: &str, more: &[&str]| {
            let status = Command::new(binary())
                .args(["publish", "--quiet"])
                .arg(root.join("source"))
                .args(["bench/model", version, "--registry"])
                .arg(root.join("registry"))
                .args(more)
                .status();
            assert!(status.is_ok_and(|s| s.success()), "publish {version}");
        };
        publish("leaves", &[]);
        publish("plain", &["--leaf-size", "none"]);
        let port = free_port();
        let server = nginx(&root, port);
        Self { dir, size, port, server }
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    pub fn native(&self) -> PathBuf {
        self.root().join("source/model.safetensors")
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A `curl` configuration that fetches the objects of the file, in order, to standard output.
    pub fn curl_config(&self) -> PathBuf {
        let catalog = fs::read(self.root().join("registry/models.json")).expect("published");
        let catalog: serde_json::Value = serde_json::from_slice(&catalog).expect("JSON");
        let hash = catalog["bench"]["model"]["leaves"]["hash"].as_str().expect("a hash");
        let manifest = fs::read(self.root().join("registry/data").join(hash)).expect("published");
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
        let chunks = manifest["chunks"].as_array().expect("a list");
        let lines: String = chunks
            .iter()
            .map(|c| format!("url = \"{}/data/{}\"\n", self.url(), c.as_str().expect("a digest")))
            .collect();
        let path = self.root().join("curl.config");
        fs::write(&path, lines).expect("own folder");
        path
    }

    /// Mounts the served registry with a cache of this name (made if new).
    pub fn mount(&self, cache: &str, mode: Mode) -> Mount {
        let at = self.root().join("mnt");
        fs::create_dir_all(&at).expect("own folder");
        let mut command = Command::new(binary());
        command.arg("mount").arg(&at).args(["--registry", &self.url(), "--cache-size", "40GiB"]);
        command.arg("--cache-dir").arg(self.root().join(cache));
        if mode == Mode::Cached {
            command.arg("--no-passthrough");
        }
        command.env("XDG_RUNTIME_DIR", self.root()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("the binary starts");
        let mount = Mount { child, at };
        let started = Instant::now();
        while !mount.file("leaves").exists() {
            assert!(started.elapsed() < Duration::from_secs(20), "the mount does not come up");
            std::thread::sleep(Duration::from_millis(10));
        }
        mount
    }

    /// Makes memory that the machine has at hand: a virtual machine gives free pages back to its
    /// host, and filling a page cache with pages fetched from there again is many times slower
    /// than anything measured here. Also reads what the server will serve, so that it serves from
    /// memory. Whatever is measured must begin at once.
    pub fn settle(&self) {
        for object in fs::read_dir(self.root().join("registry/data")).expect("published").flatten()
        {
            let mut object = fs::File::open(object.path()).expect("an object");
            std::io::copy(&mut object, &mut std::io::sink()).expect("reads");
        }
        let scratch = self.root().join("scratch");
        let mut file = fs::File::create(&scratch).expect("own folder");
        let zeros = vec![0; 1 << 20];
        // The daemon's file and the mount's pages.
        for _ in 0..(2 * self.size) >> 20 {
            std::io::Write::write_all(&mut file, &zeros).expect("room");
        }
        drop(file);
        std::thread::sleep(GIVEN_BACK);
        fs::remove_file(scratch).expect("own file");
    }

    pub fn forget(&self, cache: &str) {
        let _ = fs::remove_dir_all(self.root().join(cache));
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A running mount.
pub struct Mount {
    child: Child,
    at: PathBuf,
}

impl Mount {
    pub fn file(&self, version: &str) -> PathBuf {
        self.at.join("bench/model").join(version).join("model.safetensors")
    }

    /// The most memory that the daemon's processes had resident, in bytes: supervisor and worker.
    pub fn peak_memory(&self) -> u64 {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok());
        std::iter::once(pid).chain(children).map(peak_of).sum()
    }
}

fn peak_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).expect("Linux says it");
    line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).expect("a number") << 10
}

impl Drop for Mount {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

fn nginx(root: &Path, port: u16) -> Child {
    let config = format!(
        "daemon off; master_process off; pid {root}/nginx.pid; error_log {root}/nginx.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;\n\
         client_body_temp_path {root}/t; proxy_temp_path {root}/t; fastcgi_temp_path {root}/t;\n\
         uwsgi_temp_path {root}/t; scgi_temp_path {root}/t;\n\
         server {{ listen 127.0.0.1:{port}; root {root}/registry; }} }}\n",
        root = root.display()
    );
    let path = root.join("nginx.conf");
    fs::write(&path, format!("user root;\n{config}")).expect("own folder");
    let child = Command::new("nginx")
        .arg("-p")
        .arg(root)
        .arg("-c")
        .arg(&path)
        .stderr(Stdio::null())
        .spawn()
        .expect("nginx starts: apt-get install nginx-light");
    let started = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(started.elapsed() < Duration::from_secs(10), "nginx does not come up");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

/// Makes the kernel forget every clean page, name and inode.
pub fn drop_caches() {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").expect("root may");
}
