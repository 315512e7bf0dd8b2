//! Only what is touched is fetched.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use modelfs_test_support::Server;
use modelfs_test_support::{bytes, safetensors, write_bytes};

use crate::harness::{Place, eventually, signal, xattr};

const GIB: u64 = 1 << 30;

#[test]
fn reading_4_kib_from_the_middle_of_a_gib_fetches_little() {
    for mode in [&[][..], &["--no-passthrough"][..]] {
        let place = Place::new();
        let plain = place.path("plain");
        fs::create_dir(&plain).expect("a folder");
        write_bytes(&plain.join("w.safetensors"), 5, GIB);
        place.publish(&plain, "org/big", "v1", &[]);
        let server = Server::start(&place.registry());
        let daemon = place.mount(&server.url(), mode);
        let path = daemon.path("org/big/v1/w.safetensors");
        assert_eq!(fs::metadata(&path).expect("stat").len(), GIB);
        assert_eq!(objects(&server), 1, "the manifest alone so far");

        server.reset();
        let mut got = vec![0; 4096];
        File::open(&path).expect("opens").read_exact_at(&mut got, GIB / 2 + 12_345).expect("reads");
        let mut want = vec![0; 4096];
        let source = File::open(plain.join("w.safetensors")).expect("opens");
        source.read_exact_at(&mut want, GIB / 2 + 12_345).expect("reads");
        assert!(got == want);
        // Whatever is still on its way belongs to the read as well.
        std::thread::sleep(std::time::Duration::from_secs(1));
        let sent = server.bytes_sent();
        println!("{sent} bytes in {} requests for 4096", server.requests().len());
        assert!(sent <= 1 << 20, "{sent} bytes");
        daemon.stop();
    }
}

/// The reader has seen the header; a fault at a tensor's beginning then brings the tensor and the one
/// behind it, and what lies elsewhere stays where it is.
#[test]
fn the_first_page_of_a_tensor_brings_it_and_the_next() {
    const TENSOR: usize = 4 << 20;
    for mode in [&[][..], &["--no-passthrough"][..]] {
        let place = Place::new();
        let plain = place.path("plain");
        fs::create_dir(&plain).expect("a folder");
        let weights = safetensors(9, 10, TENSOR);
        fs::write(plain.join("w.safetensors"), &weights).expect("a file");
        place.publish(&plain, "org/net", "v1", &[]);
        let server = Server::start(&place.registry());
        let daemon = place.mount(&server.url(), mode);
        let path = daemon.path("org/net/v1/w.safetensors");
        let file = File::open(&path).expect("opens");
        // No readahead of the kernel's, so that what comes is our doing.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).expect("fadvise");
        let read = |at: usize, len: usize| {
            let mut got = vec![0; len];
            file.read_exact_at(&mut got, at as u64).expect("reads");
            assert!(got == weights[at..at + len], "a wrong byte");
        };
        let behind = weights.len() - 10 * TENSOR;
        read(0, behind);
        let cached = || xattr(&path, "cached").and_then(|n| n.parse().ok()).unwrap_or(0usize);
        eventually("the header is stored", || cached() >= behind);
        let before = cached();
        // Not the first: that one lies where a reader would go on anyway.
        read(behind + 6 * TENSOR, 4096);
        let both = before + 2 * TENSOR;
        eventually("both come", || cached() >= both - (128 << 10));
        std::thread::sleep(std::time::Duration::from_millis(500));
        let came = cached() - before;
        println!("{came} bytes for a page of a tensor of {TENSOR}");
        assert!(came <= 2 * TENSOR + (256 << 10), "{came} bytes: more than two tensors");
        server.reset();
        // Backwards, so that no reader who goes on is read ahead for; not the next one's first page,
        // which would bring the one behind it.
        for eighth in (1..16).rev().filter(|eighth| *eighth != 8) {
            read(behind + 6 * TENSOR + eighth * TENSOR / 8, 4096);
        }
        assert_eq!(objects(&server), 0, "all of it is there");
        // A page from the middle of another brings its leaf.
        let before = cached();
        read(behind + 2 * TENSOR + TENSOR / 2, 4096);
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert!(cached() - before <= 256 << 10, "{} bytes", cached() - before);
        drop(file);
        daemon.stop();
    }
}

fn objects(server: &Server) -> usize {
    server.requests_for("/data/")
}

#[test]
fn find_and_ls_fetch_no_chunk() {
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    crate::trees::plain_tree(&plain);
    for (name, version) in [("a/m", "v1"), ("a/m", "v2"), ("a/n", "v1"), ("b/m", "v1")] {
        fs::write(plain.join("version"), format!("{name} {version}")).expect("a file");
        place.publish(&plain, name, version, &[]);
    }
    let server = Server::start(&place.registry());
    let daemon = place.mount(&server.url(), &[]);
    let manifests: Vec<String> = place.run(["list", "--remote", "--json"]).json()["versions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|v| format!("/data/{}", v["hash"].as_str().expect("a hash")))
        .collect();
    assert_eq!(manifests.len(), 4);
    for (program, args) in [("ls", &["-lRa"][..]), ("find", &[]), ("du", &["-a"])] {
        let mut command = place.program(program);
        if program == "find" {
            command.arg(place.mountpoint()).args(["-ls"]);
        } else {
            command.args(args).arg(place.mountpoint());
        }
        let out = command.output().expect(program);
        assert!(out.status.success(), "{program}");
        let text = String::from_utf8_lossy(&out.stdout);
        assert_eq!(text.matches("weights.safetensors").count(), 4, "{program}: {text}");
    }
    let other: Vec<_> = server
        .requests()
        .into_iter()
        .filter(|r| r.path != "/models.json" && !manifests.contains(&r.path))
        .collect();
    assert!(other.is_empty(), "{other:?}");
    assert_eq!(daemon.status()["cache"]["data"], 0);
    daemon.stop();
}

#[test]
fn a_sequential_reader_is_read_ahead_and_a_random_one_is_not() {
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    write_bytes(&plain.join("w.bin"), 6, 256 << 20);
    place.publish(&plain, "org/big", "v1", &[]);
    let server = Server::start(&place.registry());
    let daemon = place.mount(&server.url(), &["--no-passthrough"]);
    let file = File::open(daemon.path("org/big/v1/w.bin")).expect("opens");
    let mut buffer = vec![0; 64 << 10];
    for at in [200 << 20, 10 << 20, 120 << 20, 60 << 20] {
        file.read_exact_at(&mut buffer, at).expect("reads");
    }
    std::thread::sleep(std::time::Duration::from_secs(1));
    let random = server.bytes_sent();
    assert!(random < 4 << 20, "{random} bytes for 4 random reads");
    for at in (0..8 << 20).step_by(buffer.len()) {
        file.read_exact_at(&mut buffer, at).expect("reads");
    }
    std::thread::sleep(std::time::Duration::from_secs(1));
    let sequential = server.bytes_sent() - random;
    assert!(sequential > 12 << 20, "{sequential} bytes for 8 MiB in order");
    daemon.stop();
}

#[test]
fn a_server_that_ignores_ranges_works_less_lazily() {
    use modelfs_test_support::{Fault, When};
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    let bytes = bytes(6, 30 << 20);
    fs::write(plain.join("w.bin"), &bytes).expect("a file");
    place.publish(&plain, "org/net", "v1", &[]);
    let server = Server::start(&place.registry());
    server.on("/data/", When::Always, Fault::IgnoreRange);
    let daemon = place.mount(&server.url(), &[]);
    let path = daemon.path("org/net/v1/w.bin");
    let mut buffer = vec![0; 4096];
    File::open(&path).expect("opens").read_exact_at(&mut buffer, 25 << 20).expect("reads");
    assert!(buffer == bytes[25 << 20..][..4096]);
    assert!(fs::read(&path).expect("reads") == bytes);
    daemon.stop();
}

/// Where the kernel never reads by itself, it opens, reads and closes what is in its memory without
/// asking anybody.
#[test]
fn pages_in_the_page_cache_cause_no_request_in_cached_mode() {
    let (place, bytes) = (Place::new(), bytes(3, 1 << 20));
    let plain = place.path("plain");
    fs::create_dir(&plain).expect("a folder");
    fs::write(plain.join("w.bin"), &bytes).expect("a file");
    place.publish(&plain, "org/net", "v1", &[]);
    let daemon = place.mount(place.registry().to_str().expect("UTF-8"), &["--no-passthrough"]);
    let path = daemon.path("org/net/v1/w.bin");
    assert!(fs::read(&path).expect("reads") == bytes);
    assert!(signal(daemon.worker(), "STOP"));
    let (tell, hear) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(fs::read(path)));
    let read = hear.recv_timeout(std::time::Duration::from_secs(10));
    assert!(signal(daemon.worker(), "CONT"));
    assert!(read.expect("nobody is asked").expect("reads") == bytes);
    daemon.stop();
}
