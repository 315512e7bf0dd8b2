//! The cases: what is read how, by whom.
//!
//! Invariant: every contender of a case reads the same bytes; the first one is the baseline.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use modelfs_test_support::mapped;

use crate::arena::{Arena, Mode, Mount, drop_caches};

/// How long 4 KiB are read here and there: a disk's thousands or a page cache's millions give a
/// stable mean.
const RANDOM_READS: Duration = Duration::from_millis(500);
/// How many reads pass between two looks at the clock.
const RANDOM_BATCH: u64 = 1000;

/// One contender's figures in one case.
pub struct Contender {
    pub name: String,
    /// Per round; in `unit`.
    pub figures: Vec<f64>,
    /// What is aimed at: the least ratio to the contender of that index.
    pub goals: Vec<(usize, f64)>,
}

/// A case: the first contender is what the others are compared with.
pub struct Case {
    pub title: String,
    pub unit: &'static str,
    pub contenders: Vec<Contender>,
}

fn mib_per_second(bytes: u64, started: Instant) -> f64 {
    bytes as f64 / (1 << 20) as f64 / started.elapsed().as_secs_f64()
}

fn sequential(path: &Path) -> f64 {
    let started = Instant::now();
    let mut file = File::open(path).expect("opens");
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        match file.read(&mut buffer).expect("reads") {
            0 => return mib_per_second(total, started),
            n => total += n as u64,
        }
    }
}

fn touch_pages(path: &Path) -> f64 {
    let started = Instant::now();
    let file = File::open(path).expect("opens");
    let map = mapped::map(&file);
    let sum: u64 = map.iter().step_by(4096).map(|b| u64::from(*b)).sum();
    std::hint::black_box(sum);
    mib_per_second(map.len() as u64, started)
}

fn random(path: &Path) -> f64 {
    let file = File::open(path).expect("opens");
    let pages = file.metadata().expect("stat").len() / 4096;
    let mut buffer = [0; 4096];
    let mut seed = 88_172_645_463_325_252u64;
    let (started, mut reads) = (Instant::now(), 0);
    while started.elapsed() < RANDOM_READS {
        for _ in 0..RANDOM_BATCH {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            file.read_exact_at(&mut buffer, seed % pages * 4096).expect("reads");
        }
        reads += RANDOM_BATCH;
    }
    mib_per_second(reads * 4096, started)
}

/// A contender's name, its goals, and how it is run once, giving its figure.
type Entrant<'a> = (&'a str, Vec<(usize, f64)>, Box<dyn FnMut() -> f64 + 'a>);

/// Runs the contenders in turn.
fn compare(title: &str, unit: &'static str, rounds: usize, contenders: Vec<Entrant<'_>>) -> Case {
    eprintln!("{title}");
    let mut runs = Vec::new();
    let mut out = Vec::new();
    for (name, goals, run) in contenders {
        out.push(Contender { name: name.to_owned(), figures: Vec::new(), goals });
        runs.push(run);
    }
    for _ in 0..rounds {
        for (contender, run) in out.iter_mut().zip(&mut runs) {
            contender.figures.push(run());
        }
    }
    Case { title: title.to_owned(), unit, contenders: out }
}

const COLD: &str = "cold sequential from a local nginx";
const MEMORY: &str = "memory of the daemon";

/// Every case whose title has `only`.
pub fn run_all(arena: &Arena, rounds: usize, only: &str) -> Vec<Case> {
    let mut cases = cached(arena, rounds, only);
    if COLD.contains(only) {
        cases.push(cold(arena, rounds));
    }
    if MEMORY.contains(only) {
        cases.push(memory(arena));
    }
    cases
}

type Reading = fn(&Path) -> f64;

/// All in the store: the native file, passthrough, cached mode.
fn cached(arena: &Arena, rounds: usize, only: &str) -> Vec<Case> {
    let native = arena.native();
    let mut figures: Vec<Case> = Vec::new();
    let reads: [(&str, Reading, f64); 3] = [
        ("sequential", sequential, 0.9),
        ("mmap, every page", touch_pages, 0.8),
        ("random 4 KiB", random, 0.9),
    ];
    // One mount point, so the modes take turns as a whole, each beside its own native figures.
    for (mode, name) in [(Mode::Passthrough, "passthrough"), (Mode::Cached, "cached mode")] {
        let mount = arena.mount("cache-warm", mode);
        let file = mount.file("leaves");
        sequential(&file);
        for (what, read, goal) in reads {
            for (state, drops) in [("page cache warm", false), ("page cache dropped", true)] {
                let title = format!("{what}, {state}, {name}");
                if !title.contains(only) {
                    continue;
                }
                let goals = if mode == Mode::Passthrough { vec![(0, goal)] } else { Vec::new() };
                // Where in memory the pages lie is drawn anew for each reading: pages of one age
                // and kind are read at one speed, and contenders must not differ by that.
                let prepare = |path: &Path| {
                    drop_caches();
                    if !drops {
                        sequential(path);
                    }
                    read(path)
                };
                figures.push(compare(
                    &title,
                    "MiB/s",
                    rounds,
                    vec![
                        ("native file", vec![], Box::new(|| prepare(&native))),
                        (name, goals, Box::new(|| prepare(&file))),
                    ],
                ));
            }
        }
    }
    figures
}

fn curl(arena: &Arena, config: &Path, sink: &str) -> f64 {
    arena.settle();
    let started = Instant::now();
    let script = format!("curl -s -K {} {sink}", config.display());
    let status = Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).status();
    assert!(status.is_ok_and(|s| s.success()), "{script}");
    mib_per_second(arena.size, started)
}

fn fresh(arena: &Arena, version: &str, mode: Mode) -> (f64, Mount) {
    arena.forget("cache-cold");
    let mount = arena.mount("cache-cold", mode);
    arena.settle();
    let figure = sequential(&mount.file(version));
    (figure, mount)
}

/// Nothing in the store: against `curl` of the same objects from the same server.
fn cold(arena: &Arena, rounds: usize) -> Case {
    let config = arena.curl_config();
    let into_file = format!("> {}", arena.root().join("curl.out").display());
    let of = |version: &'static str, mode| Box::new(move || fresh(arena, version, mode).0);
    compare(
        COLD,
        "MiB/s",
        rounds,
        vec![
            ("curl into a file", vec![], Box::new(|| curl(arena, &config, &into_file))),
            ("curl > /dev/null", vec![], Box::new(|| curl(arena, &config, "> /dev/null"))),
            ("curl | sha256sum", vec![], Box::new(|| curl(arena, &config, "| sha256sum"))),
            ("modelfs, BLAKE3 leaves", vec![(0, 0.6), (2, 3.0)], of("leaves", Mode::Passthrough)),
            ("modelfs, SHA-256 chunks", vec![], of("plain", Mode::Passthrough)),
        ],
    )
}

/// The daemon's peak while three times the file goes through it.
fn memory(arena: &Arena) -> Case {
    let (_, mount) = fresh(arena, "leaves", Mode::Cached);
    for version in ["plain", "leaves"] {
        sequential(&mount.file(version));
    }
    let peak = mount.peak_memory() as f64 / (1 << 20) as f64;
    let name = format!("resident at most, {} MiB streamed", 3 * (arena.size >> 20));
    let contender = Contender { name, figures: vec![peak], goals: vec![] };
    Case { title: MEMORY.to_owned(), unit: "MiB", contenders: vec![contender] }
}
