//! Bytes through memory maps.

use std::fs::File;
use std::path::Path;
use std::thread;

use super::walk::{Dice, a_large_file, files, plain as plain_bytes, same};
use crate::mapped::map;

/// Whole files, then one from several threads at random.
pub fn maps_are_equal(plain: &Path, mounted: &Path) {
    for (file, len) in files(plain) {
        if len > 0 {
            let open = File::open(mounted.join(&file)).expect("open");
            same(&map(&open), &plain_bytes(plain, &file), &file.display().to_string());
        }
    }
    let (file, len) = a_large_file(plain);
    let want = plain_bytes(plain, &file);
    let map = map(&File::open(mounted.join(&file)).expect("open"));
    thread::scope(|scope| {
        for seed in 1..=8 {
            let (map, want) = (&map, &want);
            scope.spawn(move || {
                let mut dice = Dice(seed * 77);
                for _ in 0..500 {
                    let at = dice.below(len) as usize;
                    assert_eq!(map[at], want[at], "byte {at}");
                }
            });
        }
    });
}

/// And another open beside it makes no difference.
pub fn a_map_outlives_its_descriptor(plain: &Path, mounted: &Path) {
    let (file, len) = a_large_file(plain);
    let want = plain_bytes(plain, &file);
    let kept = map(&File::open(mounted.join(&file)).expect("open"));
    for _ in 0..3 {
        drop(File::open(mounted.join(&file)).expect("open beside the map"));
    }
    let (first, last) = (&kept[..1], &kept[len as usize - 1..]);
    assert_eq!((first, last), (&want[..1], &want[len as usize - 1..]));
}
