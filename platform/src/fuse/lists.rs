//! Filling the kernel's buffer with a folder's list.
//!
//! Invariant: the offset of an entry is its place in the list plus one, `.` and `..` first, so a
//! reader can go on from any entry, also after a restart. Pure but for the buffer.

use fuser::{FileType, Generation, ReplyDirectory, ReplyDirectoryPlus};
use modelfs::vfs::{Attr, Entry, Ino, Kind, stable_time};

use super::convert::{KEPT, Owner, attr, kind, number};

/// What stands at each place of a folder's list from `offset` on: (offset of the next, inode, name,
/// the entry unless it is one of the dots).
fn from(
    offset: u64,
    ino: Ino,
    parent: Ino,
    list: &[Entry],
) -> impl Iterator<Item = (u64, Ino, &str, Option<&Entry>)> {
    let dots = [(ino, ".", None), (parent, "..", None)];
    let rest = list.iter().map(|e| (e.attr.ino, &*e.name, Some(e)));
    let skip = usize::try_from(offset).unwrap_or(usize::MAX);
    let all = dots.into_iter().chain(rest).enumerate().skip(skip);
    all.map(|(at, (ino, name, entry))| (at as u64 + 1, ino, name, entry))
}

/// Names and inodes, as many as fit.
pub(super) fn fill(reply: &mut ReplyDirectory, offset: u64, ino: Ino, parent: Ino, list: &[Entry]) {
    for (next, ino, name, entry) in from(offset, ino, parent, list) {
        let kind = entry.map_or(FileType::Directory, |e| kind(e.attr.kind));
        if reply.add(number(ino), next, kind, name) {
            return;
        }
    }
}

/// The same with attributes. Those of the dots are not used: the kernel looks only at their names,
/// and counts no look-up for them.
pub(super) fn fill_plus(
    reply: &mut ReplyDirectoryPlus,
    offset: u64,
    ino: Ino,
    parent: Ino,
    list: &[Entry],
    owner: Owner,
) {
    for (next, ino, name, entry) in from(offset, ino, parent, list) {
        let dot = Attr { ino, kind: Kind::Folder, size: 0, mtime: stable_time(), links: 2 };
        let attr = attr(entry.map_or(&dot, |e| &e.attr), owner);
        if reply.add(number(ino), next, name, &KEPT, &attr, Generation(0)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_goes_on_after_any_entry() {
        let attr =
            |n| Attr { ino: Ino(n), kind: Kind::File, size: 0, mtime: stable_time(), links: 1 };
        let list: Vec<Entry> =
            (10..15).map(|n| Entry { name: n.to_string().into(), attr: attr(n) }).collect();
        let all: Vec<_> = from(0, Ino(2), Ino(1), &list).map(|e| (e.0, e.1.0, e.2)).collect();
        assert_eq!(all[..3], [(1, 2, "."), (2, 1, ".."), (3, 10, "10")]);
        assert_eq!(all.len(), 7);
        for (next, _, _) in &all {
            let rest: Vec<_> = from(*next, Ino(2), Ino(1), &list).map(|e| e.0).collect();
            assert_eq!(rest, (next + 1..=7).collect::<Vec<_>>());
        }
        assert_eq!(from(u64::MAX, Ino(2), Ino(1), &list).count(), 0);
    }
}
