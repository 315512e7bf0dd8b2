//! What is known of a source that cannot list: the models that were looked up, and what their versions lead
//! to.
//!
//! A model is asked for by name; the answer counts for the source's time to live, an answer that the
//! registry lacks the model for a shorter one. A version's name leads to a revision, and a revision to a
//! manifest, which is looked for once. All of this is kept as one document in the index, so that what was
//! resolved once stays listed and readable without a network.
//!
//! Invariant: only an answer of the registry says that a model is missing; a failed request leaves what was
//! known. Pure values behind one lock; requests are made by `model_lookups`.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::model::{
    Catalog, CatalogBuilder, Digest, ModelRef, Name, Revision, VersionEntry, VersionTarget,
};
use crate::registry::{Validator, Versions, has_format, to_bytes};

/// How long a registry's answer counts that it lacks a model or a version: programs probe for names in a
/// row, and a model that was just uploaded should appear soon.
const MISSING_FOR: Duration = Duration::from_secs(30);
/// How long a failed request answers for others: as many programs may ask at once.
pub(super) const FAILED_FOR: Duration = Duration::from_secs(5);

/// The `format` of the document that is kept.
const FORMAT: &str = "modelfs.lookups/1";

/// What is known of a model without a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Knowledge {
    /// The registry answered within the time to live: it has the model, or not.
    Answered {
        /// Whether it has the model.
        has: bool,
    },
    /// The last request failed a moment ago.
    Failed {
        /// Whether the registry had the model before.
        had: bool,
        /// Why.
        why: String,
    },
    /// The registry has to be asked.
    Ask {
        /// Whether the registry had the model before.
        had: bool,
    },
}

/// What is known of a version without a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionKnowledge {
    /// What its name leads to; never `VersionTarget::Unknown`.
    Known(VersionTarget),
    /// The registry said a moment ago that it does not have it.
    Missing,
    /// The registry has to be asked; what the name led to before, if that is known.
    Ask(Option<VersionTarget>),
}

#[derive(Debug, Default)]
struct Model {
    /// When the registry answered; none: in an earlier run.
    answered: Option<Instant>,
    validator: Validator,
    /// What the registry listed, by name.
    listed: BTreeMap<Name, VersionEntry>,
    /// What was found by a name that the registry does not list: commits, digests.
    named: BTreeMap<Name, VersionEntry>,
    /// When the registry was asked about a name by itself. Names that it did not have are in no list.
    asked: HashMap<Name, Instant>,
    failed: Option<(Instant, String)>,
    /// Whether the kernel was told that the names have to be looked up again.
    expired: bool,
    /// Whether it is shown although nothing is known of it: the configuration names it.
    configured: bool,
}

impl Model {
    fn has_versions(&self) -> bool {
        !self.listed.is_empty() || !self.named.is_empty()
    }

    /// Whether the tree shows it: the registry has it, or has not said yet that it does not.
    fn is_shown(&self) -> bool {
        self.has_versions() || (self.configured && self.answered.is_none())
    }

    fn entry(&self, name: &Name) -> Option<&VersionEntry> {
        self.listed.get(name).or_else(|| self.named.get(name))
    }
}

#[derive(Debug, Default)]
struct State {
    models: BTreeMap<ModelRef, Model>,
    /// The manifests of revisions.
    manifests: HashMap<(ModelRef, Revision), Digest>,
}

/// The models that were looked up.
#[derive(Debug)]
pub struct LookUps {
    ttl: Duration,
    state: Mutex<State>,
}

impl LookUps {
    /// Nothing is known yet. Answers count for `ttl`.
    pub fn new(ttl: Duration) -> Self {
        Self { ttl, state: Mutex::default() }
    }

    /// Shows a model that the configuration names, and a version of it.
    pub fn show(&self, model: &ModelRef, version: Option<Name>) {
        let mut state = self.state.lock();
        let known = state.models.entry(model.clone()).or_default();
        known.configured = true;
        if let Some(name) = version.filter(|name| known.entry(name).is_none()) {
            let (alias_of, published, metadata) = (None, None, None);
            let target = VersionTarget::Unknown;
            let entry = VersionEntry { name: name.clone(), target, alias_of, published, metadata };
            known.named.insert(name, entry);
        }
    }

    /// What is known of a model at `now`.
    pub fn knowledge(&self, model: &ModelRef, now: Instant) -> Knowledge {
        let state = self.state.lock();
        let Some(known) = state.models.get(model) else { return Knowledge::Ask { had: false } };
        let had = known.has_versions();
        if let Some((at, why)) = &known.failed
            && now.saturating_duration_since(*at) < FAILED_FOR
        {
            return Knowledge::Failed { had, why: why.clone() };
        }
        let lasts = if had { self.ttl } else { MISSING_FOR.min(self.ttl) };
        match known.answered {
            Some(at) if now.saturating_duration_since(at) < lasts => {
                Knowledge::Answered { has: had }
            }
            _ => Knowledge::Ask { had },
        }
    }

    /// For a conditional request for a model.
    pub fn validator(&self, model: &ModelRef) -> Validator {
        let state = self.state.lock();
        state.models.get(model).map(|m| m.validator.clone()).unwrap_or_default()
    }

    /// Takes the registry's answer about a model. Returns whether anything changed.
    pub fn answered(&self, model: &ModelRef, versions: Versions, now: Instant) -> bool {
        let mut state = self.state.lock();
        let known = state.models.entry(model.clone()).or_default();
        let was_shown = known.is_shown();
        (known.answered, known.failed, known.expired) = (Some(now), None, false);
        let Versions::Changed { versions, validator } = versions else { return false };
        known.validator = validator;
        let mut listed: BTreeMap<_, _> =
            versions.into_iter().map(|v| (v.name.clone(), v)).collect();
        for (name, entry) in &mut listed {
            // A list of tags says nothing of where they lead; that was asked tag by tag.
            if entry.target == VersionTarget::Unknown
                && let Some(before) = known.listed.remove(name)
            {
                *entry = before;
            }
        }
        let changed = known.listed != listed;
        known.listed = listed;
        changed || known.is_shown() != was_shown
    }

    /// Takes what a registry listed at once: each model with its versions.
    pub fn listed(&self, catalog: &Catalog, now: Instant) {
        for group in catalog.groups() {
            for model in catalog.models(group.as_str()).into_iter().flatten() {
                let versions = catalog.versions(group.as_str(), model.as_str());
                let versions = versions.unwrap_or_default().to_vec();
                let model = ModelRef { group: group.clone(), model: model.clone() };
                let validator = Validator::default();
                self.answered(&model, Versions::Changed { versions, validator }, now);
            }
        }
    }

    /// Notes that every answer is too old.
    pub fn expire(&self) {
        for known in self.state.lock().models.values_mut() {
            (known.answered, known.failed) = (None, None);
            known.asked.clear();
        }
    }

    /// The models that the registry has.
    pub fn models(&self) -> Vec<ModelRef> {
        let state = self.state.lock();
        let has = state.models.iter().filter(|(_, known)| known.has_versions());
        has.map(|(model, _)| model.clone()).collect()
    }

    /// Notes that the registry could not be asked.
    pub fn failed(&self, model: &ModelRef, why: String, now: Instant) {
        let mut state = self.state.lock();
        state.models.entry(model.clone()).or_default().failed = Some((now, why));
    }

    /// What is known of a version at `now`.
    pub fn version(&self, model: &ModelRef, name: &Name, now: Instant) -> VersionKnowledge {
        let state = self.state.lock();
        let Some(known) = state.models.get(model) else { return VersionKnowledge::Ask(None) };
        let asked = known.asked.get(name).map(|at| now.saturating_duration_since(*at));
        let Some(entry) = known.entry(name) else {
            return match asked {
                Some(age) if age < MISSING_FOR => VersionKnowledge::Missing,
                _ => VersionKnowledge::Ask(None),
            };
        };
        let target = state.target(model, entry);
        let fixed =
            matches!(&entry.target, VersionTarget::Revision(r) if r.as_str() == name.as_str());
        match target {
            VersionTarget::Unknown => VersionKnowledge::Ask(None),
            target if !fixed && asked.is_some_and(|age| age >= self.ttl) => {
                VersionKnowledge::Ask(Some(target))
            }
            // A name that only an earlier run asked about.
            target if !fixed && asked.is_none() && !known.listed.contains_key(name) => {
                VersionKnowledge::Ask(Some(target))
            }
            target => VersionKnowledge::Known(target),
        }
    }

    /// Takes the registry's answer about one version: what it is, or that it is missing.
    pub fn version_answered(
        &self,
        model: &ModelRef,
        name: &Name,
        entry: Option<VersionEntry>,
        now: Instant,
    ) {
        let mut state = self.state.lock();
        let known = state.models.entry(model.clone()).or_default();
        let (ttl, listed) = (self.ttl, known.listed.contains_key(name));
        known.asked.retain(|_, at| now.saturating_duration_since(*at) < ttl.max(MISSING_FOR));
        known.asked.insert(name.clone(), now);
        match entry {
            Some(entry) if listed => drop(known.listed.insert(name.clone(), entry)),
            Some(entry) => drop(known.named.insert(name.clone(), entry)),
            None => {
                known.listed.remove(name);
                known.named.remove(name);
            }
        }
    }

    /// Notes that the registry could not be asked about a version: what was known counts for a moment.
    pub fn version_failed(&self, model: &ModelRef, name: &Name, now: Instant) {
        let at = now.checked_sub(self.ttl.saturating_sub(FAILED_FOR)).unwrap_or(now);
        let mut state = self.state.lock();
        state.models.entry(model.clone()).or_default().asked.insert(name.clone(), at);
    }

    /// Notes the manifest of a revision.
    pub fn resolved(&self, model: &ModelRef, revision: &Revision, manifest: Digest) {
        self.state.lock().manifests.insert((model.clone(), revision.clone()), manifest);
    }

    /// Models whose answers have outlived their time to live since the last call: names of theirs that the
    /// kernel holds may lead elsewhere by now.
    pub fn take_expired(&self, now: Instant) -> Vec<ModelRef> {
        let mut state = self.state.lock();
        let mut due = Vec::new();
        for (model, known) in &mut state.models {
            let old =
                known.answered.is_some_and(|at| now.saturating_duration_since(at) >= self.ttl);
            if old && known.has_versions() && !std::mem::replace(&mut known.expired, true) {
                due.push(model.clone());
            }
        }
        due
    }

    /// The models as a catalog, with a manifest for each version of which it is known.
    pub fn catalog(&self) -> Catalog {
        let state = self.state.lock();
        let mut out = CatalogBuilder::default();
        let mut group: Option<&Name> = None;
        for (model, known) in state.models.iter().filter(|(_, known)| known.is_shown()) {
            if group != Some(&model.group) {
                out.group(model.group.clone());
                group = Some(&model.group);
            }
            out.model(model.model.clone());
            let named = known.named.iter().filter(|(name, _)| !known.listed.contains_key(*name));
            for (_, entry) in known.listed.iter().chain(named) {
                out.version(VersionEntry { target: state.target(model, entry), ..entry.clone() });
            }
        }
        // Names are keys of the maps, so none occurs twice.
        out.build().unwrap_or_default()
    }

    /// The document to keep.
    pub fn document(&self) -> Vec<u8> {
        let state = self.state.lock();
        let models = state.models.iter().filter(|(_, known)| known.has_versions());
        let models = models.map(|(model, known)| ModelDoc {
            group: model.group.to_string(),
            model: model.model.to_string(),
            listed: known.listed.values().map(|v| state.version_doc(model, v)).collect(),
            named: known.named.values().map(|v| state.version_doc(model, v)).collect(),
        });
        let doc = Document { format: FORMAT.to_owned(), models: models.collect() };
        to_bytes(&doc)
    }

    /// Takes what an earlier run knew. Names that are not valid are left out.
    pub fn recall(&self, document: &[u8]) -> Result<(), serde_json::Error> {
        let doc: Document = serde_json::from_slice(document)?;
        let mut state = self.state.lock();
        for doc in doc.models {
            let (Ok(group), Ok(model)) = (Name::new(&doc.group), Name::new(&doc.model)) else {
                continue;
            };
            let model = ModelRef { group, model };
            let mut known = Model::default();
            for (versions, into) in [(doc.listed, &mut known.listed), (doc.named, &mut known.named)]
            {
                for version in versions {
                    let Ok(name) = Name::new(&version.name) else { continue };
                    let target = match (version.revision, version.manifest) {
                        (Some(revision), manifest) => {
                            let revision = Revision::new(revision);
                            if let Some(hash) = manifest {
                                state.manifests.insert((model.clone(), revision.clone()), hash);
                            }
                            VersionTarget::Revision(revision)
                        }
                        (None, Some(hash)) => VersionTarget::Manifest(hash),
                        (None, None) => VersionTarget::Unknown,
                    };
                    let (alias_of, published, metadata) = (None, None, None);
                    let entry =
                        VersionEntry { name: name.clone(), target, alias_of, published, metadata };
                    into.insert(name, entry);
                }
            }
            let place = state.models.entry(model).or_default();
            if place.answered.is_none() {
                place.listed.append(&mut known.listed);
                place.named.append(&mut known.named);
            }
        }
        Ok(())
    }
}

/// What was looked up, in a document that was kept; none: it is a catalog of another kind.
pub fn read(document: &[u8]) -> Option<LookUps> {
    let lookups = LookUps::new(Duration::ZERO);
    (has_format(document, FORMAT) && lookups.recall(document).is_ok()).then_some(lookups)
}

impl State {
    /// What a version leads to: its manifest, if that of its revision is known.
    fn target(&self, model: &ModelRef, entry: &VersionEntry) -> VersionTarget {
        match &entry.target {
            VersionTarget::Revision(revision) => {
                match self.manifests.get(&(model.clone(), revision.clone())) {
                    Some(hash) => VersionTarget::Manifest(*hash),
                    None => entry.target.clone(),
                }
            }
            target => target.clone(),
        }
    }

    fn version_doc(&self, model: &ModelRef, entry: &VersionEntry) -> VersionDoc {
        let revision = match &entry.target {
            VersionTarget::Revision(revision) => Some(revision.to_string()),
            VersionTarget::Manifest(_) | VersionTarget::Unknown => None,
        };
        let manifest = match self.target(model, entry) {
            VersionTarget::Manifest(hash) => Some(hash),
            VersionTarget::Revision(_) | VersionTarget::Unknown => None,
        };
        VersionDoc { name: entry.name.to_string(), revision, manifest }
    }
}

/// The document of what was looked up.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    format: String,
    models: Vec<ModelDoc>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ModelDoc {
    group: String,
    model: String,
    #[serde(default)]
    listed: Vec<VersionDoc>,
    #[serde(default)]
    named: Vec<VersionDoc>,
}

#[derive(Debug, Serialize, Deserialize)]
struct VersionDoc {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    manifest: Option<Digest>,
}

#[cfg(test)]
#[path = "look_ups_tests.rs"]
mod tests;
