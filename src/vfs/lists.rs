//! Directory listings, read by the kernel in pieces.
//!
//! Invariant: a reader that continues after an entry sees the rest of the list that held the entry, even
//! if the catalog has changed meanwhile: the reader's offset names the edition of the list. An edition
//! that is no longer kept (too many changes, another process) is rebuilt from the current folder.
//! Concurrency: a short lock around the editions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::sync::lock;
use super::types::{Entry, Ino, ListPlace};
use crate::base::weighted::Weighted;

/// Maximum number of entries kept, about a hundred bytes each: 25 MiB.
const KEPT: usize = 1 << 18;
/// Maximum number of editions of one folder: those of readers that began before the last changes of a
/// catalog.
const EDITIONS: usize = 4;
/// Edition numbers per second of start time: the first number of a process. More than new lists per
/// second. If there are more lists, a number may repeat: a reader then gets another's edition, as if its
/// own were lost.
const A_SECOND: u64 = 64;

type List = Arc<[Entry]>;

/// The editions of listings.
pub(super) struct Lists {
    /// By folder, the latest last.
    kept: Mutex<Weighted<Ino, Vec<(u64, List)>>>,
    next: AtomicU64,
}

impl Lists {
    /// No editions.
    pub(super) fn new() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let first = now.map_or(1, |d| d.as_secs().max(1) * A_SECOND);
        Self { kept: Mutex::new(Weighted::new(KEPT)), next: AtomicU64::new(first) }
    }

    /// The folders of that kind that were listed lately.
    pub(super) fn listed(&self, of_kind: impl Fn(Ino) -> bool) -> Vec<Ino> {
        lock(&self.kept).keys().copied().filter(|ino| of_kind(*ino)).collect()
    }

    /// The list for a reader at `place`; `make` builds it from the current folder. Readers of the same
    /// list share an edition: the kernel caches one for all.
    pub(super) fn get<E>(
        &self,
        ino: Ino,
        place: ListPlace,
        make: impl FnOnce() -> Result<List, E>,
    ) -> Result<(u64, List), E> {
        let kept = || lock(&self.kept).get(&ino).unwrap_or_default();
        let wanted = place.edition();
        if let Some(found) = kept().into_iter().find(|(edition, _)| Some(*edition) == wanted) {
            return Ok(found);
        }
        let list = make()?;
        let mut editions = kept();
        if wanted.is_none()
            && let Some(latest) = editions.last().filter(|(_, latest)| *latest == list)
        {
            return Ok(latest.clone());
        }
        let new = || self.next.fetch_add(1, Ordering::Relaxed) % ListPlace::EDITIONS;
        let edition = wanted.unwrap_or_else(new);
        editions.push((edition, Arc::clone(&list)));
        let surplus = editions.len().saturating_sub(EDITIONS);
        editions.drain(..surplus);
        let weight = editions.iter().map(|(_, list)| list.len() + 1).sum();
        lock(&self.kept).put(ino, weight, editions);
        Ok((edition, list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{Attr, Kind, stable_time};

    fn list(names: &[&str]) -> Result<List, ()> {
        let attr = |ino| Attr { ino, kind: Kind::File, size: 0, mtime: stable_time(), links: 1 };
        Ok(names
            .iter()
            .map(|n| Entry { name: (*n).into(), attr: attr(Ino(9)), keeps: true })
            .collect())
    }

    #[test]
    fn a_listing_in_progress_keeps_its_snapshot_and_a_new_one_sees_the_current_folder() {
        let lists = Lists::new();
        let names = |list: &List| list.iter().map(|e| e.name.to_string()).collect::<String>();
        let (old, first) = lists.get(Ino(5), ListPlace::START, || list(&["a", "b"])).unwrap();
        assert_eq!(names(&first), "ab");
        let (new, second) = lists.get(Ino(5), ListPlace::START, || list(&["b", "c"])).unwrap();
        assert_eq!(names(&second), "bc");
        assert_ne!(old, new);
        let same = lists.get(Ino(5), ListPlace::START, || list(&["b", "c"])).unwrap();
        assert_eq!(same.0, new, "unchanged: one edition for all readers");
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
