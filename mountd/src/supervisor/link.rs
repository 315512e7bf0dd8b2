//! The link between supervisor and worker: one message per packet, with descriptors attached.
//!
//! Invariant: messages arrive whole and in order, or not at all; those of a dead process still arrive.
//! Concurrency: any thread may send; one receives.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair, sockopt,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Maximum message size; longer lists of open files are split.
const LARGEST: usize = 64 << 10;
/// Maximum number of descriptors with a message.
const DESCRIPTORS: usize = 2;

/// One end of a link.
#[derive(Debug)]
pub struct Link(OwnedFd);

impl Link {
    /// Makes both ends; the second one is for a child process.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(ours), theirs))
    }

    /// Sets a send timeout, for a peer that does not receive.
    pub fn bounded(self, most: Duration) -> io::Result<Self> {
        sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Send, Some(most))?;
        Ok(self)
    }

    /// Wraps the end that this process was given.
    pub fn of(end: OwnedFd) -> Self {
        Self(end)
    }

    /// Shuts the link down: messages that have arrived can still be received, then end of file.
    pub fn hang_up(&self) {
        if let Err(error) = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both) {
            tracing::debug!(%error, "the link had ended already");
        }
    }

    /// The user who created the socket pair.
    pub fn owner(&self) -> io::Result<u32> {
        Ok(sockopt::socket_peercred(&self.0)?.uid.as_raw())
    }

    /// Sends a message.
    pub fn send<T: Serialize>(&self, message: &T, beside: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_with(message, beside, SendFlags::NOSIGNAL)
    }

    /// Sends a message, or fails if the socket's buffer is full.
    pub fn try_send<T: Serialize>(&self, message: &T) -> io::Result<()> {
        self.send_with(message, &[], SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
    }

    fn send_with<T: Serialize>(
        &self,
        message: &T,
        beside: &[BorrowedFd<'_>],
        flags: SendFlags,
    ) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > LARGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a message is too long"));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !beside.is_empty() && !control.push(SendAncillaryMessage::ScmRights(beside)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
        }
        let slices = [IoSlice::new(&bytes)];
        rustix::io::retry_on_intr(|| sendmsg(self.0.as_fd(), &slices, &mut control, flags))?;
        Ok(())
    }

    /// Waits for a message; none once the peer is gone.
    pub fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; LARGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            let mut slices = [IoSliceMut::new(&mut bytes)];
            recvmsg(self.0.as_fd(), &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)
        });
        let received = match received {
            Ok(received) => received,
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is too long"));
        }
        let beside = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        Ok(Some((serde_json::from_slice(&bytes[..received.bytes])?, beside)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_descriptors_of_a_dead_worker_are_still_received() {
        let (ours, theirs) = Link::pair().unwrap();
        let theirs = Link::of(theirs);
        let (read, write) = rustix::pipe::pipe().unwrap();
        theirs.send(&("with", 1), &[write.as_fd()]).unwrap();
        theirs.send(&("without", 2), &[]).unwrap();
        drop((theirs, write));
        let (message, mut beside) = ours.receive::<(String, u8)>().unwrap().unwrap();
        assert_eq!((message.0.as_str(), beside.len()), ("with", 1));
        rustix::io::write(beside.pop().unwrap(), b"x").unwrap();
        assert_eq!(rustix::io::read(&read, &mut [0; 4]).unwrap(), 1);
        assert_eq!(ours.receive::<(String, u8)>().unwrap().unwrap().0.1, 2);
        assert!(ours.receive::<(String, u8)>().unwrap().is_none());
        assert!(ours.send(&1, &[]).is_err(), "the peer is gone, and no signal ends us");
    }

    #[test]
    fn data_received_before_a_hang_up_is_still_read() {
        let (ours, theirs) = Link::pair().unwrap();
        Link::of(theirs.try_clone().unwrap()).send(&1, &[]).unwrap();
        ours.hang_up();
        assert_eq!(ours.receive::<u8>().unwrap().unwrap().0, 1);
        assert!(ours.receive::<u8>().unwrap().is_none(), "although the other end is there");
        assert!(Link::of(theirs).send(&2, &[]).is_err());
    }

    #[test]
    fn a_message_that_is_too_long_is_an_error_and_is_not_sent() {
        let (ours, _theirs) = Link::pair().unwrap();
        assert!(ours.send(&"x".repeat(LARGEST), &[]).is_err());
    }

    #[test]
    fn a_peer_that_does_not_read_blocks_the_sender_only_until_the_timeout() {
        let (ours, _theirs) = Link::pair().unwrap();
        let ours = ours.bounded(Duration::from_millis(50)).unwrap();
        let all = (0..10_000).try_for_each(|_| ours.send(&"x".repeat(1000), &[]));
        assert!(all.is_err(), "the socket is full at some time");
        let (ours, _theirs) = Link::pair().unwrap();
        let all = (0..10_000).try_for_each(|_| ours.try_send(&"x".repeat(1000)));
        assert_eq!(all.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
