//! Logins of every kind, kept where only the user who mounts can read them: each reaches its own server,
//! through a worker that may read none of them, and is left nowhere.

use std::fs;
use std::path::PathBuf;

use modelfs_test_support::{
    HUB_TOKEN, HubFile, HubRepo, HubServer, OCI_USER, OciLogin, OciServer, Server, bytes,
};

use crate::harness::{
    Daemon, ORDINARY, Place, Ran, User, eventually, ordinary_ids, set_mode, signal,
};
use crate::secrets::Left;

const COMMIT: &str = "1111111111111111111111111111111111111111";

/// The secrets of the static servers: each has a mark of its own.
const FILE: &str = "s3cret-of-the-file";
const COMMAND: &str = "s3cret-of-the-command";
const VARIABLE: &str = "s3cret-of-the-variable";
const PASSWORD: &str = "s3cret-password";
const NETRC: &str = "s3cret-of-netrc";

struct Scene {
    place: Place,
    /// Asked with the secrets above, in their order.
    web: Vec<Server>,
    hub: HubServer,
    oci: OciServer,
}

impl Scene {
    fn new(user: User) -> Self {
        ordinary_ids();
        let place = Place::of(user);
        let publisher = Place::new();
        let plain = publisher.path("plain");
        fs::create_dir(&plain).expect("own folder");
        let web = (0..5).map(|n| {
            fs::write(plain.join("w.bin"), bytes(n, 100_000)).expect("own file");
            publisher.publish(&plain, &format!("web-{n}/net"), "v1", &[]);
            let folder = tempfile::tempdir().expect("a folder").keep();
            fs::rename(publisher.registry(), folder.join("r")).expect("own folder");
            fs::create_dir(publisher.registry()).expect("own folder");
            Server::start(&folder.join("r"))
        });
        let web = web.collect();
        let hub = HubServer::start();
        let file = HubFile { path: "w.bin".to_owned(), bytes: bytes(9, 100_000), lfs: true };
        let repo = HubRepo {
            private: true,
            branches: vec![("main".to_owned(), COMMIT.to_owned())],
            commits: [(COMMIT.to_owned(), vec![file])].into(),
            ..HubRepo::default()
        };
        hub.put("models/people/net", repo);
        let oci = OciServer::start();
        oci.golden("images/pack", "v1", "modelpack-dir");
        oci.login(OciLogin::Token { realm: oci.realm(), private: true });
        let scene = Self { place, web, hub, oci };
        scene.keep_secrets();
        scene
    }

    /// Readable by the user who mounts, and by nobody else.
    fn private(&self, at: &str, text: &str) -> PathBuf {
        let path = self.place.path(at);
        let folder = path.parent().expect("a folder");
        fs::create_dir_all(folder).expect("own folder");
        fs::write(&path, text).expect("own file");
        set_mode(&path, 0o600);
        if self.place.user == User::Ordinary {
            let (uid, gid) = ordinary_ids();
            for path in [&path, folder] {
                std::os::unix::fs::chown(path, Some(uid), Some(gid)).expect("root may");
            }
        }
        set_mode(folder, 0o700);
        path
    }

    fn keep_secrets(&self) {
        let token = self.private("keys/token", &format!("{FILE}\n"));
        let password = self.private("keys/password", PASSWORD);
        let command = self.private("keys/command", COMMAND);
        self.private("keys/netrc", &format!("machine 127.0.0.1 login me password {NETRC}\n"));
        self.private("hf-home/token", HUB_TOKEN);
        let (user, secret) = OCI_USER;
        let login = serde_json::json!({"username": user, "password": secret});
        let logins = serde_json::json!({"auths": {self.oci.host(): login}});
        self.private("docker/config.json", &logins.to_string());
        let url: Vec<_> = self.web.iter().map(Server::url).collect();
        let text = format!(
            "read_deadline = \"5s\"\n\
             [[source]]\nname = \"file\"\nurl = \"{}\"\ntoken_file = \"{}\"\n\
             [[source]]\nname = \"command\"\nurl = \"{}\"\ntoken_command = [\"cat\", \"{}\"]\n\
             [[source]]\nname = \"variable\"\nurl = \"{}\"\ntoken_variable = \"THE_TOKEN\"\n\
             [[source]]\nname = \"basic\"\nurl = \"{}\"\nusername = \"me\"\ntoken_file = \"{}\"\n\
             [[source]]\nname = \"netrc\"\nurl = \"{}\"\n\
             [[source]]\nname = \"oci\"\nurl = \"oci://{}/images\"\n\
             [[source]]\nname = \"hub\"\nurl = \"hf://\"\n",
            url[0],
            token.display(),
            url[1],
            command.display(),
            url[2],
            url[3],
            password.display(),
            url[4],
            self.oci.host(),
        );
        self.private(".config/modelfs/modelfs.toml", &text);
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = self.place.modelfs(args);
        command
            .env("HF_ENDPOINT", self.hub.url())
            .env("HF_HOME", self.place.path("hf-home"))
            .env("DOCKER_CONFIG", self.place.path("docker"))
            .env("NETRC", self.place.path("keys/netrc"))
            .env("THE_TOKEN", VARIABLE)
            .env("MODELFS_LOG", "trace")
            .env("RUST_LOG", "trace")
            .env_remove("HF_TOKEN");
        command
    }

    fn mount(&self, more: &[&str]) -> Daemon<'_> {
        let at = self.place.mountpoint();
        let args = [&["mount", at.to_str().expect("UTF-8")], more].concat();
        Daemon::start(&self.place, self.command(&args))
    }

    fn files(&self) -> Vec<PathBuf> {
        let web = (0..5).map(|n| format!("web-{n}/net/v1/w.bin"));
        let others = ["people/net/main/w.bin", "images/pack/v1/config.json"].map(str::to_owned);
        web.chain(others).map(|path| self.place.mountpoint().join(path)).collect()
    }

    /// Every file, and that each server was given its own login.
    fn check(&self) {
        for file in self.files() {
            // As the user who mounted: nobody else may read such a mount, not even root.
            let read = self.place.program("cat").arg(&file).output().expect("cat starts");
            assert!(read.status.success() && !read.stdout.is_empty(), "{read:.200?}");
        }
        // base64 of "me:s3cret-password" and "me:s3cret-of-netrc"
        let given = [
            format!("Bearer {FILE}"),
            format!("Bearer {COMMAND}"),
            format!("Bearer {VARIABLE}"),
            "Basic bWU6czNjcmV0LXBhc3N3b3Jk".to_owned(),
            "Basic bWU6czNjcmV0LW9mLW5ldHJj".to_owned(),
        ];
        for (server, given) in self.web.iter().zip(given) {
            for request in server.requests() {
                let sent = request.headers.iter().find(|(name, _)| name == "authorization");
                assert_eq!(sent.map(|(_, value)| value), Some(&given), "{request:?}");
            }
        }
        for request in self.hub.requests() {
            let want = (!request.cdn).then(|| format!("Bearer {HUB_TOKEN}"));
            assert_eq!(request.authorization, want, "{}", request.path);
        }
    }

    fn secrets() -> Vec<String> {
        let mut all = vec!["s3cret".to_owned(), HUB_TOKEN.to_owned(), OCI_USER.1.to_owned()];
        // In base64, as headers have them.
        all.extend(["czNjcmV0", "bWU6cGxhbnRlZC1zZWNyZXQ", "planted-token-for"].map(str::to_owned));
        all
    }
}

fn logins_reach_their_servers_and_are_left_nowhere(user: User, more: &[&str]) {
    let scene = Scene::new(user);
    let daemon = scene.mount(more);
    scene.check();
    let worker = daemon.worker();
    assert!(signal(worker, "KILL"));
    eventually("another worker", || daemon.status()["daemon"]["worker"] != worker);
    // The next worker asks for the lists and for what was not committed yet, with the same logins.
    scene.check();
    let mut left = Left::default();
    for args in [
        &["status", "--json"][..],
        &["status"],
        &["list", "--remote", "--json"],
        &["info", "people/net@main"],
        &["pin", "web-0/net@v1"],
        &["pin", "web-0/none@v1"],
        &["refresh"],
        &["source", "list"],
        &["config", "show", "--origin"],
        &["config", "show", "--json"],
    ] {
        let ran = scene.command(&[args, &["-vvv"]].concat()).output().expect("starts");
        left.ran(&args.join(" "), &Ran::from(ran));
    }
    for file in scene.files() {
        left.xattrs(&file);
    }
    let log = daemon.stop();
    left.ran("the daemon", &Ran { code: 0, out: String::new(), err: log });
    left.files(&scene.place.cache());
    left.files(&scene.place.path("run"));
    left.holds_none_of(&Scene::secrets());
}

#[test]
fn a_worker_of_another_user_has_the_logins_that_only_root_can_read() {
    logins_reach_their_servers_and_are_left_nowhere(User::Me, &["--worker-user", ORDINARY]);
}

#[test]
fn a_worker_without_access_to_files_has_the_logins_of_its_user() {
    logins_reach_their_servers_and_are_left_nowhere(User::Ordinary, &[]);
}

#[test]
fn a_login_that_cannot_be_had_says_why_and_costs_no_other_source() {
    let scene = Scene::new(User::Me);
    set_mode(&scene.place.path("keys/token"), 0o644);
    let daemon = scene.mount(&["--worker-user", ORDINARY]);
    assert!(fs::read(scene.files()[1].clone()).is_ok());
    assert!(fs::metadata(daemon.path("web-0/net")).is_err());
    let status = daemon.status();
    let file = status["sources"].as_array().expect("a list").iter().find(|s| s["name"] == "file");
    let trouble = file.expect("it is listed")["trouble"].as_str().unwrap_or_default().to_owned();
    assert!(trouble.contains("chmod 600") && trouble.contains("keys/token"), "{trouble}");
    assert_eq!(scene.web[0].requests(), [], "it is not asked without the login");
    daemon.stop();
}

#[test]
fn root_without_a_daemon_uses_its_logins_on_another_users_cache() {
    let scene = Scene::new(User::Me);
    let (uid, gid) = ordinary_ids();
    std::os::unix::fs::chown(scene.place.cache(), Some(uid), Some(gid)).expect("root may");
    for reference in ["web-0/net@v1", "people/net@main", "images/pack@v1"] {
        let ran = scene.command(&["prefetch", reference]).output().expect("starts");
        assert!(ran.status.success(), "{reference}: {ran:?}");
    }
}
