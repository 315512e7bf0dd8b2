//! Bytes, by every way of reading them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread;

use rustix::fs::{Advice, OFlags};
use rustix::io::Errno;

use super::walk::{Dice, a_large_file, files, plain as plain_bytes, same};

fn open(top: &Path, file: &Path) -> File {
    File::open(top.join(file)).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// Whole files.
pub fn every_byte_is_equal(plain: &Path, mounted: &Path) {
    for (file, _) in files(plain) {
        let got = std::fs::read(mounted.join(&file)).unwrap_or_else(|e| panic!("{file:?}: {e}"));
        same(&got, &plain_bytes(plain, &file), &file.display().to_string());
    }
}

/// Around the borders that pages, requests, leaves and chunks have.
pub fn odd_offsets_and_lengths(plain: &Path, mounted: &Path) {
    for (file, len) in files(plain) {
        let (want, open) = (plain_bytes(plain, &file), open(mounted, &file));
        let borders = [0, 1, 511, 4096, 65_536, 131_072, 1 << 20, 4 << 20, len / 2, len];
        for border in borders {
            for from in [border.saturating_sub(1), border, border + 1] {
                for size in [1, 2, 4095, 4096, 4097, 131_073] {
                    let from = from.min(len) as usize;
                    let end = (from + size).min(want.len());
                    let mut got = vec![0; end - from];
                    open.read_exact_at(&mut got, from as u64)
                        .unwrap_or_else(|e| panic!("{file:?} at {from}+{size}: {e}"));
                    same(&got, &want[from..end], &format!("{file:?} at {from}+{size}"));
                }
            }
        }
    }
}

/// No byte after the last one, and no error.
pub fn reads_end_at_the_end(plain: &Path, mounted: &Path) {
    for (file, len) in files(plain) {
        let open = open(mounted, &file);
        let mut buffer = [0; 100];
        for from in [len, len + 1, len + (1 << 40), i64::MAX as u64 - 100] {
            assert_eq!(open.read_at(&mut buffer, from).expect("no error"), 0, "{file:?} at {from}");
        }
        let from = len.saturating_sub(10);
        assert_eq!(open.read_at(&mut buffer, from).expect("read") as u64, len - from, "{file:?}");
    }
}

/// From the start, the end, and where one is; data and holes.
pub fn seeking_works_from_all_sides(plain: &Path, mounted: &Path) {
    let (file, len) = a_large_file(plain);
    let mut open = open(mounted, &file);
    assert_eq!(open.seek(SeekFrom::End(0)).expect("seek"), len);
    assert_eq!(open.seek(SeekFrom::End(-1)).expect("seek"), len - 1);
    assert_eq!(open.seek(SeekFrom::Current(-1)).expect("seek"), len - 2);
    assert!(open.seek(SeekFrom::End(-(len as i64) - 1)).is_err());
    let mut rest = Vec::new();
    open.read_to_end(&mut rest).expect("read");
    same(&rest, &plain_bytes(plain, &file)[len as usize - 2..], "the last two bytes");
    use rustix::fs::SeekFrom::{Data, Hole};
    assert_eq!(rustix::fs::seek(&open, Data(0)), Ok(0), "a hole in the cache is none in the file");
    assert_eq!(rustix::fs::seek(&open, Hole(0)), Ok(len));
}

/// As after a fork.
pub fn duplicated_descriptors_share_their_offset(plain: &Path, mounted: &Path) {
    let (file, _) = a_large_file(plain);
    let mut one = open(mounted, &file);
    let mut two = one.try_clone().expect("dup");
    let (mut a, mut b) = ([0; 5], [0; 7]);
    one.read_exact(&mut a).expect("read");
    two.read_exact(&mut b).expect("read");
    drop(one);
    let mut c = [0; 3];
    two.read_exact(&mut c).expect("read after the other is closed");
    same(&[&a[..], &b, &c].concat(), &plain_bytes(plain, &file)[..15], "15 bytes in three reads");
}

/// One descriptor for each, and one for all.
pub fn sixteen_threads_at_random(plain: &Path, mounted: &Path) {
    let (file, len) = a_large_file(plain);
    let want = plain_bytes(plain, &file);
    let shared = open(mounted, &file);
    thread::scope(|scope| {
        for seed in 1..=16u64 {
            let (file, want, shared) = (&file, &want, &shared);
            scope.spawn(move || {
                let own = open(mounted, file);
                let mut dice = Dice(seed * 0x9E37_79B9);
                for turn in 0..64 {
                    let from = dice.below(len);
                    let size = (1 + dice.below(200_000)).min(len - from) as usize;
                    let mut got = vec![0; size];
                    let open = if turn % 2 == 0 { &own } else { shared };
                    open.read_exact_at(&mut got, from).expect("read");
                    let from = from as usize;
                    same(&got, &want[from..from + size], &format!("{file:?} at {from}+{size}"));
                }
            });
        }
    });
}

/// Two hundred handles of one file, closed in another order.
pub fn many_opens_at_once(plain: &Path, mounted: &Path) {
    let (file, len) = a_large_file(plain);
    let want = plain_bytes(plain, &file);
    let mut handles: Vec<File> = (0..200).map(|_| open(mounted, &file)).collect();
    let mut dice = Dice(42);
    while !handles.is_empty() {
        let handle = handles.swap_remove(dice.below(handles.len() as u64) as usize);
        let from = dice.below(len) as usize;
        let mut byte = [0];
        handle.read_exact_at(&mut byte, from as u64).expect("read");
        assert_eq!(byte[0], want[from], "byte {from}");
    }
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let mut byte = [0];
                    open(mounted, &file).read_exact_at(&mut byte, len - 1).expect("read");
                    assert_eq!(byte[0], want[len as usize - 1]);
                }
            });
        }
    });
}

/// Around the page cache, where that can be done.
pub fn direct_reads(plain: &Path, mounted: &Path) {
    const PAGE: usize = 4096;
    let (file, len) = a_large_file(plain);
    let want = plain_bytes(plain, &file);
    let direct = OFlags::DIRECT.bits() as i32;
    let open = match File::options().read(true).custom_flags(direct).open(mounted.join(&file)) {
        Ok(open) => open,
        Err(e) if Errno::from_io_error(&e) == Some(Errno::INVAL) => return,
        Err(e) => panic!("{file:?}: {e}"),
    };
    let mut space = vec![0; 65 * PAGE];
    let start = space.as_ptr().align_offset(PAGE);
    let buffer = &mut space[start..start + 64 * PAGE];
    for from in [0, PAGE, 16 * PAGE, len as usize / 2 / PAGE * PAGE] {
        match open.read_at(buffer, from as u64) {
            Ok(n) => same(&buffer[..n], &want[from..(from + n)], &format!("{file:?} at {from}")),
            Err(e) if Errno::from_io_error(&e) == Some(Errno::INVAL) => return,
            Err(e) => panic!("{file:?} at {from}: {e}"),
        }
    }
}

/// From kernel to kernel.
pub fn sendfile_and_copy(plain: &Path, mounted: &Path) {
    let (file, len) = a_large_file(plain);
    let want = plain_bytes(plain, &file);
    let source = open(mounted, &file);
    let target = tempfile::tempfile().expect("a temporary file");
    let (mut offset, mut sent) = (0, 0);
    while sent < len {
        let n = rustix::fs::sendfile(&target, &source, Some(&mut offset), (len - sent) as usize)
            .expect("sendfile");
        assert!(n > 0, "sendfile ended at {sent} of {len}");
        sent += n as u64;
    }
    let mut got = vec![0; len as usize];
    target.read_exact_at(&mut got, 0).expect("read");
    same(&got, &want, "sent");

    let target = tempfile::tempfile().expect("a temporary file");
    let (mut from, mut to) = (0, 0);
    match rustix::fs::copy_file_range(
        &source,
        Some(&mut from),
        &target,
        Some(&mut to),
        len as usize,
    ) {
        Ok(n) => {
            target.read_exact_at(&mut got[..n], 0).expect("read");
            same(&got[..n], &want[..n], "copied");
        }
        // Between two file systems the kernel may leave it to the program.
        Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {}
        Err(e) => panic!("copy_file_range: {e}"),
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = folder.path().join("copy");
    assert_eq!(std::fs::copy(mounted.join(&file), &copy).expect("copy"), len);
    same(&std::fs::read(copy).expect("read"), &want, "copied by the standard library");
}

/// `posix_fadvise` and `readahead` do no harm.
pub fn advice_is_taken(plain: &Path, mounted: &Path) {
    let (file, len) = a_large_file(plain);
    let open = open(mounted, &file);
    for advice in [Advice::Sequential, Advice::WillNeed, Advice::Random, Advice::DontNeed] {
        rustix::fs::fadvise(&open, 0, std::num::NonZeroU64::new(len), advice).expect("advice");
        let mut byte = [0];
        open.read_exact_at(&mut byte, len / 3).expect("read");
        assert_eq!(byte[0], plain_bytes(plain, &file)[len as usize / 3], "{advice:?}");
    }
}
