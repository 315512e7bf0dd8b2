//! FUSE_INIT, a connection's first request, as bytes. The owner of the connection keeps it, so that
//! each later process is offered what the kernel and the first process agreed on.
//!
//! Invariant: a later offer contains no capability that was not agreed on. Pure; layouts are those of
//! `linux/fuse.h`, protocol 7.36 and later (all numbers in native byte order).

use std::io;
use std::ops::Range;

/// `fuse_in_header`: len, opcode, unique (8), nodeid (8), uid, gid, pid, padding.
const IN_HEADER: usize = 40;
/// `fuse_out_header`: len, error, unique (8).
const OUT_HEADER: usize = 16;
const OPCODE: Range<usize> = 4..8;
const FUSE_INIT: u32 = 26;
const UNIQUE: Range<usize> = 8..16;
/// In the request after its header: major, minor, max_readahead, flags, flags2.
const ASKED_FLAGS: usize = IN_HEADER + 12;
const ASKED_FLAGS2: usize = IN_HEADER + 16;
/// In the reply after its header: major, minor, max_readahead, flags, max_background (2),
/// congestion_threshold (2), max_write, time_gran, max_pages (2), map_alignment (2), flags2.
const GIVEN_FLAGS: usize = OUT_HEADER + 12;
const GIVEN_FLAGS2: usize = OUT_HEADER + 32;
/// The flag that says that `flags2` is present.
const INIT_EXT: u32 = 1 << 30;
/// In `flags2`: the kernel can resend requests on demand (Linux 6.9).
const HAS_RESEND: u32 = 1 << (39 - 32);

/// A connection's first request and the agreed flags.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Init {
    asked: Vec<u8>,
    given: Option<(u32, u32)>,
}

fn number(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
    word.map_or(0, u32::from_ne_bytes)
}

fn set(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(word) = bytes.get_mut(at..at + 4) {
        word.copy_from_slice(&value.to_ne_bytes());
    }
}

impl Init {
    /// Parses the request as the kernel sent it.
    pub(super) fn new(asked: &[u8]) -> io::Result<Self> {
        if asked.len() < ASKED_FLAGS + 4 || number(asked, OPCODE.start) != FUSE_INIT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a FUSE_INIT request"));
        }
        Ok(Self { asked: asked.to_vec(), given: None })
    }

    /// Whether the kernel can resend requests that a process read and did not answer.
    pub(super) fn can_resend(&self) -> bool {
        number(&self.asked, ASKED_FLAGS) & INIT_EXT != 0
            && number(&self.asked, ASKED_FLAGS2) & HAS_RESEND != 0
    }

    /// Whether a process has answered.
    pub(super) fn is_answered(&self) -> bool {
        self.given.is_some()
    }

    /// Records the first reply. Rejects errors and replies to other requests.
    pub(super) fn answered(&mut self, reply: &[u8]) -> io::Result<()> {
        let wrong = |why| Err(io::Error::new(io::ErrorKind::InvalidData, why));
        if reply.len() < GIVEN_FLAGS2 + 4 || reply[UNIQUE] != self.asked[UNIQUE] {
            return wrong("not an answer to FUSE_INIT");
        }
        if number(reply, 4) != 0 {
            return wrong("FUSE_INIT was answered with an error");
        }
        self.given = Some((number(reply, GIVEN_FLAGS), number(reply, GIVEN_FLAGS2)));
        Ok(())
    }

    /// The request for a process to answer: at first as the kernel sent it, later limited to the agreed
    /// flags.
    pub(super) fn offer(&self) -> Vec<u8> {
        let mut offer = self.asked.clone();
        if let Some((flags, flags2)) = self.given {
            let asked = number(&offer, ASKED_FLAGS);
            set(&mut offer, ASKED_FLAGS, asked & (flags | INIT_EXT));
            let asked = number(&offer, ASKED_FLAGS2);
            set(&mut offer, ASKED_FLAGS2, asked & flags2);
        }
        offer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(flags: u32, flags2: u32) -> Vec<u8> {
        let mut bytes = vec![0; IN_HEADER + 64];
        set(&mut bytes, OPCODE.start, FUSE_INIT);
        set(&mut bytes, UNIQUE.start, 77);
        set(&mut bytes, ASKED_FLAGS, flags);
        set(&mut bytes, ASKED_FLAGS2, flags2);
        bytes
    }

    fn given(unique: u32, error: i32, flags: u32, flags2: u32) -> Vec<u8> {
        let mut bytes = vec![0; OUT_HEADER + 64];
        set(&mut bytes, 4, error as u32);
        set(&mut bytes, UNIQUE.start, unique);
        set(&mut bytes, GIVEN_FLAGS, flags);
        set(&mut bytes, GIVEN_FLAGS2, flags2);
        bytes
    }

    #[test]
    fn later_offers_have_what_was_agreed_and_no_more() {
        let first = asked(INIT_EXT | 0b1111, HAS_RESEND | 0b110);
        let mut init = Init::new(&first).unwrap();
        assert!(init.can_resend() && !init.is_answered());
        assert_eq!(init.offer(), first);
        init.answered(&given(77, 0, 0b1001_0011, 0b010)).unwrap();
        assert!(init.is_answered());
        assert_eq!(init.offer(), asked(INIT_EXT | 0b0011, 0b010));
        assert!(init.can_resend(), "what the kernel can do does not change");
    }

    #[test]
    fn what_is_no_handshake_is_refused() {
        assert!(Init::new(&[]).is_err());
        assert!(Init::new(&[0; 200]).is_err());
        let mut init = Init::new(&asked(0, HAS_RESEND)).unwrap();
        assert!(!init.can_resend(), "an old kernel has no second word of flags");
        assert!(init.answered(&given(78, 0, 0, 0)).is_err());
        assert!(init.answered(&given(77, -5, 0, 0)).is_err());
        assert!(init.answered(&given(77, 0, 0, 0)[..20]).is_err());
        assert!(!init.is_answered());
    }
}
