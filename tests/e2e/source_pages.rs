//! The pages of docs/sources say what to type: the tests type it, with the addresses of their own servers.

use std::path::Path;

use modelfs_test_support::{HubFile, HubRepo, HubServer, OciServer, Server, bytes};

use crate::harness::{Place, Ran, binary, is_mounted};

const COMMIT: &str = "1111111111111111111111111111111111111111";

/// The first commands of a page.
fn commands(page: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/sources").join(page);
    let text = std::fs::read_to_string(path).expect("the page exists");
    let block = text.split("```sh\n").nth(1).expect("a block of commands");
    block.split("```").next().unwrap_or_default().to_owned()
}

/// Runs the commands of a page, in which each first text is replaced by the second.
fn run(place: &Place, page: &str, replaced: &[(&str, &str)], hub: &str) -> String {
    let mut script = commands(page);
    let at = place.mountpoint();
    let at = at.to_str().expect("UTF-8");
    // The mount point last: addresses may contain its name.
    for (from, to) in replaced.iter().chain(&[("/models", at)]) {
        assert!(script.contains(from), "{page} has no {from}: {script}");
        script = script.replace(from, to);
    }
    let folder = binary().parent().expect("a folder").to_owned();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = place.program("sh");
    command
        .args(["-e", "-c", &script])
        .env("PATH", format!("{}:{path}", folder.display()))
        .env("HF_ENDPOINT", hub);
    let ran = Ran::from(command.output().expect("sh starts"));
    if is_mounted(&place.mountpoint()) {
        place.run(["unmount", at]);
        panic!("a mount was left: {ran:?}");
    }
    assert_eq!(ran.code, 0, "{page}: {ran:?}");
    ran.out
}

#[test]
fn what_the_page_of_static_registries_says_works() {
    let place = Place::new();
    let plain = place.path("plain");
    std::fs::create_dir(&plain).expect("own folder");
    std::fs::write(plain.join("weights.bin"), bytes(1, 100_000)).expect("own file");
    place.publish(&plain, "org/my-model", "v1", &[]);
    let server = Server::start(&place.registry());
    let replaced = [("https://models.example.org", &*server.url())];
    let out = run(&place, "xprim.md", &replaced, "http://127.0.0.1:1");
    assert!(out.contains("weights.bin") && out.contains("good"), "{out}");
}

#[test]
fn what_the_page_of_the_hub_says_works() {
    let hub = HubServer::start();
    let bytes = br#"{"architectures":["Tiny"]}"#.to_vec();
    let file = HubFile { path: "config.json".to_owned(), bytes, lfs: false };
    let repo = HubRepo {
        branches: vec![("main".to_owned(), COMMIT.to_owned())],
        commits: [(COMMIT.to_owned(), vec![file])].into(),
        ..HubRepo::default()
    };
    hub.put("models/org/my-model", repo);
    let out = run(&Place::new(), "huggingface.md", &[], &hub.url());
    assert!(out.contains("architectures") && out.contains("main"), "{out}");
}

#[test]
fn what_the_page_of_oci_registries_says_works() {
    let server = OciServer::start();
    server.golden("org/my-model", "v1", "modelpack-dir");
    let replaced = [("registry.example.org", &*server.host())];
    let out = run(&Place::new(), "oci.md", &replaced, "http://127.0.0.1:1");
    assert!(out.contains("model.safetensors"), "{out}");
}
