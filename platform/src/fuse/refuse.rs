//! Answers requests with an error and its reason while no worker serves the mount and none will.
//!
//! Invariant: every request that needs a reply gets one; none gets data. One thread.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use modelfs::vfs::{Handle, Ino};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Minimum read buffer that the kernel accepts (maximum write plus headers); our requests carry no
/// data.
const REQUEST: usize = 1 << 20 | 4096;
/// `fuse_in_header`.
const HEADER: usize = 40;
/// Offset of the inode in the header.
const NODE: usize = 16;
const FORGET: u32 = 2;
const RELEASE: u32 = 18;
const GETXATTR: u32 = 22;
const RELEASEDIR: u32 = 29;
const INTERRUPT: u32 = 36;
const DESTROY: u32 = 38;
const BATCH_FORGET: u32 = 42;
/// `fuse_getxattr_in`: size, padding; then the name.
const XATTR_NAME: usize = HEADER + 8;
const ERROR_ATTRIBUTE: &[u8] = b"user.modelfs.error";

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
    word.map_or(0, u32::from_ne_bytes)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    let long = bytes.get(at..at + 8).and_then(|b| b.try_into().ok());
    long.map_or(0, u64::from_ne_bytes)
}

/// The reply to a request; none where the kernel expects none.
fn answer(request: &[u8], reason: &str) -> Option<Vec<u8>> {
    let unique = request.get(8..16)?;
    let reply = |error: i32, body: &[u8]| {
        let mut out = Vec::with_capacity(16 + body.len());
        out.extend_from_slice(&((16 + body.len()) as u32).to_ne_bytes());
        out.extend_from_slice(&error.to_ne_bytes());
        out.extend_from_slice(unique);
        out.extend_from_slice(body);
        Some(out)
    };
    let errno = |e: Errno| -e.raw_os_error();
    match word(request, 4) {
        FORGET | BATCH_FORGET | INTERRUPT => None,
        RELEASE | RELEASEDIR | DESTROY => reply(0, &[]),
        GETXATTR => {
            let name = request.get(XATTR_NAME..).unwrap_or_default();
            let name = name.split(|b| *b == 0).next().unwrap_or_default();
            match (name == ERROR_ATTRIBUTE, word(request, HEADER) as usize) {
                (false, _) => reply(errno(Errno::NODATA), &[]),
                // `fuse_getxattr_out`: size, padding.
                (true, 0) => reply(0, &[(reason.len() as u32).to_ne_bytes(), [0; 4]].concat()),
                (true, room) if room < reason.len() => reply(errno(Errno::RANGE), &[]),
                (true, _) => reply(0, reason.as_bytes()),
            }
        }
        _ => reply(errno(Errno::IO), &[]),
    }
}

/// Answers the next request, if one arrives in time; `false`: the connection has ended.
/// `released` is called for a closed file.
pub(super) fn one(
    device: BorrowedFd<'_>,
    reason: &str,
    most: Duration,
    released: impl FnOnce(Ino, Handle),
) -> io::Result<bool> {
    let mut ready = [PollFd::from_borrowed_fd(device, PollFlags::IN)];
    let most = Timespec::try_from(most).map_err(io::Error::other)?;
    match poll(&mut ready, Some(&most)) {
        Ok(0) | Err(Errno::INTR) => return Ok(true),
        Ok(_) => {}
        Err(error) => return Err(error.into()),
    }
    let mut buffer = vec![0; REQUEST];
    let len = match rustix::io::read(device, &mut buffer) {
        Ok(len) => len,
        // The request was cancelled before we read it.
        Err(Errno::INTR | Errno::NOENT | Errno::AGAIN) => return Ok(true),
        Err(Errno::NODEV) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let request = &buffer[..len];
    if word(request, 4) == RELEASE {
        released(Ino(long(request, NODE)), Handle(long(request, HEADER)));
    }
    if let Some(reply) = answer(request, reason) {
        match rustix::io::write(device, &reply) {
            Ok(_) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(word(request, 4) != DESTROY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(opcode: u32, body: &[u8]) -> Vec<u8> {
        let mut out = vec![0; HEADER];
        out[4..8].copy_from_slice(&opcode.to_ne_bytes());
        out[8] = 9;
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn reads_fail_releases_do_not_and_the_reason_can_be_read() {
        let error = |reply: &[u8]| word(reply, 4) as i32;
        let read = answer(&request(15, &[0; 40]), "why").unwrap();
        assert_eq!((read.len(), error(&read), read[8]), (16, -5, 9));
        assert_eq!(error(&answer(&request(RELEASE, &[]), "why").unwrap()), 0);
        assert!(answer(&request(FORGET, &[]), "why").is_none());
        assert!(answer(&[], "why").is_none());
        let ask = |size: u32, name: &[u8]| {
            let body = [&size.to_ne_bytes(), &[0; 4][..], name, &[0]].concat();
            answer(&request(GETXATTR, &body), "why").unwrap()
        };
        assert_eq!(&ask(100, ERROR_ATTRIBUTE)[16..], b"why");
        assert_eq!(word(&ask(0, ERROR_ATTRIBUTE), 16), 3);
        assert_eq!(error(&ask(2, ERROR_ATTRIBUTE)), -34);
        assert_eq!(error(&ask(100, b"user.other")), -61);
    }
}
