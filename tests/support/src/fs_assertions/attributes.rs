//! Extended attributes and statfs.

use std::path::Path;

use rustix::fs::{getxattr, getxattr_query, listxattr, listxattr_query, statvfs};
use rustix::io::Errno;

use super::walk::{files, tree};

fn names(path: &Path) -> Vec<String> {
    let mut buffer = vec![0; 4096];
    let len = listxattr(path, &mut buffer[..]).expect("listxattr");
    let text = String::from_utf8(buffer[..len].to_vec()).expect("names are text");
    text.split_terminator('\0').map(str::to_owned).collect()
}

fn value(path: &Path, name: &str) -> Result<String, Errno> {
    let mut buffer = vec![0; 4096];
    let len = getxattr(path, name, &mut buffer[..])?;
    Ok(String::from_utf8(buffer[..len].to_vec()).expect("values are text"))
}

/// What is listed has a value, what is not has none.
pub fn attributes_can_be_listed_and_read(_: &Path, mounted: &Path) {
    for path in tree(mounted).into_keys() {
        let path = mounted.join(path);
        for name in names(&path) {
            value(&path, &name).unwrap_or_else(|e| panic!("{name} of {}: {e}", path.display()));
        }
        for (name, error) in [
            ("user.modelfs.no such", Errno::NODATA),
            ("user.other", Errno::NODATA),
            ("system.posix_acl_access", Errno::NODATA),
            // None of that kind on any file: this keeps `ls -l` from asking each one.
            ("security.capability", Errno::OPNOTSUPP),
            ("security.selinux", Errno::OPNOTSUPP),
        ] {
            assert_eq!(value(&path, name), Err(error), "{name} of {}", path.display());
        }
    }
}

/// Cached bytes are at most the length, and all of it after a full read (but for what is evicted).
pub fn attributes_tell_the_truth(plain: &Path, mounted: &Path) {
    for (file, len) in files(plain) {
        let path = mounted.join(&file);
        drop(std::fs::read(&path).expect("read"));
        let cached = value(&path, "user.modelfs.cached").expect("files say what is cached");
        let cached: u64 = cached.parse().expect("a decimal number");
        assert!(cached <= len, "{file:?}: {cached} of {len}");
        let pinned = value(&path, "user.modelfs.pinned").expect("files say if they are pinned");
        assert!(["yes", "no"].contains(&pinned.as_str()), "{pinned}");
        assert_eq!(value(&path, "user.modelfs.error"), Err(Errno::NODATA), "{file:?}");
        if let Ok(sha256) = value(&path, "user.modelfs.sha256") {
            assert_eq!(sha256.len(), 64);
        }
    }
    let hash = value(mounted, "user.modelfs.hash").expect("a version says its hash");
    assert_eq!(hash.len(), 64);
}

/// Size 0 asks for the size; too small a buffer is ERANGE.
pub fn attributes_mind_the_size_of_the_buffer(_: &Path, mounted: &Path) {
    let (file, _) = files(mounted).into_iter().next().expect("a file");
    let path = mounted.join(file);
    let name = "user.modelfs.pinned";
    let len = value(&path, name).expect("a value").len();
    assert_eq!(getxattr_query(&path, name), Ok(len));
    assert_eq!(getxattr(&path, name, &mut vec![0u8; len][..]), Ok(len));
    assert_eq!(getxattr(&path, name, &mut vec![0u8; len - 1][..]), Err(Errno::RANGE));
    let all: usize = names(&path).iter().map(|n| n.len() + 1).sum();
    assert_eq!(listxattr_query(&path), Ok(all));
    assert_eq!(listxattr(&path, &mut [0u8; 1][..]), Err(Errno::RANGE));
}

/// Sizes that add up, and read-only.
pub fn statfs_makes_sense(_: &Path, mounted: &Path) {
    let got = statvfs(mounted).expect("statfs");
    assert!(got.f_blocks > 0 && got.f_bfree <= got.f_blocks && got.f_bavail <= got.f_bfree);
    assert_eq!((got.f_files, got.f_ffree), (0, 0), "inodes have no limit");
    assert_eq!(got.f_namemax, 255);
    assert!(got.f_bsize.is_power_of_two() && got.f_frsize.is_power_of_two());
    assert!(got.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
}
