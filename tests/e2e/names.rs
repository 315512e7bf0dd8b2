//! Names as hostile registries give them: what leads elsewhere is refused, what is only odd is
//! served under its own bytes, and nothing of it speaks to a terminal.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use modelfs::model::hash::sha256;
use modelfs_test_support::{Fault, Server, When};
use serde_json::{Value, json};

use crate::harness::{Daemon, Place, eventually, set_mode};

/// A registry's folder written by hand, since `publish` refuses to.
#[derive(Default)]
struct HandMade {
    catalog: BTreeMap<String, BTreeMap<String, BTreeMap<String, Value>>>,
}

impl HandMade {
    /// Adds a version with these files.
    fn version(&mut self, place: &Place, name: [&str; 3], files: &[(&str, &[u8])]) {
        let stream: Vec<u8> = files.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
        let chunks = if stream.is_empty() { vec![] } else { vec![put(place, &stream)] };
        let listed: Vec<_> =
            files.iter().map(|(path, bytes)| json!({"path": path, "size": bytes.len()})).collect();
        let manifest = json!({"total_size": stream.len(), "chunk_size": stream.len().max(1),
                              "chunks": chunks, "files": listed});
        self.entry(name, json!({"hash": put(place, manifest.to_string().as_bytes())}));
    }

    fn entry(&mut self, [group, model, version]: [&str; 3], entry: Value) {
        let models = self.catalog.entry(group.to_owned()).or_default();
        models.entry(model.to_owned()).or_default().insert(version.to_owned(), entry);
    }

    fn write(&self, place: &Place) {
        let text = serde_json::to_vec(&self.catalog).expect("plain data");
        fs::write(place.registry().join("models.json"), text).expect("a file");
    }
}

/// Puts an object into the registry's folder; its name.
fn put(place: &Place, bytes: &[u8]) -> String {
    let digest = sha256(bytes).to_string();
    let data = place.registry().join("data");
    fs::create_dir_all(&data).expect("a folder");
    fs::write(data.join(&digest), bytes).expect("a file");
    digest
}

fn listed(folder: &Path) -> std::io::Result<Vec<String>> {
    let entry = |e: std::io::Result<fs::DirEntry>| Ok(e?.file_name().into_string().expect("UTF-8"));
    let mut names: Vec<_> = fs::read_dir(folder)?.map(entry).collect::<std::io::Result<_>>()?;
    names.sort();
    Ok(names)
}

#[test]
fn names_that_lead_elsewhere_are_refused_and_the_rest_is_served() {
    let place = Place::new();
    let deep = ["d"; 10_000].join("/");
    let level_65 = ["d"; 65].join("/");
    let long = "x".repeat(256);
    let bad: [&str; 21] = [
        "../x",
        "../../../../tmp/x",
        "a/../../x",
        "a/..",
        "..",
        ".",
        "./x",
        "/etc/passwd",
        "//x",
        "a//b",
        "a/",
        "",
        "..\\x",
        "C:\\x",
        "nul\0",
        "line\nfeed",
        "\u{1b}[2J",
        "c1\u{9b}2J",
        ".modelfs/x",
        &deep,
        &level_65,
    ];
    let mut registry = HandMade::default();
    let names: Vec<_> = (0..).map(|n| format!("v{n}")).take(bad.len() + 1).collect();
    for (path, name) in bad.iter().chain([&&*long]).zip(&names) {
        registry.version(&place, ["org", "net", name], &[("fine", b"fine"), (path, b"evil")]);
    }
    let level_64 = ["d"; 64].join("/");
    registry.version(&place, ["org", "net", "good"], &[("fine", b"fine"), (&level_64, b"deep")]);
    registry.write(&place);
    let daemon = place.mount_folder(&[]);
    for name in &names {
        let folder = daemon.path("org/net").join(name);
        for error in [listed(&folder).err(), fs::read(folder.join("fine")).err()] {
            let error = error.unwrap_or_else(|| panic!("{name} is served"));
            assert_eq!(error.raw_os_error(), Some(5), "{name}: an error, never ENOENT: {error}");
        }
        let ran = place.run(["info", &format!("org/net@{name}")]);
        assert_eq!(ran.code, 5, "{ran:?}");
        assert!(ran.err.contains("files[1].path ") && ran.err.len() < 1000, "{ran:?}");
    }
    assert_eq!(fs::read(daemon.path("org/net/good/fine")).expect("served"), b"fine");
    assert_eq!(fs::read(daemon.path("org/net/good").join(&level_64)).expect("served"), b"deep");
    daemon.stop();
}

/// Names of groups, models and versions that no path can hold.
fn impossible() -> [String; 9] {
    let long = "x".repeat(256);
    ["..", ".", "", "a/b", "/etc", "a\\b", "a\nb", "\u{1b}[2J", &long].map(str::to_owned)
}

#[test]
fn a_name_in_a_catalog_that_leads_elsewhere_is_left_out_and_said_and_the_rest_is_served() {
    for name in impossible() {
        for at in 0..3 {
            let place = Place::new();
            let mut registry = HandMade::default();
            let mut names = ["org", "net", "v"];
            registry.version(&place, names, &[("a", b"a")]);
            names[at] = &name;
            registry.version(&place, names, &[("a", b"evil")]);
            registry.write(&place);
            let ran = place.run([
                "list".as_ref(),
                "--remote".as_ref(),
                "--registry".as_ref(),
                place.registry().as_os_str(),
            ]);
            assert_eq!(ran.code, 0, "{ran:?}");
            assert_eq!(ran.out.lines().count(), 2, "{ran:?}");
            assert!(ran.out.contains("org/net@v "), "{ran:?}");
            let kind = ["group", "model", "version"][at];
            assert!(ran.err.contains(&format!("the {kind} name ")), "{ran:?}");
        }
    }
}

#[test]
fn names_that_are_left_out_stand_in_the_status_and_once_in_the_log() {
    let place = Place::new();
    let mut registry = HandMade::default();
    registry.version(&place, ["org", "net", "v"], &[("a", b"a")]);
    for name in impossible() {
        for at in 0..3 {
            let mut names = ["org", "net", "v"];
            names[at] = &name;
            registry.version(&place, names, &[("a", b"evil")]);
        }
    }
    registry.write(&place);
    let daemon = place.mount_folder(&["--catalog-ttl", "100ms"]);
    assert_eq!(listed(&daemon.path("")).expect("listed"), ["org"]);
    assert_eq!(listed(&daemon.path("org")).expect("listed"), ["net"]);
    assert_eq!(listed(&daemon.path("org/net")).expect("listed"), ["v"]);
    assert_eq!(fs::read(daemon.path("org/net/v/a")).expect("served"), b"a");
    let left_out = || daemon.status()["registry"]["left_out"]["count"].as_u64();
    assert_eq!(left_out(), Some(27));
    let status = place.ok(["status"]);
    let line = status.lines().find(|l| l.starts_with("left out")).expect("a line");
    assert!(line.contains("27 names") && line.contains("the group name"), "{status}");
    assert!(line.len() < 1000, "{status}");
    // Another edition with the same names has nothing new to say.
    registry.version(&place, ["org", "net", "w"], &[("a", b"a")]);
    registry.write(&place);
    eventually("the next edition", || daemon.path("org/net/w/a").exists());
    registry.catalog.retain(|group, _| group == "org");
    let models = registry.catalog.get_mut("org").expect("a group");
    models.retain(|model, _| model == "net");
    models.get_mut("net").expect("a model").retain(|version, _| version == "v");
    registry.write(&place);
    eventually("nothing is left out any more", || left_out().is_none());
    let log = daemon.stop();
    assert_eq!(log.matches("no path can hold are left out").count(), 1, "{log}");
}

/// Names that are the same, or none at all, on some other system.
const ODD: [&str; 14] = [
    "A",
    "a",
    "CON",
    "nul.txt",
    "COM1",
    "caf\u{e9}",
    "cafe\u{301}",
    "CAF\u{c9}",
    "\u{430}",
    "a\u{202e}txt.exe",
    "zero\u{200b}width",
    "dot.",
    "what?",
    "C:",
];

#[test]
fn names_are_bytes_and_nothing_else() {
    let place = Place::new();
    let mut registry = HandMade::default();
    let files: Vec<(&str, &[u8])> = ODD.iter().map(|n| (*n, n.as_bytes())).collect();
    registry.version(&place, ["org", "net", "v"], &files);
    for (group, model, version) in [("Org", "net", "v"), ("org", "NET", "v"), ("org", "net", "V")] {
        registry.version(&place, [group, model, version], &[("which", group.as_bytes())]);
    }
    registry.write(&place);
    let daemon = place.mount_folder(&[]);
    let mut all: Vec<_> = ODD.iter().map(|n| (*n).to_owned()).collect();
    all.sort();
    assert_eq!(listed(&daemon.path("org/net/v")).expect("listed"), all);
    for name in ODD {
        let bytes = fs::read(daemon.path("org/net/v").join(name)).expect("served");
        assert_eq!(bytes, name.as_bytes(), "each name has its own bytes");
    }
    assert_eq!(fs::read(daemon.path("Org/net/v/which")).expect("served"), b"Org");
    assert_eq!(fs::read(daemon.path("org/net/V/which")).expect("served"), b"org");
    let other = fs::read(daemon.path("ORG/net/v/which")).expect_err("nobody's name");
    assert_eq!(other.raw_os_error(), Some(2));
    daemon.stop();
}

/// What a terminal would obey.
fn obeyed(text: &str) -> Option<char> {
    text.chars().find(|c| {
        (c.is_control() && *c != '\n')
            || matches!(*c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
    })
}

#[test]
fn no_command_prints_terminal_escapes_of_a_name() {
    let place = Place::new();
    let (model, version) = ("m\u{202e}ledom", "v\u{200b}1");
    let mut registry = HandMade::default();
    let files: [(&str, &[u8]); 2] = [("txt\u{202e}exe", &[7; 9000]), ("b\u{200f}", b"")];
    registry.version(&place, ["g\u{200e}", model, version], &files);
    registry.version(
        &place,
        ["g\u{200e}", model, "bad\u{202e}"],
        &[("a", b""), ("a\u{202e}\u{9b}", b"")],
    );
    let models = registry.catalog.get_mut("g\u{200e}").expect("just made");
    models.get_mut(model).expect("just made").get_mut(version).expect("just made")["metadata"] =
        json!({"note\u{1b}[2J": "\u{1b}]0;title\u{7}\u{9b}31m\u{202e}\n\rerror: forged"});
    registry.write(&place);
    let daemon = place.mount_folder(&["-v"]);
    let name = format!("g\u{200e}/{model}@{version}");
    let name = name.as_str();
    let blob = || {
        let all =
            std::process::Command::new("find").arg(place.cache()).output().expect("find").stdout;
        let all = String::from_utf8(all).expect("UTF-8");
        let blob =
            all.lines().find(|l| l.contains("/blobs/") && l.len() > 60 && !l.ends_with(".sums"));
        blob.expect("a blob").to_owned()
    };
    let commands: [&[&str]; 14] = [
        &["list", "--remote"],
        &["info", name],
        &["prefetch", name],
        &["pin", name, "--owner", "o\u{202e}renwo"],
        &["list"],
        &["evict", name],
        &["evict", "--all"],
        &["unpin", name],
        &["unpin", name, "--owner", "o\u{202e}renwo"],
        &["status"],
        &["info", &name.replace(version, "bad\u{202e}")],
        &["info", "g\u{200e}/\u{202e}@v"],
        &["info", "\u{1b}[2J"],
        &["publish", ".", "a\u{9b}/b/c", "v", "--registry", "x"],
    ];
    let check = |args: &[&str]| {
        let ran = place.run(args);
        assert_eq!(obeyed(&ran.out).or(obeyed(&ran.err)), None, "{args:?}: {ran:?}");
        assert!(ran.code >= 0, "{args:?}: {ran:?}");
        ran
    };
    for args in commands {
        check(args);
        let ran = check(&[args, &["--json"]].concat());
        for line in ran.out.lines().chain(ran.err.lines()) {
            serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        }
    }
    let same = place.run(["list", "--remote", "--json"]).json();
    let models: Vec<_> =
        same["versions"].as_array().expect("a list").iter().map(|v| &v["model"]).collect();
    assert_eq!(models, [model, model], "escaped, but the same name");

    // A path is for scripts, which need it as it is; a terminal gets it escaped.
    let path = place.ok(["path", name]);
    assert_eq!(Path::new(path.trim_end_matches('\n')), daemon.path(&name.replace('@', "/")));
    let spawn = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";
    let shown = place
        .program("python3")
        .args(["-c", spawn])
        .arg(crate::harness::binary())
        .args(["path", name])
        .output()
        .expect("python3 starts");
    let shown = String::from_utf8(shown.stdout).expect("UTF-8").replace('\r', "");
    assert_eq!(obeyed(&shown), None, "{shown:?}");
    assert!(shown.contains("\\u{202e}ledom"), "{shown:?}");

    // Damage is told with names, in the log as well.
    check(&["prefetch", name]);
    let blob = blob();
    set_mode(Path::new(&blob), 0o600);
    fs::write(&blob, vec![8; 9000]).expect("the test's own");
    let damage = check(&["verify"]);
    assert!(damage.code == 6 && damage.err.contains("txt\\u{202e}exe"), "{damage:?}");
    let error = fs::read(daemon.path(&format!("g\u{200e}/{model}/bad\u{202e}/a")));
    assert!(error.is_err());
    let log = daemon.stop();
    assert_eq!(obeyed(&log), None, "{log:?}");
    assert!(log.contains("\\u{202e}"), "names are in the log: {log}");
}

#[test]
fn a_folder_whose_name_is_not_utf_8_is_refused_in_words() {
    let place = Place::new();
    let odd = place.dir.path().join(std::ffi::OsString::from_vec(b"odd\xff".to_vec()));
    fs::create_dir(&odd).expect("Linux takes any bytes");
    let mount = ["mount".as_ref(), odd.as_os_str(), "--registry".as_ref(), "/nonexistent".as_ref()];
    let cache: [&std::ffi::OsStr; 3] = ["status".as_ref(), "--cache-dir".as_ref(), odd.as_os_str()];
    for args in [&mount[..], &cache[..]] {
        let ran = place.run(args);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains("UTF-8") && !ran.err.contains("panicked"), "{ran:?}");
    }
}

/// The most memory that the daemon ever had, in bytes.
fn peak(daemon: &Daemon<'_>) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.worker())).expect("it lives");
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("Linux says it");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

#[test]
fn millions_of_files_are_refused_without_the_memory_for_them() {
    let place = Place::new();
    let mut registry = HandMade::default();
    registry.version(&place, ["org", "net", "good"], &[("a", b"a")]);
    // Ten million files take more than a manifest may have: nothing of it is read.
    let ten_million = sha256(b"ten million").to_string();
    let data = place.registry().join("data");
    let file = fs::File::create(data.join(&ten_million)).expect("a file");
    file.set_len(10_000_000 * 30).expect("a sparse file");
    registry.entry(["org", "net", "10M"], json!({"hash": ten_million}));
    // As many as fit, and are too many.
    let fits = |item: &dyn Fn(usize) -> String, count: usize| {
        let items: Vec<_> = (0..count).map(item).collect();
        format!(
            "{{\"total_size\":0,\"chunk_size\":1,\"chunks\":[],\"files\":[{}]}}",
            items.join(",")
        )
    };
    let flat = fits(&|_| "{\"path\":\"a\",\"size\":0}".to_owned(), 2_700_000);
    registry.entry(["org", "net", "flat"], json!({"hash": put(&place, flat.as_bytes())}));
    // Few files, in folders that are many.
    let below = ["d"; 62].join("/");
    let deep = fits(&|n| format!("{{\"path\":\"{n}/{below}/f\",\"size\":0}}"), 400_000);
    registry.entry(["org", "net", "deep"], json!({"hash": put(&place, deep.as_bytes())}));
    drop((flat, deep));
    registry.write(&place);
    let server = Server::start(&place.registry());
    // Its length is not announced: it is read up to the limit.
    server.on(&ten_million, When::Always, Fault::Chunked);
    let daemon = place.mount(&server.url(), &[]);
    fs::read(daemon.path("org/net/good/a")).expect("served");
    let before = peak(&daemon);
    for (version, why) in [
        ("10M", "more than 67108864 bytes"),
        ("flat", "more than 1000000"),
        ("deep", "more than 1000000 folders"),
    ] {
        let error = listed(&daemon.path("org/net").join(version)).expect_err("refused");
        assert_eq!(error.raw_os_error(), Some(5), "{version}: {error}");
        let said = place.run(["info", &format!("org/net@{version}")]);
        assert!(said.err.contains(why), "{version}: {said:?}");
        println!("{version}: at most {} MiB more", (peak(&daemon) - before) >> 20);
    }
    let more = peak(&daemon) - before;
    assert!(more < 512 << 20, "{} MiB", more >> 20);
    assert_eq!(fs::read(daemon.path("org/net/good/a")).expect("served"), b"a");
    eventually("it answers", || daemon.status()["daemon"].is_object());
    daemon.stop();
}

#[test]
fn sizes_that_are_only_announced_cost_nothing() {
    let place = Place::new();
    let mut registry = HandMade::default();
    registry.version(&place, ["org", "net", "good"], &[("a", b"a")]);
    let names = |prefix: &str| -> Vec<_> {
        (0..2048).map(|n| sha256(format!("{prefix}{n}").as_bytes()).to_string()).collect()
    };
    let mut huge = |version: &str, total: u64, chunk: u64, leaf: u64, count: usize| {
        let manifest = json!({
            "total_size": total, "chunk_size": chunk, "chunks": names("chunk")[..count],
            "files": [{"path": "w", "size": total}], "leaf_size": leaf, "leaves": names("list")[..count],
        });
        let hash = put(&place, manifest.to_string().as_bytes());
        registry.entry(["org", "net", version], json!({"hash": hash}));
    };
    // As much as may be said; more segments, leaves of a chunk, leaves in all than may be.
    huge("most", 1 << 44, 1 << 33, 64 << 10, 2048);
    huge("segments", 1 << 57, 1 << 46, 64 << 20, 2048);
    huge("chunk", 1 << 40, 1 << 40, 4 << 10, 1);
    huge("leaves", 1 << 44, 1 << 33, 4 << 10, 2048);
    registry.write(&place);
    let server = Server::start(&place.registry());
    let daemon = place.mount(&server.url(), &["--read-deadline", "2s"]);
    fs::read(daemon.path("org/net/good/a")).expect("served");
    let before = peak(&daemon);
    let path = daemon.path("org/net/most/w");
    assert_eq!(fs::metadata(&path).expect("it is offered").len(), 1 << 44);
    let file = fs::File::open(&path).expect("it opens");
    for at in [0, 1 << 43, (1 << 44) - 4096] {
        let error = file.read_exact_at(&mut [0; 4096], at).expect_err("there is none of it");
        assert!(matches!(error.raw_os_error(), Some(5 | 110)), "{error}");
    }
    for version in ["segments", "chunk", "leaves"] {
        let error = listed(&daemon.path("org/net").join(version)).expect_err("refused");
        assert_eq!(error.raw_os_error(), Some(5), "{version}: {error}");
    }
    let more = peak(&daemon) - before;
    println!("16 TiB announced: at most {} MiB more", more >> 20);
    assert!(more < 128 << 20, "{} MiB", more >> 20);
    assert_eq!(daemon.status()["cache"]["blobs"], 1, "{}", daemon.status());
    daemon.stop();
}
