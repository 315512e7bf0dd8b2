//! Conversion of the tree's values to the kernel's.
//!
//! Invariant: attributes depend on values alone. Pure; any thread.

use std::time::Duration;

use fuser::{FileAttr, FileType, INodeNo};
use modelfs::vfs::{Attr, Ino, Kind};

/// How long the kernel may cache names and attributes. The content of an inode never changes, and a
/// changed name is invalidated, so this could be unlimited. A day bounds the harm of a lost
/// invalidation.
pub(super) const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// The preferred read size in `stat`. 128 KiB is the kernel's default read size. Not more, though one
/// request carries 1 MiB: buffered readers (Python's `open`) use this as their buffer size and would
/// fetch a MiB for the 8 bytes of a safetensors header.
const BLOCK_SIZE: u32 = 128 << 10;

/// Modes as in a publisher's own folder. The mount is read-only whatever they are, but a copy (`cp -r`)
/// keeps them, and its owner could not change or delete a copy without `w`.
const FOLDER_MODE: u16 = 0o755;
const FILE_MODE: u16 = 0o644;

/// Owner and group of every inode.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The kernel's form of a kind.
pub(super) fn kind(kind: Kind) -> FileType {
    match kind {
        Kind::Folder => FileType::Directory,
        Kind::File => FileType::RegularFile,
    }
}

/// The kernel's form of an inode number.
pub(super) fn number(ino: Ino) -> INodeNo {
    INodeNo(ino.0)
}

/// The kernel's form of attributes.
pub(super) fn attr(attr: &Attr, owner: Owner) -> FileAttr {
    FileAttr {
        ino: number(attr.ino),
        size: attr.size,
        blocks: attr.size.div_ceil(512),
        atime: attr.mtime,
        mtime: attr.mtime,
        ctime: attr.mtime,
        crtime: attr.mtime,
        kind: kind(attr.kind),
        perm: match attr.kind {
            Kind::Folder => FOLDER_MODE,
            Kind::File => FILE_MODE,
        },
        nlink: attr.links,
        uid: owner.uid,
        gid: owner.gid,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

#[cfg(test)]
mod tests {
    use modelfs::vfs::stable_time;

    use super::*;

    #[test]
    fn copies_can_be_deleted_and_blocks_are_rounded_up() {
        let owner = Owner { uid: 7, gid: 8 };
        let file =
            Attr { ino: Ino(9), kind: Kind::File, size: 513, mtime: stable_time(), links: 1 };
        let got = attr(&file, owner);
        assert_eq!((got.perm, got.blocks, got.uid, got.gid, got.ino.0), (0o644, 2, 7, 8, 9));
        let folder = Attr { kind: Kind::Folder, size: 0, links: 3, ..file };
        let got = attr(&folder, owner);
        assert_eq!((got.perm, got.blocks, got.nlink), (0o755, 0, 3));
        assert_eq!(got.kind, FileType::Directory);
    }
}
