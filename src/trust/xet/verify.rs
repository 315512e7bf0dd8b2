//! Whether a proof and the chunks of its windows lead to the file's Xet hash. Pure.
//!
//! Invariant: no node that was sent is left out of the computation, so an accepted proof has nothing in
//! it that the hash does not cover.

use super::hash::XetHash;
use super::proof::{Gap, Proof};
use super::tree::{MAX_CHUNK, MAX_LEVELS, Node, parents};

/// Why a proof is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the proof is refused: {0}")]
pub struct ProofError(&'static str);

fn require(holds: bool, else_: &'static str) -> Result<(), ProofError> {
    holds.then_some(()).ok_or(ProofError(else_))
}

/// Accepts the chunks of the proof's windows, one list for each window, as those of the file with this
/// hash and length. Each chunk is the hash of bytes that the caller has ([`XetHash::of_chunk`]) and
/// their length.
///
/// Returns nodes that the file consists of, in file order: those of the gaps and the chunks. Each of them
/// is authenticated at its place.
pub fn verify(
    file: &XetHash,
    len: u64,
    proof: &Proof,
    chunks: &[Vec<Node>],
) -> Result<Vec<Node>, ProofError> {
    check_places(len, proof, chunks)?;
    let mut gaps = Vec::with_capacity(proof.hash_ranges.len());
    for gap in &proof.hash_ranges {
        gaps.push(gap.as_ref().map(sides).transpose()?.unwrap_or_default());
    }
    let root = root(gaps, chunks)?;
    require(root.size == len, "the root covers another length")?;
    require(root.hash.sealed() == *file, "the root is another file's")?;
    let mut nodes = Vec::new();
    for (i, gap) in proof.hash_ranges.iter().enumerate() {
        nodes.extend(gap.iter().flat_map(|gap| &gap.nodes));
        nodes.extend(chunks.get(i).into_iter().flatten());
    }
    Ok(nodes)
}

/// Windows and gaps tile the file, and what stands for each has its size.
fn check_places(len: u64, proof: &Proof, chunks: &[Vec<Node>]) -> Result<(), ProofError> {
    let (windows, gaps) = (&proof.windows, &proof.hash_ranges);
    require(proof.file_size == len, "the file has another length")?;
    require(!windows.is_empty(), "it has no window")?;
    require(chunks.len() == windows.len(), "there are not as many chunk lists as windows")?;
    require(gaps.len() == windows.len() + 1, "there are not as many gaps as between windows")?;
    let mut at = 0;
    for (i, gap) in gaps.iter().enumerate() {
        let (start, end) = windows.get(i).map_or((len, len), |w| w.dirty_byte_range.into());
        require(at <= start && end <= len, "windows overlap or lie outside of the file")?;
        match gap {
            None => require(at == start, "a gap is missing")?,
            Some(gap) => {
                require(gap.at_start == (i == 0), "a gap says that it begins the file")?;
                require(gap.at_end == (i == windows.len()), "a gap says that it ends the file")?;
                let size = total(&gap.nodes, u64::MAX)?;
                require(size > 0 && size == start - at, "a gap has another size than its nodes")?;
            }
        }
        if let Some(chunks) = chunks.get(i) {
            require(start < end, "a window is empty")?;
            require(total(chunks, MAX_CHUNK)? == end - start, "a window is not its chunks")?;
        }
        at = end;
    }
    Ok(())
}

/// The sum of the nodes' sizes, each between 1 and `most`.
fn total(nodes: &[Node], most: u64) -> Result<u64, ProofError> {
    let mut sum = 0u64;
    for node in nodes {
        require((1..=most).contains(&node.size), "a node has a size that cannot be")?;
        sum = sum.checked_add(node.size).ok_or(ProofError("sizes overflow"))?;
    }
    Ok(sum)
}

/// The nodes of a gap on each level, those to the left and those to the right.
type Sides<'a> = Vec<(&'a [Node], &'a [Node])>;

/// Takes a gap's nodes apart, so that each is on one level and one side.
fn sides(gap: &Gap) -> Result<Sides<'_>, ProofError> {
    const COUNT: ProofError = ProofError("a gap counts other nodes than it has");
    require((1..=MAX_LEVELS).contains(&gap.levels.len()), "a gap has no levels, or too many")?;
    let (mut rest, mut out) = (&gap.nodes[..], Vec::with_capacity(gap.levels.len()));
    let mut take = |count: u64| {
        let count = usize::try_from(count).map_err(|_| COUNT)?;
        let (taken, left) = rest.split_at_checked(count).ok_or(COUNT)?;
        rest = left;
        Ok(taken)
    };
    for [left, _] in &gap.levels {
        out.push((take(*left)?, &[][..]));
    }
    for (level, [_, right]) in gap.levels.iter().enumerate().rev() {
        out[level].1 = take(*right)?;
    }
    require(rest.is_empty(), "a gap counts other nodes than it has")?;
    // Below its top, a gap has a hole. Nodes on the file's side of it would belong to no window.
    let below_top = &out[..out.len() - 1];
    let beyond = |side: fn(&(&[Node], &[Node])) -> bool| below_top.iter().all(side);
    require(!gap.at_start || beyond(|s| s.0.is_empty()), "nodes lie before the file's begin")?;
    require(!gap.at_end || beyond(|s| s.1.is_empty()), "nodes lie past the file's end")?;
    Ok(out)
}

/// Computes the root. Between two gaps lies a run of nodes that are known; on the top level of a gap the
/// runs beside it join.
fn root(mut gaps: Vec<Sides<'_>>, chunks: &[Vec<Node>]) -> Result<Node, ProofError> {
    // A run on each side of each gap; before the first and after the last there is none yet.
    let mut runs: Vec<Vec<Node>> = Vec::with_capacity(chunks.len() + 2);
    runs.push(Vec::new());
    runs.extend(chunks.iter().cloned());
    runs.push(Vec::new());
    let mut level = 0;
    // Ends: a gap has few levels, and without gaps each level has fewer nodes than the one below.
    loop {
        let mut joined: Vec<Vec<Node>> = Vec::with_capacity(runs.len());
        let mut open = Vec::with_capacity(gaps.len());
        let mut runs_left = runs.into_iter();
        let mut run = runs_left.next().unwrap_or_default();
        for (sides, next) in gaps.into_iter().zip(runs_left) {
            let (left, right) = sides.get(level).copied().unwrap_or_default();
            run.extend_from_slice(left);
            // A gap of nothing has no levels.
            if level + 1 < sides.len() {
                joined.push(std::mem::take(&mut run));
                open.push(sides);
            }
            run.extend_from_slice(right);
            run.extend(next);
        }
        joined.push(run);
        if open.is_empty() && joined[0].len() <= 1 {
            return joined[0].first().copied().ok_or(ProofError("it has no nodes"));
        }
        runs = Vec::with_capacity(joined.len());
        for run in &joined {
            runs.push(parents(run).ok_or(ProofError("sizes overflow"))?);
        }
        gaps = open;
        level += 1;
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Vectors {
        proofs: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        name: String,
        file_hash: XetHash,
        file_len: u64,
        answer: Proof,
        window_chunks: Vec<Vec<(XetHash, u64)>>,
        expect: String,
    }

    impl Case {
        fn chunks(&self) -> Vec<Vec<Node>> {
            let node = |(hash, size): &(XetHash, u64)| Node { hash: *hash, size: *size };
            self.window_chunks.iter().map(|w| w.iter().map(node).collect()).collect()
        }

        fn verdict(&self) -> Result<Vec<Node>, ProofError> {
            verify(&self.file_hash, self.file_len, &self.answer, &self.chunks())
        }
    }

    fn vectors() -> Vec<Case> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/xet-proofs.json");
        let vectors: Vectors = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        vectors.proofs
    }

    #[test]
    fn every_honest_proof_is_accepted_and_every_lie_refused() {
        let (mut accepted, mut refused) = (0, 0);
        for case in vectors() {
            let verdict = case.verdict();
            match case.expect.as_str() {
                "accept" => accepted += 1,
                "reject" => refused += 1,
                other => panic!("{other}"),
            }
            assert_eq!(verdict.is_ok(), case.expect == "accept", "{}: {verdict:?}", case.name);
            let nodes = verdict.unwrap_or_default();
            let sum: u64 = nodes.iter().map(|node| node.size).sum();
            assert!(nodes.is_empty() || sum == case.file_len, "they are the file: {}", case.name);
        }
        assert_eq!((accepted, refused), (39, 29));
    }

    #[test]
    fn any_change_of_a_node_that_was_sent_is_refused() {
        let honest = vectors().into_iter().find(|c| c.name == "honest, 2 windows").unwrap();
        honest.verdict().unwrap();
        let gaps = honest.answer.hash_ranges.iter().flatten();
        let nodes: usize = gaps.map(|g| g.nodes.len()).sum();
        for changed in 0..nodes {
            let mut proof = honest.answer.clone();
            let mut all = proof.hash_ranges.iter_mut().flatten().flat_map(|g| &mut g.nodes);
            all.nth(changed).unwrap().hash = XetHash::of_chunk(b"another");
            let verdict = verify(&honest.file_hash, honest.file_len, &proof, &honest.chunks());
            assert!(verdict.is_err(), "node {changed}");
        }
    }

    #[test]
    fn absurd_numbers_are_refused_without_a_panic() {
        let honest = vectors().into_iter().find(|c| c.name == "honest (control)").unwrap();
        let with = |change: &dyn Fn(&mut Proof)| {
            let mut proof = honest.answer.clone();
            change(&mut proof);
            verify(&honest.file_hash, honest.file_len, &proof, &honest.chunks())
        };
        assert!(with(&|_| {}).is_ok());
        let first = |proof: &mut Proof| proof.hash_ranges[0].clone().unwrap();
        for [left, right] in [[u64::MAX, 0], [0, u64::MAX], [1 << 63, 1 << 63]] {
            let bad = with(&|p| {
                let mut gap = first(p);
                gap.levels[0] = [left, right];
                p.hash_ranges[0] = Some(gap);
            });
            assert!(bad.is_err());
        }
        assert!(with(&|p| p.windows[0].dirty_byte_range.reverse()).is_err());
        assert!(with(&|p| p.windows[0].dirty_byte_range = [0, u64::MAX]).is_err());
        assert!(with(&|p| p.hash_ranges.clear()).is_err());
        assert!(with(&|p| p.hash_ranges.push(None)).is_err());
        let many = with(&|p| {
            let mut gap = first(p);
            gap.levels.extend(vec![[0, 0]; 1 << 20]);
            p.hash_ranges[0] = Some(gap);
        });
        assert!(many.is_err());
        assert!(verify(&honest.file_hash, honest.file_len, &honest.answer, &[]).is_err());
    }
}
