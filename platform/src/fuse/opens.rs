//! Opening and closing as the process that serves sees it: which mode an inode gets, and which files
//! the kernel goes on knowing after the last close.
//!
//! Invariant: a number is used again only for the same file on disk, marked as shared again; a file
//! that is merely kept is not so marked, and eviction may take it. The keeper hears of everything in
//! our order: the owner's lock is held while it is told. A number costs two processes a round trip,
//! which is why it is kept.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use modelfs::vfs::{Handle, Ino};

use super::modes::{BackingNumber, Modes, Open, RequestNumber};
use super::serve::Keeper;

/// How long a file stays registered without a handle: a program that opens its files again and
/// again does so within this; a file that somebody deleted beside us takes its space no longer.
pub(super) const KEEP: Duration = Duration::from_secs(10);
/// The most files that are kept so, far from any limit on descriptors.
const MOST: usize = 64;

/// A registered file.
struct Backing {
    number: BackingNumber,
    file: Arc<File>,
    /// Since when it has no handle.
    unused: Option<Instant>,
}

/// What is open and what is kept.
pub(super) struct Opens {
    modes: Modes,
    backings: HashMap<Ino, Backing>,
    keeper: Arc<dyn Keeper>,
    /// Somebody looks after what is kept.
    swept: bool,
}

/// The table: nobody who holds it leaves it half changed.
pub(super) fn lock(opens: &Mutex<Opens>) -> MutexGuard<'_, Opens> {
    opens.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Opens {
    /// Goes on with what is open already.
    pub(super) fn new(open: &[Open], keeper: Arc<dyn Keeper>) -> Self {
        let mut modes = Modes::default();
        open.iter().for_each(|open| modes.opened(*open));
        Self { modes, backings: HashMap::new(), keeper, swept: false }
    }

    /// Notes a new handle; how the kernel is to read it: in the inode's mode, also one of a former
    /// process's making, else by `file`, if there is one. `refused` hears why that cannot be.
    pub(super) fn open(
        &mut self,
        ino: Ino,
        handle: Handle,
        request: RequestNumber,
        file: Option<Arc<File>>,
        refused: impl FnOnce(&io::Error),
    ) -> Option<BackingNumber> {
        let backing = self.modes.of(ino).unwrap_or_else(|| {
            let file = file?;
            self.again(ino, &file).or_else(|| {
                self.let_go(ino);
                let number = self.keeper.register(ino, &file).inspect_err(refused).ok()?;
                self.backings.insert(ino, Backing { number, file, unused: None });
                Some(number)
            })
        });
        let open = Open { ino, handle, request, backing };
        self.modes.opened(open);
        self.keeper.opened(open);
        backing
    }

    /// The number of the file that was kept, if it is still the one at hand.
    fn again(&mut self, ino: Ino, file: &File) -> Option<BackingNumber> {
        let kept = self.backings.get_mut(&ino)?;
        let id = |file: &File| file.metadata().map(|m| (m.dev(), m.ino())).ok();
        if id(file).is_none() || id(file) != id(&kept.file) {
            return None;
        }
        // A file system without locks has none to give, as when the file was opened.
        if let Err(TryLockError::WouldBlock) = kept.file.try_lock_shared() {
            return None;
        }
        kept.unused = None;
        Some(kept.number)
    }

    /// Notes a release; `true`: something is kept now that nobody looks after yet, so [`Self::sweep`]
    /// is to be called every [`KEEP`] until it says that nothing is left.
    pub(super) fn release(&mut self, ino: Ino, handle: Handle, now: Instant) -> bool {
        let last = self.modes.released(ino, handle);
        self.keeper.released(ino, handle);
        if last.is_none() {
            return false;
        }
        let Some(backing) = self.backings.get_mut(&ino) else {
            // Registered for a former process: its file cannot be told from another.
            self.keeper.let_go(ino);
            return false;
        };
        if let Err(error) = backing.file.unlock() {
            tracing::debug!(%error, "a file that is merely kept stays marked");
            self.let_go(ino);
            return false;
        }
        backing.unused = Some(now);
        if self.backings.values().filter(|b| b.unused.is_some()).count() > MOST {
            let oldest = self.backings.iter().filter(|(_, b)| b.unused.is_some());
            let oldest = oldest.min_by_key(|(_, b)| b.unused).map(|(ino, _)| *ino);
            oldest.into_iter().for_each(|ino| self.let_go(ino));
        }
        !std::mem::replace(&mut self.swept, true)
    }

    /// Lets go of what was kept long enough; whether anything is left to look after.
    pub(super) fn sweep(&mut self, now: Instant) -> bool {
        let is_old = |b: &Backing| b.unused.is_some_and(|since| now >= since + KEEP);
        let old: Vec<Ino> =
            self.backings.iter().filter(|(_, b)| is_old(b)).map(|(ino, _)| *ino).collect();
        old.into_iter().for_each(|ino| self.let_go(ino));
        self.swept = self.backings.values().any(|b| b.unused.is_some());
        self.swept
    }

    fn let_go(&mut self, ino: Ino) {
        if self.backings.remove(&ino).is_some() {
            self.keeper.let_go(ino);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives numbers and notes what it is told.
    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Notes {
        fn note(&self, what: String) {
            self.0.lock().unwrap().push(what);
        }

        fn taken(&self) -> String {
            std::mem::take(&mut *self.0.lock().unwrap()).join(" ")
        }
    }

    impl Keeper for Notes {
        fn answered(&self, _: &[u8]) -> io::Result<()> {
            Ok(())
        }

        fn register(&self, ino: Ino, file: &File) -> io::Result<BackingNumber> {
            self.note(format!("register{}", ino.0));
            Ok(BackingNumber(file.metadata()?.ino() as u32))
        }

        fn opened(&self, open: Open) {
            self.note(format!("opened{}", open.handle.0));
        }

        fn released(&self, _: Ino, handle: Handle) {
            self.note(format!("released{}", handle.0));
        }

        fn let_go(&self, ino: Ino) {
            self.note(format!("let_go{}", ino.0));
        }
    }

    struct Bench {
        opens: Opens,
        notes: Arc<Notes>,
        folder: tempfile::TempDir,
        handles: u64,
    }

    impl Bench {
        fn new(open: &[Open]) -> Self {
            let notes = Arc::new(Notes::default());
            let opens = Opens::new(open, Arc::clone(&notes) as Arc<dyn Keeper>);
            Self { opens, notes, folder: tempfile::tempdir().unwrap(), handles: 0 }
        }

        /// As the store opens it for the kernel: marked as shared.
        fn file(&self, name: &str) -> Arc<File> {
            let path = self.folder.path().join(name);
            if !path.exists() {
                std::fs::write(&path, name).unwrap();
            }
            let file = File::open(path).unwrap();
            file.try_lock_shared().unwrap();
            Arc::new(file)
        }

        fn is_shared(&self, name: &str) -> bool {
            let file = File::open(self.folder.path().join(name)).unwrap();
            matches!(file.try_lock(), Err(TryLockError::WouldBlock))
        }

        fn open(&mut self, ino: u64, name: &str) -> Handle {
            self.handles += 1;
            let (handle, file) = (Handle(self.handles), self.file(name));
            let request = RequestNumber::new(self.handles);
            let number = self.opens.open(Ino(ino), handle, request, Some(file), |_| {}).unwrap();
            let ours = std::fs::metadata(self.folder.path().join(name)).unwrap().ino();
            assert_eq!(u64::from(number.0), ours, "the number of the file at hand");
            handle
        }
    }

    #[test]
    fn a_file_that_was_closed_is_opened_again_by_its_number() {
        let (mut b, now) = (Bench::new(&[]), Instant::now());
        let first = b.open(5, "x");
        assert_eq!(b.notes.taken(), "register5 opened1");
        assert!(b.is_shared("x"));
        assert!(b.opens.release(Ino(5), first, now), "somebody is to look after it");
        assert!(!b.is_shared("x"), "eviction may take it");
        let again = b.open(5, "x");
        assert!(b.is_shared("x"));
        assert_eq!(b.notes.taken(), "released1 opened2");
        assert!(!b.opens.sweep(now + 2 * KEEP), "in use");
        assert_eq!(b.notes.taken(), "");
        assert!(b.opens.release(Ino(5), again, now));
        assert!(b.opens.sweep(now + KEEP / 2), "not yet");
        assert_eq!(b.notes.taken(), "released2");
        assert!(!b.opens.sweep(now + KEEP));
        assert_eq!(b.notes.taken(), "let_go5");
    }

    #[test]
    fn another_file_in_its_place_gets_another_number() {
        let (mut b, now) = (Bench::new(&[]), Instant::now());
        let first = b.open(5, "x");
        b.opens.release(Ino(5), first, now);
        // Evicted and fetched again: the old one keeps its inode number for as long as it is kept.
        std::fs::remove_file(b.folder.path().join("x")).unwrap();
        b.notes.taken();
        b.open(5, "x");
        assert_eq!(b.notes.taken(), "let_go5 register5 opened2");
    }

    #[test]
    fn what_a_former_process_registered_goes_with_its_last_handle() {
        let backing = Some(BackingNumber(7));
        let open =
            Open { ino: Ino(5), handle: Handle(90), request: RequestNumber::new(1), backing };
        let mut b = Bench::new(&[open]);
        let number = b.opens.open(Ino(5), Handle(91), RequestNumber::new(2), None, |_| {});
        assert_eq!(number, backing, "the inode's mode");
        b.opens.release(Ino(5), Handle(90), Instant::now());
        assert_eq!(b.notes.taken(), "opened91 released90");
        assert!(!b.opens.release(Ino(5), Handle(91), Instant::now()));
        assert_eq!(b.notes.taken(), "released91 let_go5");
    }

    #[test]
    fn only_so_many_are_kept_the_oldest_goes_first() {
        let (mut b, now) = (Bench::new(&[]), Instant::now());
        for n in 0..=MOST as u64 {
            let handle = b.open(n, &format!("f{n}"));
            b.opens.release(Ino(n), handle, now + Duration::from_millis(n));
        }
        assert!(b.notes.taken().ends_with("let_go0"));
        assert_eq!(b.opens.backings.len(), MOST);
    }

    #[test]
    fn cached_mode_has_nothing_to_keep() {
        let mut b = Bench::new(&[]);
        let number = b.opens.open(Ino(5), Handle(1), RequestNumber::new(1), None, |_| {});
        assert_eq!(number, None);
        let late = b.file("x");
        let number = b.opens.open(Ino(5), Handle(2), RequestNumber::new(2), Some(late), |_| {});
        assert_eq!(number, None, "one mode at a time");
        assert!(!b.opens.release(Ino(5), Handle(1), Instant::now()));
        assert!(!b.opens.release(Ino(5), Handle(2), Instant::now()));
        assert_eq!(b.notes.taken(), "opened1 opened2 released1 released2");
    }
}
