//! Frames by the thousand: one system call sends or receives a whole batch of them.

use std::io;
use std::mem::zeroed;
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use socket2::{SockFilter, Socket};

use super::frame::LONGEST;
use crate::netns::Netns;
use crate::traffic::raw::open_filtered;

/// Frames of a batch.
pub const BATCH: usize = 64;
/// Bytes of a received frame that are kept.
const KEPT: usize = 2048;
const IPV6: u16 = 0x86dd;

/// Sends frames out of an interface, past its queueing discipline.
#[derive(Debug)]
pub struct Sender {
    socket: Socket,
    frames: Box<[[u8; LONGEST]; BATCH]>,
    lengths: [usize; BATCH],
    waiting: usize,
}

impl Sender {
    /// Opens `interface`, for sending only.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn open(ns: &Netns, interface: &str) -> Result<Self> {
        let socket = open_filtered(ns, interface, 0, &[])?;
        let on: libc::c_int = 1;
        // SAFETY: the option takes an int, which lives through the call.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_QDISC_BYPASS,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        ensure!(result == 0, "PACKET_QDISC_BYPASS: {}", io::Error::last_os_error());
        socket.set_send_buffer_size(8 << 20)?;
        Ok(Self {
            socket,
            frames: Box::new([[0; LONGEST]; BATCH]),
            lengths: [0; BATCH],
            waiting: 0,
        })
    }

    /// Takes a frame that `write` writes and whose length it returns; sends when a batch is full.
    /// Returns how many frames were sent.
    ///
    /// # Errors
    /// When the interface is down.
    pub fn push(&mut self, write: impl FnOnce(&mut [u8; LONGEST]) -> usize) -> Result<usize> {
        self.lengths[self.waiting] = write(&mut self.frames[self.waiting]);
        self.waiting += 1;
        if self.waiting == BATCH { self.flush() } else { Ok(0) }
    }

    /// Sends what waits. Returns how many frames that were; what the interface has no room for is
    /// lost, as on a wire.
    ///
    /// # Errors
    /// When the interface is down.
    pub fn flush(&mut self) -> Result<usize> {
        let mut parts: [libc::iovec; BATCH] = std::array::from_fn(|index| libc::iovec {
            iov_base: self.frames[index].as_mut_ptr().cast(),
            iov_len: self.lengths[index],
        });
        // SAFETY: all-zero is a valid value.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
        for (message, part) in messages.iter_mut().zip(&mut parts) {
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
        }
        let count = std::mem::take(&mut self.waiting);
        let (mut done, mut sent) = (0, 0);
        while done < count {
            let rest = &mut messages[done..count];
            // SAFETY: every message has one part, which is a frame of `self` that outlives the call.
            let result = unsafe {
                libc::sendmmsg(self.socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0)
            };
            if let Ok(accepted) = usize::try_from(result) {
                done += accepted;
                sent += accepted;
                continue;
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                // The receiving side's queue is full: this frame is lost.
                Some(libc::ENOBUFS | libc::EAGAIN) => done += 1,
                Some(libc::EINTR) => {}
                _ => return Err(error).context("send frames"),
            }
        }
        Ok(sent)
    }
}

/// Receives the IPv6 frames of an interface that a filter lets through.
#[derive(Debug)]
pub struct Receiver {
    socket: Socket,
    frames: Box<[[u8; KEPT]; BATCH]>,
}

impl Receiver {
    /// Opens `interface`; waits at most `patience` for a frame.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn open(
        ns: &Netns,
        interface: &str,
        filter: &[SockFilter],
        patience: Duration,
    ) -> Result<Self> {
        let socket = open_filtered(ns, interface, IPV6, filter)?;
        socket.set_read_timeout(Some(patience))?;
        Ok(Self { socket, frames: Box::new([[0; KEPT]; BATCH]) })
    }

    /// Waits for frames and gives those that are there to `take`. Returns their number, 0 when none
    /// came in time.
    ///
    /// # Errors
    /// When the interface is down.
    pub fn receive(&mut self, mut take: impl FnMut(&[u8])) -> Result<usize> {
        let mut parts: [libc::iovec; BATCH] = std::array::from_fn(|index| libc::iovec {
            iov_base: self.frames[index].as_mut_ptr().cast(),
            iov_len: KEPT,
        });
        // SAFETY: all-zero is a valid value.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
        for (message, part) in messages.iter_mut().zip(&mut parts) {
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: every message has one part, which is room of `self` that outlives the call.
        let result = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                messages.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(result) else {
            let error = io::Error::last_os_error();
            let nothing =
                matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS));
            return if nothing { Ok(0) } else { Err(error).context("receive frames") };
        };
        for (frame, message) in self.frames.iter().zip(&messages[..count]) {
            take(&frame[..message.msg_len as usize]);
        }
        Ok(count)
    }
}
