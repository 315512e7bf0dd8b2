//! One mount of several sources of different kinds: which of them is asked about what, and what becomes of
//! the others when one is in trouble.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;

use modelfs_test_support::{Fault, HubFile, HubRepo, HubServer, OciServer, Server, When, bytes};

use crate::harness::{Daemon, Place, Ran, eventually, names};

const COMMIT: &str = "1111111111111111111111111111111111111111";

/// A folder, a server of static files, an OCI registry and a Hub, configured under the names `lab`, `web`,
/// `oci` and `hub`; `lab` alone may have the groups `acme` and `acme-…`.
struct Four {
    place: Place,
    web: Server,
    oci: OciServer,
    hub: HubServer,
}

fn weights(seed: u64) -> Vec<u8> {
    bytes(seed, 200_000)
}

impl Four {
    fn new() -> Self {
        let place = Place::new();
        let plain = place.path("plain");
        std::fs::create_dir(&plain).expect("own folder");
        let publish = |seed: u64, model: &str, version: &str| {
            std::fs::write(plain.join("w.bin"), weights(seed)).expect("own file");
            place.publish(&plain, model, version, &["--chunk-size", "64KiB"]);
        };
        // What is published for the server lies in another folder than the source `lab`.
        publish(1, "org/both", "v-web");
        publish(2, "org/only-web", "v1");
        publish(3, "acme/evil", "v1");
        let web_folder = place.path("web");
        std::fs::rename(place.registry(), &web_folder).expect("own folder");
        std::fs::create_dir(place.registry()).expect("own folder");
        publish(4, "org/both", "v-lab");
        publish(5, "acme/net", "v1");
        let web = Server::start(&web_folder);
        let oci = OciServer::start();
        oci.golden("images/pack", "v1", "modelpack-dir");
        let hub = HubServer::start();
        let file = |path: &str, bytes, lfs| HubFile { path: path.to_owned(), bytes, lfs };
        let files =
            vec![file("config.json", b"{}".to_vec(), false), file("w.bin", weights(6), true)];
        let repo = || HubRepo {
            branches: vec![("main".to_owned(), COMMIT.to_owned())],
            commits: [(COMMIT.to_owned(), files.clone())].into(),
            ..HubRepo::default()
        };
        hub.put("models/people/net", repo());
        hub.put("models/acme/net", repo());
        hub.put("models/acme/evil", repo());
        let four = Self { place, web, oci, hub };
        four.configure("");
        four
    }

    /// Writes the user's file, with more settings at its top.
    fn configure(&self, more: &str) {
        let (web, oci, lab) = (self.web.url(), self.oci.host(), self.place.registry());
        let text = format!(
            "{more}\n\
             [[source]]\nname = \"lab\"\nurl = \"{}\"\ngroups = [\"acme\", \"acme-*\"]\n\
             [[source]]\nname = \"lab-open\"\nurl = \"{}\"\npriority = 1\n\
             [[source]]\nname = \"web\"\nurl = \"{web}\"\npriority = 2\n\
             [[source]]\nname = \"oci\"\nurl = \"oci://{oci}/images\"\npriority = 3\n\
             [[source]]\nname = \"hub\"\nurl = \"hf://\"\npriority = 4\n\
             models = [\"people/net@main\"]\n",
            lab.display(),
            lab.display(),
        );
        let file = self.place.path(".config/modelfs/modelfs.toml");
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("own folder");
        std::fs::write(&file, text).expect("own file");
        crate::harness::set_mode(&file, 0o600);
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.modelfs(args);
        command.env("HF_ENDPOINT", self.hub.url());
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().expect("the binary starts"))
    }

    fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.out
    }

    fn mount(&self) -> Daemon<'_> {
        let at = self.place.mountpoint();
        let command = self.command(&["mount", at.to_str().expect("UTF-8")]);
        Daemon::start(&self.place, command)
    }

    /// Forgets what the servers were asked.
    fn forget(&self) {
        self.web.reset();
        self.oci.requests();
        self.hub.requests();
    }

    fn hub_paths(&self) -> Vec<String> {
        self.hub.requests().into_iter().map(|request| request.path).collect()
    }

    fn oci_paths(&self) -> Vec<String> {
        self.oci.requests().into_iter().map(|request| request.path).collect()
    }

    fn read(&self, path: &str) -> std::io::Result<Vec<u8>> {
        std::fs::read(self.place.mountpoint().join(path))
    }

    /// Every file of every source.
    fn check_files(&self) {
        assert!(self.read("org/both/v-lab/w.bin").expect("lab-open") == weights(4));
        assert!(self.read("org/only-web/v1/w.bin").expect("web") == weights(2));
        assert!(self.read("acme/net/v1/w.bin").expect("lab") == weights(5));
        assert!(self.read("people/net/main/w.bin").expect("hub") == weights(6));
        assert!(!self.read("images/pack/v1/config.json").expect("oci").is_empty());
    }
}

fn source<'a>(status: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let sources = status["sources"].as_array().expect("a list");
    sources.iter().find(|source| source["name"] == name).expect(name)
}

#[test]
fn a_walk_over_the_tree_asks_each_source_that_lists_once_and_the_others_nothing() {
    let four = Four::new();
    let daemon = four.mount();
    let mut find = four.place.program("find");
    find.arg(four.place.mountpoint()).args(["-mindepth", "1", "-maxdepth", "2"]);
    let found = Ran::from(find.output().expect("find starts"));
    assert_eq!(found.code, 0, "{found:?}");
    let root = format!("{}/", four.place.mountpoint().display());
    let mut paths: Vec<_> = found.out.lines().map(|line| line.replace(&root, "")).collect();
    paths.sort();
    let want = [
        "acme",
        "acme/net",
        "images",
        "images/pack",
        "org",
        "org/both",
        "org/only-web",
        "people",
        "people/net",
    ];
    assert_eq!(paths, want);
    assert_eq!(names(&daemon.path("org/both")), ["v-lab"], "the first by priority has it all");
    assert_eq!(four.web.requests_for("/models.json"), 1);
    let oci = four.oci_paths();
    let lists = oci.iter().filter(|path| path.contains("_catalog")).count();
    assert!(
        lists > 0 && oci.iter().all(|p| p.contains("_catalog") || p.contains("/tags/")),
        "{oci:?}"
    );
    assert_eq!(four.hub_paths(), [""; 0], "a source that cannot list");
    four.forget();
    assert_eq!(Ran::from(find.output().expect("find starts")).code, 0);
    assert_eq!((four.web.requests().len(), four.oci_paths().len()), (0, 0));
    four.check_files();
    daemon.stop();
}

#[test]
fn a_name_that_no_source_has_costs_one_request_per_source_that_may_have_it() {
    let four = Four::new();
    let daemon = four.mount();
    four.forget();
    let missing = |path: &str| {
        let error = std::fs::metadata(daemon.path(path)).expect_err(path);
        assert_eq!(error.kind(), ErrorKind::NotFound, "{path}: {error}");
    };
    missing("people/none");
    assert_eq!(four.web.requests_for("/models.json"), 1, "it may have been published a moment ago");
    assert_eq!(four.hub_paths().len(), 1);
    assert_eq!(four.oci_paths(), [""; 0], "its path is images/, so it cannot have that group");
    four.forget();
    for _ in 0..9 {
        missing("people/none");
        missing("people/none/main");
    }
    assert_eq!((four.hub_paths().len(), four.oci_paths().len()), (0, 0));
    daemon.stop();
}

#[test]
fn a_claimed_group_is_never_asked_of_another_source() {
    let four = Four::new();
    let daemon = four.mount();
    assert!(four.read("acme/net/v1/w.bin").expect("lab") == weights(5), "not the Hub's");
    assert_eq!(names(&daemon.path("acme")), ["net"], "the server's acme/evil is not shown");
    four.forget();
    for path in ["acme/evil", "acme/evil/v1/w.bin", "acme/evil/main", "acme-labs/net", "acme/x/y"] {
        let error = std::fs::metadata(daemon.path(path)).expect_err(path);
        assert_eq!(error.kind(), ErrorKind::NotFound, "{path}: {error}");
    }
    for reference in ["acme/evil@v1", "acme/evil@main", "acme-labs/net@main"] {
        let ran = four.run(&["pin", reference]);
        assert_eq!(ran.code, 3, "{reference}: {ran:?}");
    }
    assert_eq!(four.hub_paths(), [""; 0]);
    assert_eq!((four.web.requests(), four.oci_paths()), (Vec::new(), Vec::new()));
    daemon.stop();
}

#[test]
fn commands_work_on_models_of_every_source_and_say_which_it_is() {
    let four = Four::new();
    let daemon = four.mount();
    let all = [
        ("org/both@v-lab", "lab-open"),
        ("org/only-web@v1", "web"),
        ("acme/net@v1", "lab"),
        ("people/net@main", "hub"),
        ("images/pack@v1", "oci"),
    ];
    for (reference, name) in all {
        four.ok(&["pin", reference]);
        four.ok(&["prefetch", reference]);
        let info = four.run(&["info", reference, "--json"]).json();
        assert_eq!(info["registry"], name, "{info}");
        assert_eq!(info["complete"], true, "{info}");
    }
    let both = four.run(&["info", "org/both@v-lab", "--json"]).json();
    assert_eq!(both["also_in"], serde_json::json!(["web"]));
    assert!(four.ok(&["info", "org/both@v-lab"]).contains("also in"), "in the text, too");
    let listed = four.run(&["list", "--json"]).json();
    assert_eq!(listed["versions"].as_array().map(Vec::len), Some(all.len()), "{listed}");
    let status = daemon.status();
    for name in ["lab", "lab-open", "web", "oci", "hub"] {
        assert_eq!(source(&status, name)["reachable"], true, "{status}");
        assert!(source(&status, name)["catalog_age_seconds"].is_u64(), "{status}");
    }
    assert_eq!(source(&status, "web")["address"], four.web.url());
    assert_eq!(source(&status, "hub")["lists"], false);
    let text = four.ok(&["status"]);
    assert!(text.contains("SOURCE") && text.contains(&four.web.url()), "{text}");
    // A registry that is named counts alone, and this daemon serves it among others.
    four.ok(&["info", "org/only-web@v1", "--registry", &four.web.url()]);
    let other = four.run(&["info", "org/only-web@v1", "--registry", "http://127.0.0.1:1"]);
    assert_eq!(other.code, 2, "{other:?}");
    daemon.stop();
    // Without a daemon as well.
    let info = four.run(&["info", "people/net@main", "--json"]).json();
    assert_eq!(info["registry"], "hub", "{info}");
    four.ok(&["unpin", "images/pack@v1"]);
}

#[test]
fn a_source_that_is_down_from_the_start_hides_no_other_and_comes_back() {
    let four = Four::new();
    four.web.go_away();
    four.configure("read_deadline = \"5s\"\ncatalog_ttl = \"2s\"\n");
    let daemon = four.mount();
    assert!(four.read("acme/net/v1/w.bin").expect("lab") == weights(5));
    assert!(four.read("people/net/main/w.bin").expect("hub") == weights(6));
    let error = std::fs::metadata(daemon.path("org/only-web")).expect_err("web is down");
    assert_ne!(error.kind(), ErrorKind::NotFound, "an outage is no missing model: {error}");
    let error = std::fs::metadata(daemon.path("acme/none")).expect_err("nobody has it");
    assert_eq!(error.kind(), ErrorKind::NotFound, "web may not be asked about it: {error}");
    let status = daemon.status();
    assert_eq!(source(&status, "web")["reachable"], false, "{status}");
    assert!(source(&status, "web")["trouble"].is_string(), "{status}");
    assert_eq!(source(&status, "lab")["reachable"], true, "{status}");
    assert!(four.ok(&["status"]).contains("web"), "it says which");
    let refused = four.run(&["pin", "org/only-web@v1"]);
    assert_eq!(refused.code, 5, "{refused:?}");
    four.ok(&["pin", "people/net@main"]);
    four.web.come_back();
    eventually("the source that came back shows", || daemon.path("org/only-web/v1").exists());
    four.check_files();
    let log = daemon.stop();
    assert!(log.contains("web") && log.contains("the other sources are served"), "{log}");
}

#[test]
fn without_any_network_what_was_resolved_once_is_listed_and_read_after_a_restart() {
    let four = Four::new();
    let daemon = four.mount();
    four.check_files();
    daemon.stop();
    four.web.go_away();
    four.hub.down(true);
    four.oci.on(|_| Some((503, Vec::new(), Vec::new())));
    four.configure("read_deadline = \"3s\"\n");
    let daemon = four.mount();
    four.check_files();
    assert_eq!(names(&daemon.path("people/net")), ["main"]);
    let status = daemon.status();
    assert_eq!(source(&status, "web")["reachable"], false, "{status}");
    assert!(source(&status, "web")["catalog_age_seconds"].is_u64(), "how old it is: {status}");
    daemon.stop();
}

#[test]
fn no_host_outside_of_the_policy_is_asked() {
    let four = Four::new();
    let elsewhere = Server::start(&four.place.path("web"));
    let host = |url: &str| url.trim_start_matches("http://").to_owned();
    let (web, oci, hub) = (host(&four.web.url()), four.oci.host(), host(&four.hub.url()));
    four.configure(&format!(
        "read_deadline = \"5s\"\n[policy]\nallowed_hosts = [\"{web}\", \"{oci}\", \"{hub}\"]\n"
    ));
    let daemon = four.mount();
    let to = |path: &str| Fault::Redirect(Some(format!("{}{path}", elsewhere.url())));
    for entry in std::fs::read_dir(four.place.path("web/data")).expect("published") {
        let name = entry.expect("an entry").file_name();
        let path = format!("/data/{}", name.to_str().expect("hex"));
        four.web.on(&path, When::Always, to(&path));
    }
    // The Hub's large files come from another port than the Hub.
    assert_eq!(four.read("people/net/main/config.json").expect("from the Hub"), b"{}");
    for path in ["org/only-web/v1/w.bin", "people/net/main/w.bin"] {
        assert!(four.read(path).is_err(), "{path} comes from a host that is not allowed");
    }
    let why = four.run(&["prefetch", "people/net@main"]);
    assert!(why.code == 5 && why.err.contains("allowed_hosts"), "{why:?}");
    assert!(why.err.contains("modelfs.toml:3:"), "where the list is: {why:?}");
    assert_eq!(elsewhere.requests(), []);
    assert!(four.hub.requests().iter().all(|request| !request.cdn));
    daemon.stop();
}

#[test]
fn folders_of_sources_are_protected_and_one_source_may_be_named_instead() {
    let four = Four::new();
    let inside = four.place.registry().join("inside");
    std::fs::create_dir(&inside).expect("own folder");
    let refused = four.run(&["mount", inside.to_str().expect("UTF-8")]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.err.contains("the registry's folder"), "{refused:?}");
    let at: PathBuf = four.place.mountpoint();
    let one = four.command(&["mount", at.to_str().expect("UTF-8"), "--registry", &four.web.url()]);
    let daemon = Daemon::start(&four.place, one);
    assert_eq!(names(&daemon.path("org")), ["both", "only-web"]);
    assert!(
        daemon.path("acme/evil").exists(),
        "the file's claims are of sources that are not used"
    );
    daemon.stop();
    assert_eq!(four.hub_paths(), [""; 0]);
}
