//! Nothing in the store, the server as near and fast as it is: what each contender does to the bytes
//! decides.
//!
//! Invariant: fresh cache and daemon for each reading, memory settled just before it, the server's
//! files in memory.

use std::rc::Rc;
use std::time::Instant;

use modelfs::model::hash::sha256;

use super::{cold_sequential, cold_sequential_rclone, mib_per_second, settle, settle_files};
use crate::arena::{Arena, By, Model, User, curl_files, curl_objects};
use crate::case::{Case, Entrant};
use crate::reading::Reading;

const THEME: &str = "cold, local server";
const TITLE: &str = "cold sequential, unlimited network";

/// SHA-256 of everything, a chunk at a time, on all cores, from memory: what a check of chunks that
/// have no leaves cannot be faster than.
fn all_cores(model: &Model) -> Result<f64, String> {
    let chunks: Result<Vec<Vec<u8>>, _> = model.chunks.iter().map(std::fs::read).collect();
    let chunks = chunks.map_err(|e| format!("reading chunks: {e}"))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for first in 0..cores {
            let own = chunks.iter().skip(first).step_by(cores);
            scope.spawn(move || {
                own.for_each(|c| {
                    std::hint::black_box(sha256(c));
                });
            });
        }
    });
    Ok(mib_per_second(model.bytes, started.elapsed().as_secs_f64()))
}

pub fn run(arena: &Arena, all: &mut Vec<Case>) {
    let heading = super::heading(THEME, TITLE, "MiB/s");
    super::case(arena, all, arena.scale.slow_rounds, heading, || {
        let leaves = arena.models.one(arena.scale.large);
        let plain = arena.models.one_plain(arena.scale.large);
        // The chunks, piped on.
        let curl = |to: &'static str| {
            let model = leaves.clone();
            move || {
                settle(arena, &model)?;
                let seconds = curl_objects(arena, &arena.nginx().direct(), &model, to)?;
                Ok(mib_per_second(model.bytes, seconds))
            }
        };
        // The one file that they make up, to disk; and then read, where told: both are one figure.
        let curl_file = |then_read: bool| {
            let model = leaves.clone();
            move || {
                settle_files(arena, &model)?;
                let folder = arena.path("scratch");
                let started = Instant::now();
                curl_files(arena, &arena.nginx().direct(), &model, &folder)?;
                if then_read {
                    Reading::Sequential.of(arena, &folder.join(&model.files[0]), User::Root)?;
                }
                Ok(mib_per_second(model.bytes, started.elapsed().as_secs_f64()))
            }
        };
        let mount = |model: &Rc<Model>, by| {
            let model = model.clone();
            move || cold_sequential(arena, &arena.nginx().direct(), &model, by)
        };
        let (rclone, cores) = (leaves.clone(), leaves.clone());
        let mut entrants = vec![
            Entrant::new("curl of one file to disk", curl_file(false)),
            Entrant::new("curl | sha256sum", curl("| sha256sum")),
            Entrant::new("curl > /dev/null", curl("> /dev/null")),
            Entrant::new("SHA-256 on all cores, from memory", move || all_cores(&cores)),
            Entrant::new("curl of one file to disk, then read it", curl_file(true)),
            Entrant::new("rclone mount", move || {
                cold_sequential_rclone(arena, &arena.nginx().direct(), &rclone)
            }),
            Entrant::new("modelfs, BLAKE3 leaves", mount(&leaves, By::Passthrough))
                .least(0, 0.8)
                .least(1, 4.0),
            Entrant::new("modelfs, BLAKE3 leaves, ordinary user", mount(&leaves, By::Ordinary)),
            Entrant::new("modelfs, SHA-256 chunks", mount(&plain, By::Passthrough))
                .least(3, 0.9)
                .least(1, 2.0),
        ];
        if arena.has_other_build() {
            let other = [("BLAKE3 leaves", &leaves), ("SHA-256 chunks", &plain)];
            entrants.extend(other.map(|(kind, model)| {
                Entrant::new(&format!("modelfs, other build, {kind}"), mount(model, By::OtherBuild))
            }));
        }
        entrants
    });
}
