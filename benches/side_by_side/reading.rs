//! How files are read, in a process of its own, so that an ordinary user can be the reader.
//!
//! Invariant: every contender of a case reads by the same code, timed within that process: its start
//! counts for nobody. A reading prints its figure and nothing else.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use modelfs_test_support::mapped;

use crate::arena::{Arena, User};

/// The first word of the command line that makes this program a reader.
pub const FLAG: &str = "--read";
/// How long 4 KiB are read here and there, and a file is opened again and again: a disk's thousands
/// or a page cache's millions give a stable mean.
const REPEATED: Duration = Duration::from_millis(500);
/// How many reads pass between two looks at the clock.
const BATCH: u64 = 100;
const PAGE: u64 = 4096;

/// What is done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// From its start to its end, a MiB at a time; MiB/s.
    Sequential,
    /// A byte of every page of a map; MiB/s.
    Touch,
    /// 4 KiB here and there for half a second; MiB/s.
    Random,
    /// Open, 4 KiB, close, for half a second; µs each.
    OpenClose,
    /// 4 KiB from the middle of a file that is open already; ms.
    FirstByte,
    /// The header of every safetensors file of a folder; ms.
    Headers,
}

const NAMES: [(Reading, &str); 6] = [
    (Reading::Sequential, "sequential"),
    (Reading::Touch, "touch"),
    (Reading::Random, "random"),
    (Reading::OpenClose, "open-close"),
    (Reading::FirstByte, "first-byte"),
    (Reading::Headers, "headers"),
];

impl Reading {
    fn name(self) -> &'static str {
        NAMES.iter().find(|(r, _)| *r == self).expect("all are named").1
    }

    /// Reads as this user; the figure.
    pub fn of(self, arena: &Arena, path: &Path, user: User) -> Result<f64, String> {
        let mut command = arena.program(&arena.path("bin/reader"), user);
        command.arg(FLAG).arg(self.name()).arg(path).stdin(Stdio::null());
        let text = output(&mut command)?;
        text.trim().parse().map_err(|_| format!("a reader printed {text:?}"))
    }
}

/// What a program prints, or how it failed.
fn output(command: &mut Command) -> Result<String, String> {
    let out = command.output().map_err(|e| format!("the reader: {e}"))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        return Err(said.trim().lines().last().unwrap_or("the reader died").to_owned());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// The reader's own main.
pub fn main(words: &[String]) {
    let [kind, path] = words else { panic!("{FLAG} KIND PATH") };
    let reading = NAMES.iter().find(|(_, name)| name == kind).expect("a kind of reading").0;
    let path = Path::new(path);
    let read = match reading {
        Reading::Sequential => sequential(path),
        Reading::Touch => touch(path),
        Reading::Random => random(path),
        Reading::OpenClose => open_close(path),
        Reading::FirstByte => first_byte(path),
        Reading::Headers => headers(path),
    };
    match read {
        Ok(figure) => println!("{figure}"),
        Err(e) => {
            eprintln!("{}: {e}", path.display());
            std::process::exit(1);
        }
    }
}

fn mib_per_second(bytes: u64, started: Instant) -> f64 {
    bytes as f64 / f64::from(1 << 20) / started.elapsed().as_secs_f64()
}

fn sequential(path: &Path) -> std::io::Result<f64> {
    let mut buffer = vec![0; 1 << 20];
    let (started, mut total) = (Instant::now(), 0);
    let mut file = File::open(path)?;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(mib_per_second(total, started)),
            n => total += n as u64,
        }
    }
}

fn touch(path: &Path) -> std::io::Result<f64> {
    let started = Instant::now();
    let map = mapped::map(&File::open(path)?);
    let sum: u64 = map.iter().step_by(PAGE as usize).map(|b| u64::from(*b)).sum();
    std::hint::black_box(sum);
    Ok(mib_per_second(map.len() as u64, started))
}

/// Offsets of pages, the same for every contender.
fn pages(file: &File) -> std::io::Result<impl Iterator<Item = u64>> {
    let count = file.metadata()?.len() / PAGE;
    let mut x = 88_172_645_463_325_252u64;
    Ok(std::iter::from_fn(move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        Some(x % count * PAGE)
    }))
}

fn random(path: &Path) -> std::io::Result<f64> {
    let file = File::open(path)?;
    let mut offsets = pages(&file)?;
    let mut buffer = [0; PAGE as usize];
    let (started, mut reads) = (Instant::now(), 0);
    while started.elapsed() < REPEATED {
        for at in offsets.by_ref().take(BATCH as usize) {
            file.read_exact_at(&mut buffer, at)?;
        }
        reads += BATCH;
    }
    Ok(mib_per_second(reads * PAGE, started))
}

fn open_close(path: &Path) -> std::io::Result<f64> {
    let mut buffer = [0; PAGE as usize];
    let (started, mut opens) = (Instant::now(), 0);
    while started.elapsed() < REPEATED {
        for _ in 0..BATCH {
            File::open(path)?.read_exact_at(&mut buffer, 0)?;
        }
        opens += BATCH;
    }
    Ok(started.elapsed().as_secs_f64() * 1e6 / opens as f64)
}

fn first_byte(path: &Path) -> std::io::Result<f64> {
    let file = File::open(path)?;
    let at = pages(&file)?.nth(3).expect("it never ends");
    let mut buffer = [0; PAGE as usize];
    let started = Instant::now();
    file.read_exact_at(&mut buffer, at)?;
    Ok(started.elapsed().as_secs_f64() * 1e3)
}

fn headers(folder: &Path) -> std::io::Result<f64> {
    let started = Instant::now();
    for entry in std::fs::read_dir(folder)? {
        let file = File::open(entry?.path())?;
        let mut len = [0; 8];
        file.read_exact_at(&mut len, 0)?;
        let mut header = vec![0; u64::from_le_bytes(len) as usize];
        file.read_exact_at(&mut header, 8)?;
        serde_json::from_slice::<serde_json::Value>(&header)?;
    }
    Ok(started.elapsed().as_secs_f64() * 1e3)
}
