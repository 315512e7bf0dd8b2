//! Names, lists and attributes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, RawDir, SeekFrom, open, openat, seek};
use rustix::io::Errno;

use super::walk::{files, folders, tree};

/// The same files and folders with the same sizes.
pub fn listing_is_equal(plain: &Path, mounted: &Path) {
    assert_eq!(tree(mounted), tree(plain));
    // Once more from whatever the kernel kept of the first time.
    assert_eq!(tree(mounted), tree(plain), "the second time");
}

/// Mode, blocks, links, times.
pub fn attributes_are_equal_and_copies_can_be_deleted(plain: &Path, mounted: &Path) {
    for (path, len) in tree(plain) {
        let got = mounted.join(&path).symlink_metadata().expect("it is there");
        let folder = len.is_none();
        assert_eq!(got.is_dir(), folder, "{path:?}");
        assert_eq!(got.mode() & 0o7777, if folder { 0o755 } else { 0o644 }, "{path:?}");
        assert!(got.mtime() >= 315_532_800, "{path:?}: zip tools take no date before 1980");
        match len {
            Some(len) => {
                assert_eq!((got.len(), got.nlink()), (len, 1), "{path:?}");
                assert_eq!(got.blocks(), len.div_ceil(512), "{path:?}");
            }
            None => {
                let list = std::fs::read_dir(mounted.join(&path)).expect("a folder");
                let folders = list.filter(|e| e.as_ref().is_ok_and(|e| e.path().is_dir()));
                assert_eq!(got.nlink(), 2 + folders.count() as u64, "{path:?}");
            }
        }
    }
    let top = mounted.metadata().expect("it is there");
    assert!(top.is_dir() && top.mode() & 0o7777 == 0o755 && top.nlink() >= 1);
}

/// Two looks give the same number, two files never do.
pub fn inodes_are_stable_and_distinct(_: &Path, mounted: &Path) {
    let look = || -> BTreeMap<_, _> {
        let inode = |path: &Path| mounted.join(path).symlink_metadata().expect("there").ino();
        tree(mounted).into_keys().map(|path| (inode(&path), path)).collect()
    };
    let first = look();
    assert_eq!(first.len(), tree(mounted).len(), "two files with one inode");
    assert_eq!(look(), first);
    for (inode, path) in first {
        let open = std::fs::File::open(mounted.join(&path)).expect("it opens");
        assert_eq!(open.metadata().expect("fstat").ino(), inode, "{path:?}");
    }
}

/// Inode and type in a list are those of stat.
pub fn list_and_stat_agree(_: &Path, mounted: &Path) {
    for folder in folders(mounted) {
        for entry in std::fs::read_dir(mounted.join(folder)).expect("a folder") {
            let entry = entry.expect("an entry");
            let found = entry.path().symlink_metadata().expect("it is there");
            assert_eq!(entry.ino(), found.ino(), "{:?}", entry.path());
            assert_eq!(entry.file_type().expect("a type"), found.file_type());
        }
    }
}

/// Raw names of a folder, dots included, read with a buffer of `size`.
fn names(folder: &impl std::os::fd::AsFd, size: usize) -> Vec<Vec<u8>> {
    let mut buffer = vec![MaybeUninit::uninit(); size];
    let mut raw = RawDir::new(folder, &mut buffer);
    let mut out = Vec::new();
    while let Some(entry) = raw.next() {
        out.push(entry.expect("an entry").file_name().to_bytes().to_vec());
    }
    out
}

fn sorted(mut names: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    names.sort();
    names
}

fn expected(folder: &Path) -> Vec<Vec<u8>> {
    let list = std::fs::read_dir(folder).expect("a folder");
    let mut all: Vec<_> =
        list.map(|e| e.expect("an entry").file_name().as_bytes().to_vec()).collect();
    all.extend([b".".to_vec(), b"..".to_vec()]);
    sorted(all)
}

/// However few entries fit at once, each comes once.
pub fn a_tiny_buffer_lists_everything_once(plain: &Path, mounted: &Path) {
    for folder in folders(plain) {
        let want = expected(&plain.join(&folder));
        // 300 bytes hold one entry with a name of 255, and two or three of ordinary ones.
        for size in [300, 1000, 64 << 10] {
            let open = open_folder(&mounted.join(&folder));
            assert_eq!(sorted(names(&open, size)), want, "{folder:?} with {size} bytes");
        }
    }
}

fn open_folder(path: &Path) -> std::os::fd::OwnedFd {
    open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .expect("a folder opens")
}

/// Also in the middle of a list.
pub fn rewinding_a_folder_starts_again(_: &Path, mounted: &Path) {
    let folder = open_folder(mounted);
    let all = names(&folder, 4096);
    assert!(names(&folder, 4096).is_empty(), "at the end there is nothing more");
    seek(&folder, SeekFrom::Start(0)).expect("rewinddir");
    {
        let mut buffer = vec![MaybeUninit::uninit(); 300];
        let mut raw = RawDir::new(&folder, &mut buffer);
        raw.next().expect("an entry").expect("an entry");
    }
    seek(&folder, SeekFrom::Start(0)).expect("rewinddir");
    assert_eq!(names(&folder, 4096), all);
}

/// ENOENT, ENAMETOOLONG: never another name, whatever its case.
pub fn missing_names_are_missing(plain: &Path, mounted: &Path) {
    let error = |name: &OsStr| {
        rustix::fs::stat(mounted.join(name).as_os_str()).map(|_| ()).expect_err("not there")
    };
    assert_eq!(error(OsStr::new("no such file")), Errno::NOENT);
    assert_eq!(error(OsStr::new("no such file")), Errno::NOENT, "the second time");
    assert_eq!(error(OsStr::new("no such folder/file")), Errno::NOENT);
    assert_eq!(error(OsStr::from_bytes(b"not \xff utf-8")), Errno::NOENT);
    assert_eq!(error(OsStr::new(&"x".repeat(255))), Errno::NOENT);
    assert_eq!(error(OsStr::new(&"x".repeat(256))), Errno::NAMETOOLONG);
    let all = tree(plain);
    for (path, _) in files(plain) {
        let other = Path::new(&path.to_string_lossy().to_uppercase()).to_owned();
        if !all.contains_key(&other) {
            assert_eq!(error(other.as_os_str()), Errno::NOENT, "{other:?}");
        }
    }
}

/// ENOTDIR and EISDIR.
pub fn files_are_no_folders_and_folders_no_files(_: &Path, mounted: &Path) {
    let (file, _) = files(mounted).into_iter().next().expect("a file");
    let file = mounted.join(file);
    let below = rustix::fs::stat(file.join("x")).map(|_| ());
    assert_eq!(below, Err(Errno::NOTDIR));
    let as_folder = open(&file, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).map(|_| ());
    assert_eq!(as_folder, Err(Errno::NOTDIR));
    let mut byte = [0u8];
    assert_eq!(rustix::io::pread(open_folder(mounted), &mut byte, 0), Err(Errno::ISDIR));
    assert!(std::fs::read_link(&file).is_err(), "a file is no link");
}

/// `..` of every folder is the folder that lists it.
pub fn dot_dot_leads_back(_: &Path, mounted: &Path) {
    let inodes: BTreeSet<u64> =
        folders(mounted).iter().map(|f| mounted.join(f).metadata().expect("there").ino()).collect();
    for folder in folders(mounted).into_iter().skip(1) {
        let open = open_folder(&mounted.join(&folder));
        let up = openat(&open, "..", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
        let up = rustix::fs::fstat(up.expect("it opens")).expect("fstat").st_ino;
        let parent = mounted.join(&folder);
        let parent = parent.parent().expect("below the top").metadata().expect("there").ino();
        assert_eq!(up, parent, "{folder:?}");
        assert!(inodes.contains(&up));
    }
    assert!(
        rustix::fs::accessat(
            CWD,
            mounted.join(".."),
            rustix::fs::Access::EXEC_OK,
            rustix::fs::AtFlags::empty()
        )
        .is_ok()
    );
}
