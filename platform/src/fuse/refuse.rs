//! Answers requests with an error and its reason while no worker serves the mount and none will.
//!
//! Invariant: every request that needs a reply gets one; none gets data. One thread.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use modelfs::vfs::{Handle, Ino};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::wire::{GetXattr, InHeader, OutHeader, ReleaseIn, opcode, split};

/// Minimum read buffer that the kernel accepts (maximum write plus headers); our requests carry no
/// data.
const REQUEST: usize = 1 << 20 | 4096;
const ERROR_ATTRIBUTE: &[u8] = b"user.modelfs.error";

/// The reply to a request; none where the kernel expects none.
fn answer(request: &[u8], reason: &str) -> Option<Vec<u8>> {
    let (request, body) = split::<InHeader>(request)?;
    let reply = |error: i32, body: &[u8]| {
        let len = (size_of::<OutHeader>() + body.len()) as u32;
        let header = OutHeader { len, error, unique: request.unique };
        Some([header.as_bytes(), body].concat())
    };
    let errno = |e: Errno| -e.raw_os_error();
    match request.opcode {
        opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT => None,
        opcode::RELEASE | opcode::RELEASEDIR | opcode::DESTROY => reply(0, &[]),
        opcode::GETXATTR => {
            let (wanted, name) = split::<GetXattr>(body)?;
            let name = name.split(|b| *b == 0).next().unwrap_or_default();
            match (name == ERROR_ATTRIBUTE, wanted.size as usize) {
                (false, _) => reply(errno(Errno::NODATA), &[]),
                (true, 0) => {
                    let answer = GetXattr { size: reason.len() as u32, padding: 0 };
                    reply(0, answer.as_bytes())
                }
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
    let header = split::<InHeader>(request);
    if let Some((header, body)) = header
        && header.opcode == opcode::RELEASE
        && let Some((release, _)) = split::<ReleaseIn>(body)
    {
        released(Ino(header.node), Handle(release.handle));
    }
    if let Some(reply) = answer(request, reason) {
        match rustix::io::write(device, &reply) {
            Ok(_) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(header.is_none_or(|(header, _)| header.opcode != opcode::DESTROY))
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    const READ: u32 = 15;

    fn request(opcode: u32, body: &[u8]) -> Vec<u8> {
        let mut header = InHeader::new_zeroed();
        (header.opcode, header.unique) = (opcode, 9);
        [header.as_bytes(), body].concat()
    }

    fn parsed(reply: &[u8]) -> (i32, u64, Vec<u8>) {
        let (header, body) = split::<OutHeader>(reply).unwrap();
        assert_eq!(header.len as usize, reply.len());
        (header.error, header.unique, body.to_vec())
    }

    #[test]
    fn a_refusing_mount_fails_reads_accepts_releases_and_states_the_reason() {
        let read = answer(&request(READ, &[0; 40]), "why").unwrap();
        assert_eq!(parsed(&read), (-5, 9, vec![]));
        assert_eq!(parsed(&answer(&request(opcode::RELEASE, &[]), "why").unwrap()).0, 0);
        assert!(answer(&request(opcode::FORGET, &[]), "why").is_none());
        assert!(answer(&[], "why").is_none());
        let ask = |size: u32, name: &[u8]| {
            let wanted = GetXattr { size, padding: 0 };
            let body = [wanted.as_bytes(), name, &[0]].concat();
            parsed(&answer(&request(opcode::GETXATTR, &body), "why").unwrap())
        };
        assert_eq!(ask(100, ERROR_ATTRIBUTE).2, b"why");
        assert_eq!(ask(0, ERROR_ATTRIBUTE).2, [3u32, 0].as_bytes());
        assert_eq!(ask(2, ERROR_ATTRIBUTE).0, -34);
        assert_eq!(ask(100, b"user.other").0, -61);
    }
}
