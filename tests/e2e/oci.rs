//! Docker's own registry under a mount, with artifacts that foreign tools wrote.

use std::process::Command;

use modelfs::model::hash::sha256;
use modelfs_test_support::{DockerLogin, DockerRegistry};

use crate::harness::{Daemon, Place, names, xattr};

fn mount<'a>(place: &'a Place, registry: &str) -> Daemon<'a> {
    let mut command: Command = place.modelfs(["mount"]);
    command.arg(place.mountpoint()).args(["--registry", registry, "--read-deadline", "3s"]);
    Daemon::start(place, command)
}

#[test]
fn artifacts_of_foreign_tools_are_read_by_tag_also_without_a_network() {
    let place = Place::new();
    let registry = DockerRegistry::start(DockerLogin::Anyone);
    registry.push("org/pack", "v1", "modelpack-dir");
    registry.push("org/docker", "latest", "docker-v0.1-gguf");
    let url = format!("oci://{}/org", registry.host());
    let daemon = mount(&place, &url);
    assert_eq!(names(&daemon.path("org")), ["docker", "pack"]);
    assert_eq!(names(&daemon.path("org/pack")), ["v1"]);
    let pack = daemon.path("org/pack/v1");
    assert_eq!(names(&pack), ["README.md", "config.json", "model.safetensors", "onnx"]);
    let check = |daemon: &Daemon<'_>| {
        for path in ["org/pack/v1/model.safetensors", "org/docker/latest/tiny.gguf"] {
            let path = daemon.path(path);
            let read = sha256(&std::fs::read(&path).unwrap()).to_string();
            assert_eq!(xattr(&path, "sha256"), Some(read), "{}", path.display());
        }
    };
    check(&daemon);
    place.ok(["pin", "org/pack@v1"]);
    let missing = std::fs::metadata(daemon.path("org/none")).unwrap_err();
    assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
    daemon.stop();

    drop(registry);
    let daemon = mount(&place, &url);
    check(&daemon);
    daemon.stop();
}
