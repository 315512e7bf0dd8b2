//! What makes parts believable that an earlier process stored. Plain values, below everything else.
//!
//! `engine::trust` applies them, `index` keeps stamps and finds out how the previous run ended.

/// What a blob's file looked like after our last change of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes that it took on disk.
    pub allocated: u64,
    /// When its content, length or mode last changed, in nanoseconds since 1970.
    pub changed: i64,
}

/// What makes a part that an earlier process stored believable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The blob's file looks as the index says.
    Stamp,
    /// The part's bytes match their checksum.
    Checksum,
}

/// How the previous process left the store.
#[derive(Debug, Clone, Copy)]
pub struct PreviousRun {
    /// Index and folder carry the same epoch: no other index was used with this folder since.
    pub same_epoch: bool,
    /// The store was closed cleanly.
    pub clean: bool,
    /// Everything written reached the disk or is still in the page cache: the machine has not restarted
    /// since.
    pub same_boot: bool,
}

impl PreviousRun {
    /// Which evidence is enough. After a power cut the disk may have lost what it said was durable, so
    /// only checksums count. A process that died loses nothing that it had written.
    pub fn evidence(self) -> Evidence {
        if self.same_epoch && (self.clean || self.same_boot) {
            Evidence::Stamp
        } else {
            Evidence::Checksum
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_known_epoch_without_a_power_cut_lets_stamps_count() {
        let all = [true, false];
        for same_epoch in all {
            for clean in all {
                for same_boot in all {
                    let previous = PreviousRun { same_epoch, clean, same_boot };
                    let stamps = same_epoch && (clean || same_boot);
                    assert_eq!(previous.evidence() == Evidence::Stamp, stamps, "{previous:?}");
                }
            }
        }
    }
}
