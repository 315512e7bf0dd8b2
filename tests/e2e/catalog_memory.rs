//! What a large catalog costs while it is read, kept and replaced.

use std::fmt::Write;
use std::fs;

use modelfs::model::hash::sha256;
use modelfs_test_support::Server;

use crate::harness::{Place, eventually};

/// The document, a quarter of the largest that may be.
const DOCUMENT: usize = 64 << 20;
/// Models of a group, versions of a model.
const MODELS: usize = 100;
const VERSIONS: usize = 10;

/// A catalog of that size, and how many versions it has.
fn catalog() -> (String, u64) {
    let hash = sha256(b"no version is opened");
    let (mut text, mut groups) = (String::from("{"), 0);
    while text.len() < DOCUMENT {
        let comma = if groups > 0 { "," } else { "" };
        write!(text, "{comma}\"group{groups}\":{{").expect("memory");
        for model in 0..MODELS {
            let comma = if model > 0 { "," } else { "" };
            write!(text, "{comma}\"model{model}\":{{").expect("memory");
            for version in 0..VERSIONS {
                let comma = if version > 0 { "," } else { "" };
                write!(
                    text,
                    "{comma}\"v{version}\":{{\"hash\":\"{hash}\",\"metadata\":{{\"published_at\":\
                     \"2024-05-01T10:00:00Z\",\"licence\":\"apache-2.0\",\"note\":\"{:30}\"}}}}",
                    "a note"
                )
                .expect("memory");
            }
            text.push('}');
        }
        text.push('}');
        groups += 1;
    }
    text.push('}');
    (text, (groups * MODELS * VERSIONS) as u64)
}

/// The most memory that a process had, in bytes.
fn most(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("Linux says so");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

#[test]
fn a_large_catalog_is_in_memory_once_beside_what_it_replaces() {
    let place = Place::new();
    let (text, versions) = catalog();
    let catalog = place.registry().join("models.json");
    fs::write(&catalog, &text).expect("a file");
    let server = Server::start(&place.registry());
    let daemon = place.mount(&server.url(), &["--catalog-ttl", "1s"]);
    let offered = || daemon.status()["registry"]["versions"].as_u64();
    assert_eq!(offered(), Some(versions));
    let worker = daemon.worker();
    let first = most(worker);
    let next = place.registry().join("next");
    let entry = format!("{{\"new\":{{\"hash\":\"{}\"}},\"v0\":", sha256(b"new"));
    let one_more = text.replacen("{\"v0\":", &entry, 1);
    fs::write(&next, one_more).expect("a file");
    fs::rename(&next, &catalog).expect("renamed");
    eventually("the next edition", || offered() == Some(versions + 1));
    assert_eq!(daemon.worker(), worker);
    let (document, both) = (text.len() as u64, most(worker));
    println!("{document} bytes: {first} at the first, {both} with the next edition");
    // The document and what is made of it, which is one and a half times as much.
    assert!(first < 3 * document + (48 << 20), "{first} bytes for a document of {document}");
    // And the edition before, which is still there.
    assert!(both < 4 * document + (64 << 20), "{both} bytes for two editions of {document}");
    daemon.stop();
}
