//! Many models: listing them, and mounting with such a catalog.
//!
//! Invariant: the native folders have the same names and sizes; both are listed once before it
//! counts.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::ROOMY;
use crate::arena::{Arena, By, Mount, Setting};
use crate::case::{Case, Entrant};

const THEME: &str = "many models";
/// What a start with a large catalog may take.
const START_MS: f64 = 300.0;

/// `ls -lR`; files a second.
fn list(folder: &Path, files: usize) -> Result<f64, String> {
    let started = Instant::now();
    let status = Command::new("ls").arg("-lR").arg(folder).stdout(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(files as f64 / started.elapsed().as_secs_f64()),
        Ok(status) => Err(format!("ls -lR: {status}")),
        Err(e) => Err(format!("ls -lR: {e}")),
    }
}

pub fn run(arena: &Arena, all: &mut Vec<Case>) {
    let models = arena.scale.catalog_models;
    let url = || arena.nginx().direct().url(arena.catalog().served);
    let by = By::Passthrough;
    let title = format!("ls -lR of {models} models of 10 files, second time");
    super::case(arena, all, arena.scale.rounds, super::heading(THEME, title, "files/s"), || {
        let (catalog, url) = (arena.catalog(), url());
        let twice = |folder: &Path| {
            list(folder, catalog.files)?;
            list(folder, catalog.files)
        };
        let mut mount = None;
        let ours = move || {
            let setting = Setting { by, url: &url, cache: "many", size: ROOMY };
            if mount.is_none() {
                mount = Some(Mount::fresh(arena, setting)?);
            }
            twice(mount.as_ref().expect("made above").root())
        };
        vec![
            Entrant::new("native folders", move || twice(&catalog.folder)),
            Entrant::new("modelfs", ours).least(0, 0.5),
        ]
    });
    let title = format!("mount start with a catalog of {models} models");
    super::case(arena, all, arena.scale.rounds, super::heading(THEME, title, "ms"), || {
        let start = |fresh: bool| {
            let url = url();
            move || {
                let setting = Setting { by, url: &url, cache: "start", size: ROOMY };
                let mount = if fresh { Mount::fresh } else { Mount::start }(arena, setting)?;
                Ok(mount.took.as_secs_f64() * 1e3)
            }
        };
        vec![
            Entrant::new("modelfs, first start", start(true)).within(START_MS),
            Entrant::new("modelfs, next start", start(false)).within(START_MS),
        ]
    });
}
