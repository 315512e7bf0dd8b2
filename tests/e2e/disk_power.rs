//! Power cuts at random moments of everything that changes the disk. Afterwards, every byte that
//! the index claims is read and compared with what was published.
//!
//! `MODELFS_POWER_CUTS` says how many (`make test-torture`), `MODELFS_SEED` repeats a run's choices;
//! when the cut comes is up to the clock all the same. `MODELFS_POWER_WORK=Pin` tries only that.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use modelfs::base::units::ByteSize;
use modelfs::publish::{PublishRequest, publish};
use modelfs_test_support::{FsKind, LoopFs, ModelDir, bytes};

use crate::disk_power_rig::{Chance, Life, Power, Promise, Rig, source};
use crate::harness::Place;

/// The longest time from the beginning of the work to the cut.
const LONGEST: u64 = 400;
/// Less than all versions take.
const SMALL: ByteSize = ByteSize::mib(12);
const LARGE: ByteSize = ByteSize::mib(64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Download,
    Evict,
    Pin,
    Open,
    Publish,
    Daemon,
}

const WORKS: [Work; 6] =
    [Work::Download, Work::Evict, Work::Pin, Work::Open, Work::Publish, Work::Daemon];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|v| v.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn every_byte_that_the_index_claims_outlives_a_power_cut() {
    let cuts = number("MODELFS_POWER_CUTS").unwrap_or(12);
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |t| t.as_nanos() as u64);
    let seed = number("MODELFS_SEED").unwrap_or_else(now) | 1;
    println!("MODELFS_SEED={seed}");
    let mut chance = Chance(seed);
    let rig = Rig::new();
    // what one cut left, the next one finds
    let disks = [LoopFs::new(FsKind::Ext4), LoopFs::new(FsKind::Xfs)];
    let only = std::env::var("MODELFS_POWER_WORK").ok();
    let wanted = |w: &&Work| only.as_ref().is_none_or(|name| *name == format!("{w:?}"));
    let works: Vec<Work> = WORKS.iter().filter(wanted).copied().collect();
    assert!(!works.is_empty(), "MODELFS_POWER_WORK is one of {WORKS:?}");
    let mut done: BTreeMap<Work, u64> = BTreeMap::new();
    for n in 0..cuts {
        let work = works[(n % works.len() as u64) as usize];
        let fs = &disks[usize::from(chance.below(4) == 0)];
        match work {
            Work::Publish => cut_publishing(&rig, fs, n, &mut chance),
            Work::Daemon => cut_daemon(&rig, &mut chance),
            _ => cut_store(&rig, fs, work, &mut chance),
        }
        *done.entry(work).or_default() += 1;
    }
    let compared = rig.compared();
    println!("{cuts} power cuts {done:?}, {compared} bytes compared");
    assert!(compared > cuts << 18, "there was something to compare");
}

/// Lets `work` run on `threads` threads, with some syncing for the disk to have more than it
/// promised, and cuts the power at some moment.
fn until_cut(
    fs: &LoopFs,
    threads: u64,
    chance: &mut Chance,
    work: &(dyn Fn(&Power, Chance) + Sync),
) {
    let power = Power::default();
    let seeds: Vec<u64> = (0..threads).map(|_| chance.below(u64::MAX) | 1).collect();
    let moment = Duration::from_millis(1 + chance.below(LONGEST));
    let sync_at = (chance.below(2) == 0).then(|| moment.mul_f64(chance.below(100) as f64 / 100.0));
    std::thread::scope(|scope| {
        for seed in seeds {
            let power = &power;
            scope.spawn(move || work(power, Chance(seed)));
        }
        if let Some(at) = sync_at {
            std::thread::sleep(at);
            File::open(fs.path()).and_then(|f| Ok(rustix::fs::syncfs(&f)?)).expect("power is on");
        }
        std::thread::sleep(moment - sync_at.unwrap_or_default());
        power.goes();
        fs.cut_power();
    });
}

fn cut_store(rig: &Rig, fs: &LoopFs, work: Work, chance: &mut Chance) {
    let (name, limit) = match work {
        Work::Download => ("download", LARGE),
        Work::Evict => ("evict", SMALL),
        Work::Pin => ("pin", LARGE),
        _ => ("open", SMALL),
    };
    let root = fs.path().join(name);
    // promises are made for one folder
    rig.promises.lock().expect("nobody panics with it").clear();
    if work == Work::Open {
        until_cut(fs, 1, chance, &|power, chance| open_and_close(rig, &root, power, chance));
    } else {
        let life = rig.live(&root, limit).expect("the power is on");
        until_cut(fs, 3, chance, &|power, chance| match work {
            Work::Download => download(rig, &life, power, chance),
            Work::Evict => evict(rig, &life, power, chance),
            _ => pin(rig, &life, power, chance),
        });
        drop(life);
    }
    fs.unmount();
    fs.mount();
    rig.examine(&root, limit);
}

fn download(rig: &Rig, life: &Life, power: &Power, mut chance: Chance) {
    while !power.is_gone() {
        let model = &rig.models[chance.below(3) as usize];
        if chance.below(3) == 0 {
            power.fine(life.prefetch(model));
        } else {
            power.fine(life.read(model, &mut chance));
        }
        if chance.below(30) == 0 {
            power.fine(life.store.evict(&model.keys(), false).map_err(Into::into));
        }
    }
}

fn evict(rig: &Rig, life: &Life, power: &Power, mut chance: Chance) {
    while !power.is_gone() {
        let model = &rig.models[chance.below(3) as usize];
        match chance.below(12) {
            0 => drop(power.fine(life.store.evict(&model.keys(), true).map_err(Into::into))),
            1 => drop(power.fine(life.store.evict(&model.keys()[..1], false).map_err(Into::into))),
            2 => drop(power.fine(life.prefetch(model))),
            3 => {
                let found = life.store.verify(&model.keys(), &|_, _| !power.is_gone());
                let found = power.fine(found.map_err(Into::into));
                let dropped = found.map_or(0, |f| f.dropped.0);
                assert!(dropped == 0 || power.is_gone(), "verification found {dropped} wrong");
            }
            _ => drop(power.fine(life.read(model, &mut chance))),
        }
    }
}

fn pin(rig: &Rig, life: &Life, power: &Power, mut chance: Chance) {
    let set = |n: usize, pinned: Option<bool>, whole: bool| {
        let mut promises = rig.promises.lock().expect("nobody panics with it");
        // a file system that was just shut down may say that it synced: with the power gone there
        // is nobody to be told, so that is no promise
        if pinned.is_none() || !power.is_gone() {
            promises.insert(n, Promise { pinned, whole });
        }
    };
    // each model's promises are made in one order: by whom its turn is
    static TURN: [Mutex<()>; 3] = [Mutex::new(()), Mutex::new(()), Mutex::new(())];
    while !power.is_gone() {
        let n = chance.below(3) as usize;
        let model = &rig.models[n];
        let Ok(_turn) = TURN[n].try_lock() else {
            power.fine(life.read(model, &mut chance));
            continue;
        };
        if chance.below(2) == 0 {
            set(n, None, false);
            if power.fine(life.store.pin(&model.pin(), &model.keys()).map_err(Into::into)).is_none()
            {
                return;
            }
            set(n, Some(true), false);
            if power.fine(life.prefetch(model)).is_some() {
                set(n, Some(true), true);
            }
        } else {
            set(n, None, false);
            let gone = life.store.unpin(&source(), &model.version, "me").map_err(Into::into);
            if power.fine(gone).is_none() {
                return;
            }
            set(n, Some(false), false);
            power.fine(life.store.evict(&model.keys(), false).map_err(Into::into));
        }
    }
}

/// Starts again and again, every third time with an index that something has damaged.
fn open_and_close(rig: &Rig, root: &Path, power: &Power, mut chance: Chance) {
    while !power.is_gone() {
        let Some(life) = power.fine(rig.live(root, SMALL).map_err(Into::into)) else { return };
        let model = &rig.models[chance.below(3) as usize];
        for _ in 0..chance.below(4) {
            power.fine(life.read(model, &mut chance));
        }
        if chance.below(3) == 0 {
            power.fine(life.store.evict(&model.keys(), false).map_err(Into::into));
        }
        drop(life);
        if chance.below(3) == 0 {
            let spoilt = spoil_index(root, &mut chance);
            assert!(spoilt.is_ok() || power.is_gone(), "{spoilt:?}");
        }
    }
}

/// Damage that every start notices. What shows only later is another test's.
fn spoil_index(root: &Path, chance: &mut Chance) -> std::io::Result<()> {
    let mut file = File::options().read(true).write(true).open(root.join("index.db"))?;
    if chance.below(2) == 0 {
        file.write_all(&[0xa5; 4096])
    } else {
        file.set_len(1 + chance.below(file.metadata()?.len() - 1))
    }
}

/// A registry's folder loses its power while versions are published to it. Whoever reads it then
/// sees each version whole or not at all, and all that were said to be published.
fn cut_publishing(rig: &Rig, fs: &LoopFs, n: u64, chance: &mut Chance) {
    let folder = fs.path().join(format!("registry-{n}"));
    let make = |k: u64| {
        let mut model = ModelDir::new();
        model.put("own.bin", bytes(1000 + k, 300_000 + k as usize));
        model.put("shared.bin", bytes(30, 500_000));
        model
    };
    let request = |k: u64, model: &ModelDir| PublishRequest {
        chunk_size: 128 << 10,
        leaf: Some((32 << 10, modelfs::model::HashAlgorithm::Blake3)),
        ..PublishRequest::new(
            model.path(),
            format!("g/m@v{k}").parse().expect("a reference"),
            &folder,
        )
    };
    let published = Mutex::new(Vec::new());
    let next = Mutex::new(0);
    until_cut(fs, 2, chance, &|power, _| {
        while !power.is_gone() {
            let k = {
                let mut next = next.lock().expect("nobody panics with it");
                *next += 1;
                *next
            };
            let model = make(k);
            match publish(&request(k, &model), &|_| ()) {
                // see `pin`: who is told so without power is nobody
                Ok(_) if power.is_gone() => {}
                Ok(_) => published.lock().expect("nobody panics with it").push(k),
                Err(e) => assert!(power.is_gone(), "failed with the power on: {e}"),
            }
        }
    });
    fs.unmount();
    fs.mount();
    let published = published.into_inner().expect("nobody panicked");
    if !folder.join("models.json").exists() {
        assert!(published.is_empty(), "{published:?} were published, and there is no catalog");
        let _ = fs::remove_dir_all(&folder);
        return;
    }
    let scratch = tempfile::tempdir().expect("a folder");
    let life = Life::new(scratch.path().join("cache"), LARGE, &folder).expect("a store");
    let source = life.fetcher.sources().first();
    let catalog = life.wait(source.catalog()).expect("a whole catalog, old or new");
    let names: Vec<String> = catalog.iter().map(|(_, _, v)| v.name.as_str().to_owned()).collect();
    for k in &published {
        assert!(names.contains(&format!("v{k}")), "v{k} was published: {names:?}");
    }
    for (_, _, version) in catalog.iter() {
        let model = make(version.name.as_str()[1..].parse().expect("our name"));
        let manifest =
            life.wait(source.manifest(&version.hash().expect("XPRIM"))).expect("it is there");
        for ix in (0..manifest.files().len() as u32).map(modelfs::model::FileIx) {
            let want = model.bytes(manifest.file(ix).path.as_str());
            let all = modelfs::base::FileRange::at(0, want.len() as u64);
            let got = life.read_range(&manifest, ix, all).expect("all of it is there");
            assert!(*got == *want, "a wrong byte");
            rig.count(got.len() as u64);
        }
    }
    // publishing goes on, over whatever was left lying there
    let model = make(0);
    publish(&request(0, &model), &|_| ()).expect("goes on");
    drop(life);
    let _ = fs::remove_dir_all(&folder);
}

/// The whole daemon: readers on a mount see right bytes or errors, and the next daemon only those.
fn cut_daemon(rig: &Rig, chance: &mut Chance) {
    let place = Place::new();
    let fs = LoopFs::at(FsKind::Ext4, &place.cache());
    let mut model = ModelDir::new();
    for n in 0..3u64 {
        model.put(&format!("{n}.bin"), bytes(50 + n, 5_000_000 + n as usize));
    }
    place.publish(model.path(), "g/m", "v", &["--chunk-size", "1MiB"]);
    let daemon = place.mount_folder(&["--cache-size", "40MiB"]);
    until_cut(&fs, 2, chance, &|power, mut chance| {
        while !power.is_gone() {
            let name = format!("{}.bin", chance.below(3));
            let want = model.bytes(&name);
            let at = chance.below(want.len() as u64 - 100_000);
            let mut got = vec![0; 100_000];
            let outcome = File::open(daemon.path(&format!("g/m/v/{name}"))).and_then(|mut file| {
                file.seek(SeekFrom::Start(at))?;
                file.read_exact(&mut got)
            });
            match outcome {
                Ok(()) => assert!(got == want[at as usize..at as usize + 100_000], "a wrong byte"),
                Err(e) => assert!(power.is_gone(), "failed with the power on: {e}"),
            }
        }
    });
    daemon.crash();
    fs.unmount();
    fs.mount();
    let daemon = place.mount_folder(&["--cache-size", "40MiB"]);
    let found = place.run(["verify"]);
    assert_eq!(found.code, 0, "{found:?}");
    for (name, want) in model.files() {
        let got = fs::read(daemon.path(&format!("g/m/v/{name}"))).expect("reads");
        assert!(got == *want, "a wrong byte in {name}");
        rig.count(got.len() as u64);
    }
    daemon.stop();
}
