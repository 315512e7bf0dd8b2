//! What a server does wrong with data costs an error with a reason, never a wrong byte, and heals.

use std::time::{Duration, Instant};

use modelfs_test_support::{Fault, When, bytes};

use crate::fault_scene::Gets::{Error, Right};
use crate::fault_scene::On::{Chunk, List};
use crate::fault_scene::{Scene, table};

const LONG: Duration = Duration::from_secs(3600);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn status(status: u16) -> Fault {
    Fault::Status(status, None)
}

#[test]
fn bodies() {
    table(&[
        (Chunk, Fault::Delay(ms(300)), Right),
        (Chunk, Fault::Delay(LONG), Error(&["timed out", "silent"])),
        (Chunk, Fault::Stall(0), Error(&["cut off", "silent"])),
        (Chunk, Fault::Stall(50_000), Error(&["cut off", "silent"])),
        (Chunk, Fault::Reset(50_000), Error(&["cut off after"])),
        (Chunk, Fault::Truncate(50_000), Error(&["cut off after"])),
        (Chunk, Fault::Short(50_000), Error(&["cut off after"])),
        (Chunk, Fault::Gone, Error(&["data/"])),
        (Chunk, Fault::FlipBit(600_000), Error(&["do not match"])),
        (Chunk, Fault::Serve(bytes(77, 1 << 20)), Error(&["do not match"])),
        (Chunk, Fault::Drip(8 << 10, ms(20)), Right),
        (Chunk, Fault::Drip(1, ms(100)), Error(&["too slow"])),
    ]);
}

#[test]
fn headers() {
    table(&[
        (Chunk, Fault::ExtraBytes(1000), Right),
        (Chunk, Fault::IgnoreRange, Right),
        (Chunk, Fault::Chunked, Right),
        (Chunk, Fault::WrongContentLength(77), Error(&["Content-Length 77"])),
        (Chunk, Fault::WrongContentLength(1 << 60), Error(&["Content-Length 1152921504606846976"])),
        (Chunk, Fault::WrongContentRange("bytes 0-9/10".into()), Error(&["Content-Range"])),
        (Chunk, Fault::WrongContentRange("none".into()), Error(&["Content-Range"])),
        (Chunk, Fault::Encoding("gzip".into()), Error(&["Content-Encoding \"gzip\""])),
        (Chunk, Fault::Redirect(None), Error(&["redirects"])),
        (Chunk, Fault::Redirect(Some("http://127.0.0.1:1/x".into())), Error(&["data/"])),
        (Chunk, Fault::Serve(Vec::new()), Error(&["no such range"])),
        (Chunk, Fault::Serve(bytes(78, 700_000)), Error(&["Content-Range"])),
    ]);
}

#[test]
fn statuses() {
    // A date far away and one that is past.
    let later = || Some("Fri, 31 Dec 2399 23:59:59 GMT".to_owned());
    let past = || Some("Sun, 06 Nov 1994 08:49:37 GMT".to_owned());
    table(&[
        (Chunk, status(400), Error(&["refused with 400"])),
        (Chunk, status(401), Error(&["refused with 401"])),
        (Chunk, status(403), Error(&["refused with 403"])),
        (Chunk, status(404), Error(&["not found in the registry"])),
        (Chunk, status(410), Error(&["not found in the registry"])),
        (Chunk, status(416), Error(&["no such range"])),
        (Chunk, status(500), Error(&["answered 500"])),
        (Chunk, status(503), Error(&["answered 503"])),
        (Chunk, Fault::Status(429, Some("3600".into())), Error(&["answered 429"])),
        (Chunk, Fault::Status(429, later()), Error(&["answered 429"])),
        (Chunk, Fault::Status(503, past()), Error(&["answered 503"])),
        (Chunk, status(204), Error(&["unexpected status 204"])),
    ]);
}

#[test]
fn leaf_lists() {
    table(&[
        (List, Fault::Delay(ms(300)), Right),
        (List, Fault::Stall(10), Error(&["silent", "cut off"])),
        (List, Fault::Drip(1, ms(100)), Error(&["silent"])),
        (List, Fault::Truncate(100), Error(&["cut off"])),
        (List, Fault::FlipBit(40), Error(&["SHA-256 mismatch"])),
        (List, Fault::Serve(vec![7; 256]), Error(&["SHA-256 mismatch"])),
        (List, Fault::WrongContentLength(1 << 60), Error(&["more than 256 bytes"])),
        (List, Fault::ExtraBytes(1 << 20), Error(&["more than 256 bytes"])),
        (List, Fault::Encoding("gzip".into()), Error(&["Content-Encoding"])),
        (List, status(404), Error(&["not found in the registry"])),
        (List, status(503), Error(&["answered 503"])),
        (List, Fault::Gone, Error(&["data/"])),
    ]);
}

#[test]
fn a_short_outage_is_invisible_to_readers() {
    let faults = [
        Fault::FlipBit(600_000),
        Fault::Truncate(50_000),
        Fault::Reset(50_000),
        Fault::Gone,
        Fault::Stall(50_000),
        Fault::Drip(1, ms(100)),
        status(503),
        Fault::Status(429, Some("0".to_owned())),
        Fault::Status(429, Some("1".to_owned())),
        Fault::Status(429, Some("Sun, 06 Nov 1994 08:49:37 GMT".to_owned())),
    ];
    let scene = Scene::new(2 * faults.len());
    for (n, fault) in faults.iter().enumerate() {
        scene.server.on(&scene.object(2 * n, Chunk), When::First(1), fault.clone());
        scene.server.on(&scene.object(2 * n + 1, List), When::First(1), fault.clone());
    }
    let daemon = scene.mount();
    std::thread::scope(|scope| {
        for n in 0..2 * faults.len() {
            let (scene, daemon, fault) = (&scene, &daemon, &faults[n / 2]);
            scope.spawn(move || {
                scene.read(daemon, n).unwrap_or_else(|e| panic!("{fault:?}, {}: {e}", n % 2));
            });
        }
    });
    daemon.stop();
}

#[test]
fn a_server_that_asks_for_patience_gets_it() {
    let scene = Scene::new(1);
    let daemon = scene.mount();
    let patience = Fault::Status(503, Some("1".to_owned()));
    scene.server.on(&scene.object(0, Chunk), When::First(1), patience);
    let begun = Instant::now();
    scene.read(&daemon, 0).expect("after a second");
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    daemon.stop();
}
