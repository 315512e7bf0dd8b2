//! Many readers of a dead or hostile registry: cached reads do not notice them, and memory stays
//! within its bound.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use modelfs::model::hash::sha256;
use modelfs_test_support::{Fault, Server, When, bytes};
use rustix::fs::{Advice, fadvise};

use crate::fault_scene::is_an_outage;
use crate::harness::{Daemon, PATIENCE, Place, eventually, xattr};

/// Readers that hang.
const HUNG: usize = 200;
const CACHED: u64 = 64 << 20;
const READ: u64 = 128 << 10;
/// Batches of reads, and reads in each: the best batch is what the machine can do undisturbed by
/// others.
const BATCHES: usize = 15;
const BATCH: usize = 101;

/// How long it takes to read all of the file in order, at best.
fn cached_stream(file: &File, want: &[u8]) -> Duration {
    let mut buffer = vec![0; want.len()];
    let mut stream = || {
        fadvise(file, 0, None, Advice::DontNeed).expect("a file");
        let begun = Instant::now();
        file.read_exact_at(&mut buffer, 0).expect("cached");
        let took = begun.elapsed();
        assert!(buffer == want, "a wrong byte");
        took
    };
    (0..BATCHES).map(|_| stream()).min().expect("some")
}

/// The median of the best batch of reads that the daemon answers from its cache.
fn cached_latency(file: &File, want: &[u8]) -> Duration {
    let mut buffer = vec![0; READ as usize];
    let blocks = CACHED / READ;
    let mut median = |batch: usize| {
        let mut took: Vec<Duration> = (0..BATCH)
            .map(|n| {
                // Of the page cache nothing may be left, nor may the next one be foreseen.
                fadvise(file, 0, None, Advice::DontNeed).expect("a file");
                let at = (batch * BATCH + n) as u64 * 197 % blocks * READ;
                let begun = Instant::now();
                file.read_exact_at(&mut buffer, at).expect("cached");
                let took = begun.elapsed();
                assert!(buffer == want[at as usize..][..READ as usize], "a wrong byte");
                took
            })
            .collect();
        took.sort();
        took[BATCH / 2]
    };
    (0..BATCHES).map(&mut median).min().expect("some batches")
}

/// Which of two measures more than doubled.
fn slower(before: [Duration; 2], during: [Duration; 2]) -> Option<usize> {
    (0..2).find(|i| during[*i] > 2 * before[*i])
}

#[test]
fn cached_reads_are_not_delayed_by_200_hung_requests() {
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    let want = bytes(1, CACHED as usize);
    fs::write(plain.join("cached.bin"), &want).expect("a file");
    let cold = |n: usize| bytes(3000 + n as u64, 300_000);
    for n in 0..HUNG {
        fs::write(plain.join(format!("cold-{n:03}.bin")), cold(n)).expect("a file");
    }
    place.publish(&plain, "org/net", "v1", &[]);
    let server = Server::start(&place.registry());
    let args = ["--no-passthrough", "--read-deadline", "120s", "--scrub-rate", "0"];
    let daemon = place.mount(&server.url(), &args);
    let version = daemon.path("org/net/v1");
    let cached = File::open(version.join("cached.bin")).expect("opens");
    assert!(fs::read(version.join("cached.bin")).expect("reads") == want);

    let measure = || [cached_latency(&cached, &want), cached_stream(&cached, &want)];
    let before = measure();
    server.on("/data/", When::Always, Fault::Delay(Duration::from_secs(3600)));
    let (begun, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let during = std::thread::scope(|scope| {
        for n in 0..HUNG {
            let (path, begun, ended) = (version.join(format!("cold-{n:03}.bin")), &begun, &ended);
            scope.spawn(move || {
                let mut file = File::open(path).expect("opens");
                let mut got = Vec::new();
                begun.fetch_add(1, Ordering::SeqCst);
                file.read_to_end(&mut got).expect("the server came back in time");
                assert!(got == cold(n), "a wrong byte");
                ended.fetch_add(1, Ordering::SeqCst);
            });
        }
        eventually("all of them read", || begun.load(Ordering::SeqCst) == HUNG);
        // From the call to the daemon takes a moment.
        std::thread::sleep(Duration::from_millis(500));
        // The machine has other work too, which comes and goes; those that hang stay.
        let mut during = measure();
        let begun = Instant::now();
        while slower(before, during).is_some() && begun.elapsed() < PATIENCE / 3 {
            let again = measure();
            during = [during[0].min(again[0]), during[1].min(again[1])];
        }
        assert_eq!(ended.load(Ordering::SeqCst), 0, "they hang");
        server.heal();
        server.go_away();
        server.come_back();
        during
    });
    assert_eq!(ended.into_inner(), HUNG, "and are all answered in the end");
    let ratio = |i: usize| during[i].as_secs_f64() / before[i].as_secs_f64();
    println!(
        "beside {HUNG} that hang, times {:.2} for {READ} bytes and {:.2} in order: {before:?}, {during:?}",
        ratio(0),
        ratio(1)
    );
    assert_eq!(slower(before, during), None, "{before:?} undisturbed, {during:?} beside them");
    daemon.stop();
}

/// A registry that is silent about many objects, and well otherwise.
#[test]
fn reads_that_arrive_are_not_delayed_by_64_stalled_reads() {
    const SILENT: usize = 64;
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    // A chunk for each file: at least a MiB, or small files would share them.
    let content = |n: usize| bytes(4000 + n as u64, 1 << 20);
    let names: Vec<_> = (0..=SILENT).map(|n| format!("{n:02}.bin")).collect();
    for (n, name) in names.iter().enumerate() {
        fs::write(plain.join(name), content(n)).expect("a file");
    }
    place.publish(&plain, "org/net", "v1", &["--chunk-size", "1MiB"]);
    let server = Server::start(&place.registry());
    for n in 0..SILENT {
        let object = format!("/data/{}", sha256(&content(n)));
        server.on(&object, When::Always, Fault::Stall(0));
    }
    let daemon = place.mount(&server.url(), &["--read-deadline", "60s", "--scrub-rate", "0"]);
    let version = daemon.path("org/net/v1");
    assert_eq!(fs::read_dir(&version).expect("listed").count(), SILENT + 1);
    let (begun, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for (n, name) in names[..SILENT].iter().enumerate() {
            let (path, begun, ended) = (version.join(name), &begun, &ended);
            scope.spawn(move || {
                let file = File::open(path).expect("opens");
                let mut got = vec![0; 4096];
                begun.fetch_add(1, Ordering::SeqCst);
                file.read_exact_at(&mut got, 0).expect("the server is well in time");
                assert!(got == content(n)[..4096], "a wrong byte");
                ended.fetch_add(1, Ordering::SeqCst);
            });
        }
        eventually("all of them read", || begun.load(Ordering::SeqCst) == SILENT);
        std::thread::sleep(Duration::from_millis(500));
        let start = Instant::now();
        let got = fs::read(version.join(&names[SILENT])).expect("the server is well");
        assert!(got == content(SILENT), "a wrong byte");
        let waited = start.elapsed();
        println!("{waited:?} beside {SILENT} reads that hang");
        assert_eq!(ended.load(Ordering::SeqCst), 0, "the others hang still: {waited:?}");
        server.heal();
        server.go_away();
        server.come_back();
    });
    daemon.stop();
}

/// The most memory that the daemon ever had resident.
fn most_memory(daemon: &Daemon<'_>) -> u64 {
    let pid = daemon.worker();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("Linux says so");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

const READERS: usize = 1000;
const EACH: usize = 256 << 10;
/// What 1,000 readers may take beyond an idle daemon while they wait: 32 KiB for each and its file.
const WAITING: u64 = 32 << 20;
/// And in all: also the budget for fetched data, 48 MiB, and the buffers that wait for their next
/// use, 24 MiB.
const IN_ALL: u64 = WAITING + ((48 + 24) << 20);

#[test]
fn a_thousand_readers_of_a_thousand_files_stay_within_the_budget() {
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    for n in 0..READERS {
        fs::write(plain.join(format!("{n}.bin")), bytes(n as u64, EACH)).expect("a file");
    }
    place.publish(&plain, "org/net", "v1", &[]);
    let server = Server::start(&place.registry());
    let args = ["--no-passthrough", "--read-deadline", "120s", "--scrub-rate", "0"];
    let daemon = place.mount(&server.url(), &args);
    let version = daemon.path("org/net/v1");
    assert_eq!(fs::read_dir(&version).expect("listed").count(), READERS);
    let idle = most_memory(&daemon);
    server.on("/data/", When::Always, Fault::Delay(Duration::from_secs(3600)));
    let (begun, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let waiting = std::thread::scope(|scope| {
        for n in 0..READERS {
            let (path, begun, ended) = (version.join(format!("{n}.bin")), &begun, &ended);
            let reader = move || {
                let mut file = File::open(path).expect("opens");
                let mut got = Vec::with_capacity(EACH + 1);
                begun.fetch_add(1, Ordering::SeqCst);
                file.read_to_end(&mut got).expect("the server came back in time");
                assert!(got == bytes(n as u64, EACH), "a wrong byte");
                ended.fetch_add(1, Ordering::SeqCst);
            };
            let thread = std::thread::Builder::new().stack_size(256 << 10);
            thread.spawn_scoped(scope, reader).expect("a thread");
        }
        eventually("all of them read", || begun.load(Ordering::SeqCst) == READERS);
        std::thread::sleep(Duration::from_secs(1));
        let waiting = most_memory(&daemon);
        assert_eq!(ended.load(Ordering::SeqCst), 0, "they hang");
        server.heal();
        server.go_away();
        server.come_back();
        waiting
    });
    assert_eq!(ended.into_inner(), READERS);
    let done = most_memory(&daemon);
    let more = |than: u64| (than - idle) >> 20;
    println!("{} MiB idle, {} more waiting, {} more in all", idle >> 20, more(waiting), more(done));
    assert!(waiting - idle <= WAITING, "{} MiB more than idle", more(waiting));
    assert!(done - idle <= IN_ALL, "{} MiB more than idle", more(done));
    daemon.stop();
}

/// A version `v` of one file, as a manifest of the test's own making says.
fn announce(place: &Place, version: &str, manifest: &serde_json::Value) -> String {
    let body = manifest.to_string().into_bytes();
    let hash = sha256(&body).to_string();
    let path = place.registry().join("models.json");
    let mut catalog: serde_json::Value = match fs::read(&path) {
        Ok(body) => serde_json::from_slice(&body).expect("JSON"),
        Err(_) => serde_json::json!({"org": {"net": {}}}),
    };
    catalog["org"]["net"][version] = serde_json::json!({ "hash": hash });
    fs::create_dir_all(place.registry().join("data")).expect("a folder");
    fs::write(place.registry().join("data").join(&hash), body).expect("a file");
    fs::write(path, catalog.to_string()).expect("a file");
    hash
}

fn one_file(size: u64, chunks: &[u64], leaf: u64) -> serde_json::Value {
    let name =
        |kind: &str, n: usize| sha256(format!("{kind} {n} of {size}").as_bytes()).to_string();
    let names = |kind: &str| (0..chunks.len()).map(|n| name(kind, n)).collect::<Vec<_>>();
    serde_json::json!({
        "total_size": size, "chunk_size": chunks[0], "chunk_sizes": chunks,
        "chunks": names("chunk"), "leaf_size": leaf, "leaves": names("list"),
        "files": [{"path": "w.bin", "size": size}],
    })
}

/// What announcing may cost in all: a byte of memory for each MiB of an open file.
const ANNOUNCED: u64 = 128 << 20;

#[test]
fn sizes_that_are_only_announced_cost_nothing() {
    const EIB: u64 = 1 << 60;
    const TIB: u64 = 1 << 40;
    let place = Place::new();
    announce(&place, "exabytes", &one_file(EIB, &[EIB], 64 << 20));
    announce(&place, "petabytes", &one_file(128 << 50, &[128 << 50], 64 << 20));
    announce(&place, "many-leaves", &one_file(TIB, &[TIB], 4096));
    announce(&place, "largest", &one_file(64 * TIB, &[4 * TIB; 16], 16 << 20));
    let server = Server::start(&place.registry());
    let args = ["--read-deadline", "2s", "--catalog-ttl", "200ms", "--scrub-rate", "0"];
    let daemon = place.mount(&server.url(), &args);
    let idle = most_memory(&daemon);
    for version in ["exabytes", "petabytes", "many-leaves"] {
        let version = daemon.path(&format!("org/net/{version}"));
        is_an_outage(&fs::metadata(version.join("w.bin")).expect_err("nobody can hold that"));
        let reason = xattr(&version, "error").expect("a reason");
        assert!(reason.starts_with("invalid registry response"), "{reason}");
        println!("{reason}");
    }
    let path = daemon.path("org/net/largest/w.bin");
    assert_eq!(fs::metadata(&path).expect("stat").len(), 64 * TIB);
    // The longest leaf list there may be is announced, begun, and does not come.
    let list = vec![0; 8 << 20];
    server.on("/data/", When::Always, Fault::Serve(list));
    server.on("/data/", When::Always, Fault::Stall(100));
    let file = File::open(&path).expect("opens");
    std::thread::scope(|scope| {
        for n in 0..16 {
            let file = &file;
            scope.spawn(move || {
                let mut buffer = [0; 4096];
                let at = n * 4 * TIB + 12_345;
                is_an_outage(&file.read_exact_at(&mut buffer, at).expect_err("nothing comes"));
            });
        }
    });
    let more = most_memory(&daemon) - idle;
    println!("{} MiB idle, {} MiB more", idle >> 20, more >> 20);
    assert!(more <= ANNOUNCED, "{} MiB", more >> 20);
    daemon.stop();
}
