//! Small file systems of a test's own: an image in memory, loop-mounted, that can be filled up, run
//! out of blocks underneath, be spoilt, or be cut off as by a power failure. Needs root.
//!
//! Invariant: whatever the test does or however it ends, nothing stays mounted and no loop device
//! stays attached. One value per test.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What the image pretends to have: XFS takes no less than 300 MiB.
const SIZE: u64 = 320 << 20;
/// Room for the image while nothing is wrong with it.
const ROOM: u64 = 400 << 20;
/// Long enough for a loaded machine to let go of a mount.
const PATIENCE: Duration = Duration::from_secs(60);

/// A kind of file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsKind {
    Ext4,
    Xfs,
    Btrfs,
}

impl FsKind {
    /// All that the tests know.
    pub const ALL: [FsKind; 3] = [FsKind::Ext4, FsKind::Xfs, FsKind::Btrfs];

    fn name(self) -> &'static str {
        match self {
            FsKind::Ext4 => "ext4",
            FsKind::Xfs => "xfs",
            FsKind::Btrfs => "btrfs",
        }
    }

    /// Whether files can share blocks.
    pub fn shares_blocks(self) -> bool {
        self != FsKind::Ext4
    }
}

/// A mounted file system.
#[derive(Debug)]
pub struct LoopFs {
    kind: FsKind,
    /// Holds the image, on a tmpfs of its own whose size is what the "device" can take.
    base: tempfile::TempDir,
    at: PathBuf,
}

/// A Btrfs ends a transaction at the latest after 30 s.
const QUOTA_PATIENCE: Duration = Duration::from_secs(35);

fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    let out = command.output().map_err(|e| format!("{program}: {e} (scripts/deps.sh has it)"))?;
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    out.status.success().then_some(()).ok_or(format!("{command:?}: {said}"))
}

fn must<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) {
    run(program, args).unwrap_or_else(|e| panic!("{e}"));
}

impl LoopFs {
    /// A fresh one, mounted below a temporary folder.
    pub fn new(kind: FsKind) -> Self {
        Self::make(kind, None)
    }

    /// A fresh one, mounted there.
    pub fn at(kind: FsKind, at: &Path) -> Self {
        Self::make(kind, Some(at))
    }

    fn make(kind: FsKind, at: Option<&Path>) -> Self {
        let known = std::fs::read_to_string("/proc/filesystems").expect("/proc is mounted");
        let name = kind.name();
        assert!(
            known.split_whitespace().any(|w| w == name) || run("modprobe", [name]).is_ok(),
            "this kernel cannot mount {name}: the promises on it are NOT tested here"
        );
        let base = tempfile::Builder::new().prefix("modelfs-disk.").tempdir().expect("a folder");
        let at = at.map_or_else(|| base.path().join("mnt"), Path::to_owned);
        let out = Self { kind, base, at };
        std::fs::create_dir_all(out.backing()).expect("own folder");
        std::fs::create_dir_all(&out.at).expect("own folder");
        let size = format!("size={ROOM}");
        must(
            "mount",
            ["-t", "tmpfs", "-o", &size, "modelfs-test"]
                .map(OsStr::new)
                .into_iter()
                .chain([out.backing().as_os_str()]),
        );
        let image = out.image();
        File::create(&image).and_then(|f| f.set_len(SIZE)).expect("room in memory");
        // nothing kept back for root, who runs the tests
        let all: &[&str] = if kind == FsKind::Ext4 { &["-q", "-m", "0"] } else { &["-q"] };
        let all = all.iter().map(OsStr::new);
        must(&format!("mkfs.{name}"), all.chain([image.as_os_str()]));
        out.mount();
        out
    }

    fn backing(&self) -> PathBuf {
        self.base.path().join("image")
    }

    fn image(&self) -> PathBuf {
        self.backing().join("image")
    }

    /// Which kind it is.
    pub fn kind(&self) -> FsKind {
        self.kind
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Mounts it again.
    pub fn mount(&self) {
        let (image, at) = (self.image(), self.at.as_os_str());
        must("mount", ["-o".as_ref(), "loop".as_ref(), image.as_os_str(), at]);
    }

    /// Unmounts it, once nobody uses it any more. A copy of the mount in another namespace of mounts
    /// would keep what is in memory of it, a cut-off one cut off: waits until there is none.
    pub fn unmount(&self) {
        let started = Instant::now();
        let wait = |why: &str| {
            assert!(started.elapsed() < PATIENCE, "{why}");
            std::thread::sleep(Duration::from_millis(10));
        };
        while let Err(why) = run("umount", [&self.at]) {
            wait(&why);
        }
        while self.is_attached() {
            wait("the file system lives on after it was unmounted");
        }
    }

    /// Whether a loop device has the image.
    fn is_attached(&self) -> bool {
        let devices = std::fs::read_dir("/sys/block").expect("/sys is mounted").flatten();
        let images = devices.map(|d| d.path().join("loop/backing_file"));
        let image = self.image();
        images.flat_map(std::fs::read_to_string).any(|of| Path::new(of.trim_end()) == image)
    }

    /// Cuts it off at this instant as a power failure does: what was not made durable is gone, and
    /// every later call fails. Unmount and mount it to find what is left. Not for Btrfs.
    pub fn cut_power(&self) {
        let folder = File::open(&self.at).expect("it is mounted");
        shutdown::without_log_flush(&folder).expect("ext4 and XFS can be shut down");
    }

    /// The device below takes no more than so many further bytes: writes beyond that are I/O errors
    /// that the file system did not expect.
    pub fn starve(&self, left: u64) {
        let used = rustix::fs::statvfs(self.backing()).expect("own mount");
        let used = (used.f_blocks - used.f_bfree) * used.f_frsize;
        self.resize(used + left);
    }

    /// The device below is whole again.
    pub fn feed(&self) {
        self.resize(ROOM);
    }

    fn resize(&self, bytes: u64) {
        let how = format!("remount,size={bytes}");
        must("mount", ["-o".as_ref(), how.as_ref(), self.backing().as_os_str()]);
    }

    /// Lets everybody together have no more than so much on a Btrfs, or as much as they like.
    pub fn set_quota(&self, bytes: Option<u64>) {
        assert_eq!(self.kind, FsKind::Btrfs, "the other kinds have none for root");
        let at = self.at.as_os_str();
        must("btrfs", ["quota".as_ref(), "enable".as_ref(), at]);
        let most = bytes.map_or("none".to_owned(), |n| n.to_string());
        let limit = || {
            run("btrfs", ["qgroup".as_ref(), "limit".as_ref(), most.as_ref(), "0/5".as_ref(), at])
        };
        // To lift a quota that is used up takes metadata, too: it is refused until the transaction of
        // the last writers has ended.
        let started = Instant::now();
        while let Err(error) = limit() {
            assert!(started.elapsed() < QUOTA_PATIENCE, "{error}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// An ext4 takes itself to be damaged and turns read-only, whoever is writing to it.
    pub fn turn_read_only(&self) {
        must("mount", ["-o".as_ref(), "remount,errors=remount-ro".as_ref(), self.at.as_os_str()]);
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
        let mut lines = mounts.lines().map(|l| l.split(' ').collect::<Vec<_>>());
        let own = lines.find(|l| Path::new(l[1]) == self.at).expect("it is mounted");
        let device = own[0].trim_start_matches("/dev/");
        std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1").expect("root may");
    }

    /// Bytes free for everybody.
    pub fn free(&self) -> u64 {
        let s = rustix::fs::statvfs(&self.at).expect("it is mounted");
        s.f_bavail * s.f_frsize
    }

    /// Fills it up but for about so many bytes, with a file that [`LoopFs::unfill`] removes. Btrfs gives
    /// less than it calls free, and large pieces before small ones.
    pub fn fill(&self, but: u64) {
        let file = File::create(self.ballast()).expect("a file");
        let none = rustix::fs::FallocateFlags::empty();
        let mut at = 0;
        for step in [32 << 20, 4 << 20, 256 << 10, 4 << 10] {
            while self.free().saturating_sub(but) >= step {
                match rustix::fs::fallocate(&file, none, at, step) {
                    Ok(()) => at += step,
                    Err(rustix::io::Errno::NOSPC) => break,
                    Err(error) => panic!("filling a disk: {error}"),
                }
            }
        }
        file.sync_all().expect("synced");
    }

    /// Gives back what [`LoopFs::fill`] took.
    pub fn unfill(&self) {
        std::fs::remove_file(self.ballast()).expect("it was filled");
        // what was freed can be used once that is durable
        File::open(&self.at).and_then(|f| Ok(rustix::fs::syncfs(&f)?)).expect("synced");
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        for at in [self.at.clone(), self.backing()] {
            let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
            let mounted =
                |m: &str| m.lines().filter_map(|l| l.split(' ').nth(1)).any(|p| at == Path::new(p));
            if mounted(&mounts) && run("umount", [&at]).is_err() {
                // a test that failed may have left somebody in there
                let _ = run("umount", ["-l".as_ref(), at.as_os_str()]);
            }
        }
    }
}

/// The one system call that no crate has.
mod shutdown {
    #![allow(unsafe_code)]

    use std::fs::File;

    use rustix::ioctl::{Setter, ioctl, opcode};

    /// `EXT4_IOC_SHUTDOWN` and `XFS_IOC_GOINGDOWN`: `_IOR('X', 125, __u32)`, which reads its
    /// argument all the same.
    const SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);
    /// `EXT4_GOING_FLAGS_NOLOGFLUSH`, the same for XFS.
    const NO_LOG_FLUSH: u32 = 2;

    pub fn without_log_flush(folder: &File) -> rustix::io::Result<()> {
        // SAFETY: the call reads one u32 from the pointer that `Setter` makes of it, and writes
        // nothing.
        unsafe { ioctl(folder, Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH)) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_power_cut_takes_what_was_not_synced_and_nothing_else() {
        for kind in [FsKind::Ext4, FsKind::Xfs] {
            let fs = LoopFs::new(kind);
            let file = File::create(fs.path().join("kept")).expect("a file");
            std::fs::write(fs.path().join("kept"), "kept").expect("written");
            file.sync_all().expect("synced");
            File::open(fs.path()).and_then(|f| f.sync_all()).expect("synced");
            std::fs::write(fs.path().join("lost"), "lost").expect("written");
            drop(file);
            fs.cut_power();
            assert!(std::fs::write(fs.path().join("late"), "late").is_err());
            fs.unmount();
            fs.mount();
            assert_eq!(std::fs::read(fs.path().join("kept")).expect("it"), b"kept");
            assert_ne!(std::fs::read(fs.path().join("lost")).unwrap_or_default(), b"lost");
            assert!(!fs.path().join("late").exists());
        }
    }

    #[test]
    fn the_test_disk_can_be_filled_and_freed() {
        for kind in FsKind::ALL {
            let fs = LoopFs::new(kind);
            fs.fill(4 << 20);
            let error = std::fs::write(fs.path().join("big"), vec![1; 32 << 20]).expect_err("full");
            assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{kind:?}");
            let _ = std::fs::remove_file(fs.path().join("big"));
            fs.unfill();
            fs.starve(8 << 20);
            let file = File::create(fs.path().join("big")).expect("a file");
            let wrote =
                (&file).write_all(&crate::bytes(1, 32 << 20)).and_then(|()| file.sync_all());
            assert!(wrote.is_err(), "{kind:?}: the device took more than it has");
            fs.feed();
        }
    }

    #[test]
    fn a_copy_of_the_mount_in_another_namespace_is_waited_for() {
        let fs = LoopFs::new(FsKind::Ext4);
        let mut copy =
            Command::new("unshare").args(["--mount", "sleep", "1"]).spawn().expect("runs");
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        while of(&copy.id().to_string()) == of("self") {
            std::thread::sleep(Duration::from_millis(1));
        }
        fs.cut_power();
        fs.unmount();
        fs.mount();
        File::create(fs.path().join("file")).expect("it is not cut off any more");
        copy.wait().expect("own child");
    }
}
