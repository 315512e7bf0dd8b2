//! Publishing into a folder that another user has prepared: nothing outside of it is changed, and nothing
//! in it blocks the publisher.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use super::*;

/// Longer than any publish here takes; a fifo would block it forever.
const PATIENCE: Duration = Duration::from_secs(30);

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// A folder to publish, a registry's folder, and an unrelated folder.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["source", "registry", "outside"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        fs::write(dir.path().join("source/a"), "content").unwrap();
        fs::write(dir.path().join("outside/theirs"), "theirs").unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn fifo(&self, name: &str) {
        let made = std::process::Command::new("mkfifo").arg(self.path(name)).status();
        assert!(made.unwrap().success());
    }

    /// The result of publishing, which must end.
    fn publish(&self) -> Result<Published, PublishError> {
        let version = "g/m@v1".parse().unwrap();
        let request = PublishRequest::new(self.path("source"), version, self.path("registry"));
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let _ = tell.send(publish(&request, &|_| ()));
        });
        told.recv_timeout(PATIENCE).expect("it does not hang")
    }

    fn outside(&self) -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(self.path("outside")).unwrap().map(Result::unwrap);
        let one = |e: fs::DirEntry| {
            let bytes = fs::read(e.path()).unwrap_or_default();
            (e.file_name().into_string().unwrap(), bytes)
        };
        let mut all: Vec<_> = entries.map(one).collect();
        all.sort();
        all
    }
}

fn untouched() -> Vec<(String, Vec<u8>)> {
    vec![("theirs".into(), b"theirs".to_vec())]
}

fn named(error: &PublishError, what: &str) {
    let text = error.to_string();
    assert!(text.contains(what) && !text.contains('\n'), "{text}");
}

#[test]
fn a_link_in_the_registrys_folder_is_refused_and_nothing_is_written_where_it_leads() {
    for (link, target, is) in [
        (".publish.lock", "../outside/lock", "links"),
        (".publish.lock", "../outside/theirs", "links"),
        ("data", "../outside", "links"),
        ("models.json", "../outside/catalog", "links"),
        ("models.json", "../outside/theirs", "links"),
    ] {
        let place = Place::new();
        symlink(target, place.path("registry").join(link)).unwrap();
        let error = place.publish().expect_err(link);
        named(&error, link);
        named(&error, is);
        assert_eq!(place.outside(), untouched(), "{link} -> {target}");
    }
}

#[test]
fn a_link_in_place_of_an_object_is_replaced_by_the_object() {
    let place = Place::new();
    let digest = sha256(b"content");
    fs::write(place.path("outside/theirs"), "CONTENT").unwrap();
    fs::create_dir(place.path("registry/data")).unwrap();
    let object = place.path("registry").join(xprim::object_path(&digest));
    symlink(Path::new("../../outside/theirs"), &object).unwrap();
    let published = place.publish().unwrap();
    assert_eq!(published.chunks_new, 1, "what a link leads to is not the registry's");
    assert!(fs::symlink_metadata(&object).unwrap().is_file());
    assert_eq!(fs::read(&object).unwrap(), b"content");
    assert_eq!(place.outside(), [("theirs".to_owned(), b"CONTENT".to_vec())]);
}

#[test]
fn a_fifo_in_the_registrys_folder_is_refused_at_once() {
    for name in [".publish.lock", "models.json"] {
        let place = Place::new();
        place.fifo(&format!("registry/{name}"));
        let error = place.publish().expect_err(name);
        named(&error, name);
        named(&error, "is not a regular file");
    }
}
