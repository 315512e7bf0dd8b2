//! All of a file in the store: reading it against the native file on the same disk.
//!
//! Invariant: before each reading the page cache is dropped, and filled again by one pass where the
//! case is warm: pages of one age and kind are read at one speed, and contenders must not differ by
//! where in memory their pages happen to lie.

use std::path::{Path, PathBuf};

use super::ROOMY;
use crate::arena::{Arena, By, Model, Mount, Rclone, Setting, User, drop_caches};
use crate::case::{Case, Entrant};
use crate::reading::Reading;

const THEME: &str = "everything cached";
/// Warm maps of plain FUSE: a fault for each page.
const KERNELS_OWN: &str = "A warm map in cached mode is the kernel's own FUSE, 0.3 of native at \
                           best: it has no goal, and only passthrough helps.";

/// What modelfs aims at, in a ratio to the native file.
enum Aim {
    /// At least: passthrough, and what has no privileges.
    Least(f64, Option<f64>),
    /// At most, however it is mounted.
    Most(f64),
}

/// What is read how.
struct Read {
    reading: Reading,
    title: &'static str,
    drops: bool,
    aim: Aim,
}

const fn read_of(reading: Reading, title: &'static str, drops: bool, aim: Aim) -> Read {
    Read { reading, title, drops, aim }
}

const READS: [Read; 7] = [
    read_of(Reading::Sequential, "sequential, page cache warm", false, Aim::Least(0.95, None)),
    read_of(Reading::Random, "random 4 KiB, page cache warm", false, Aim::Least(0.95, None)),
    read_of(Reading::Touch, "mmap, every page, page cache warm", false, Aim::Least(0.85, None)),
    read_of(
        Reading::Sequential,
        "sequential, page cache dropped",
        true,
        Aim::Least(0.95, Some(0.8)),
    ),
    read_of(Reading::Random, "random 4 KiB, page cache dropped", true, Aim::Least(0.95, None)),
    read_of(
        Reading::Touch,
        "mmap, every page, page cache dropped",
        true,
        Aim::Least(0.95, Some(0.6)),
    ),
    read_of(Reading::OpenClose, "open, read 4 KiB, close", false, Aim::Most(10.0)),
];

/// A mount with everything in its cache, and the file to read; or why there is none.
type Filled<M> = Result<(M, PathBuf), String>;

/// What stands mounted while these cases run.
struct Standing {
    native: PathBuf,
    mounts: Vec<(By, Filled<Mount>)>,
    rclone: Filled<Rclone>,
}

fn filled(arena: &Arena, model: &Model, by: By) -> Filled<Mount> {
    let (url, cache) = (arena.nginx().direct().registry(), format!("warm-{by:?}"));
    let mount = Mount::fresh(arena, Setting { by, url: &url, cache: &cache, size: ROOMY })?;
    let path = mount.file(model);
    // The first pass fetches; what the kernel reads by itself is so from the next open on.
    for _ in 0..2 {
        Reading::Sequential.of(arena, &path, mount.user())?;
    }
    Ok((mount, path))
}

fn stand(arena: &Arena) -> Standing {
    let model = arena.models.one(arena.scale.large);
    let rclone = || {
        let mount = Rclone::fresh(arena, &arena.nginx().direct().url(&model.served()))?;
        let path = mount.path(&model.files[0]);
        Reading::Sequential.of(arena, &path, User::Root)?;
        Ok((mount, path))
    };
    // The two without passthrough do the same, so that a quick look needs only one of them.
    let by: &[By] = if arena.scale.quick {
        &[By::Passthrough, By::Ordinary]
    } else {
        &[By::Passthrough, By::Cached, By::Ordinary]
    };
    let mut by = by.to_vec();
    by.extend(arena.has_other_build().then_some(By::OtherBuild));
    Standing {
        native: model.paths().swap_remove(0),
        mounts: by.iter().map(|by| (*by, filled(arena, &model, *by))).collect(),
        rclone: rclone(),
    }
}

fn read(arena: &Arena, kind: &Read, path: &Path, user: User) -> Result<f64, String> {
    drop_caches();
    if !kind.drops {
        Reading::Sequential.of(arena, path, user)?;
    }
    kind.reading.of(arena, path, user)
}

fn entrants<'a>(arena: &'a Arena, standing: &'a Standing, kind: &'a Read) -> Vec<Entrant<'a>> {
    let native = move || read(arena, kind, &standing.native, User::Root);
    let mut out = vec![Entrant::new("native file", native)];
    for (by, mounted) in &standing.mounts {
        let entrant = Entrant::new(by.name(), move || {
            let (mount, path) = mounted.as_ref().map_err(Clone::clone)?;
            read(arena, kind, path, mount.user())
        });
        out.push(match (by, &kind.aim) {
            (By::OtherBuild, _) => entrant,
            (_, Aim::Most(ratio)) => entrant.most(0, *ratio),
            (By::Passthrough, Aim::Least(ratio, _)) => entrant.least(0, *ratio),
            (_, Aim::Least(_, Some(ratio))) => entrant.least(0, *ratio),
            (_, Aim::Least(_, None)) => entrant,
        });
    }
    out.push(Entrant::new("rclone mount", move || {
        let (_, path) = standing.rclone.as_ref().map_err(Clone::clone)?;
        read(arena, kind, path, User::Root)
    }));
    out
}

pub fn run(arena: &Arena, all: &mut Vec<Case>) {
    if !READS.iter().any(|r| arena.wants(r.title)) {
        return;
    }
    let standing = stand(arena);
    for kind in &READS {
        let unit = if kind.reading == Reading::OpenClose { "µs" } else { "MiB/s" };
        let mut heading = super::heading(THEME, kind.title, unit);
        heading.note = (kind.reading == Reading::Touch && !kind.drops).then_some(KERNELS_OWN);
        super::case(arena, all, arena.scale.rounds, heading, || entrants(arena, &standing, kind));
    }
}
