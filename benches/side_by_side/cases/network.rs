//! Cold reads over lines of a given latency and bandwidth.
//!
//! Invariant: each contender has a line of its own, idle when it starts; what a line carries at most
//! is stated, not measured.

use std::time::Duration;

use modelfs_test_support::Line;

use super::{ROOMY, cold_sequential, cold_sequential_rclone, mib, mib_per_second, settle};
use crate::arena::{Arena, By, Mount, Setting, curl_files, curl_objects};
use crate::case::{Case, Entrant};
use crate::reading::Reading;

const THEME: &str = "cold, slow lines";
const MEGABIT: u64 = 1_000_000;
/// Readahead that follows the first byte has ended by then.
const AFTERWARDS: Duration = Duration::from_millis(500);

/// Round trip in milliseconds, Mbit/s.
type Net = (u64, Option<u64>);

const QUICK: &[Net] = &[(50, Some(1000))];
const ALL: &[Net] = &[
    (0, Some(100)),
    (0, Some(1000)),
    (10, Some(100)),
    (10, Some(1000)),
    (10, None),
    (50, Some(100)),
    (50, Some(1000)),
    (50, None),
];

fn line((ms, megabits): Net) -> Line {
    let bits_per_second = megabits.map(|m| m * MEGABIT);
    Line { round_trip: Duration::from_millis(ms), bits_per_second }
}

fn name((ms, megabits): Net) -> String {
    match megabits {
        Some(1000) => format!("{ms} ms, 1 Gbit/s"),
        Some(m) => format!("{ms} ms, {m} Mbit/s"),
        None => format!("{ms} ms, unlimited"),
    }
}

fn sequential(arena: &Arena, all: &mut Vec<Case>, net: Net) {
    let heading = super::heading(THEME, format!("cold sequential, {}", name(net)), "MiB/s");
    let line = line(net);
    super::case(arena, all, arena.scale.slow_rounds, heading, || {
        let slow = net.1.is_some_and(|m| m < 1000);
        let size = if slow { arena.scale.over_slow } else { arena.scale.over_fast };
        let model = arena.models.one(size);
        let into = format!("> {}", arena.path("scratch/curl.out").display());
        let (files, objects, rclone) = (model.clone(), model.clone(), model.clone());
        let mut entrants = Vec::new();
        if let Some(bits) = line.bits_per_second {
            entrants.push(Entrant::known("the line", mib(bits / 8)));
        }
        entrants.push(Entrant::new("curl, the file", move || {
            settle(arena, &files)?;
            let net = arena.nginx().behind(line);
            let seconds = curl_files(arena, &net, &files, &arena.path("scratch"))?;
            Ok(mib_per_second(files.bytes, seconds))
        }));
        let chunks = Entrant::new("curl, the chunks", move || {
            settle(arena, &objects)?;
            let seconds = curl_objects(arena, &arena.nginx().behind(line), &objects, &into)?;
            Ok(mib_per_second(objects.bytes, seconds))
        });
        // A round trip for each chunk, as for any client that asks for one after another.
        if !arena.scale.quick {
            entrants.push(chunks);
        }
        entrants.push(Entrant::new("rclone mount", move || {
            cold_sequential_rclone(arena, &arena.nginx().behind(line), &rclone)
        }));
        let ours = Entrant::new("modelfs, BLAKE3 leaves", move || {
            cold_sequential(arena, &arena.nginx().behind(line), &model, By::Passthrough)
        });
        entrants.push(if net == (50, Some(1000)) { ours.least(0, 0.9) } else { ours });
        entrants
    });
}

const FIRST: &str = "cold, 50 ms: first byte of a random 4 KiB read";
const FIRST_BYTES: &str = "cold, 50 ms: bytes fetched for a random 4 KiB read";

/// Opens a file of a fresh mount and reads 4 KiB of it; milliseconds and KiB fetched.
fn first_byte(arena: &Arena) -> Result<(f64, f64), String> {
    let model = arena.models.one(arena.scale.over_fast);
    let net = arena.nginx().behind(line((50, None)));
    let url = net.registry();
    let setting = Setting { by: By::Passthrough, url: &url, cache: "cold", size: ROOMY };
    let mount = Mount::fresh(arena, setting)?;
    let file = mount.file(&model);
    // The path is looked up before: the manifest comes with that.
    std::fs::metadata(&file).map_err(|e| e.to_string())?;
    std::thread::sleep(AFTERWARDS);
    let before = net.bytes();
    let ms = Reading::FirstByte.of(arena, &file, mount.user())?;
    std::thread::sleep(AFTERWARDS);
    Ok((ms, (net.bytes() - before) as f64 / 1024.0))
}

pub fn run(arena: &Arena, all: &mut Vec<Case>) {
    for net in if arena.scale.quick { QUICK } else { ALL } {
        sequential(arena, all, *net);
    }
    let heading = super::heading(THEME, FIRST, "ms");
    super::case(arena, all, arena.scale.rounds, heading, || {
        let ours = Entrant::new("modelfs, BLAKE3 leaves", || Ok(first_byte(arena)?.0));
        vec![Entrant::known("one round trip", 50.0), ours.most(0, 2.0)]
    });
    let heading = super::heading(THEME, FIRST_BYTES, "KiB");
    super::case(arena, all, arena.scale.rounds, heading, || {
        vec![Entrant::new("modelfs, BLAKE3 leaves", || Ok(first_byte(arena)?.1)).within(256.0)]
    });
}
