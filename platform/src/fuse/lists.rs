//! Fills the kernel's buffer with a folder's list.
//!
//! Invariant: an entry's offset is the position after it in its edition of the list, `.` and `..`
//! first, so a reader can continue after any entry, also after a restart. Pure except for the buffer;
//! any thread.

use std::time::Duration;

use fuser::{FileType, Generation, ReplyDirectory, ReplyDirectoryPlus};
use modelfs::vfs::{Attr, Entry, Ino, Kind, ListPlace, Listing, stable_time};

use super::convert::{KEPT, Owner, attr, kind, number};

/// The entries of a folder's list from `place` on: (number of the following position, inode, name, the
/// entry unless it is `.` or `..`).
fn from(
    place: ListPlace,
    ino: Ino,
    parent: Ino,
    list: &Listing,
) -> impl Iterator<Item = (u64, Ino, &str, Option<&Entry>)> {
    let dots = [(ino, ".", None), (parent, "..", None)];
    let rest = list.entries.iter().map(|e| (e.attr.ino, &*e.name, Some(e)));
    let all = dots.into_iter().chain(rest).enumerate().skip(place.index());
    let behind = |at| ListPlace::after(list.edition, at).number();
    all.map(move |(at, (ino, name, entry))| (behind(at), ino, name, entry))
}

/// Adds names and inodes, as many as fit.
pub(super) fn fill(
    reply: &mut ReplyDirectory,
    place: ListPlace,
    ino: Ino,
    parent: Ino,
    list: &Listing,
) {
    for (next, ino, name, entry) in from(place, ino, parent, list) {
        let kind = entry.map_or(FileType::Directory, |e| kind(e.attr.kind));
        if reply.add(number(ino), next, kind, name) {
            return;
        }
    }
}

/// The same with attributes. The kernel ignores those of `.` and `..` and counts no lookup for
/// them.
pub(super) fn fill_plus(
    reply: &mut ReplyDirectoryPlus,
    place: ListPlace,
    ino: Ino,
    parent: Ino,
    list: &Listing,
    owner: Owner,
) -> Vec<Ino> {
    let mut returned = Vec::new();
    for (next, ino, name, entry) in from(place, ino, parent, list) {
        let dot = Attr { ino, kind: Kind::Folder, size: 0, mtime: stable_time(), links: 2 };
        let attr = attr(entry.map_or(&dot, |e| &e.attr), owner);
        let keeps = entry.is_none_or(|entry| entry.keeps);
        let valid = if keeps { KEPT } else { Duration::ZERO };
        if reply.add(number(ino), next, name, &valid, &attr, Generation(0)) {
            break;
        }
        // The kernel counts no lookup for `.` and `..`.
        returned.extend(entry.map(|_| ino));
    }
    returned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_listing_resumes_after_any_entry() {
        let attr =
            |n| Attr { ino: Ino(n), kind: Kind::File, size: 0, mtime: stable_time(), links: 1 };
        let entries = (10..15)
            .map(|n| Entry { name: n.to_string().into(), attr: attr(n), keeps: true })
            .collect();
        let list = Listing { edition: 77, entries };
        let rest = |place| from(place, Ino(2), Ino(1), &list).map(|e| (e.1.0, e.2));
        let all: Vec<_> = from(ListPlace::START, Ino(2), Ino(1), &list).collect();
        let names: Vec<_> = rest(ListPlace::START).collect();
        assert_eq!(names[..3], [(2, "."), (1, ".."), (10, "10")]);
        assert_eq!(names.len(), 7);
        for (at, entry) in all.iter().enumerate() {
            let place = ListPlace::from_number(entry.0);
            assert_eq!(rest(place).collect::<Vec<_>>(), names[at + 1..]);
        }
        assert_eq!(rest(ListPlace::from_number(u64::MAX)).count(), 0);
    }
}
