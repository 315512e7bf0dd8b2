//! `curl`: what the same bytes cost without any file system. Figures are seconds.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::Arena;
use super::data::Model;
use super::server::Net;

/// Runs `curl` over a configuration of these lines.
fn run(arena: &Arena, lines: &str, more: &str) -> Result<f64, String> {
    let config = arena.path("scratch/curl.config");
    std::fs::write(&config, lines).map_err(|e| e.to_string())?;
    let script = format!("curl --silent --fail --config {} {more}", config.display());
    let started = Instant::now();
    let status = Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(started.elapsed().as_secs_f64()),
        Ok(status) => Err(format!("curl: {status}")),
        Err(e) => Err(format!("curl: {e}")),
    }
}

/// Fetches a model's chunks, in order, over one connection, and pipes them on: `> FILE`,
/// `| sha256sum`.
pub fn curl_objects(arena: &Arena, net: &Net<'_>, model: &Model, to: &str) -> Result<f64, String> {
    let name = |c: &PathBuf| c.file_name().expect("a digest").to_string_lossy().into_owned();
    let urls = model.chunks.iter().map(|c| net.url(&format!("registry/data/{}", name(c))));
    let lines: String = urls.map(|url| format!("url = \"{url}\"\n")).collect();
    run(arena, &lines, to)
}

/// Fetches a model's files into a folder, one after another over one connection.
pub fn curl_files(arena: &Arena, net: &Net<'_>, model: &Model, into: &Path) -> Result<f64, String> {
    let one = |file: &String| {
        let url = net.url(&format!("{}/{file}", model.served()));
        format!("url = \"{url}\"\noutput = \"{}\"\n", into.join(file).display())
    };
    run(arena, &model.files.iter().map(one).collect::<String>(), "")
}
