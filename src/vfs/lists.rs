//! Lists of folders as their readers see them, piece by piece.
//!
//! Invariant: who goes on after an entry sees the rest of the list in which that entry stood, also
//! if the catalog has changed meanwhile: a reader's place says which edition of the list it is in.
//! An edition that is not kept any more (too many since, another process) is made again from the
//! folder as it is now. Concurrency: a short lock around the editions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::sync::lock;
use super::types::{Entry, Ino, ListPlace};
use crate::base::weighted::Weighted;

/// Entries kept, about a hundred bytes each: 25 MiB.
const KEPT: usize = 1 << 18;
/// Editions a second by which processes are told apart: two that follow each other within a second
/// may use a number twice, for lists that are the same unless the catalog changed just then.
const A_SECOND: u64 = 64;

type List = Arc<[Entry]>;

/// Editions of lists.
pub(super) struct Lists {
    kept: Mutex<Weighted<(Ino, u64), List>>,
    next: AtomicU64,
}

impl Lists {
    /// None yet.
    pub(super) fn new() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let first = now.map_or(1, |d| d.as_secs().max(1) * A_SECOND);
        Self { kept: Mutex::new(Weighted::new(KEPT)), next: AtomicU64::new(first) }
    }

    /// The list that a reader at `place` is in; `make` makes one from the folder as it is now.
    pub(super) fn get<E>(
        &self,
        ino: Ino,
        place: ListPlace,
        make: impl FnOnce() -> Result<List, E>,
    ) -> Result<(u64, List), E> {
        let edition = match place.edition() {
            // Who starts, or starts again (rewinddir), sees the folder as it is now.
            None => self.next.fetch_add(1, Ordering::Relaxed) % ListPlace::EDITIONS,
            Some(edition) => {
                if let Some(list) = lock(&self.kept).get(&(ino, edition)) {
                    return Ok((edition, list));
                }
                edition
            }
        };
        let list = make()?;
        lock(&self.kept).put((ino, edition), list.len() + 1, Arc::clone(&list));
        Ok((edition, list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{Attr, Kind, stable_time};

    fn list(names: &[&str]) -> Result<List, ()> {
        let attr = |ino| Attr { ino, kind: Kind::File, size: 0, mtime: stable_time(), links: 1 };
        Ok(names.iter().map(|n| Entry { name: (*n).into(), attr: attr(Ino(9)) }).collect())
    }

    #[test]
    fn a_reader_stays_in_its_edition_and_a_new_one_sees_the_folder_as_it_is() {
        let lists = Lists::new();
        let names = |list: &List| list.iter().map(|e| e.name.to_string()).collect::<String>();
        let (old, first) = lists.get(Ino(5), ListPlace::START, || list(&["a", "b"])).unwrap();
        assert_eq!(names(&first), "ab");
        let (new, second) = lists.get(Ino(5), ListPlace::START, || list(&["b", "c"])).unwrap();
        assert_eq!(names(&second), "bc");
        assert_ne!(old, new);
        let at = |edition| ListPlace::after(edition, 0);
        let (_, again) = lists.get(Ino(5), at(old), || Err("it is kept")).unwrap();
        assert_eq!(names(&again), "ab");
        let made = lists.get(Ino(6), at(old), || list(&["x"])).unwrap();
        assert_eq!((made.0, names(&made.1)), (old, "x".to_owned()), "another folder's");
        let lost = Lists::new().get(Ino(5), at(new), || list(&["b", "c"])).unwrap();
        assert_eq!((lost.0, names(&lost.1)), (new, "bc".to_owned()), "another process's");
        assert_eq!(lists.get(Ino(7), ListPlace::START, || Err("no")), Err("no"));
    }
}
