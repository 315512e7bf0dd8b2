//! The index with a million objects: starting with it, looking one up, evicting a thousand.
//!
//! Invariant: in this process, on the store's own interface. An eviction takes another thousand each
//! round.

use std::path::{Path, PathBuf};
use std::time::Instant;

use modelfs::base::ObjectRange;
use modelfs::store::{Reservation, Store};

use super::mib;
use crate::arena::{Arena, User, drop_caches};
use crate::case::{Case, Entrant};
use crate::million::{OBJECT_BYTES, PER_BLOB, ROOM, fill, object, options};

const THEME: &str = "a large index";
const LOOKUPS: usize = 20_000;
const START_S: f64 = 1.0;
const LOOKUP_US: f64 = 20.0;
const EVICTION_MS: f64 = 100.0;

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

/// How the store was left and what the page cache holds when it is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Closed in good order; the page cache is empty.
    Dropped,
    /// Closed in good order; the page cache is warm.
    Warm,
    /// Not closed, and the machine has restarted since.
    PowerCut,
}

fn start(root: &Path, left: Left) -> Result<f64, String> {
    if left == Left::PowerCut {
        cut_power(root)?;
    }
    if left != Left::Warm {
        drop_caches();
    }
    let started = Instant::now();
    let store = Store::open(options(root, ROOM)).map_err(text)?;
    let seconds = started.elapsed().as_secs_f64();
    drop(store);
    Ok(seconds)
}

/// Leaves the index as a power cut does: not closed, and written during another boot.
fn cut_power(root: &Path) -> Result<(), String> {
    let conn = rusqlite::Connection::open(root.join("index.db")).map_err(text)?;
    let changes = "UPDATE meta SET value = CASE key WHEN 'clean' THEN 0 ELSE value + 1 END
                   WHERE key IN ('clean', 'boot')";
    match conn.execute(changes, []).map_err(text)? {
        2 => Ok(()),
        rows => Err(format!("the index has {rows} of the two rows that say how it was closed")),
    }
}

/// Looks for objects here and there; µs each.
fn look_up(root: &Path, objects: usize) -> Result<f64, String> {
    let store = Store::open(options(root, ROOM)).map_err(text)?;
    let all = ObjectRange::new(0, OBJECT_BYTES);
    // A step that is coprime to the number of objects visits all blobs.
    let digests: Vec<_> = (0..LOOKUPS).map(|n| object(n * 7_654_321 % objects)).collect();
    let started = Instant::now();
    for digest in &digests {
        if store.local_copies(&[*digest], all).map_err(text)?.is_empty() {
            return Err(format!("{digest} is not found"));
        }
    }
    Ok(started.elapsed().as_secs_f64() * 1e6 / LOOKUPS as f64)
}

/// A full store. What was reserved in it stays so, and each further reservation has to evict.
struct Full {
    store: Store,
    kept: Vec<Reservation>,
}

impl Full {
    fn open(root: &Path) -> Result<Self, String> {
        let used = Store::open(options(root, ROOM)).map_err(text)?.usage().used.0;
        let store = Store::open(options(root, used)).map_err(text)?;
        Ok(Self { store, kept: Vec::new() })
    }

    /// Makes room for a thousand objects; ms.
    fn evict(&mut self) -> Result<f64, String> {
        let (before, wanted) = (self.store.usage().data.0, PER_BLOB as u64 * OBJECT_BYTES);
        let started = Instant::now();
        self.kept.push(self.store.reserve(wanted).map_err(text)?);
        let ms = started.elapsed().as_secs_f64() * 1e3;
        let gone = before.saturating_sub(self.store.usage().data.0);
        eprintln!("  {} objects went", gone / OBJECT_BYTES);
        // What the last eviction freed beyond its need is still there.
        if gone < wanted / 2 {
            return Err(format!("only {:.1} MiB went", mib(gone)));
        }
        Ok(ms)
    }
}

pub fn run(arena: &Arena, all: &mut Vec<Case>) {
    let objects = arena.scale.objects;
    let titles = ["start", "look-up of one", "eviction of 1,000"]
        .map(|what| format!("index of {objects} objects: {what}"));
    if !titles.iter().any(|t| arena.wants(t)) {
        return;
    }
    eprintln!("making an index of {objects} objects");
    let made: Result<PathBuf, String> =
        arena.fresh_folder("cache/million", User::Root).and_then(|root| {
            fill(&root, objects).map_err(text)?;
            Ok(root)
        });
    let root = || made.clone();
    let [starts, looks, evicts] = titles;
    let rounds = arena.scale.rounds;
    super::case(arena, all, rounds, super::heading(THEME, starts, "s"), || {
        vec![
            Entrant::new("page cache dropped", || start(&root()?, Left::Dropped)).within(START_S),
            Entrant::new("page cache warm", || start(&root()?, Left::Warm)).within(START_S),
            Entrant::new("after a power cut", || start(&root()?, Left::PowerCut)).within(START_S),
        ]
    });
    super::case(arena, all, rounds, super::heading(THEME, looks, "µs"), || {
        vec![Entrant::new("in the store", || look_up(&root()?, objects)).within(LOOKUP_US)]
    });
    super::case(arena, all, rounds, super::heading(THEME, evicts, "ms"), || {
        let mut full = None;
        let evict = move || {
            if full.is_none() {
                full = Some(Full::open(&root()?)?);
            }
            full.as_mut().expect("opened above").evict()
        };
        vec![Entrant::new("in the store", evict).within(EVICTION_MS)]
    });
}
