//! Layers become a configuration.
//!
//! Invariant: a later layer wins, value by value; sources are merged by name; the host policy only narrows.
//! Pure.

use super::address::Address;
use super::error::ConfigError;
use super::origin::{Origin, Setting};
use super::settings::{Config, Layer};
use super::source::{SourceConfig, SourceLayer};
use super::source_rules;

impl Config {
    /// The settings of these layers, the strongest last.
    pub fn resolve(layers: impl IntoIterator<Item = Layer>) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let mut sources: Vec<SourceLayer> = Vec::new();
        for mut layer in layers {
            if layer.clear_sources {
                sources.clear();
            }
            for stronger in std::mem::take(&mut layer.sources) {
                match sources.iter_mut().find(|weak| weak.name.value == stronger.name.value) {
                    Some(weak) => weak.merge(stronger),
                    None => sources.push(stronger),
                }
            }
            config.policy.narrow(std::mem::take(&mut layer.policy));
            config.apply(layer);
        }
        for source in sources {
            let (name, origin) = (source.name.value.clone(), source.name.origin.clone());
            let source = source.finish().ok_or(ConfigError::NoAddress { origin, name })?;
            config.sources.push(source);
        }
        // Sources of the same priority stay in their order.
        config.sources.sort_by_key(SourceConfig::rank);
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let conflict = |first, first_origin: &Origin, second, second_origin: &Origin| {
            let (first_origin, second_origin) = (first_origin.clone(), second_origin.clone());
            Err(ConfigError::Conflict { first, first_origin, second, second_origin })
        };
        if let Some(user) = self.worker_user.as_ref().filter(|_| self.keep_privileges.value) {
            let keep = &self.keep_privileges.origin;
            return conflict("worker_user", &user.origin, "keep_privileges", keep);
        }
        if let Some(registry) = &self.registry {
            // A flag or a variable is for this time; two files would contradict each other for good.
            if let (Origin::File { .. }, Some(source)) = (&registry.origin, self.sources.first()) {
                return conflict("registry", &registry.origin, "source", &source.name.origin);
            }
            self.check_host(registry)?;
        }
        self.sources.iter().try_for_each(|source| self.check_host(&source.url))
    }

    fn check_host(&self, address: &Setting<Address>) -> Result<(), ConfigError> {
        let Some((host, port)) = source_rules::host(&address.value) else { return Ok(()) };
        self.policy.allows(&host, port).map_err(|policy| ConfigError::NotAllowed {
            origin: address.origin.clone(),
            policy: policy.clone(),
            host,
        })
    }
}
