//! What the Hub of the tests has, and what came to it. Plain values.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::xet_file::XetFile;

/// The token that is valid.
pub const HUB_TOKEN: &str = "hf_planted_secret";

type Edit = Box<dyn Fn(&mut Vec<Value>) + Send>;

/// A repository.
#[derive(Debug, Clone, Default)]
pub struct HubRepo {
    /// Only seen with the token.
    pub private: bool,
    /// Its files are only had with an accepted licence, which nobody here has.
    pub gated: bool,
    /// Name and commit.
    pub branches: Vec<(String, String)>,
    /// Name and commit.
    pub tags: Vec<(String, String)>,
    /// Revisions that are not listed, for example `refs/pr/1`, and their commits.
    pub others: Vec<(String, String)>,
    /// The files of each commit.
    pub commits: BTreeMap<String, Vec<HubFile>>,
}

/// A file.
#[derive(Debug, Clone)]
pub struct HubFile {
    /// Its path.
    pub path: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether git has but a pointer to it.
    pub lfs: bool,
}

/// A request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubRequest {
    /// Whether it came to the server of large files.
    pub cdn: bool,
    /// Path and query.
    pub path: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The `Accept-Encoding` header.
    pub encoding: Option<String>,
    /// Whether it came to the storage service.
    pub xet: bool,
    /// Bytes of the answer's body.
    pub sent: u64,
}

/// What goes wrong with the bytes of large files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HubLie {
    /// The first byte is another.
    WrongByte,
    /// The body ends after half of it.
    Truncated,
    /// The whole is sent whatever the range.
    NoRange,
    /// The connection breaks after at most so many bytes, each time elsewhere.
    Cut(usize),
}

/// What goes wrong with the storage service or the bytes of xorbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XetLie {
    /// A byte of a chunk is another.
    WrongByte,
    /// The begin of a chunk has other bytes.
    OtherChunk,
    /// A chunk's header has another size.
    ManySmallChunks,
    /// A chunk's header says that it is compressed.
    Bomb,
    /// The body ends after half of it.
    Truncated,
    /// The answer says that it is of another range.
    OtherRange,
    /// The status says that the whole is sent.
    NoRange,
    /// A node of the proof is another.
    OtherNode,
    /// The proof is of another place of the file.
    OtherPlace,
    /// The proof says that the file is longer.
    OtherLength,
    /// No proof is given, with this status.
    NoProof(u16),
    /// The proof has more than a megabyte.
    HugeProof,
    /// The window is the whole file.
    HugeWindow,
    /// The terms name the last chunk of the file first, then all others, as if they were the range.
    LastChunkFirst,
    /// Terms are had in their old form only; that is no lie, but an old service.
    OnlyVersion1,
}

/// What all servers know.
#[derive(Default)]
pub struct State {
    /// By `models/ORG/NAME` or `datasets/ORG/NAME`.
    pub repos: HashMap<String, HubRepo>,
    /// Old names and the new ones.
    pub renamed: HashMap<String, String>,
    /// What came and was not yet asked for.
    pub log: Vec<HubRequest>,
    /// Entries on a page of a tree.
    pub page: usize,
    /// Signatures before this one have expired.
    pub signature: u64,
    /// How many requests are still answered with 429.
    pub limited: u32,
    /// Whether everything is answered with 503.
    pub down: bool,
    /// What goes wrong with large files.
    pub lie: Option<HubLie>,
    /// What is done to every tree before it is sent.
    pub edit: Option<Edit>,
    /// The address of the server of large files.
    pub cdn: String,
    /// Files that have a Xet hash, by `models/ORG/NAME/COMMIT/PATH`.
    pub xet_files: BTreeMap<String, XetFile>,
    /// What goes wrong with the storage service.
    pub xet_lie: Option<XetLie>,
    /// The address of the storage service.
    pub xet: String,
    /// Logins of the storage service before this one have expired.
    pub xet_login: u64,
    /// Seconds for which a login is granted.
    pub xet_lifetime: u64,
}

impl State {
    /// The login of the storage service that is valid.
    pub fn xet_token(&self) -> String {
        format!("xet_planted_secret_{}", self.xet_login)
    }
}
