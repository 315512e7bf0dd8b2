//! Files of the Hub that Xet keeps, under a mount: ranges are proved, and the whole is verified when it is
//! there.

use std::os::unix::fs::FileExt;
use std::process::Command;

use modelfs_test_support::{HUB_TOKEN, HubRepo, HubServer, XetFile, XetLie, XetPlaces};

use crate::harness::{Daemon, Place, eventually, xattr};

const MAIN: &str = "1111111111111111111111111111111111111111";
const MIB: u64 = 1 << 20;

fn hub(file: &XetFile) -> HubServer {
    let hub = HubServer::start();
    let repo = HubRepo {
        branches: vec![("main".to_owned(), MAIN.to_owned())],
        commits: [(MAIN.to_owned(), vec![])].into(),
        ..HubRepo::default()
    };
    hub.put("models/org/net", repo);
    hub.put_xet("models/org/net", MAIN, "w.bin", file.clone());
    hub
}

fn random(len: u64) -> XetFile {
    XetFile::generated(9, len, XetPlaces::InOrder(900))
}

fn mount<'a>(place: &'a Place, hub: &HubServer, more: &[&str]) -> Daemon<'a> {
    let mut command: Command = place.modelfs(["mount"]);
    command.arg(place.mountpoint()).args(["--registry", "hf://"]).args(more);
    command.env("HF_ENDPOINT", hub.url()).env("HF_HOME", place.path("hf-home"));
    command.env("HF_TOKEN", HUB_TOKEN);
    Daemon::start(place, command)
}

fn read(daemon: &Daemon<'_>, at: u64, len: usize) -> std::io::Result<Vec<u8>> {
    let file = std::fs::File::open(daemon.path("org/net/main/w.bin"))?;
    let mut out = vec![0; len];
    file.read_exact_at(&mut out, at)?;
    Ok(out)
}

fn verified(daemon: &Daemon<'_>) -> String {
    xattr(&daemon.path("org/net/main/w.bin"), "verified").expect("files have it")
}

#[test]
fn a_page_of_a_gibibyte_is_attested_for_three_requests_and_a_part_of_the_file() {
    let file = random(1 << 30);
    let (place, hub) = (Place::new(), hub(&file));
    let daemon = mount(&place, &hub, &[]);
    // A part, so that what the kernel reads ahead is in it.
    let middle = file.len() / 2 / MIB * MIB;
    assert_eq!(verified(&daemon), "absent");
    hub.requests();
    assert!(read(&daemon, middle, 4096).unwrap() == file.bytes(middle..middle + 4096));
    let requests = hub.requests();
    let data: Vec<_> = requests.iter().filter(|r| !r.path.contains("xet-read-token")).collect();
    assert_eq!(data.len(), 3, "{requests:?}");
    let sent: u64 = requests.iter().map(|r| r.sent).sum();
    assert!(sent < 3 * MIB / 2, "{sent}");
    // A reader gets its bytes before they are in the store.
    eventually("the range is stored", || verified(&daemon) == "attested");
    daemon.stop();

    // Another daemon knows what the first one did, without a network.
    hub.down(true);
    let daemon = mount(&place, &hub, &[]);
    assert!(read(&daemon, middle, 4096).unwrap() == file.bytes(middle..middle + 4096));
    assert_eq!(verified(&daemon), "attested");
    daemon.stop();
}

#[test]
fn a_file_that_is_complete_becomes_verified_and_stays_so() {
    let file = random(40 * MIB);
    let (place, hub) = (Place::new(), hub(&file));
    let daemon = mount(&place, &hub, &[]);
    let whole = std::fs::read(daemon.path("org/net/main/w.bin")).unwrap();
    assert!(whole == file.bytes(0..file.len()));
    eventually("the whole is compared", || verified(&daemon) == "verified");
    daemon.stop();
    hub.down(true);
    let daemon = mount(&place, &hub, &[]);
    assert!(std::fs::read(daemon.path("org/net/main/w.bin")).unwrap() == whole);
    assert_eq!(verified(&daemon), "verified");
    daemon.stop();
}

#[test]
fn a_lying_storage_service_is_an_io_error_and_nothing_is_kept() {
    let file = random(40 * MIB);
    let (place, hub) = (Place::new(), hub(&file));
    let daemon = mount(&place, &hub, &["--read-deadline", "5s"]);
    for lie in [XetLie::WrongByte, XetLie::OtherChunk, XetLie::OtherNode, XetLie::OtherPlace] {
        hub.xet_lie(Some(lie));
        let error = read(&daemon, 20 * MIB, 4096).expect_err("a lie");
        assert_eq!(error.raw_os_error(), Some(5), "{lie:?}: {error}");
        assert_eq!(verified(&daemon), "absent", "{lie:?}");
    }
    hub.xet_lie(None);
    let good = || {
        read(&daemon, 20 * MIB, 4096).is_ok_and(|got| got == file.bytes(20 * MIB..20 * MIB + 4096))
    };
    eventually("the service is believed again", good);
    daemon.stop();
}

#[test]
fn a_gated_file_is_listed_without_its_xet_hash_and_says_why_it_cannot_be_read() {
    let file = random(20 * MIB);
    let (place, hub) = (Place::new(), hub(&file));
    hub.change("models/org/net", |repo| repo.gated = true);
    let daemon = mount(&place, &hub, &["--read-deadline", "5s"]);
    let path = daemon.path("org/net/main/w.bin");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), file.len());
    read(&daemon, 0, 4096).expect_err("nobody has access");
    let why = xattr(&path, "error").expect("it says why");
    assert!(!why.contains(HUB_TOKEN) && why.contains("org/net"), "{why}");
    daemon.stop();
}
