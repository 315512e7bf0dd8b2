//! A table of faults on one mount: each on a file of its own, all at once.
//!
//! Invariant: whatever goes wrong, a reader gets the right bytes or EIO or ETIMEDOUT with a reason,
//! by its deadline; and once the server is well again the same file is read right, without a
//! remount. Concurrency: one thread per fault; they share the mount and the server, not the files.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use modelfs::model::hash::sha256;
use modelfs::registry::xprim::ManifestDoc;
use modelfs_test_support::{Fault, Server, When, bytes};

use crate::harness::{Daemon, Place, xattr};

/// What every mount here is told as `--read-deadline`.
pub const DEADLINE: Duration = Duration::from_secs(2);
/// What a loaded machine may add to it.
pub const SLACK: Duration = Duration::from_secs(15);
/// One chunk, eight leaves.
const SIZE: usize = 1 << 20;
/// In the middle of the chunk, across leaves.
const READ: std::ops::Range<usize> = 500_000..700_000;

/// What a reader gets while the fault lasts.
#[derive(Debug, Clone, Copy)]
pub enum Gets {
    /// The right bytes.
    Right,
    /// An error whose reason has one of these in it.
    Error(&'static [&'static str]),
}

/// What has the fault.
#[derive(Debug, Clone, Copy)]
pub enum On {
    /// The file's chunk.
    Chunk,
    /// The list of its leaves.
    List,
}

/// A line of the table.
pub type Line = (On, Fault, Gets);

/// A published version with files of one chunk each, behind a server.
pub struct Scene {
    pub place: Place,
    pub server: Server,
    files: Vec<Vec<u8>>,
    lists: Vec<String>,
}

impl Scene {
    pub fn new(files: usize) -> Self {
        let place = Place::new();
        let plain = place.path("plain");
        fs::create_dir(&plain).expect("a folder");
        let files: Vec<_> = (0..files).map(|n| bytes(1000 + n as u64, SIZE)).collect();
        for (n, bytes) in files.iter().enumerate() {
            fs::write(plain.join(name(n)), bytes).expect("a file");
        }
        place.publish(&plain, "org/net", "v1", &["--chunk-size", "1MiB"]);
        let server = Server::start(&place.registry());
        let manifest = fs::read(place.registry().join(&manifest(&place, "v1")[1..]));
        let manifest = ManifestDoc::read(&manifest.expect("published")).expect("a manifest");
        let lists = manifest.leaves.expect("publish makes leaves");
        let lists = lists.iter().map(|list| format!("/data/{list}")).collect();
        Self { place, server, files, lists }
    }

    pub fn mount(&self) -> Daemon<'_> {
        let args = ["--read-deadline", "2s", "--catalog-ttl", "300ms", "--scrub-rate", "0"];
        self.place.mount(&self.server.url(), &args)
    }

    /// The server's path of what a fault is on.
    pub fn object(&self, n: usize, on: On) -> String {
        match on {
            On::Chunk => format!("/data/{}", sha256(&self.files[n])),
            On::List => self.lists[n].clone(),
        }
    }

    /// Reads from a file: right, or an error.
    pub fn read(&self, daemon: &Daemon<'_>, n: usize) -> std::io::Result<()> {
        let file = File::open(daemon.path(&path(n)))?;
        let mut buffer = vec![0; READ.len()];
        file.read_exact_at(&mut buffer, READ.start as u64)?;
        assert!(buffer == self.files[n][READ], "a wrong byte in file {n}");
        Ok(())
    }

    fn check(&self, daemon: &Daemon<'_>, n: usize, (on, fault, gets): &Line) {
        let mut what = format!("{on:?} {fault:?}");
        what.truncate(60);
        let (object, path) = (self.object(n, *on), daemon.path(&path(n)));
        self.server.on(&object, When::Always, fault.clone());
        let begun = Instant::now();
        let outcome = self.read(daemon, n);
        let took = begun.elapsed();
        assert!(took < DEADLINE + SLACK, "{what}: {took:?}");
        match (gets, &outcome) {
            (Gets::Right, got) => {
                got.as_ref().unwrap_or_else(|e| panic!("{what}: {e}"));
            }
            (Gets::Error(_), Ok(())) => panic!("{what}: read all the same"),
            (Gets::Error(words), Err(error)) => {
                is_an_outage(error);
                let reason = xattr(&path, "error").expect("there is a reason");
                let says = words.iter().any(|word| reason.contains(word));
                assert!(says, "{what}: {reason}");
                println!("{what}: {error} after {took:?}: {reason}");
            }
        }
        self.server.heal_path(&object);
        let healed = Instant::now();
        while let Err(error) = self.read(daemon, n) {
            is_an_outage(&error);
            let since = healed.elapsed();
            assert!(since < 2 * DEADLINE + SLACK, "{what}: no better after {since:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        println!("{what}: well again after {:?}", healed.elapsed());
        assert_eq!(xattr(&path, "error"), None, "{what}: what is over is forgotten");
    }
}

/// Each fault on a file of its own, all at once on one mount; then every byte is read.
pub fn table(lines: &[Line]) {
    let scene = Scene::new(lines.len());
    let daemon = scene.mount();
    std::thread::scope(|scope| {
        let (scene, daemon) = (&scene, &daemon);
        let each = lines.iter().enumerate();
        let threads: Vec<_> =
            each.map(|(n, line)| scope.spawn(move || scene.check(daemon, n, line))).collect();
        let failed = threads.into_iter().map(|t| t.join()).filter(Result::is_err).count();
        assert_eq!(failed, 0, "lines that do not hold");
    });
    for (n, bytes) in scene.files.iter().enumerate() {
        assert!(fs::read(daemon.path(&path(n))).expect("well again") == *bytes, "file {n}");
    }
    daemon.stop();
}

/// EIO or ETIMEDOUT: not ENOENT, not a short file.
#[track_caller]
pub fn is_an_outage(error: &std::io::Error) {
    assert!(matches!(error.raw_os_error(), Some(5 | 110)), "EIO or ETIMEDOUT, not {error:?}");
}

fn name(n: usize) -> String {
    format!("f-{n:02}.bin")
}

/// The path of a file on the mount.
pub fn path(n: usize) -> String {
    format!("org/net/v1/{}", name(n))
}

/// The server's path of the manifest of `org/net@version`.
pub fn manifest(place: &Place, version: &str) -> String {
    let catalog = fs::read(place.registry().join("models.json")).expect("published");
    let catalog: serde_json::Value = serde_json::from_slice(&catalog).expect("JSON");
    let hash = catalog["org"]["net"][version]["hash"].as_str().expect("a hash");
    format!("/data/{hash}")
}
