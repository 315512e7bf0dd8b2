//! `modelfs source test`: whether sources can be used from here, step by step, and what to do if not.
//!
//! Invariant: nothing is stored and nothing changes. A step that fails ends the test of its source; the other sources
//! are tested all the same. Runs as the user of the command, which need not be the user of a daemon.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use modelfs::base::ObjectRange;
use modelfs::base::units::ByteSize;
use modelfs::manager::ManagerError;
use modelfs::model::{Catalog, ModelRef, Object, VersionId, VersionTarget};
use modelfs::registry::{
    Credentials, HttpOptions, Listing, Logins, Registry, RegistryError, Server, Validator,
    Versions, read_object, server_of,
};
use serde::Serialize;

use super::output::{Out, printable};
use super::table::{Column, table};
use crate::error::{Failure, Kind};
use crate::logins;
use crate::sources::SourcePlan;
use crate::wiring::OpenSource;

/// How long a step may take: longer than a server that works needs, and a user still waits.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes that are read to measure the speed: some round trips on a fast line, seconds on a slow one.
const SAMPLE: u64 = 1 << 20;
/// Variables of a proxy: name and port of the server are the proxy's business then.
const PROXIES: [&str; 6] =
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/// What became of one step.
#[derive(Debug, Clone, Serialize)]
struct Step {
    what: &'static str,
    /// Whether it worked; none: there was nothing to test.
    works: Option<bool>,
    text: String,
    /// What to do, if it did not work.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    milliseconds: u128,
}

/// What became of one source.
#[derive(Debug, Serialize)]
struct Tested {
    name: String,
    address: String,
    works: bool,
    steps: Vec<Step>,
    /// Of what kind the failure is, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<Kind>,
}

#[derive(Debug, Serialize)]
struct Answer {
    sources: Vec<Tested>,
}

/// Why a step failed.
struct Problem {
    kind: Kind,
    text: String,
    hint: Option<String>,
}

/// Tests these sources. `model`: what to look up in those that do not list.
pub async fn run(
    out: Out,
    plans: Vec<SourcePlan>,
    http: HttpOptions,
    model: Option<ModelRef>,
) -> Result<(), Failure> {
    let tested = plans.into_iter().map(|plan| test(plan, &http, model.as_ref()));
    let answer = Answer { sources: join_all(tested).await };
    out.show(&answer, text)?;
    let mut failed = answer.sources.iter().filter_map(|s| Some((s.name.as_str(), s.kind?)));
    match failed.next() {
        None => Ok(()),
        Some((first, kind)) => {
            let names: Vec<_> =
                std::iter::once(first).chain(failed.map(|(name, _)| name)).collect();
            Err(Failure::new(kind, format!("cannot be used from here: {}", names.join(", "))))
        }
    }
}

fn text(answer: &Answer) -> String {
    let mut rows = Vec::new();
    for source in &answer.sources {
        for step in &source.steps {
            let result = match step.works {
                Some(true) => "good",
                Some(false) => "BAD",
                None => "-",
            };
            let mut details = step.text.clone();
            if let Some(hint) = &step.hint {
                details += &format!(": {hint}");
            }
            let name = source.name.clone();
            rows.push(vec![name, step.what.to_owned(), result.to_owned(), printable(&details)]);
        }
    }
    table(&["SOURCE", "STEP", "RESULT", "DETAILS"].map(Column::Left), rows)
}

async fn test(plan: SourcePlan, http: &HttpOptions, model: Option<&ModelRef>) -> Tested {
    let (name, address) = (plan.shown(), plan.address.shown());
    let mut steps = Steps::default();
    let outcome = steps.all(plan, http, model).await;
    let kind = outcome.err().map(|Stopped(kind)| kind);
    Tested { name, address, works: kind.is_none(), steps: steps.0, kind }
}

/// A step failed; it is among the steps.
struct Stopped(Kind);

#[derive(Default)]
struct Steps(Vec<Step>);

impl Steps {
    /// Carries out a step and notes what became of it: a text, and whether there was anything to test.
    async fn step<T>(
        &mut self,
        what: &'static str,
        work: impl Future<Output = Result<(T, Option<bool>, String), Problem>>,
    ) -> Result<T, Stopped> {
        let begun = Instant::now();
        let outcome = tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| {
            let text = format!("no answer within {PATIENCE:?}");
            Err(Problem { kind: Kind::Network, text, hint: None })
        });
        let milliseconds = begun.elapsed().as_millis();
        match outcome {
            Ok((value, works, text)) => {
                self.0.push(Step { what, works, text, hint: None, milliseconds });
                Ok(value)
            }
            Err(Problem { kind, text, hint }) => {
                self.0.push(Step { what, works: Some(false), text, hint, milliseconds });
                Err(Stopped(kind))
            }
        }
    }

    async fn all(
        &mut self,
        plan: SourcePlan,
        http: &HttpOptions,
        model: Option<&ModelRef>,
    ) -> Result<(), Stopped> {
        let opened = async {
            let server = server_of(&plan.address.0, plan.plain_http).map_err(of_registry)?;
            let logins = logins::of_source(&plan).map_err(of_failure)?;
            let open = OpenSource::open(plan.clone(), http, Arc::clone(&logins));
            let open = open.map_err(of_failure)?;
            if let Some(server) = &server {
                server.allowed_by(&http.policy).map_err(|why| Problem {
                    kind: Kind::Usage,
                    text: why.to_string(),
                    hint: Some("use another address, or ask the administrator".to_owned()),
                })?;
            }
            let text = open.registry.name().to_owned();
            Ok(((server, logins, open), Some(true), text))
        };
        let (server, logins, open) = self.step("address", opened).await?;
        if let Some(server) = &server {
            self.connection(server, http).await?;
            self.step("login", login(&*logins)).await?;
        }
        let registry = open.registry;
        let shown = plan.models.first().map(|(model, _)| model);
        let wanted = model.or(shown);
        let lists = match registry.capabilities().listable {
            true => self.step("list", list(&*registry)).await?,
            false => None,
        };
        let found = match (lists, wanted) {
            (Some(catalog), _) => first_version(&catalog),
            (None, Some(model)) => self.step("look-up", look_up(&*registry, model)).await?,
            (None, None) => {
                let text = "it does not list its models: give one with --model GROUP/MODEL";
                self.step("look-up", async { Ok(((), None, text.to_owned())) }).await?;
                return Ok(());
            }
        };
        match found {
            Some((model, target)) => self.step("read", read(&*registry, &model, target)).await,
            None => {
                let nothing = async { Ok(((), None, "there is nothing to read".to_owned())) };
                self.step("read", nothing).await
            }
        }
    }

    async fn connection(&mut self, server: &Server, http: &HttpOptions) -> Result<(), Stopped> {
        let proxied = !server.is_local()
            && !http.policy.denies_private()
            && PROXIES.iter().any(|name| std::env::var_os(name).is_some_and(|v| !v.is_empty()));
        if proxied {
            let text = "a proxy is used: it finds the server".to_owned();
            return self.step("connection", async { Ok(((), None, text)) }).await;
        }
        let resolved = async {
            let found = tokio::net::lookup_host((server.name(), server.port)).await;
            let found: Vec<_> = found
                .map_err(|e| Problem {
                    kind: Kind::Network,
                    text: format!("{}: {e}", server.host),
                    hint: Some(
                        "is the name right, and does this machine's resolver answer?".into(),
                    ),
                })?
                .collect();
            let shown: Vec<_> = found.iter().map(|at| at.ip().to_string()).collect();
            Ok((found, Some(true), format!("{}: {}", server.host, shown.join(", "))))
        };
        let addresses = self.step("name", resolved).await?;
        let connected = async {
            let stream = tokio::net::TcpStream::connect(&*addresses).await;
            let stream = stream.map_err(|e| Problem {
                kind: Kind::Network,
                text: format!("port {}: {e}", server.port),
                hint: Some("does the server run, and does a firewall let this machine in?".into()),
            })?;
            let peer = stream.peer_addr().map_or(String::new(), |at| at.to_string());
            Ok(((), Some(true), peer))
        };
        self.step("connection", connected).await
    }
}

fn of_failure(failure: Failure) -> Problem {
    Problem { kind: failure.kind, text: failure.message, hint: failure.hint }
}

fn of_registry(error: RegistryError) -> Problem {
    let text = error.to_string();
    let lower = text.to_lowercase();
    let hint = match &error {
        RegistryError::Unreachable { .. } if lower.contains("certificate") => Some(
            "its certificate is not accepted: add the authority to this system's, or name its file in SSL_CERT_FILE",
        ),
        RegistryError::Refused { status: 401 | 403, .. } => Some(
            "give a login: token_file, token_command or token_variable, with username for a password",
        ),
        RegistryError::Missing { .. } => Some("is the path of the address right?"),
        RegistryError::NoFolder { .. } => Some("is the file system that it lies on mounted?"),
        RegistryError::Invalid { .. } => Some("is there a registry at this address?"),
        RegistryError::Busy { .. } => Some("try again later"),
        _ => None,
    };
    let failure = Failure::from(ManagerError::from(error));
    Problem { kind: failure.kind, text, hint: hint.map(str::to_owned) }
}

type Done<T> = Result<(T, Option<bool>, String), Problem>;

async fn login(logins: &dyn Logins) -> Done<()> {
    let found = logins.login("").await.map_err(|why| Problem {
        kind: Kind::Network,
        text: why,
        hint: None,
    })?;
    Ok(match found {
        None => ((), None, "none is kept for it".to_owned()),
        Some(Credentials::Password { user, .. }) => ((), Some(true), format!("password of {user}")),
        Some(Credentials::Bearer(_) | Credentials::Identity(_)) => {
            ((), Some(true), "a token".to_owned())
        }
    })
}

/// What a registry lists; none: it turned out that it does not offer its list.
async fn list(registry: &dyn Registry) -> Done<Option<Catalog>> {
    let answer = match registry.list(&Validator::default()).await {
        Err(error) if !registry.capabilities().listable => {
            return Ok((None, None, format!("it does not offer its list: {error}")));
        }
        answer => answer.map_err(of_registry)?,
    };
    match answer {
        Listing::Unchanged => {
            Ok((Some(Catalog::default()), Some(true), "nothing is listed".to_owned()))
        }
        Listing::Changed { catalog, .. } => {
            let text = format!("{} versions", catalog.len());
            Ok((Some(catalog), Some(true), text))
        }
    }
}

type Found = Option<(ModelRef, Target)>;

/// A version to read of: what its name leads to, or the name itself where that is not known yet.
enum Target {
    Known(VersionTarget),
    Named(modelfs::model::Name),
}

fn first_version(catalog: &Catalog) -> Found {
    let (group, model, entry) = catalog.iter().next()?;
    let model = ModelRef { group: group.clone(), model: model.clone() };
    Some((model, target(entry)))
}

fn target(entry: &modelfs::model::VersionEntry) -> Target {
    match &entry.target {
        VersionTarget::Unknown => Target::Named(entry.name.clone()),
        known => Target::Known(known.clone()),
    }
}

async fn look_up(registry: &dyn Registry, model: &ModelRef) -> Done<Found> {
    let answer = registry.lookup(model, &Validator::default()).await.map_err(of_registry)?;
    let Versions::Changed { versions, .. } = answer else {
        return Ok((None, Some(true), format!("{model} is there")));
    };
    let Some(first) = versions.first() else {
        let text = format!("it answers, and does not have {model}");
        let hint = Some("name a model that it has: --model GROUP/MODEL".to_owned());
        return Err(Problem { kind: Kind::NotFound, text, hint });
    };
    let text = format!("{model}: {} versions", versions.len());
    Ok((Some((model.clone(), target(first))), Some(true), text))
}

async fn read(registry: &dyn Registry, model: &ModelRef, target: Target) -> Done<()> {
    let missing = || Problem {
        kind: Kind::NotFound,
        text: format!("a version of {model} is listed and not there"),
        hint: None,
    };
    let target = match target {
        Target::Known(target) => target,
        Target::Named(name) => {
            let entry = registry.version(model, &name).await.map_err(of_registry)?;
            entry.ok_or_else(missing)?.target
        }
    };
    let made = match target {
        VersionTarget::Manifest(hash) => registry.manifest(&VersionId::new(hash)).await,
        VersionTarget::Revision(revision) => registry.resolve(model, &revision).await,
        VersionTarget::Unknown => return Err(missing()),
    };
    let manifest = made.map_err(of_registry)?.manifest;
    let largest: Option<&Object> = manifest.objects().iter().max_by_key(|object| object.len);
    let Some(object) = largest.filter(|object| object.len > 0) else {
        return Ok(((), None, format!("{model} has no bytes")));
    };
    let len = object.len.min(SAMPLE);
    let begun = Instant::now();
    let bytes =
        read_object(registry, object, ObjectRange::new(0, len)).await.map_err(of_registry)?;
    // At least a microsecond, so that there is a speed.
    let seconds = begun.elapsed().as_secs_f64().max(1e-6);
    let speed = ByteSize((bytes.len() as f64 / seconds) as u64);
    Ok(((), Some(true), format!("{} of {model}, {speed}/s", ByteSize(bytes.len() as u64))))
}
