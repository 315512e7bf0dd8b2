//! Layers, files and what they make together.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::file::{Level, MAX_FILE, parse};
use super::*;
use crate::base::units::ByteSize;

fn environment(of: &[(&str, &str)]) -> Result<Layer, ConfigError> {
    let find = |name: &str| of.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
    Layer::from_environment(find)
}

fn file(text: &str, level: Level) -> Result<Layer, ConfigError> {
    let path = match level {
        Level::System => "/etc/modelfs/modelfs.toml",
        Level::User => "/home/ann/modelfs.toml",
        Level::Project => "/work/modelfs.toml",
    };
    parse(text, Path::new(path), level)
}

fn resolved(files: &[(&str, Level)]) -> Result<Config, ConfigError> {
    let layers = files.iter().map(|(text, level)| file(text, *level));
    Config::resolve(layers.collect::<Result<Vec<_>, _>>()?)
}

/// The error of a user's file with this text.
fn refused(text: &str) -> ConfigError {
    match resolved(&[(text, Level::User)]) {
        Err(error) => error,
        Ok(config) => panic!("{text} is accepted: {config:?}"),
    }
}

#[test]
fn without_layers_everything_is_default() {
    let config = Config::resolve([]).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.entries().len(), KEYS.len());
    assert!(config.entries().iter().all(|e| e.origin == Origin::Default));
}

#[test]
fn a_later_layer_wins_and_every_value_knows_its_origin() {
    let low = file("# mine\nthreads = 5\n  hang_timeout = \"9s\"", Level::System).unwrap();
    let middle = environment(&[("MODELFS_THREADS", "7"), ("MODELFS_CACHE_SIZE", "2GiB")]).unwrap();
    let high = Layer { threads: Some(Setting::argument("--threads", 9)), ..Layer::default() };
    let config = Config::resolve([low, middle, high]).unwrap();
    assert_eq!(config.threads, Setting::argument("--threads", 9));
    let size = config.cache_size.unwrap();
    assert_eq!(size.value, ByteSize::gib(2));
    assert_eq!(size.origin.to_string(), "MODELFS_CACHE_SIZE");
    assert_eq!(config.hang_timeout.value, Duration::from_secs(9));
    assert_eq!(config.hang_timeout.origin.to_string(), "/etc/modelfs/modelfs.toml:3:3");
    assert_eq!(config.max_restarts.origin, Origin::Default);
}

#[test]
fn an_empty_variable_counts_as_none_and_a_wrong_one_is_named() {
    assert_eq!(environment(&[("MODELFS_REGISTRY", "")]).unwrap(), Layer::default());
    for (name, value) in [
        ("MODELFS_READ_DEADLINE", "0s"),
        ("MODELFS_THREADS", "0"),
        ("MODELFS_ALLOW_OTHER", "perhaps"),
        ("MODELFS_CACHE_SIZE", "much"),
    ] {
        let error = environment(&[(name, value)]).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{name}: ")), "{error}");
        assert!(error.next_step().contains(name), "{error}");
    }
}

#[test]
fn settings_of_two_layers_that_exclude_each_other_are_refused_with_both_places() {
    let low = environment(&[("MODELFS_WORKER_USER", "ann")]).unwrap();
    let high = Layer {
        keep_privileges: Some(Setting::argument("--keep-privileges", true)),
        ..Layer::default()
    };
    let text = Config::resolve([low, high]).unwrap_err().to_string();
    assert!(text.contains("MODELFS_WORKER_USER") && text.contains("--keep-privileges"), "{text}");
    let both = "registry = \"/srv/x\"\n[[source]]\nname = \"a\"\nurl = \"/srv/y\"";
    let text = refused(both).to_string();
    assert!(text.contains(":1:1") && text.contains(":3:1"), "{text}");
    // For this time only.
    let flag = Setting::argument("--registry", Address("/srv/x".into()));
    let flags = Layer { registry: Some(flag), ..Layer::default() };
    let sources = file("[[source]]\nname = \"a\"\nurl = \"/srv/y\"", Level::User).unwrap();
    assert!(Config::resolve([sources, flags]).is_ok());
}

#[test]
fn a_configuration_of_another_version_is_read_as_far_as_it_is_known() {
    let source =
        "[[source]]\nname = \"a\"\nurl = \"hf://\"\ntoken_file = \"t\"\nverify = \"stream\"";
    let mut sent = resolved(&[(source, Level::User)]).unwrap();
    sent.registry = Some(Setting::argument("--registry", Address("https://u:p@h".into())));
    sent.threads = Setting::argument("--threads", 2);
    let mut text = serde_json::to_value(&sent).unwrap();
    assert_eq!(serde_json::from_value::<Config>(text.clone()).unwrap(), sent);
    text["of_a_newer_version"] = serde_json::json!({"value": [1]});
    text["sources"][0]["of_a_newer_version"] = serde_json::json!(1);
    text.as_object_mut().unwrap().remove("hang_timeout");
    assert_eq!(serde_json::from_value::<Config>(text).unwrap(), sent);
    let older: Config = serde_json::from_str("{}").unwrap();
    assert_eq!(older, Config::default());
}

#[test]
fn no_secret_is_shown() {
    let with = [("MODELFS_REGISTRY", "https://u:s3cret@h/x?s3cret")];
    let config = Config::resolve([environment(&with).unwrap()]).unwrap();
    let shown = format!("{config:?} {:?}", config.entries());
    assert!(shown.contains("https://h/x") && !shown.contains("s3cret"), "{shown}");
}

#[test]
fn a_source_is_read_with_all_that_it_may_have() {
    let text = r#"
[[source]]
name = "acme"
url = "https://models.example.org"
groups = ["acme", "acme-*"]
priority = 10
verify = "stream"
ttl = "5m"
plain_http = false
username = "ann"
token_command = ["pass", "show", "acme"]
models = ["org/name", "org/name@rev"]

[[source]]
name = "files"
url = "models"
"#;
    let config = resolved(&[(text, Level::User)]).unwrap();
    let [acme, files] = &config.sources[..] else { panic!("{config:?}") };
    assert_eq!((acme.kind(), acme.rank()), (SourceKind::Http, 10));
    assert_eq!(acme.groups.as_ref().unwrap().value, ["acme", "acme-*"]);
    assert_eq!(acme.verify.as_ref().unwrap().value, Verify::Stream);
    assert_eq!(acme.ttl.as_ref().unwrap().value, Duration::from_secs(300));
    let command = ["pass", "show", "acme"].map(str::to_owned).to_vec();
    assert_eq!(acme.credential.as_ref().unwrap().value, Credential::TokenCommand(command));
    assert_eq!(acme.models.as_ref().unwrap().origin.to_string(), "/home/ann/modelfs.toml:12:1");
    assert_eq!(files.url.value.0, "/home/ann/models", "relative to the file");
    assert_eq!(files.rank(), PRIORITY);
    let entries = acme.entries();
    assert_eq!(entries.len(), 9);
    assert!(!format!("{entries:?}").contains("show"), "a command may have a secret in it");
}

#[test]
fn sources_merge_by_name_and_are_ordered_by_priority() {
    let system = "[[source]]\nname = \"a\"\nurl = \"/a\"\nttl = \"9s\"\n\
                  [[source]]\nname = \"b\"\nurl = \"/b\"";
    let user = "[[source]]\nname = \"b\"\npriority = 1\n[[source]]\nname = \"c\"\nurl = \"/c\"";
    let project = "[[source]]\nname = \"a\"\nurl = \"/moved\"";
    let layers = [(system, Level::System), (user, Level::User), (project, Level::Project)];
    let config = resolved(&layers).unwrap();
    let names: Vec<_> = config.sources.iter().map(|s| s.name.value.as_str()).collect();
    assert_eq!(names, ["b", "a", "c"]);
    assert_eq!(config.sources[1].url.value.0, "/moved");
    assert_eq!(config.sources[1].ttl.as_ref().unwrap().value, Duration::from_secs(9));
    let cleared = format!("clear = [\"source\"]\n{project}");
    let config = resolved(&[layers[0], layers[1], (&cleared, Level::Project)]).unwrap();
    assert_eq!(config.sources.len(), 1);
    let alone = resolved(&[(user, Level::User)]).unwrap_err();
    assert!(matches!(alone, ConfigError::NoAddress { .. }), "{alone}");
}

#[test]
fn the_systems_policy_cannot_be_widened() {
    let system =
        "clear = []\n[policy]\nallowed_hosts = [\"*.example.org\"]\ndeny_private_addresses = true";
    let user = "clear = [\"source\"]\n[policy]\nallowed_hosts = [\"*\"]";
    assert!(matches!(file(user, Level::User), Err(ConfigError::Value { .. })));
    let user = "clear = [\"source\"]\n[policy]\nallowed_hosts = [\"evil.example\"]\n\
                deny_private_addresses = false\n[[source]]\nname = \"a\"\nurl = \"https://evil.example\"";
    let error = resolved(&[(system, Level::System), (user, Level::User)]).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("modelfs.toml:7:1") && text.contains("/etc/modelfs/modelfs.toml:3:1"),
        "{text}"
    );
    let good = "[[source]]\nname = \"a\"\nurl = \"oci://a.example.org/x\"";
    let config = resolved(&[(system, Level::System), (good, Level::User)]).unwrap();
    assert!(config.policy.deny_private_addresses.unwrap().value);
    let flag = Setting::argument("--registry", Address("http://evil.example".into()));
    let flags = Layer { registry: Some(flag), ..Layer::default() };
    let layers = [file(system, Level::System).unwrap(), flags];
    assert!(matches!(Config::resolve(layers), Err(ConfigError::NotAllowed { .. })));
}

#[test]
fn an_unknown_key_is_refused_with_the_one_that_was_meant() {
    for (text, at, meant) in [
        ("cache-size = 1", "1:1", Some("cache_size")),
        ("threads = 4\nhangtimeout = 1", "2:1", Some("hang_timeout")),
        ("[[sources]]\nname = \"a\"", "1:3", Some("source")),
        ("[[source]]\nname = \"a\"\nuri = \"/x\"", "3:1", Some("url")),
        ("policy = { alowed_hosts = [] }", "1:12", Some("allowed_hosts")),
        ("xyzzy = 1", "1:1", None),
    ] {
        let error = refused(text);
        assert!(
            error.to_string().starts_with(&format!("/home/ann/modelfs.toml:{at}: ")),
            "{error}"
        );
        match error {
            ConfigError::Unknown { meant: found, .. } => assert_eq!(found, meant, "{text}"),
            other => panic!("{text}: {other}"),
        }
    }
}

#[test]
fn a_wrong_value_is_refused_with_its_line_and_column() {
    for (text, at, said) in [
        ("threads = \"4\"", "1:1", "whole number"),
        ("\nthreads = 0", "2:1", "from 1 to 256"),
        ("threads = 99999999999", "1:1", "number from 0"),
        ("cache_size = \"much\"", "1:1", "50GiB"),
        ("cache_size = 1.5", "1:1", "fraction"),
        ("allow_other = \"yes\"", "1:1", "true or false"),
        ("read_deadline = 0", "1:1", "longer than zero"),
        ("cache_dir = \"~/x\"", "1:1", "whole path"),
        ("registry = \"https://u:p@h\"", "1:1", "credentials"),
        ("threads = ", "1:11", ""),
        ("threads = 1\nthreads = 2", "2:1", "duplicate key"),
        ("source = 3", "1:1", "[[source]]"),
        ("[[source]]\nurl = \"/x\"", "2:1", "no name"),
        ("[[source]]\nname = \"A\"", "2:1", "'A'"),
        ("[[source]]\nname = \"a\"\nurl = \"/x\"\n[[source]]\nname = \"a\"", "5:1", "already"),
        ("[[source]]\nname = \"a\"\nverify = \"never\"", "3:1", "stream"),
        ("[[source]]\nname = \"a\"\ngroups = \"x\"", "3:1", "list"),
        ("[[source]]\nname = \"a\"\nmodels = [\"/x\"]", "3:1", "org/name"),
        ("[[source]]\nname = \"a\"\ntoken_command = []", "3:1", "program"),
        ("[[source]]\nname = \"a\"\ntoken_file = \"x\"\ntoken_variable = \"X\"", "4:1", "another"),
        ("clear = [\"policy\"]", "1:1", "source"),
        ("[policy]\nallowed_hosts = [\"http://x\"]", "2:1", "host:port"),
    ] {
        let error = refused(text);
        let line = error.to_string();
        assert!(line.starts_with(&format!("/home/ann/modelfs.toml:{at}: ")), "{text}: {line}");
        assert!(line.contains(said) && !error.next_step().is_empty(), "{text}: {line}");
    }
}

#[test]
fn a_secret_in_a_file_is_refused_and_not_shown() {
    for key in ["token", "password", "Secret-Key", "api_key", "bearer"] {
        let error = refused(&format!("[[source]]\nname = \"a\"\n{key} = \"s3cret\""));
        assert!(matches!(error, ConfigError::LiteralSecret { .. }), "{key}: {error}");
        assert!(error.next_step().contains("token_file"), "{error}");
    }
    for text in [
        "[[source]]\nname = \"a\"\nurl = \"https://u:s3cret@h\"",
        "[[source]]\nname = \"a\"\ntoken = s3cret",
        "[[source]]\nname = \"a\"\ntoken = \"s3cret",
        "[[source]]\nname = \"a\"\nusername = 5\ntoken = \"s3cret\"",
    ] {
        let error = refused(text);
        let all = format!("{error} {error:?} {}", error.next_step());
        assert!(!all.contains("s3cret"), "{all}");
    }
}

#[test]
fn a_project_cannot_give_itself_rights_or_read_secrets() {
    for text in [
        "allow_other = true",
        "keep_privileges = true",
        "worker_user = \"root\"",
        "[[source]]\nname = \"a\"\nurl = \"https://h\"\ntoken_file = \"/home/ann/.ssh/id\"",
        "[[source]]\nname = \"a\"\nurl = \"https://h\"\ntoken_command = [\"rm\"]",
    ] {
        let error = resolved(&[(text, Level::Project)]).unwrap_err();
        assert!(matches!(error, ConfigError::NotOfProject { .. }), "{error}");
        assert!(resolved(&[(text, Level::User)]).is_ok(), "{text}");
    }
}

#[test]
fn a_text_that_is_too_long_is_refused() {
    let long = "#".repeat(MAX_FILE + 1);
    assert!(matches!(file(&long, Level::User), Err(ConfigError::TooLarge { .. })));
    // At the limit, and as slow as it gets: much nesting, many values on one line.
    assert!(file(&"[".repeat(MAX_FILE), Level::User).is_err());
    assert!(file(&format!("x = {}", "[".repeat(MAX_FILE - 4)), Level::User).is_err());
    let many = format!("source = [{}]", "{name=\"a\"},".repeat(MAX_FILE / 12));
    assert!(file(&many, Level::User).is_err());
}

/// Words that files consist of, so that random texts come far.
fn words() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("[[source]]\n".to_owned()),
        Just("[policy]\n".to_owned()),
        Just("clear = [\"source\"]\n".to_owned()),
        prop::sample::select(KEYS).prop_map(|key| key.name.to_owned()),
        prop::sample::select(SOURCE_KEYS).prop_map(str::to_owned),
        prop::sample::select(POLICY_KEYS).prop_map(str::to_owned),
        prop::sample::select(&["=", "[", "]", "{", "}", ",", "\n", "\"", "'", ".", "#", "\u{0}"])
            .prop_map(str::to_owned),
        prop::sample::select(&[
            "true",
            "-1",
            "1e9",
            "\"60s\"",
            "\"ü\"",
            "\"https://h\"",
            "1979-05-27"
        ])
        .prop_map(str::to_owned),
        "\\PC{0,6}",
    ];
    prop::collection::vec(word, 0..24).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn any_text_ends_in_a_layer_or_in_one_short_line(text in words()) {
        for level in [Level::User, Level::Project] {
            let outcome = file(&text, level).and_then(|layer| Config::resolve([layer]));
            match outcome {
                Ok(config) => {
                    let sent = serde_json::to_string(&config).unwrap();
                    prop_assert_eq!(serde_json::from_str::<Config>(&sent).unwrap(), config);
                }
                Err(error) => {
                    let line = format!("{error}: {}", error.next_step());
                    prop_assert!(line.chars().count() < 1000 && !line.contains('\n'), "{}", line);
                }
            }
        }
    }
}
