//! What the storage service of the tests answers, and the place where xorbs are: right, or as wrong as it
//! was told to be.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Value, json};

use super::answer::{Answer, full, status};
use super::state::{State, XetLie};
use super::xet_file::XetFile;

/// A range header: `bytes=A-B`, or several of them.
fn ranges(header: &str) -> Vec<Range<u64>> {
    let list = header.strip_prefix("bytes=").expect("bytes").split(',');
    list.map(|range| {
        let (first, last) = range.split_once('-').expect("two numbers");
        first.parse().expect("a number")..last.parse::<u64>().expect("a number") + 1
    })
    .collect()
}

/// The file with this Xet hash.
fn file<'a>(state: &'a State, hash: &str) -> Option<&'a XetFile> {
    state.xet_files.values().find(|file| file.hash.to_string() == hash)
}

/// Answers a request to the storage service.
pub fn service(
    state: &State,
    path: &str,
    range: Option<&str>,
    dirty: Option<&str>,
    authorization: Option<&str>,
) -> Answer {
    if authorization != Some(&format!("Bearer {}", state.xet_token())) {
        return status(401, "");
    }
    let parts: Vec<&str> = path[1..].split('/').collect();
    let [version, verb, hash] = parts[..] else { return status(404, "") };
    let Some(file) = file(state, hash) else { return status(404, "") };
    match (version, verb) {
        ("v2", "file-chunk-hashes") => proof(state, file, dirty),
        ("v2", "reconstructions") if state.xet_lie == Some(XetLie::OnlyVersion1) => status(404, ""),
        ("v1" | "v2", "reconstructions") => {
            let range = range.map_or(0..file.len(), |header| ranges(header).remove(0));
            let value = terms(state, file, range.start..range.end.min(file.len()), version == "v1");
            answer(&value)
        }
        _ => status(404, ""),
    }
}

fn answer(value: &Value) -> Answer {
    hyper::Response::new(full(value.to_string()))
}

fn proof(state: &State, file: &XetFile, dirty: Option<&str>) -> Answer {
    let Some(dirty) = dirty else { return status(400, "") };
    let range = ranges(dirty).remove(0);
    let mut proof = file.proof(range.start..range.end.min(file.len()));
    let nodes = |proof: &mut Value| {
        let gaps = proof["hashRanges"].as_array_mut().expect("a list");
        let gap = gaps.iter_mut().find(|gap| !gap.is_null()).expect("the window is not all");
        gap["nodes"].as_array_mut().expect("a list").clone()
    };
    match state.xet_lie {
        Some(XetLie::NoProof(code)) => return status(code, ""),
        Some(XetLie::HugeProof) => proof["padding"] = json!("x".repeat(1 << 20)),
        Some(XetLie::HugeWindow) => proof = file.proof_of_all(),
        Some(XetLie::OtherLength) => proof["fileSize"] = json!(file.len() + 1),
        Some(XetLie::OtherNode) => {
            let mut changed = nodes(&mut proof);
            changed[0]["hash"] = json!(file.chunks()[0].hash.sealed().to_string());
            let gaps = proof["hashRanges"].as_array_mut().expect("a list");
            let gap = gaps.iter_mut().find(|gap| !gap.is_null()).expect("the window is not all");
            gap["nodes"] = json!(changed);
        }
        Some(XetLie::OtherPlace) => {
            // An honest proof of another place: the windows are named as if they were the right ones.
            let other = (range.start + (8 << 20)) % (file.len() - range.end + range.start);
            let asked = proof["windows"].clone();
            proof = file.proof(other..other + range.end - range.start);
            proof["windows"] = asked;
        }
        _ => {}
    }
    answer(&proof)
}

fn terms(state: &State, file: &XetFile, range: Range<u64>, v1: bool) -> Value {
    let (mut skip, mut runs) = file.terms(range.clone());
    if state.xet_lie == Some(XetLie::LastChunkFirst) {
        let (_, all) = file.terms(0..file.len());
        let [(xorb, chunks, _)] = &all[..] else { panic!("all chunks are in one xorb") };
        let last = chunks.end - 1;
        (skip, runs) = (0, vec![(*xorb, last..chunks.end, 1)]);
        runs.push((*xorb, 0..last, range.end - range.start - 1));
    }
    let chunks = |run: &Range<usize>| json!({"start": run.start, "end": run.end});
    let mut xorbs: BTreeMap<usize, Vec<Range<usize>>> = BTreeMap::new();
    let mut terms = Vec::new();
    for (xorb, run, len) in runs {
        let (hash, range) = (file.xorb_name(xorb), chunks(&run));
        terms.push(json!({"hash": hash, "unpacked_length": len, "range": range}));
        xorbs.entry(xorb).or_default().push(run);
    }
    for runs in xorbs.values_mut() {
        runs.sort_by_key(|run| run.start);
    }
    let signed = |xorb: usize, runs: &[Range<usize>]| {
        let list = runs.iter().map(|run| {
            let (first, last) = file.byte_range(xorb, run);
            format!("{first}-{last}")
        });
        let list: Vec<_> = list.collect();
        let (cdn, hash, signature) = (&state.cdn, file.hash, state.signature);
        format!("{cdn}/xorb/{hash}/{xorb}?sig={signature}&ranges={}", list.join(","))
    };
    let bytes = |xorb: usize, run: &Range<usize>| {
        let (start, end) = file.byte_range(xorb, run);
        json!({"start": start, "end": end})
    };
    let mut out = json!({"offset_into_first_range": skip, "terms": terms});
    let mut places = serde_json::Map::new();
    for (xorb, runs) in &xorbs {
        let list: Vec<_> = match v1 {
            true => {
                let one = |run: &Range<usize>| {
                    let url = signed(*xorb, std::slice::from_ref(run));
                    json!({"range": chunks(run), "url": url, "url_range": bytes(*xorb, run)})
                };
                runs.iter().map(one).collect()
            }
            false => {
                let one = |run| json!({"chunks": chunks(run), "bytes": bytes(*xorb, run)});
                let ranges: Vec<_> = runs.iter().map(one).collect();
                vec![json!({"url": signed(*xorb, runs), "ranges": ranges})]
            }
        };
        places.insert(file.xorb_name(*xorb), list.into());
    }
    out[if v1 { "fetch_info" } else { "xorbs" }] = places.into();
    out
}

/// Answers a request for ranges of a xorb: exactly those that the URL is signed for.
pub fn xorb(state: &State, path: &str, query: &str, range: Option<&str>) -> Answer {
    let signed = format!("sig={}&ranges=", state.signature);
    let (Some(permitted), Some(asked)) = (query.strip_prefix(&signed), range) else {
        return status(403, "");
    };
    let parts: Vec<&str> = path.split('/').collect();
    let ["", "xorb", hash, number] = parts[..] else { return status(404, "") };
    let (Some(file), true) = (file(state, hash), asked == format!("bytes={permitted}")) else {
        return status(403, "");
    };
    let number: usize = number.parse().expect("a number");
    let asked = ranges(asked);
    let mut bodies: Vec<_> = asked.iter().map(|r| file.xorb_bytes(number, r.clone())).collect();
    match state.xet_lie {
        Some(XetLie::WrongByte) => {
            let at = bodies[0].len() / 2;
            bodies[0][at] ^= 1;
        }
        Some(XetLie::OtherChunk) => {
            // The same sizes, other bytes.
            let size = bodies[0].len().min(9000);
            bodies[0][8..size].fill(7);
        }
        Some(XetLie::ManySmallChunks) => bodies[0][5] = bodies[0][5].wrapping_add(1),
        Some(XetLie::Bomb) => {
            // LZ4 that would become far more than the header says.
            bodies[0][4] = 1;
        }
        _ => {}
    }
    let mut out = match (&asked[..], &mut bodies[..]) {
        ([range], [body]) => {
            let mut body = std::mem::take(body);
            let all = body.len();
            if state.xet_lie == Some(XetLie::Truncated) {
                body.truncate(all / 2);
            }
            let mut out = super::answer::sized(body, all);
            let shown = format!("bytes {}-{}/*", range.start, range.end - 1);
            out.headers_mut().insert("content-range", shown.parse().expect("a header"));
            out
        }
        _ => {
            let mut body = Vec::new();
            for (range, bytes) in asked.iter().zip(&bodies) {
                let (first, last) = (range.start, range.end - 1);
                let head = format!("\r\n--parts\r\nContent-Range: bytes {first}-{last}/*\r\n\r\n");
                body.extend(head.into_bytes());
                body.extend(bytes);
            }
            body.extend(b"\r\n--parts--\r\n");
            let all = body.len();
            let mut out = super::answer::sized(body, all);
            let kind = "multipart/byteranges; boundary=parts".parse().expect("a header");
            out.headers_mut().insert("content-type", kind);
            out
        }
    };
    *out.status_mut() = hyper::StatusCode::PARTIAL_CONTENT;
    match state.xet_lie {
        Some(XetLie::OtherRange) => {
            let shown = "bytes 0-1/*".parse().expect("a header");
            out.headers_mut().insert("content-range", shown);
        }
        Some(XetLie::NoRange) => *out.status_mut() = hyper::StatusCode::OK,
        _ => {}
    }
    out
}
