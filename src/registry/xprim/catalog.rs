//! `models.json`: `{ group: { model: { version: { hash, metadata?, alias_of? } } } }`.
//!
//! Read in one pass straight into the builder, so that a large catalog is in memory once; written
//! by changing one entry and keeping every other as it stood, fields unknown to us included.
//! A name that no path can hold is left out and noted, with all that lies below it; the rest of the
//! catalog is read. Pure functions.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{CATALOG, MAX_CATALOG, shown};
use crate::base::text::{MESSAGE, brief};
use crate::model::{
    Catalog, CatalogBuilder, Digest, Name, VersionEntry, VersionRef, VersionTarget,
};
use crate::registry::error::RegistryError;

/// Maximum number of groups, models and versions together: bounds memory where the document's size does
/// not, since an empty group is 7 bytes there and 50 here.
const MAX_ENTRIES: usize = 2_000_000;
/// Maximum size of the metadata of one version: notes, not payload.
const MAX_METADATA: usize = 1 << 20;
/// Metadata is nested less deep than this, which is as deep as serde_json reads.
const MAX_DEPTH: usize = 128;

fn invalid(why: impl fmt::Display) -> RegistryError {
    RegistryError::Invalid { what: CATALOG.into(), why: brief(&why.to_string(), MESSAGE) }
}

/// Reads a catalog.
pub fn parse(body: &[u8]) -> Result<Catalog, RegistryError> {
    if body.len() as u64 > MAX_CATALOG {
        return Err(invalid(format_args!("more than {MAX_CATALOG} bytes")));
    }
    let mut sink = Sink { out: CatalogBuilder::default(), left: MAX_ENTRIES };
    let mut json = serde_json::Deserializer::from_slice(body);
    json.deserialize_map(Groups(&mut sink)).map_err(invalid)?;
    json.end().map_err(invalid)?;
    sink.out
        .build()
        .map_err(|twice| invalid(format_args!("the name {} occurs twice", shown(twice.as_str()))))
}

struct Sink {
    out: CatalogBuilder,
    left: usize,
}

impl Sink {
    /// The next name, checked and counted; none if it is left out. `place` says where it stands.
    fn name<E: serde::de::Error>(
        &mut self,
        what: &str,
        text: &str,
        place: impl FnOnce() -> String,
    ) -> Result<Option<Name>, E> {
        self.left = self
            .left
            .checked_sub(1)
            .ok_or_else(|| E::custom(format!("more than {MAX_ENTRIES} entries")))?;
        Ok(self.checked(what, text, place))
    }

    fn checked(&mut self, what: &str, text: &str, place: impl FnOnce() -> String) -> Option<Name> {
        let why = match Name::new(text) {
            Ok(name) => return Some(name),
            Err(why) => why,
        };
        self.out.left_out(format!("the {what} name {} {why}{}", shown(text), place()));
        None
    }
}

struct Groups<'a>(&'a mut Sink);
struct Models<'a>(&'a mut Sink, &'a str);
struct Versions<'a>(&'a mut Sink, &'a str, &'a str);

/// A key without copying it where the document has no escapes in it.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);

impl<'de> Visitor<'de> for Groups<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of groups")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(group)) = map.next_key()? {
            match self.0.name("group", &group, String::new)? {
                Some(name) => {
                    self.0.out.group(name);
                    map.next_value_seed(Models(self.0, &group))?;
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Models<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Models<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of models in group {}", shown(self.1))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(model)) = map.next_key()? {
            match self.0.name("model", &model, || format!(" (in group {})", shown(self.1)))? {
                Some(name) => {
                    self.0.out.model(name);
                    map.next_value_seed(Versions(self.0, self.1, &model))?;
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Versions<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_map(self)
    }
}

#[derive(Deserialize)]
struct VersionDoc<'a> {
    hash: Digest,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    alias_of: Option<Key<'a>>,
}

impl<'de> Visitor<'de> for Versions<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of versions of {}/{}", shown(self.1), shown(self.2))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self(sink, group, model) = self;
        while let Some(Key(version)) = map.next_key()? {
            let of = || format!(" (of {}/{})", shown(group), shown(model));
            let Some(name) = sink.name("version", &version, of)? else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let at = |why: &dyn fmt::Display| {
                A::Error::custom(format!(
                    "version {} of {}/{}: {why}",
                    shown(&version),
                    shown(group),
                    shown(model)
                ))
            };
            let doc: VersionDoc<'de> = map.next_value().map_err(|e| at(&e))?;
            // The version is good without it: it has its own hash.
            let alias_of = doc.alias_of.and_then(|Key(alias)| {
                let of = || {
                    let [version, group, model] = [&*version, group, model].map(shown);
                    format!(" (what version {version} of {group}/{model} is an alias of)")
                };
                sink.checked("version", &alias, of)
            });
            let published = match doc.metadata {
                Some(raw) => read_metadata(raw.get()).map_err(|e| at(&e))?,
                None => None,
            };
            let metadata = doc.metadata.map(|raw| raw.get().into());
            sink.out.version(VersionEntry {
                name,
                target: VersionTarget::Manifest(doc.hash),
                alias_of,
                published,
                metadata,
            });
        }
        Ok(())
    }
}

/// Checks that metadata is an object of sane size and depth, and reads when it says that the version was
/// published. Makes nothing of the rest: small allocations that come and go between those that stay
/// would leave a large catalog twice as large.
fn read_metadata(raw: &str) -> Result<Option<SystemTime>, String> {
    if raw.len() > MAX_METADATA {
        return Err(format!("metadata: more than {MAX_METADATA} bytes"));
    }
    if depth(raw) >= MAX_DEPTH {
        return Err(format!("metadata: nested {MAX_DEPTH} deep or deeper"));
    }
    let mut json = serde_json::Deserializer::from_str(raw);
    json.deserialize_map(Published).map_err(|e| format!("metadata: {e}"))
}

/// How deep the objects and lists of a JSON text lie in one another.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

struct Published;

impl<'de> Visitor<'de> for Published {
    type Value = Option<SystemTime>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut published = None;
        while let Some(Key(key)) = map.next_key()? {
            if key == "published_at" {
                let at: &RawValue = map.next_value()?;
                let text = serde_json::from_str::<Key<'_>>(at.get()).ok();
                published = text.and_then(|Key(at)| humantime::parse_rfc3339(&at).ok());
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(published)
    }
}

/// A version as it is written to a catalog.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// The SHA-256 of the manifest.
    pub hash: Digest,
    /// The version that it is another name for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias_of: Option<String>,
    /// The metadata, if any.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

type Models3 = BTreeMap<String, BTreeMap<String, BTreeMap<String, Box<RawValue>>>>;

/// The catalog `body` (none: an empty one) with `version` set to `entry`; sorted, on one line.
/// Every other version stands as it stood. Refuses to touch a catalog that is not valid, and to
/// make one that would not be.
pub fn with_entry(
    body: Option<&[u8]>,
    version: &VersionRef,
    entry: &Entry,
) -> Result<Vec<u8>, RegistryError> {
    let mut all: Models3 = match body {
        Some(body) => {
            parse(body)?;
            serde_json::from_slice(body).map_err(invalid)?
        }
        None => BTreeMap::new(),
    };
    let key = |name: &Name| name.as_str().to_owned();
    all.entry(key(&version.model.group))
        .or_default()
        .entry(key(&version.model.model))
        .or_default()
        .insert(key(&version.version), serde_json::value::to_raw_value(entry).map_err(invalid)?);
    let mut out = serde_json::to_vec(&all).map_err(invalid)?;
    out.push(b'\n');
    // One entry too many, or too large, would make the whole catalog unreadable for all clients.
    parse(&out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn refused(body: &str, why: &str) {
        let error = parse(body.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("invalid registry response: models.json"), "{error}");
        assert!(error.contains(why), "{body:.200}: {error}");
        assert!(!error.contains('\n') && error.len() < 600, "{error}");
    }

    fn one(version: &str) -> String {
        format!(r#"{{"g":{{"m":{{"v":{version}}}}}}}"#)
    }

    #[test]
    fn everything_that_an_entry_can_say() {
        let body = format!(
            r#" {{"g\u0031":{{"m":{{"v2":{{"hash":"{HASH}","metadata":{{"published_at":
            "2024-05-01T10:00:00Z","deep":{{"a":[1,2]}}}},"alias_of":"v1","new":[[]]}},
            "v1":{{"hash":"{HASH}","metadata":null,"alias_of":null}}}},"empty":{{}}}},"none":{{}}}} "#
        );
        let c = parse(body.as_bytes()).unwrap();
        assert_eq!(c.len(), 2);
        assert_eq!(c.groups().map(Name::as_str).collect::<Vec<_>>(), ["g1", "none"]);
        assert_eq!(c.versions("g1", "empty").unwrap().len(), 0);
        let v2 = c.version("g1", "m", "v2").unwrap();
        assert_eq!(v2.hash().unwrap().to_string(), HASH);
        assert_eq!(v2.alias_of.as_ref().unwrap().as_str(), "v1");
        let at = humantime::parse_rfc3339("2024-05-01T10:00:00Z").unwrap();
        assert_eq!(v2.published, Some(at));
        assert!(v2.metadata.as_ref().unwrap().contains("deep"));
        let v1 = c.version("g1", "m", "v1").unwrap();
        assert_eq!((&v1.alias_of, v1.published, &v1.metadata), (&None, None, &None));
        assert!(parse(b"{}").unwrap().is_empty());
    }

    #[test]
    fn an_invalid_time_is_ignored() {
        for at in ["\"yesterday\"", "12", "null", "{}"] {
            let body = one(&format!(r#"{{"hash":"{HASH}","metadata":{{"published_at":{at}}}}}"#));
            let c = parse(body.as_bytes()).unwrap();
            assert_eq!(c.version("g", "m", "v").unwrap().published, None, "{at}");
        }
    }

    #[test]
    fn metadata_is_as_deep_as_it_looks_and_can_be_read_by_others() {
        assert_eq!(depth(r#"{"a":[{"b[[[":"\"{{\\"}],"c":{}}"#), 3);
        for (deep, fits) in [(MAX_DEPTH - 2, true), (MAX_DEPTH - 1, false)] {
            let metadata = format!("{{\"a\":{}{}}}", "[".repeat(deep), "]".repeat(deep));
            let body = one(&format!(r#"{{"hash":"{HASH}","metadata":{metadata}}}"#));
            assert_eq!(parse(body.as_bytes()).is_ok(), fits, "{deep}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&metadata).is_ok(), fits);
        }
    }

    #[test]
    fn an_invalid_catalog_is_refused() {
        refused("", "EOF");
        refused("[]", "an object of groups");
        refused("{} x", "trailing");
        refused("<!DOCTYPE html>", "expected value");
        refused(r#"{"g":[]}"#, "an object of models in group \"g\"");
        refused(r#"{"g":{"m":1}}"#, "an object of versions of \"g\"/\"m\"");
        refused(&one("{}"), r#"version "v" of "g"/"m": missing field `hash`"#);
        refused(&one(r#"{"hash":"AB"}"#), "64 lower-case hex digits");
        refused(&one(&format!(r#"{{"hash":"{}"}}"#, HASH.to_uppercase())), "hex");
        refused(&one(r#"{"hash":7}"#), "invalid type");
        refused(&one(&format!(r#"{{"hash":"{HASH}","hash":"{HASH}"}}"#)), "duplicate field");
        refused(&one(&format!(r#"{{"hash":"{HASH}","metadata":[]}}"#)), "metadata: invalid type");
        refused(&one(&format!(r#"{{"hash":"{HASH}","alias_of":3}}"#)), "invalid type");
    }

    #[test]
    fn duplicate_names_are_refused() {
        let v = format!(r#"{{"hash":"{HASH}"}}"#);
        refused(r#"{"g":{},"g":{}}"#, "\"g\" occurs twice");
        refused(r#"{"g":{"m":{},"m":{}}}"#, "\"m\" occurs twice");
        refused(&format!(r#"{{"g":{{"m":{{"v":{v},"\u0076":{v}}}}}}}"#), "\"v\" occurs twice");
    }

    #[test]
    fn an_impossible_name_is_left_out_and_named_and_the_rest_is_read() {
        let v = format!(r#"{{"hash":"{HASH}"}}"#);
        let long = "x".repeat(1 << 20);
        let body = format!(
            r#"{{"..":{{"m":{{"v":{v}}}}},"":7,"g":{{"a/b":[[]],"m":{{"a\nb":{{"hash":0}},"v":{v},
            "w":{{"hash":"{HASH}","alias_of":"../x"}}}}}},"{long}":{{}}}}"#
        );
        let c = parse(body.as_bytes()).unwrap();
        assert_eq!(c.groups().map(Name::as_str).collect::<Vec<_>>(), ["g"]);
        assert_eq!(c.models("g").unwrap().map(Name::as_str).collect::<Vec<_>>(), ["m"]);
        let versions = c.versions("g", "m").unwrap();
        assert_eq!(versions.iter().map(|v| v.name.as_str()).collect::<Vec<_>>(), ["v", "w"]);
        assert_eq!(versions[1].alias_of, None);
        let left = c.left_out();
        assert_eq!((left.count, left.first.len()), (6, 5));
        for (text, why) in left.first.iter().zip([
            r#"the group name ".." has a part"#,
            r#"the group name "" is empty"#,
            r#"the model name "a/b" has a backslash or a slash where none may be (in group "g")"#,
            r#"the version name "a\nb" has a control character (of "g"/"m")"#,
            r#"the version name "../x" has a backslash or a slash where none may be (what version "w""#,
        ]) {
            assert!(text.starts_with(why), "{text}");
            assert!(!text.contains('\n') && text.len() < 300, "{text}");
        }
        assert_eq!(parse(b"{}").unwrap().left_out().count, 0);
        // What is left out counts, or it would be no limit.
        let groups: Vec<_> = (0..=MAX_ENTRIES).map(|i| format!("\"/{i}\":{{}}")).collect();
        refused(&format!("{{{}}}", groups.join(",")), "entries");
    }

    #[test]
    fn depth_and_size_have_limits() {
        for depth in [200, 1_000_000] {
            let deep = format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
            refused(&one(&format!(r#"{{"hash":"{HASH}","metadata":{deep}}}"#)), "metadata:");
        }
        let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
        let unknown = one(&format!(r#"{{"hash":"{HASH}","unknown":{deep}}}"#));
        assert_eq!(parse(unknown.as_bytes()).unwrap().len(), 1, "skipped without recursion");
        refused(&format!(r#"{{"g":{deep}}}"#), "an object of models");
        let big = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_METADATA));
        refused(&one(&format!(r#"{{"hash":"{HASH}","metadata":{big}}}"#)), "bytes");
        refused(&format!(r#"{{"g":"{}"}}"#, "x".repeat(1 << 20)), "invalid type: string");
        let groups: Vec<_> = (0..=MAX_ENTRIES).map(|i| format!("\"{i}\":{{}}")).collect();
        refused(&format!("{{{}}}", groups.join(",")), "entries");
        refused(&" ".repeat(MAX_CATALOG as usize + 1), "more than 268435456 bytes");
    }

    #[test]
    fn writing_keeps_what_it_does_not_change() {
        let r: VersionRef = "g/m@v2".parse().unwrap();
        let hash = HASH.parse().unwrap();
        let entry = Entry { hash, alias_of: Some("v1".into()), metadata: BTreeMap::new() };
        let old =
            format!(r#"{{"g":{{"m":{{"v1":{{"hash":"{HASH}","theirs":[1, 2]}}}}}},"a":{{}}}}"#);
        let new = with_entry(Some(old.as_bytes()), &r, &entry).unwrap();
        assert_eq!(
            String::from_utf8(new.clone()).unwrap(),
            format!(
                "{{\"a\":{{}},\"g\":{{\"m\":{{\"v1\":{{\"hash\":\"{HASH}\",\"theirs\":[1, 2]}},\
                 \"v2\":{{\"hash\":\"{HASH}\",\"alias_of\":\"v1\"}}}}}}}}\n"
            )
        );
        assert_eq!(
            parse(&new).unwrap().find(&r).unwrap().alias_of.as_ref().unwrap().as_str(),
            "v1"
        );
        assert_eq!(with_entry(Some(&new), &r, &entry).unwrap(), new, "again changes nothing");
        assert_eq!(parse(&with_entry(None, &r, &entry).unwrap()).unwrap().len(), 1);
        assert!(with_entry(Some(b"{\"g\":1}"), &r, &entry).is_err());
        let odd = format!(r#"{{"..":{{"m":{{"v":{{"hash":"{HASH}"}}}}}}}}"#);
        let kept = with_entry(Some(odd.as_bytes()), &r, &entry).unwrap();
        assert!(kept.starts_with(&odd.as_bytes()[..odd.len() - 1]), "what is left out stands too");
        let large = BTreeMap::from([("note".into(), "x".repeat(MAX_METADATA))]);
        assert!(with_entry(None, &r, &Entry { metadata: large, ..entry }).is_err());
    }

    #[test]
    fn a_hundred_thousand_versions_are_read_quickly() {
        let mut body = String::from("{");
        for g in 0..100 {
            body += &format!("{}\"group{g}\":{{", if g > 0 { "," } else { "" });
            for m in 0..100 {
                body += &format!("{}\"model{m}\":{{", if m > 0 { "," } else { "" });
                for v in 0..10 {
                    body += &format!(
                        r#"{}"v{v}":{{"hash":"{HASH}","metadata":{{"published_at":"2024-05-01T10:00:00Z","licence":"mit"}}}}"#,
                        if v > 0 { "," } else { "" }
                    );
                }
                body += "}";
            }
            body += "}";
        }
        body += "}";
        let start = std::time::Instant::now();
        assert_eq!(parse(body.as_bytes()).unwrap().len(), 100_000);
        // Generous: a debug build on a shared machine. Quadratic code takes minutes.
        assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
        println!("{} bytes in {:?}", body.len(), start.elapsed());
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(text in "[{}\\[\\]\",:a-c0-9 hash]{0,60}") {
            let _ = parse(text.as_bytes());
        }
    }
}
