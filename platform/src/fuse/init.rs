//! FUSE_INIT, a connection's first request, as bytes. The owner of the connection keeps it, so that
//! each later process is offered what the kernel and the first process agreed on.
//!
//! Invariant: a later offer contains no capability that was not agreed on. Pure.

use std::io;

use zerocopy::IntoBytes;

use super::wire::{HAS_RESEND, INIT_EXT, InHeader, InitIn, InitOut, OutHeader, opcode, split};

/// A connection's first request and the agreed flags.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Init {
    asked: Vec<u8>,
    given: Option<(u32, u32)>,
}

/// The header of a request and what it asks for.
fn parse(asked: &[u8]) -> Option<(InHeader, InitIn)> {
    let (header, body) = split::<InHeader>(asked)?;
    let (init, _) = split::<InitIn>(body)?;
    (header.opcode == opcode::INIT).then_some((header, init))
}

impl Init {
    /// Parses the request as the kernel sent it.
    pub(super) fn new(asked: &[u8]) -> io::Result<Self> {
        match parse(asked) {
            Some(_) => Ok(Self { asked: asked.to_vec(), given: None }),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "not a FUSE_INIT request")),
        }
    }

    /// Whether the kernel can resend requests that a process read and did not answer.
    pub(super) fn can_resend(&self) -> bool {
        parse(&self.asked)
            .is_some_and(|(_, init)| init.flags & INIT_EXT != 0 && init.flags2 & HAS_RESEND != 0)
    }

    /// Whether a process has answered.
    pub(super) fn is_answered(&self) -> bool {
        self.given.is_some()
    }

    /// Records the first reply. Rejects errors and replies to other requests.
    pub(super) fn answered(&mut self, reply: &[u8]) -> io::Result<()> {
        let wrong = |why| Err(io::Error::new(io::ErrorKind::InvalidData, why));
        let asked = parse(&self.asked).map(|(header, _)| header.unique);
        let Some((header, body)) =
            split::<OutHeader>(reply).filter(|(header, _)| Some(header.unique) == asked)
        else {
            return wrong("not an answer to FUSE_INIT");
        };
        if header.error != 0 {
            return wrong("FUSE_INIT was answered with an error");
        }
        let Some((init, _)) = split::<InitOut>(body) else {
            return wrong("the answer to FUSE_INIT is too short");
        };
        self.given = Some((init.flags, init.flags2));
        Ok(())
    }

    /// The request for a process to answer: at first as the kernel sent it, later limited to the agreed
    /// flags.
    pub(super) fn offer(&self) -> Vec<u8> {
        let mut offer = self.asked.clone();
        if let (Some((flags, flags2)), Some((_, mut init))) = (self.given, parse(&offer)) {
            init.flags &= flags | INIT_EXT;
            init.flags2 &= flags2;
            let at = size_of::<InHeader>();
            offer[at..at + size_of::<InitIn>()].copy_from_slice(init.as_bytes());
        }
        offer
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    /// The kernel's structure has more fields than the ones we read.
    const MORE: [u8; 44] = [0; 44];

    fn asked(flags: u32, flags2: u32) -> Vec<u8> {
        let header = InHeader {
            len: 104,
            opcode: opcode::INIT,
            unique: 77,
            node: 0,
            uid: 0,
            gid: 0,
            pid: 0,
            rest: 0,
        };
        let init = InitIn { major: 7, minor: 40, max_readahead: 1 << 17, flags, flags2 };
        [header.as_bytes(), init.as_bytes(), &MORE].concat()
    }

    fn given(unique: u64, error: i32, flags: u32, flags2: u32) -> Vec<u8> {
        let header = OutHeader { len: 80, error, unique };
        let mut init = InitOut::new_zeroed();
        (init.flags, init.flags2) = (flags, flags2);
        [header.as_bytes(), init.as_bytes(), &MORE].concat()
    }

    #[test]
    fn a_later_worker_offers_only_the_capabilities_that_were_negotiated() {
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
    fn an_invalid_fuse_handshake_is_refused() {
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
