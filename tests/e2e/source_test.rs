//! `modelfs source test`: what it says of sources that work and of those that do not.

use modelfs_test_support::{
    Fault, HubServer, ModelDir, OciLogin, OciServer, Server, TestRegistry, When,
};

use crate::harness::{Place, Ran, set_mode};

struct Scene {
    place: Place,
    server: Server,
    _registry: TestRegistry,
}

impl Scene {
    fn new() -> Self {
        let registry = TestRegistry::new();
        registry.publish("org/net@v1", &ModelDir::of(&[("w", 50_000)]), 4096);
        let server = Server::start(registry.path());
        Self { place: Place::new(), server, _registry: registry }
    }

    fn configure(&self, text: &str) {
        let file = self.place.path("sources.toml");
        std::fs::write(&file, text).expect("own file");
    }

    fn test(&self, args: &[&str]) -> Ran {
        let mut command = self.place.modelfs(["source", "test", "--config", "sources.toml"]);
        command.args(args);
        Ran::from(command.output().expect("the binary starts"))
    }
}

/// The step that failed: its name, and text and hint together.
fn failed(ran: &Ran, name: &str) -> (String, String) {
    let answer = ran.json();
    let sources = answer["sources"].as_array().expect("a list");
    let source = sources.iter().find(|source| source["name"] == name).expect(name);
    assert_eq!(source["works"], false, "{answer}");
    let steps = source["steps"].as_array().expect("a list");
    let last = steps.last().expect("a step");
    assert_eq!(last["works"], false, "{answer}");
    let text = |key: &str| last[key].as_str().unwrap_or_default().to_owned();
    (text("what"), format!("{}: {}", text("text"), text("hint")))
}

#[test]
fn a_source_that_works_is_tested_step_by_step() {
    let scene = Scene::new();
    let folder = scene._registry.path().display().to_string();
    scene.configure(&format!(
        "[[source]]\nname = \"web\"\nurl = \"{}\"\n[[source]]\nname = \"folder\"\nurl = \"{folder}\"\n",
        scene.server.url()
    ));
    let ran = scene.test(&["--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let answer = ran.json();
    let steps = |n: usize| -> Vec<String> {
        let steps = answer["sources"][n]["steps"].as_array().expect("a list");
        steps.iter().map(|step| step["what"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(steps(0), ["address", "name", "connection", "login", "list", "read"]);
    assert_eq!(steps(1), ["address", "list", "read"]);
    let text = scene.test(&["web"]);
    assert!(text.code == 0 && text.out.contains("/s") && !text.out.contains("folder"), "{text:?}");
    let unknown = scene.test(&["none"]);
    assert!(unknown.code == 2 && unknown.err.contains("source list"), "{unknown:?}");
    assert!(!scene.place.cache().join("index.db").exists(), "nothing is stored");
}

#[test]
fn what_is_wrong_with_a_source_is_named_with_what_to_do() {
    let scene = Scene::new();
    let token = scene.place.path("token");
    std::fs::write(&token, "s3cret").expect("own file");
    set_mode(&token, 0o644);
    let gone = tempfile::tempdir().expect("a folder").path().join("gone");
    scene.configure(&format!(
        "[policy]\nallowed_hosts = [\"127.0.0.1\", \"no-such-host.invalid\"]\n\
         [[source]]\nname = \"closed\"\nurl = \"http://127.0.0.1:1\"\n\
         [[source]]\nname = \"unknown\"\nurl = \"http://no-such-host.invalid\"\n\
         [[source]]\nname = \"exposed\"\nurl = \"{0}\"\ntoken_file = \"{1}\"\n\
         [[source]]\nname = \"other\"\nurl = \"{0}/elsewhere\"\n\
         [[source]]\nname = \"plain\"\nurl = \"https://127.0.0.1:{3}\"\n\
         [[source]]\nname = \"unmounted\"\nurl = \"{2}\"\n\
         [[source]]\nname = \"good\"\nurl = \"{0}\"\n",
        scene.server.url(),
        token.display(),
        gone.display(),
        scene.server.address().port(),
    ));
    let ran = scene.test(&["--json"]);
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(!ran.out.contains("s3cret") && !ran.err.contains("s3cret"), "{ran:?}");
    for (name, step, says) in [
        ("closed", "connection", "does the server run"),
        ("unknown", "name", "resolver"),
        ("exposed", "login", "chmod 600"),
        ("other", "list", "path of the address"),
        ("plain", "list", "plain"),
        ("unmounted", "list", "mounted"),
    ] {
        let (what, text) = failed(&ran, name);
        assert_eq!(what, step, "{name}: {text}");
        assert!(name == "plain" || text.contains(says), "{name}: {text}");
    }
    assert!(ran.err.contains("closed") && !ran.err.contains("good"), "{ran:?}");
    scene.server.on("/models.json", When::Always, Fault::Status(401, None));
    let refused = scene.test(&["good", "--json"]);
    let (what, text) = failed(&refused, "good");
    assert!(what == "list" && text.contains("token_file"), "{what}: {text}");
}

#[test]
fn a_source_that_does_not_list_is_asked_for_a_model() {
    let scene = Scene::new();
    let (hub, oci) = (HubServer::start(), OciServer::start());
    oci.golden("images/pack", "v1", "modelpack-dir");
    oci.login(OciLogin::Basic);
    scene.configure(&format!(
        "[[source]]\nname = \"hub\"\nurl = \"hf://\"\n\
         [[source]]\nname = \"oci\"\nurl = \"oci://{}/images\"\n",
        oci.host()
    ));
    let hub_test = |args: &[&str]| {
        let mut command =
            scene.place.modelfs(["source", "test", "--config", "sources.toml", "hub"]);
        command.args(args).env("HF_ENDPOINT", hub.url());
        Ran::from(command.output().expect("the binary starts"))
    };
    let without = hub_test(&[]);
    assert!(without.code == 0 && without.out.contains("--model"), "{without:?}");
    assert!(hub.requests().is_empty());
    let missing = hub_test(&["--model", "org/none", "--json"]);
    assert_eq!(missing.code, 3, "{missing:?}");
    let unlisted = scene.test(&["oci"]);
    assert!(unlisted.code == 0 && unlisted.out.contains("docker login"), "{unlisted:?}");
    let refused = scene.test(&["oci", "--json", "--model", "images/pack"]);
    assert_eq!(refused.code, 5, "{refused:?}");
    let (_, text) = failed(&refused, "oci");
    assert!(text.contains("docker login"), "{text}");
}
