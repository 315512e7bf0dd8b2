//! The cases, by theme.
//!
//! Invariant: every contender of a case reads the same bytes; the first one is the baseline.

mod cached;
mod cold;
mod index;
mod loads;
mod memory;
mod metadata;
mod network;

use crate::arena::{Arena, By, Model, Mount, Net, Rclone, Setting, User};
use crate::case::{Case, Entrant, Heading, compare};
use crate::reading::Reading;

/// What a cold contender fills: its cache's file and the pages of its mount.
const FILLS: u64 = 2;
/// More than anything here takes.
const ROOMY: &str = "40GiB";

/// Every case whose title has what was asked for.
pub fn run_all(arena: &Arena) -> Vec<Case> {
    let mut all = Vec::new();
    cached::run(arena, &mut all);
    cold::run(arena, &mut all);
    network::run(arena, &mut all);
    loads::run(arena, &mut all);
    metadata::run(arena, &mut all);
    memory::run(arena, &mut all);
    index::run(arena, &mut all);
    all
}

/// Runs a case if it is asked for; its entrants are made only then.
fn case<'a>(
    arena: &Arena,
    all: &mut Vec<Case>,
    rounds: usize,
    heading: Heading,
    entrants: impl FnOnce() -> Vec<Entrant<'a>>,
) {
    if arena.wants(&heading.title) {
        all.push(compare(heading, rounds, entrants()));
    }
}

fn heading(theme: &'static str, title: impl Into<String>, unit: &'static str) -> Heading {
    Heading { theme, title: title.into(), unit, note: None }
}

fn mib_per_second(bytes: u64, seconds: f64) -> f64 {
    mib(bytes) / seconds
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Settles memory for a contender that is served the model's chunks.
fn settle(arena: &Arena, model: &Model) -> Result<(), String> {
    arena.settle(&model.chunks, FILLS * model.bytes)
}

/// The same for one that is served the plain files.
fn settle_files(arena: &Arena, model: &Model) -> Result<(), String> {
    arena.settle(&model.paths(), FILLS * model.bytes)
}

/// Reads a cold file from its start to its end; MiB/s.
fn cold_sequential(arena: &Arena, net: &Net<'_>, model: &Model, by: By) -> Result<f64, String> {
    let setting = Setting { by, url: &net.registry(), cache: "cold", size: ROOMY };
    let mount = Mount::fresh(arena, setting)?;
    settle(arena, model)?;
    Reading::Sequential.of(arena, &mount.file(model), mount.user())
}

/// The same with `rclone` over the plain files, which must be in the server's memory as well.
fn cold_sequential_rclone(arena: &Arena, net: &Net<'_>, model: &Model) -> Result<f64, String> {
    let mount = Rclone::fresh(arena, &net.url(&model.served()))?;
    settle_files(arena, model)?;
    Reading::Sequential.of(arena, &mount.path(&model.files[0]), User::Root)
}
