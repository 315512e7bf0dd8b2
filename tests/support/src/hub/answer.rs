//! What the Hub of the tests answers: a pure function of its state and a request.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{self, HeaderMap};
use hyper::{Response, StatusCode};
use modelfs::model::hash::{git_blob, sha256};
use serde_json::{Value, json};

use super::state::{HUB_TOKEN, HubFile, HubLie, HubRepo, HubRequest, State};

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// The answer to a request that came to the Hub, or to the server of large files.
pub fn answer(state: &mut State, request: &hyper::Request<Incoming>, cdn: bool) -> Answer {
    let uri = request.uri();
    let text = |name| {
        request.headers().get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
    };
    let (range, authorization) = (text(header::RANGE), text(header::AUTHORIZATION));
    state.log.push(HubRequest {
        cdn,
        path: uri.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
        range: range.clone(),
        authorization: authorization.clone(),
        encoding: text(header::ACCEPT_ENCODING),
    });
    if state.down {
        return status(503, "");
    }
    let (path, query) = (decoded(uri.path()), uri.query().unwrap_or_default());
    match cdn {
        true => large(state, &path, query, range.as_deref()),
        false => hub(state, &path, query, range.as_deref(), authorization.as_deref(), request),
    }
}

fn hub(
    state: &mut State,
    path: &str,
    query: &str,
    range: Option<&str>,
    authorization: Option<&str>,
    request: &hyper::Request<Incoming>,
) -> Answer {
    if state.limited > 0 {
        state.limited -= 1;
        let mut out = status(429, "");
        let limit = "\"api\";r=0;t=1".parse().expect("a header");
        out.headers_mut().insert("ratelimit", limit);
        return out;
    }
    let logged_in = authorization == Some(&format!("Bearer {HUB_TOKEN}"));
    if authorization.is_some() && !logged_in {
        return status(401, "");
    }
    let raw = request.uri().path();
    let (api, rest) = match path.strip_prefix("/api/") {
        Some(rest) => (true, rest.to_owned()),
        None if path.starts_with("/datasets/") => (false, path[1..].to_owned()),
        None => (false, format!("models{path}")),
    };
    let parts: Vec<&str> = rest.split('/').collect();
    let [kind, org, model, verb, rest @ ..] = &parts[..] else { return status(404, "") };
    let name = format!("{kind}/{org}/{model}");
    if let Some(new) = state.renamed.get(&name) {
        let (_, new) = new.split_once('/').expect("a kind and a name");
        let mut out = status(307, "");
        let to = request.uri().to_string().replacen(&format!("{org}/{model}"), new, 1);
        out.headers_mut().insert(header::LOCATION, to.parse().expect("a path"));
        return out;
    }
    let Some(repo) = state.repos.get(&name).filter(|r| logged_in || !r.private) else {
        return status(if logged_in { 404 } else { 401 }, "RepoNotFound");
    };
    match (api, *verb) {
        (true, "refs") => {
            let list = |refs: &[(String, String)], folder: &str| -> Value {
                let one = |(name, commit): &(String, String)| {
                    let whole = format!("refs/{folder}/{name}");
                    json!({"name": name, "ref": whole, "targetCommit": commit})
                };
                refs.iter().map(one).collect()
            };
            let (branches, tags) = (list(&repo.branches, "heads"), list(&repo.tags, "tags"));
            json_answer(&json!({"branches": branches, "tags": tags, "converts": []}), request)
        }
        (true, "revision") => {
            // One part of the path, with its slashes encoded.
            let revision = decoded(raw.rsplit('/').next().unwrap_or_default());
            match repo.commit(&revision) {
                Some(commit) => json_answer(&json!({"sha": commit}), request),
                None => status(404, "RevisionNotFound"),
            }
        }
        (true, "tree") => {
            let Some(files) = rest.first().and_then(|c| repo.commits.get(*c)) else {
                return status(404, "RevisionNotFound");
            };
            let mut entries: Vec<Value> = files.iter().map(HubFile::entry).collect();
            if let Some(edit) = &state.edit {
                edit(&mut entries);
            }
            let cursor = query.split('&').find_map(|p| p.strip_prefix("cursor="));
            let start: usize = cursor.map_or(0, |c| c.parse().expect("our cursor"));
            let end = (start + state.page).min(entries.len());
            let mut out = json_answer(&entries[start..end].iter().cloned().collect(), request);
            if end < entries.len() {
                // As behind a mirror: the link names another host.
                let link = format!(
                    "<https://hub.invalid{raw}?recursive=true&expand=false&cursor={end}>; rel=\"next\""
                );
                out.headers_mut().insert(header::LINK, link.parse().expect("a header"));
            }
            out
        }
        (false, "resolve") => {
            if repo.gated {
                return status(if logged_in { 403 } else { 401 }, "GatedRepo");
            }
            let (commit, file) = (rest.first().copied().unwrap_or_default(), rest[1..].join("/"));
            let Some(found) = repo.commits.get(commit).and_then(|c| file_of(c, &file)) else {
                return status(404, "EntryNotFound");
            };
            if !found.lfs {
                return bytes_answer(&found.bytes, range, None, 0);
            }
            let mut out = status(302, "");
            let to = format!("{}/{name}/{commit}/{file}?sig={}", state.cdn, state.signature);
            out.headers_mut().insert(header::LOCATION, to.parse().expect("a URL"));
            out
        }
        _ => status(404, ""),
    }
}

fn large(state: &State, path: &str, query: &str, range: Option<&str>) -> Answer {
    if query != format!("sig={}", state.signature) {
        return status(403, "");
    }
    let parts: Vec<&str> = path[1..].splitn(5, '/').collect();
    let [kind, org, model, commit, file] = parts[..] else { return status(404, "") };
    let repo = state.repos.get(&format!("{kind}/{org}/{model}"));
    let found = repo.and_then(|r| file_of(r.commits.get(commit)?, file));
    match found {
        // A request that is repeated is cut elsewhere.
        Some(found) => bytes_answer(&found.bytes, range, state.lie, state.log.len()),
        None => status(404, ""),
    }
}

fn file_of<'a>(files: &'a [HubFile], path: &str) -> Option<&'a HubFile> {
    files.iter().find(|f| f.path == path)
}

impl HubRepo {
    fn commit(&self, revision: &str) -> Option<&str> {
        let names = self.branches.iter().chain(&self.tags).chain(&self.others);
        let named = names.clone().find(|(name, _)| name == revision).map(|(_, c)| c.as_str());
        named.or_else(|| self.commits.get_key_value(revision).map(|(c, _)| c.as_str()))
    }
}

impl HubFile {
    fn entry(&self) -> Value {
        let size = self.bytes.len();
        if !self.lfs {
            let oid = git_blob(&self.bytes).to_string();
            return json!({"type": "file", "path": self.path, "size": size, "oid": oid});
        }
        let digest = sha256(&self.bytes).to_string();
        let pointer = format!(
            "version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n"
        );
        json!({
            "type": "file", "path": self.path, "size": size,
            "oid": git_blob(pointer.as_bytes()).to_string(),
            "lfs": {"oid": digest, "size": size, "pointerSize": pointer.len()},
        })
    }
}

fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        out.push(match b {
            b'%' => {
                let hex: String = bytes.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&hex, 16).expect("a client encodes well")
            }
            other => other,
        });
    }
    String::from_utf8(out).expect("a client encodes UTF-8")
}

fn full(bytes: impl Into<Bytes>) -> BoxBody<Bytes, Infallible> {
    Full::new(bytes.into()).boxed()
}

fn status(status: u16, code: &str) -> Answer {
    let mut out = Response::new(full(""));
    *out.status_mut() = StatusCode::from_u16(status).expect("a status");
    if !code.is_empty() {
        out.headers_mut().insert("x-error-code", code.parse().expect("a header"));
    }
    out
}

fn json_answer(value: &Value, request: &hyper::Request<Incoming>) -> Answer {
    let body = value.to_string();
    let tag = format!("W/\"{}\"", sha256(body.as_bytes()));
    let known = |headers: &HeaderMap| headers.get(header::IF_NONE_MATCH).is_some_and(|k| *k == tag);
    if known(request.headers()) {
        return status(304, "");
    }
    let mut out = Response::new(full(body));
    out.headers_mut().insert(header::ETAG, tag.parse().expect("a header"));
    out
}

fn bytes_answer(bytes: &[u8], range: Option<&str>, lie: Option<HubLie>, salt: usize) -> Answer {
    let all = bytes.len();
    let asked = range.filter(|_| lie != Some(HubLie::NoRange)).map(|range| {
        let (first, last) =
            range.strip_prefix("bytes=").and_then(|r| r.split_once('-')).expect("bytes");
        (first.parse::<usize>().expect("a number"), last.parse::<usize>().expect("a number") + 1)
    });
    let (start, end) = asked.unwrap_or((0, all));
    let len = end - start;
    let sent = match lie {
        Some(HubLie::Cut(most)) => {
            let chance = sha256(&[start, salt].map(usize::to_le_bytes).concat()).as_bytes()[..4]
                .try_into()
                .expect("four");
            len.min(1 + u32::from_le_bytes(chance) as usize % most)
        }
        _ => len,
    };
    let mut body = bytes[start..start + sent].to_vec();
    match lie {
        Some(HubLie::WrongByte) => body[0] ^= 1,
        Some(HubLie::Truncated) => body.truncate(len / 2),
        _ => {}
    }
    // Of unknown length, so that a truncated one can declare more than it has.
    let frames = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(body)))]);
    let mut out = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    out.headers_mut().insert(header::CONTENT_LENGTH, len.into());
    if asked.is_some() {
        *out.status_mut() = StatusCode::PARTIAL_CONTENT;
        let shown = format!("bytes {start}-{}/{all}", end - 1);
        out.headers_mut().insert(header::CONTENT_RANGE, shown.parse().expect("a header"));
    }
    out
}
