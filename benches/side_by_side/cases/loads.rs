//! Loading models as inference programs do: python's `safetensors`, every tensor.
//!
//! Invariant: what is timed begins when python has imported everything and the memory is settled, and
//! ends with the last tensor; the same script loads for every contender.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use modelfs_test_support::Line;

use super::{ROOMY, mib, settle, settle_files};
use crate::arena::{Arena, By, Model, Mount, Net, Rclone, Setting, User, curl_files, drop_caches};
use crate::case::{Case, Entrant};
use crate::reading::Reading;

const THEME: &str = "loading models";
const SCRIPT: &str = include_str!("../load.py");
const AT_ONCE: usize = 4;
/// A registry in the same building.
const NEAR: Line =
    Line { round_trip: Duration::from_millis(10), bits_per_second: Some(1_000_000_000) };

/// Processes that are ready to load.
struct Loaders(Vec<(Child, BufReader<ChildStdout>)>);

impl Loaders {
    fn start(arena: &Arena, kind: &str, folder: &Path, count: usize) -> Result<Self, String> {
        let script = arena.path("bin/load.py");
        std::fs::write(&script, SCRIPT).map_err(|e| e.to_string())?;
        let python = arena.root().with_file_name("bench-venv").join("bin/python");
        let mut all = Self(Vec::new());
        for _ in 0..count {
            let mut child = Command::new(&python)
                .arg(&script)
                .arg(kind)
                .arg(folder)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .map_err(|e| format!("python with safetensors: {e} (scripts/bench.sh)"))?;
            let out = BufReader::new(child.stdout.take().expect("piped"));
            all.0.push((child, out));
        }
        for (_, out) in &mut all.0 {
            let mut line = String::new();
            let _ = out.read_line(&mut line);
            if !line.starts_with("ready") {
                return Err("python lacks numpy or safetensors (scripts/bench.sh)".into());
            }
        }
        Ok(all)
    }

    /// Lets all of them go; seconds of the slowest.
    fn go(mut self) -> Result<f64, String> {
        for (child, _) in &mut self.0 {
            let mut input = child.stdin.take().expect("piped, and taken once");
            input.write_all(b"go\n").map_err(|e| e.to_string())?;
        }
        let mut slowest = 0.0f64;
        for (_, out) in &mut self.0 {
            let mut text = String::new();
            out.read_to_string(&mut text).map_err(|e| e.to_string())?;
            let seconds = text.trim().parse().map_err(|_| format!("load.py printed {text:?}"))?;
            slowest = slowest.max(seconds);
        }
        Ok(slowest)
    }
}

impl Drop for Loaders {
    fn drop(&mut self) {
        for (child, _) in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A cold load by some processes at once, the slowest's seconds.
fn load(arena: &Arena, net: &Net<'_>, model: &Model, by: By, count: usize) -> Result<f64, String> {
    let setting = Setting { by, url: &net.registry(), cache: "cold", size: ROOMY };
    let mount = Mount::fresh(arena, setting)?;
    let loaders = Loaders::start(arena, "all", &mount.folder(model), count)?;
    settle(arena, model)?;
    loaders.go()
}

/// `curl` of the files, and then a load of them, where told.
fn download(arena: &Arena, net: &Net<'_>, model: &Model, loads: bool) -> Result<f64, String> {
    let folder = arena.fresh_folder("scratch/download", User::Root)?;
    let loaders = Loaders::start(arena, "all", &folder, usize::from(loads))?;
    settle_files(arena, model)?;
    let seconds = curl_files(arena, net, model, &folder)?;
    Ok(seconds + loaders.go()?)
}

fn load_rclone(arena: &Arena, net: &Net<'_>, model: &Model) -> Result<f64, String> {
    let mount = Rclone::fresh(arena, &net.url(&model.served()))?;
    let loaders = Loaders::start(arena, "all", &mount.path(""), 1)?;
    settle_files(arena, model)?;
    loaders.go()
}

fn sharded(arena: &Arena) -> Rc<Model> {
    arena.models.sharded(arena.scale.shards, arena.scale.shard)
}

fn cold_loads(arena: &Arena, all: &mut Vec<Case>, name: &str, line: Option<Line>) {
    let net = move || match line {
        Some(line) => arena.nginx().behind(line),
        None => arena.nginx().direct(),
    };
    let title = format!("load of a sharded model, cold, {name}");
    let heading = super::heading(THEME, title, "s");
    super::case(arena, all, arena.scale.slow_rounds, heading, || {
        let models: [Rc<Model>; 6] = std::array::from_fn(|_| sharded(arena));
        let [curl, then_load, rclone, ours, cached, other] = models;
        let by = |by: By, model: Rc<Model>| {
            Entrant::new(by.name(), move || load(arena, &net(), &model, by, 1))
        };
        let mut entrants = vec![
            Entrant::new("curl alone", move || download(arena, &net(), &curl, false)),
            Entrant::new("curl, then load", move || download(arena, &net(), &then_load, true)),
            Entrant::new("rclone mount", move || load_rclone(arena, &net(), &rclone)),
            by(By::Passthrough, ours).most(0, 1.1),
            by(By::Cached, cached),
        ];
        entrants.extend(arena.has_other_build().then(|| by(By::OtherBuild, other)));
        entrants
    });
    let title = format!("load by {AT_ONCE} processes at once, cold, {name}");
    let heading = super::heading(THEME, title, "s");
    super::case(arena, all, arena.scale.slow_rounds, heading, || {
        let of = |count| {
            let model = sharded(arena);
            move || load(arena, &net(), &model, By::Passthrough, count)
        };
        vec![
            Entrant::new("modelfs, one process", of(1)),
            Entrant::new("modelfs, the slowest of four", of(AT_ONCE)).most(0, 1.2),
        ]
    });
}

/// Headers of answers, leaf lists, the catalog and the manifest come on top of the model's bytes.
const BESIDE: f64 = 1.01;

fn bytes_fetched(arena: &Arena, all: &mut Vec<Case>) {
    let title = format!("load by {AT_ONCE} processes at once, cold: bytes fetched");
    super::case(arena, all, 1, super::heading(THEME, title, "MiB"), || {
        let model = sharded(arena);
        let known = mib(model.bytes);
        let fetched = move || {
            let net = arena.nginx().direct();
            let before = net.bytes();
            load(arena, &net, &model, By::Passthrough, AT_ONCE)?;
            Ok(mib(net.bytes() - before))
        };
        vec![
            Entrant::known("the model's bytes", known),
            Entrant::new("modelfs", fetched).most(0, BESIDE),
        ]
    });
}

const SECOND: &str = "second load after a reboot: store warm, page cache cold";

fn second(arena: &Arena, all: &mut Vec<Case>) {
    let heading = super::heading(THEME, SECOND, "s");
    super::case(arena, all, arena.scale.rounds, heading, || {
        let again = |by: By| {
            let (model, cache) = (sharded(arena), format!("second-{by:?}"));
            let url = arena.nginx().direct().registry();
            let mut filled = false;
            move || {
                let setting = Setting { by, url: &url, cache: &cache, size: ROOMY };
                if !filled {
                    let mount = Mount::fresh(arena, setting)?;
                    Loaders::start(arena, "all", &mount.folder(&model), 1)?.go()?;
                    filled = true;
                }
                let mount = Mount::start(arena, setting)?;
                let loaders = Loaders::start(arena, "all", &mount.folder(&model), 1)?;
                drop_caches();
                loaders.go()
            }
        };
        let native = sharded(arena);
        vec![
            Entrant::new("native folder", move || {
                let loaders = Loaders::start(arena, "all", &native.folder, 1)?;
                drop_caches();
                loaders.go()
            }),
            Entrant::new(By::Passthrough.name(), again(By::Passthrough)).most(0, 1.05),
            Entrant::new(By::Cached.name(), again(By::Cached)),
        ]
    });
}

/// Readahead that a last read began has ended by then.
const AFTERWARDS: Duration = Duration::from_millis(500);

/// MiB that are fetched while something reads headers on a cold mount.
fn header_bytes(
    arena: &Arena,
    act: impl FnOnce(&Mount) -> Result<f64, String>,
) -> Result<f64, String> {
    let net = arena.nginx().direct();
    let before = net.bytes();
    let url = net.registry();
    let setting = Setting { by: By::Passthrough, url: &url, cache: "cold", size: ROOMY };
    let mount = Mount::fresh(arena, setting)?;
    act(&mount)?;
    std::thread::sleep(AFTERWARDS);
    Ok(mib(net.bytes() - before))
}

fn headers(arena: &Arena, all: &mut Vec<Case>) {
    let title = format!("headers of a model of {} shards: bytes fetched", arena.scale.headers);
    super::case(arena, all, 1, super::heading(THEME, title, "MiB"), || {
        let model = arena.models.headers(arena.scale.headers, arena.scale.header_shard);
        let (known, by_python) = (mib(model.bytes), model.clone());
        let two_reads = move || {
            let read = |m: &Mount| Reading::Headers.of(arena, &m.folder(&model), m.user());
            header_bytes(arena, read)
        };
        let python = move || {
            header_bytes(arena, |m| Loaders::start(arena, "keys", &m.folder(&by_python), 1)?.go())
        };
        vec![
            Entrant::known("the model's bytes", known),
            Entrant::new("modelfs, by two reads", two_reads).most(0, 0.01),
            Entrant::new("modelfs, by safetensors", python).most(0, 0.01),
        ]
    });
}

pub fn run(arena: &Arena, all: &mut Vec<Case>) {
    cold_loads(arena, all, "unlimited", None);
    if !arena.scale.quick {
        cold_loads(arena, all, "10 ms, 1 Gbit/s", Some(NEAR));
    }
    bytes_fetched(arena, all);
    second(arena, all);
    headers(arena, all);
}
