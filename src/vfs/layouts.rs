//! The tree and the views as one file system: which of them an inode belongs to.
//!
//! Invariant: each number belongs to one of them. Concurrency: no state.

use std::sync::Arc;

use super::content::Content;
use super::metadata_cache::Ready;
use super::namespace::Namespace;
use super::types::{Attr, Entry, Found, Ino};
use super::views::{self, View, Views};

/// The tree and the views.
pub(super) struct Layouts {
    names: Arc<Namespace>,
    views: Views,
}

impl Layouts {
    /// A tree and the views of it.
    pub(super) fn new(names: Arc<Namespace>, views: Views) -> Self {
        Self { names, views }
    }

    /// The tree.
    pub(super) fn names(&self) -> &Namespace {
        &self.names
    }

    /// The entry of a folder with that name.
    pub(super) fn lookup(&self, parent: Ino, name: &str) -> Ready<Found> {
        if let Some(view) = View::decode(parent) {
            return self.views.lookup(view, name);
        }
        let attr = match parent {
            Ino::ROOT if name == views::FOLDER => self.views.attr(View::Top)?,
            _ => self.names.lookup(parent, name)?,
        };
        Ok(Found { attr, keeps: true })
    }

    /// The attributes for `stat`.
    pub(super) fn attr(&self, ino: Ino) -> Ready<Attr> {
        match View::decode(ino) {
            Some(view) => self.views.attr(view),
            None => self.names.attr(ino),
        }
    }

    /// A folder's entries, sorted.
    pub(super) fn list(&self, ino: Ino) -> Ready<Arc<[Entry]>> {
        match View::decode(ino) {
            Some(view) => self.views.list(view),
            None => self.names.list(ino),
        }
    }

    /// What a file consists of.
    pub(super) fn content(&self, ino: Ino) -> Ready<Content> {
        match View::decode(ino) {
            Some(view) => self.views.content(view),
            None => self.names.content(ino),
        }
    }

    /// The parent folder; that of the root is the root.
    pub(super) fn parent(&self, ino: Ino) -> Ino {
        match View::decode(ino) {
            Some(view) => self.views.parent(view),
            None => self.names.parent(ino),
        }
    }
}
