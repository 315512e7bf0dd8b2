//! What the Hub of the tests answers: a pure function of its state and a request.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{self, HeaderMap};
use hyper::{Response, StatusCode};
use modelfs::model::hash::{git_blob, sha256};
use serde_json::{Value, json};

use super::state::{HUB_TOKEN, HubFile, HubLie, HubRepo, HubRequest, State};
use super::xet_answer;
use super::xet_file::XetFile;

pub type Answer = Response<BoxBody<Bytes, Infallible>>;

/// Where a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The Hub.
    Hub,
    /// The server of large files and xorbs.
    Cdn,
    /// The storage service.
    Xet,
}

/// The answer to a request; it is noted with what it was.
pub fn answer(state: &mut State, request: &hyper::Request<Incoming>, server: Server) -> Answer {
    let out = decide(state, request, server);
    let declared = out.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok());
    let exact = out.body().size_hint().exact();
    let sent = declared.and_then(|v| v.parse().ok()).or(exact).unwrap_or_default();
    state.log.last_mut().expect("it was noted").sent = sent;
    out
}

fn decide(state: &mut State, request: &hyper::Request<Incoming>, server: Server) -> Answer {
    let uri = request.uri();
    let text = |name| {
        request.headers().get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
    };
    let (range, authorization) = (text(header::RANGE), text(header::AUTHORIZATION));
    state.log.push(HubRequest {
        cdn: server == Server::Cdn,
        xet: server == Server::Xet,
        sent: 0,
        path: uri.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
        range: range.clone(),
        authorization: authorization.clone(),
        encoding: text(header::ACCEPT_ENCODING),
    });
    if state.down {
        return status(503, "");
    }
    let (path, query) = (decoded(uri.path()), uri.query().unwrap_or_default());
    let (range, authorization) = (range.as_deref(), authorization.as_deref());
    match server {
        Server::Cdn if path.starts_with("/xorb/") => {
            xet_answer::xorb(state, &path, uri.query().unwrap_or_default(), range)
        }
        Server::Cdn => large(state, &path, query, range),
        Server::Xet => {
            let dirty = text(header::HeaderName::from_static("x-range-dirty"));
            xet_answer::service(state, &path, range, dirty.as_deref(), authorization)
        }
        Server::Hub => hub(state, &path, query, range, authorization, request),
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
            let folder = format!("{name}/{}/", rest[0]);
            let masked = repo.gated;
            entries.extend(
                state.xet_files.iter().filter_map(|(at, file)| {
                    Some(xet_entry(at.strip_prefix(&folder)?, file, masked))
                }),
            );
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
            let xet = state.xet_files.get(&format!("{name}/{commit}/{file}"));
            let found = repo.commits.get(commit).and_then(|c| file_of(c, &file));
            if found.is_none() && xet.is_none() {
                return status(404, "EntryNotFound");
            }
            if let Some(found) = found.filter(|found| !found.lfs) {
                return bytes_answer(&found.bytes, range, None, 0);
            }
            let mut out = status(302, "");
            let to = format!("{}/{name}/{commit}/{file}?sig={}", state.cdn, state.signature);
            out.headers_mut().insert(header::LOCATION, to.parse().expect("a URL"));
            if let Some(xet) = xet {
                let hash = xet.hash.to_string().parse().expect("a header");
                out.headers_mut().insert("x-xet-hash", hash);
            }
            out
        }
        (true, "xet-read-token") => {
            if repo.gated {
                return status(403, "GatedRepo");
            }
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let end = now.expect("after 1970").as_secs() + state.xet_lifetime;
            let token = state.xet_token();
            let login = json!({"accessToken": token, "exp": end, "casUrl": state.xet});
            json_answer(&login, request)
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
    if let Some(xet) = state.xet_files.get(&path[1..]) {
        return xet_whole(xet, range, state.lie, state.log.len());
    }
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

/// The entry of a file with a Xet hash, which is masked where the reader has no access.
fn xet_entry(path: &str, file: &XetFile, masked: bool) -> Value {
    let (digest, size) = (file.sha256.to_string(), file.len());
    let pointer =
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n");
    let hash = if masked { "*".repeat(64) } else { file.hash.to_string() };
    json!({
        "type": "file", "path": path, "size": size,
        "oid": git_blob(pointer.as_bytes()).to_string(),
        "lfs": {"oid": digest, "size": size, "pointerSize": pointer.len()},
        "xetHash": hash,
    })
}

/// The bytes of a file with a Xet hash, as programs that know nothing of Xet get them.
fn xet_whole(file: &XetFile, range: Option<&str>, lie: Option<HubLie>, salt: usize) -> Answer {
    let asked = range.map(parsed).unwrap_or((0, file.len() as usize));
    let body = file.bytes(asked.0 as u64..asked.1 as u64);
    // The bytes before and after are of no interest.
    answer_with(body, range.map(|_| asked), file.len() as usize, lie, salt)
}

/// `bytes=A-B`, end exclusive.
fn parsed(range: &str) -> (usize, usize) {
    let (first, last) =
        range.strip_prefix("bytes=").and_then(|r| r.split_once('-')).expect("bytes");
    (first.parse().expect("a number"), last.parse::<usize>().expect("a number") + 1)
}

/// Bytes whose declared number may be another.
pub fn sized(body: Vec<u8>, declared: usize) -> Answer {
    let frames = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(body)))]);
    let mut out = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    out.headers_mut().insert(header::CONTENT_LENGTH, declared.into());
    out
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

pub fn full(bytes: impl Into<Bytes>) -> BoxBody<Bytes, Infallible> {
    Full::new(bytes.into()).boxed()
}

pub fn status(status: u16, code: &str) -> Answer {
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
    let asked = range.filter(|_| lie != Some(HubLie::NoRange)).map(parsed);
    let (start, end) = asked.unwrap_or((0, all));
    answer_with(bytes[start..end].to_vec(), asked, all, lie, salt)
}

/// These bytes, asked for so of `all`. `salt` decides where an answer is cut.
fn answer_with(
    mut body: Vec<u8>,
    asked: Option<(usize, usize)>,
    all: usize,
    lie: Option<HubLie>,
    salt: usize,
) -> Answer {
    let len = body.len();
    if let Some(HubLie::Cut(most)) = lie {
        let start = asked.map_or(0, |(start, _)| start);
        let chance = sha256(&[start, salt].map(usize::to_le_bytes).concat()).as_bytes()[..4]
            .try_into()
            .expect("four");
        body.truncate(1 + u32::from_le_bytes(chance) as usize % most);
    }
    match lie {
        Some(HubLie::WrongByte) => body[0] ^= 1,
        Some(HubLie::Truncated) => body.truncate(len / 2),
        _ => {}
    }
    // Of unknown length, so that a truncated one can declare more than it has.
    let mut out = sized(body, len);
    if let Some((start, end)) = asked {
        *out.status_mut() = StatusCode::PARTIAL_CONTENT;
        let shown = format!("bytes {start}-{}/{all}", end - 1);
        out.headers_mut().insert(header::CONTENT_RANGE, shown.parse().expect("a header"));
    }
    out
}
