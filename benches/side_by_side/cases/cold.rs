//! Nothing in the store, the server as near and fast as it is: who is held up by what he does to the
//! bytes.
//!
//! Invariant: fresh cache and daemon for each reading, memory settled just before it, the server's
//! files in memory.

use std::rc::Rc;
use std::time::Instant;

use modelfs::model::hash::sha256;

use super::{cold_sequential, cold_sequential_rclone, mib_per_second, settle};
use crate::arena::{Arena, By, Model, User, curl_objects};
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
        let out = arena.path("scratch/curl.out");
        let into_file = format!("> {}", out.display());
        // And then reads it, where told: both together are one figure.
        let curl = |to: &str, then: bool| {
            let (model, to, out) = (leaves.clone(), to.to_owned(), out.clone());
            move || {
                settle(arena, &model)?;
                let started = Instant::now();
                curl_objects(arena, &arena.nginx().direct(), &model, &to)?;
                if then {
                    Reading::Sequential.of(arena, &out, User::Root)?;
                }
                Ok(mib_per_second(model.bytes, started.elapsed().as_secs_f64()))
            }
        };
        let mount = |model: &Rc<Model>, by| {
            let model = model.clone();
            move || cold_sequential(arena, &arena.nginx().direct(), &model, by)
        };
        let (rclone, cores) = (leaves.clone(), leaves.clone());
        vec![
            Entrant::new("curl into a file", curl(&into_file, false)),
            Entrant::new("curl | sha256sum", curl("| sha256sum", false)),
            Entrant::new("curl > /dev/null", curl("> /dev/null", false)),
            Entrant::new("SHA-256 on all cores, from memory", move || all_cores(&cores)),
            Entrant::new("curl into a file, then read it", curl(&into_file, true)),
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
        ]
    });
}
