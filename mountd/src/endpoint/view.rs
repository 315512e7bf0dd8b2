//! Reads the Hugging Face view of a mount, without the mount.
//!
//! Invariant: what is read is what a program would read there: the same names and commits, and only verified
//! bytes. Shared; no state.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use futures_util::stream;
use modelfs::model::ModelRef;
use modelfs::vfs::{
    Answer, Attr, HUB_CACHE, Handle, Ino, Kind, ListPlace, Vfs, VfsError, is_commit,
    repository_folder,
};

use super::documents::Tree;

/// Bytes of one read: what the kernel asks for at most, too.
const READ: u32 = 1 << 20;

/// The view.
#[derive(Clone)]
pub struct HubView {
    vfs: Arc<Vfs>,
}

async fn wait<T>(answer: Answer<T>) -> Result<T, VfsError> {
    match answer {
        Answer::Now(answer) => answer,
        Answer::Later(answer) => answer.await,
    }
}

impl HubView {
    /// The view of this tree.
    pub fn new(vfs: Arc<Vfs>) -> Self {
        Self { vfs }
    }

    async fn below(&self, mut at: Attr, path: &str) -> Result<Attr, VfsError> {
        for name in path.split('/') {
            at = wait(self.vfs.lookup(at.ino, name)).await?.attr;
        }
        Ok(at)
    }

    /// The folder of a model's repository.
    pub async fn repository(&self, model: &ModelRef) -> Result<Attr, VfsError> {
        let root = wait(self.vfs.attr(Ino::ROOT)).await?;
        let folder = repository_folder(model.group.as_str(), model.model.as_str());
        self.below(root, &format!("{HUB_CACHE}/{folder}")).await
    }

    /// The commit that a revision leads to.
    pub async fn commit(&self, repository: Attr, revision: &str) -> Result<String, VfsError> {
        if is_commit(revision) {
            self.below(repository, &format!("snapshots/{revision}")).await?;
            return Ok(revision.to_owned());
        }
        let file = self.below(repository, &format!("refs/{revision}")).await?;
        if file.kind != Kind::File {
            return Err(VfsError::NotFound);
        }
        self.text(file).await
    }

    /// The files of a commit.
    pub async fn tree(&self, repository: Attr, commit: &str) -> Result<Tree, VfsError> {
        let document = self.below(repository, &format!("trees/{commit}.json")).await?;
        let text = self.text(document).await?;
        let corrupt = |e: serde_json::Error| VfsError::Corrupt { reason: e.to_string() };
        serde_json::from_str(&text).map_err(corrupt)
    }

    /// A file of a commit.
    pub async fn file(&self, repository: Attr, commit: &str, path: &str) -> Result<Attr, VfsError> {
        let file = self.below(repository, &format!("snapshots/{commit}/{path}")).await?;
        if file.kind == Kind::File { Ok(file) } else { Err(VfsError::NotFound) }
    }

    /// The references of a repository that were used.
    pub async fn references(&self, repository: Attr) -> Result<Vec<(String, String)>, VfsError> {
        let mut folders = vec![(String::new(), self.below(repository, "refs").await?)];
        let mut all = Vec::new();
        while let Some((prefix, folder)) = folders.pop() {
            for entry in wait(self.vfs.list(folder.ino, ListPlace::START)).await?.entries.iter() {
                let name = format!("{prefix}{}", entry.name);
                match entry.attr.kind {
                    Kind::Folder => folders.push((format!("{name}/"), entry.attr)),
                    Kind::File => all.push((name, self.text(entry.attr).await?)),
                }
            }
        }
        all.sort();
        Ok(all)
    }

    async fn text(&self, file: Attr) -> Result<String, VfsError> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < file.size {
            bytes.extend_from_slice(&self.read(file.ino, bytes.len() as u64, READ).await?);
        }
        String::from_utf8(bytes).map_err(|e| VfsError::Corrupt { reason: e.to_string() })
    }

    async fn read(&self, ino: Ino, offset: u64, size: u32) -> Result<Bytes, VfsError> {
        let bytes = wait(self.vfs.read(ino, Handle::NONE, offset, size)).await?;
        // A file that ends early would make the caller loop without end.
        if bytes.is_empty() { Err(VfsError::Stale) } else { Ok(bytes) }
    }

    /// A range of a file, which is read as the client takes it. An error cuts the connection.
    pub fn body(&self, ino: Ino, start: u64, end: u64) -> Body {
        let next = move |(view, at): (Self, u64)| async move {
            if at >= end {
                return None;
            }
            let size = u32::try_from(end - at).unwrap_or(READ).min(READ);
            let read = view.read(ino, at, size).await;
            let got = read.as_ref().map_or(end, |bytes| at + bytes.len() as u64);
            if let Err(error) = &read {
                tracing::warn!(%error, "an answer to a client of the Hub's interface is cut off");
            }
            Some((read, (view, got)))
        };
        Body::from_stream(stream::unfold((self.clone(), start), next))
    }
}
