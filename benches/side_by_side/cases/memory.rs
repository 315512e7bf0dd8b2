//! What the daemon holds in memory while more streams through its cache than that can keep.
//!
//! Invariant: each pass reads what the passes before it have evicted, and the kernel's own pages are
//! dropped in between, so that all of it goes through the daemon; bytes fetched say whether it did.

use super::mib;
use crate::arena::{Arena, By, Mount, Setting, drop_caches};
use crate::case::{Case, Entrant};
use crate::reading::Reading;

const THEME: &str = "memory";
/// Beyond what the idle daemon has.
const MOST_MIB: f64 = 64.0;

/// Streams; MiB resident at most above idle.
fn stream(arena: &Arena) -> Result<f64, String> {
    let scale = &arena.scale;
    let model = arena.models.one(scale.stream);
    let net = arena.nginx().direct();
    let url = net.registry();
    let (by, size) = (By::Passthrough, scale.stream_cache);
    let mount = Mount::fresh(arena, Setting { by, url: &url, cache: "stream", size })?;
    std::fs::metadata(mount.file(&model)).map_err(|e| e.to_string())?;
    let idle = mount.memory("VmRSS:");
    let before = net.bytes();
    for _ in 0..scale.passes {
        Reading::Sequential.of(arena, &mount.file(&model), mount.user())?;
        drop_caches();
    }
    let (fetched, wanted) = (net.bytes() - before, scale.passes * model.bytes);
    // What is still in the cache when a pass begins anew is read from there.
    if fetched < wanted / 2 {
        return Err(format!("only {} of {} MiB were fetched", fetched >> 20, wanted >> 20));
    }
    eprintln!("  {} of {} MiB were fetched", fetched >> 20, wanted >> 20);
    Ok(mib(mount.memory("VmHWM:").saturating_sub(idle)))
}

pub fn run(arena: &Arena, all: &mut Vec<Case>) {
    let gib = (arena.scale.stream * arena.scale.passes) as f64 / f64::from(1 << 30);
    let title =
        format!("resident above idle, {gib:.0} GiB streamed through {}", arena.scale.stream_cache);
    super::case(arena, all, 1, super::heading(THEME, title, "MiB"), || {
        vec![Entrant::new("modelfs", || stream(arena)).within(MOST_MIB)]
    });
}
