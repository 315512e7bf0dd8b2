//! What is known of files: nodes that were proved, and that no proof can be had.
//!
//! Invariant: nodes are learned only from what was verified. Concurrency: shared; no lock is held across an
//! await.

use std::sync::{Arc, Mutex, MutexGuard};

use crate::base::ObjectRange;
use crate::base::weighted::Weighted;
use crate::trust::xet::{Cover, KnownNodes, Node, XetHash};

/// Maximum memory of known nodes: the chunks of some 28 GB that were read.
const MEMORY: usize = 32 << 20;
/// What a node takes: 48 bytes and its share of a tree.
const NODE_MEMORY: usize = 72;
/// What a file takes without nodes.
const FILE_MEMORY: usize = 256;
/// Maximum number of bytes beyond the wanted ones that are read because nodes cover them. A proof costs a
/// request and some 30 kB; more than this is not read to save one. On average a range of 8 MiB lies in two
/// nodes of 10 MiB, so that a file that is read in order needs a proof for each node above, of 50 MiB.
const MAX_MORE: u64 = 16 << 20;
/// Where a reader waits for few bytes, at most this number of them: how many times as many may be read.
const FEW: u64 = 2 << 20;
/// That number of times.
const COVER_FACTOR: u64 = 4;

/// A file: its Xet hash and length.
type FileKey = (XetHash, u64);

/// What is known of one file.
#[derive(Default)]
pub struct FileProofs {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    nodes: KnownNodes,
    /// Why no range can be proved.
    refused: Option<String>,
}

impl FileProofs {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }

    /// Known nodes that cover the range, if reading all of them is better than asking for a proof.
    pub fn cover(&self, range: ObjectRange) -> Option<Cover> {
        self.state().nodes.cover(range.start()..range.end(), most_to_read(range.len()))
    }

    /// Learns nodes, in file order, that were proved to begin at `start`.
    pub fn learn(&self, start: u64, nodes: &[Node]) {
        self.state().nodes.learn(start, nodes);
    }

    /// Why no range of the file can be proved.
    pub fn refused(&self) -> Option<String> {
        self.state().refused.clone()
    }

    /// Remembers why no range can be proved.
    pub fn refuse(&self, why: &str) {
        self.state().refused = Some(why.to_owned());
    }

    fn memory(&self) -> usize {
        FILE_MEMORY + self.state().nodes.len() * NODE_MEMORY
    }
}

/// How much may be read where so many bytes are wanted.
fn most_to_read(wanted: u64) -> u64 {
    match wanted <= FEW {
        true => wanted * COVER_FACTOR,
        false => wanted.saturating_add(MAX_MORE),
    }
}

/// What is known of the files that were read last.
pub struct Proofs {
    files: Mutex<Weighted<FileKey, Arc<FileProofs>>>,
}

impl Proofs {
    /// Nothing is known.
    pub fn new() -> Self {
        Self { files: Mutex::new(Weighted::new(MEMORY)) }
    }

    /// What is known of a file.
    pub fn of(&self, root: XetHash, len: u64) -> Arc<FileProofs> {
        let mut files = self.files.lock().expect("nothing panics while it holds this lock");
        let file = files.get(&(root, len)).unwrap_or_default();
        // What was learned since the last time counts from now on.
        files.put((root, len), file.memory(), Arc::clone(&file));
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_bytes_are_not_worth_reading_many() {
        const MIB: u64 = 1 << 20;
        assert_eq!(most_to_read(MIB), 4 * MIB);
        assert_eq!(most_to_read(8 * MIB), 24 * MIB);
        assert_eq!(most_to_read(u64::MAX), u64::MAX);
    }

    #[test]
    fn what_is_learned_of_a_file_is_known_of_it_alone() {
        let proofs = Proofs::new();
        let root = XetHash::of_chunk(b"root");
        let node = |n: u8| Node { hash: XetHash::of_chunk(&[n]), size: 1000 };
        proofs.of(root, 2000).learn(0, &[node(1), node(2)]);
        let range = ObjectRange::new(1400, 1500);
        assert_eq!(proofs.of(root, 2000).cover(range), None, "1000 bytes instead of 100");
        let range = ObjectRange::new(1400, 1700);
        let cover = proofs.of(root, 2000).cover(range).unwrap();
        assert_eq!((cover.start, cover.nodes), (1000, vec![node(2)]));
        assert_eq!(proofs.of(root, 2001).cover(range), None, "another length");
        proofs.of(root, 2000).refuse("no");
        assert_eq!(proofs.of(root, 2000).refused().as_deref(), Some("no"));
        assert_eq!(proofs.of(XetHash::EMPTY_FILE, 2000).refused(), None);
    }
}
