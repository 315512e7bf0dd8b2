//! Names of large catalogs: what they take is what they are counted for, about.

use std::time::Instant;

use modelfs::store::NodeKey;

use super::*;

#[test]
fn the_names_of_a_hundred_thousand_models_fit_a_small_cache() {
    const LIMIT: ByteSize = ByteSize::mib(64);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(options(dir.path(), LIMIT)).unwrap();
    let keys: Vec<NodeKey> = (0..100_000)
        .map(|n| NodeKey::Model { group: "hub".into(), model: format!("model-{n:06}").into() })
        .collect();
    let before = store.usage().used.0;
    let start = Instant::now();
    let ids = store.nodes(&source("https://models.example.org/all"), &keys).unwrap();
    let made = start.elapsed();
    assert_eq!(ids.len(), keys.len());
    let usage = store.usage();
    assert!(usage.used <= usage.limit && usage.reserved.0 == 0, "{usage:?}");
    let each = (usage.used.0 - before) / keys.len() as u64;
    assert!(each < 300, "{each} bytes a name");
    let start = Instant::now();
    assert_eq!(store.nodes(&source("https://models.example.org/all"), &keys).unwrap(), ids);
    println!("{each} bytes a name; made in {made:?}, found in {:?}", start.elapsed());
}
