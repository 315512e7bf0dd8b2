//! The sources that a configuration has, as the parts of the program need them.
//!
//! Invariant: a source that is named by its address alone (`--registry`) is the only one. What a mount cannot do yet
//! is refused, rather than left without effect. Plain values; nothing is opened.

use std::path::PathBuf;
use std::time::Duration;

use modelfs::config::{Address, Config, Credential, SourceConfig, SourceKind, Verify, source_kind};
use modelfs::model::{GroupPattern, ModelRef, Name, SourceName};

use crate::error::Failure;
use crate::paths;

/// A source to use.
#[derive(Debug, Clone)]
pub struct SourcePlan {
    /// Its name in the configuration; none: it is given by its address.
    pub name: Option<SourceName>,
    /// Its URL, or its folder as an absolute path. It may hold credentials.
    pub address: Address,
    /// Its kind.
    pub kind: SourceKind,
    /// The groups that it is restricted to; none: it takes what no other source claims.
    pub groups: Vec<GroupPattern>,
    /// Models to show from the start, and a version of them.
    pub models: Vec<(ModelRef, Option<Name>)>,
    /// Maximum age of what it said; none: as for all sources.
    pub ttl: Option<Duration>,
    /// Whether it is asked without TLS; none: as its address says.
    pub plain_http: Option<bool>,
    /// The user that the secret belongs to; none: the secret is a bearer token.
    pub username: Option<String>,
    /// Where its secret comes from; none: where tools of its kind keep logins.
    pub credential: Option<Credential>,
}

/// The sources of a configuration, in order of priority; a registry that is given counts alone.
pub fn plans(config: &Config) -> Result<Vec<SourcePlan>, Failure> {
    let Some(given) = &config.registry else {
        return config.sources.iter().map(plan).collect();
    };
    let address = Address(paths::registry(&given.value.0)?);
    check_address(&address.0)?;
    let kind = source_kind(&address.0);
    Ok(vec![SourcePlan {
        name: None,
        address,
        kind,
        groups: Vec::new(),
        models: Vec::new(),
        ttl: None,
        plain_http: None,
        username: None,
        credential: None,
    }])
}

fn plan(source: &SourceConfig) -> Result<SourcePlan, Failure> {
    let name = &source.name.value;
    let wrong = |origin: &dyn std::fmt::Display, why: String| {
        Failure::usage(format!("{origin}: the source '{name}': {why}"))
    };
    let kind = source.kind();
    if matches!(kind, SourceKind::Bucket | SourceKind::Ollama) {
        let (origin, url) = (&source.url.origin, source.url.value.shown());
        return Err(wrong(origin, format!("a registry of this kind cannot be used yet: {url}"))
            .hint("write hf://, oci://, http://, https:// or a folder"));
    }
    if let Some(verify) = source.verify.as_ref().filter(|v| v.value != Verify::Whole) {
        return Err(wrong(&verify.origin, "verify = \"stream\" cannot be used yet".to_owned())
            .hint("leave it out"));
    }
    if let (Some(user), None) = (&source.username, &source.credential) {
        return Err(wrong(&user.origin, "username stands there without a password".to_owned())
            .hint("say where the password is: token_file, token_command or token_variable"));
    }
    let groups = source.groups.iter().flat_map(|groups| &groups.value);
    let groups = groups.map(|text| {
        let bad = |e: &dyn std::fmt::Display| Failure::usage(format!("the source '{name}': {e}"));
        text.parse::<GroupPattern>().map_err(|e| bad(&e))
    });
    Ok(SourcePlan {
        name: Some(SourceName::configured(name).map_err(|e| {
            Failure::usage(format!("{}: the name of the source {e}", source.name.origin))
        })?),
        address: source.url.value.clone(),
        kind,
        groups: groups.collect::<Result<_, _>>()?,
        models: models(source)?,
        ttl: source.ttl.as_ref().map(|ttl| ttl.value),
        plain_http: source.plain_http.as_ref().map(|plain| plain.value),
        username: source.username.as_ref().map(|user| user.value.clone()),
        credential: source.credential.as_ref().map(|credential| credential.value.clone()),
    })
}

/// The models that a source shows from the start.
fn models(source: &SourceConfig) -> Result<Vec<(ModelRef, Option<Name>)>, Failure> {
    let Some(given) = &source.models else { return Ok(Vec::new()) };
    let (origin, name) = (&given.origin, &source.name.value);
    let wrong = |why: String| Failure::usage(format!("{origin}: the source '{name}': {why}"));
    if matches!(source.kind(), SourceKind::Http | SourceKind::Folder) {
        return Err(wrong("it lists its models by itself".to_owned()).hint("leave models out"));
    }
    let one = |text: &String| {
        let (model, version) = match text.split_once('@') {
            Some((model, version)) => (model, Some(version.replace('/', "--"))),
            None => (text.as_str(), None),
        };
        // As the tree has it: what is deeper than a group is written with `--`.
        let (group, model) = model.split_once('/')?;
        let model = ModelRef {
            group: Name::new(group).ok()?,
            model: Name::new(&model.replace('/', "--")).ok()?,
        };
        Some((model, version.map(|v| Name::new(&v)).transpose().ok()?))
    };
    let named = |text: &String| {
        one(text).ok_or_else(|| {
            wrong(format!("'{text}' is no model of the tree"))
                .hint("write GROUP/MODEL or GROUP/MODEL@VERSION")
        })
    };
    given.value.iter().map(named).collect()
}

/// Refuses a URL with a scheme that no registry has. Others are not opened: that would look for
/// certificates.
fn check_address(name: &str) -> Result<(), Failure> {
    let scheme = name.split(':').next().unwrap_or_default().to_ascii_lowercase();
    if modelfs::registry::is_url(name)
        && !matches!(&*scheme, "http" | "https" | "file" | "hf" | "oci")
    {
        modelfs::registry::open(name)?;
    }
    Ok(())
}

impl SourcePlan {
    /// Its name for people: as configured, else its address without credentials.
    pub fn shown(&self) -> String {
        match &self.name {
            Some(name) => name.to_string(),
            None => self.address.shown(),
        }
    }

    /// Its folder, if it is one.
    pub fn folder(&self) -> Option<PathBuf> {
        if self.kind != SourceKind::Folder {
            return None;
        }
        // Opening an HTTP registry would look for certificates; a folder is not looked at.
        let registry = modelfs::registry::open(&self.address.0).ok()?;
        Some(PathBuf::from(registry.name())).filter(|path| path.is_absolute())
    }
}

/// The folders among these sources.
pub fn folders(plans: &[SourcePlan]) -> Vec<PathBuf> {
    plans.iter().filter_map(SourcePlan::folder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use modelfs::config::{Level, Setting};
    use std::path::Path;

    fn config(text: &str) -> Config {
        let layer = modelfs::config::parse(text, Path::new("/f"), Level::User).unwrap();
        Config::resolve([layer]).unwrap()
    }

    fn refused(text: &str) -> Failure {
        let config = config(&format!("[[source]]\nname = \"a\"\n{text}"));
        let failure = plans(&config).expect_err(text);
        assert!(failure.exit_code == 2 && failure.hint.is_some(), "{failure:?}");
        assert!(failure.message.starts_with("/f:"), "{failure}");
        failure
    }

    #[test]
    fn sources_come_in_order_of_priority_and_a_registry_that_is_given_counts_alone() {
        let mut config = config(
            "[[source]]\nname = \"late\"\nurl = \"https://h\"\n\
             [[source]]\nname = \"hub\"\nurl = \"hf://\"\npriority = 1\nttl = \"5s\"\n\
             groups = [\"org-*\"]\nmodels = [\"org-a/net@refs/pr/1\", \"org-a/deep/net\"]",
        );
        let all = plans(&config).unwrap();
        let names: Vec<_> = all.iter().map(SourcePlan::shown).collect();
        assert_eq!(names, ["hub", "late"]);
        assert!(all[0].groups[0].matches("org-x") && all[0].kind == SourceKind::HuggingFace);
        let models = |plan: &SourcePlan| -> Vec<String> {
            plan.models.iter().map(|(m, v)| format!("{m} {v:?}")).collect()
        };
        assert_eq!(models(&all[0])[1], "org-a/deep--net None");
        assert!(models(&all[0])[0].contains("refs--pr--1"));
        config.registry = Some(Setting::argument("--registry", Address("/srv/models/".into())));
        let one = plans(&config).unwrap();
        assert_eq!((one.len(), one[0].name.clone()), (1, None));
        assert_eq!(one[0].folder().unwrap(), Path::new("/srv/models"));
        assert_eq!(folders(&all), Vec::<PathBuf>::new());
    }

    #[test]
    fn what_cannot_have_an_effect_is_refused_with_its_place() {
        assert!(refused("url = \"s3://bucket\"").message.contains("s3://bucket"));
        assert!(refused("url = \"hf://\"\nverify = \"stream\"").message.contains("stream"));
        assert!(refused("url = \"hf://\"\nmodels = [\"gpt2\"]").message.contains("gpt2"));
        assert!(refused("url = \"/srv/x\"\nmodels = [\"a/b\"]").message.contains("lists"));
        let no_password = refused("url = \"https://h\"\nusername = \"me\"");
        assert!(no_password.message.contains("username"), "{no_password}");
    }

    #[test]
    fn a_url_with_an_unknown_scheme_is_refused() {
        assert_eq!(check_address("ftp://h/x").unwrap_err().exit_code, 2);
        for name in ["/srv/models", "file:///srv", "http://h", "HTTPS://h"] {
            assert!(check_address(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_folder_is_told_from_a_server() {
        let at = |name: &str| {
            let registry = Some(Setting::argument("--registry", Address(name.into())));
            let plans = plans(&Config { registry, ..Config::default() }).unwrap();
            plans[0].folder().map(|p| p.display().to_string())
        };
        assert_eq!(at("/srv/models/").as_deref(), Some("/srv/models"));
        assert_eq!(at("file:///srv/models").as_deref(), Some("/srv/models"));
        assert_eq!(at("https://h/x"), None);
    }
}
