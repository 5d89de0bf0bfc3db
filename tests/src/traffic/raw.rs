//! Frames injected and captured with AF_PACKET sockets.
//!
//! A capture sees what enters an interface before tc ingress and what leaves it after tc egress:
//! to learn what a program at tc ingress let through, capture where the frame goes next.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

use crate::netns::Netns;
use crate::shell;

const EVERY_ETHERTYPE: u16 = 0x0003;

/// A frame that was captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The whole frame, with its VLAN tag where it carried one.
    pub bytes: Vec<u8>,
    /// True when the interface sent it, false when it received it.
    pub outgoing: bool,
}

impl Frame {
    /// The headers, when they can be read.
    pub fn parsed(&self) -> Option<SlicedPacket<'_>> {
        SlicedPacket::from_ethernet(&self.bytes).ok()
    }

    /// The TCP header with its addresses, when it is TCP over IPv4.
    pub fn tcp_over_ipv4(&self) -> Option<(std::net::Ipv4Addr, etherparse::TcpHeader)> {
        let packet = self.parsed()?;
        match (packet.net?, packet.transport?) {
            (NetSlice::Ipv4(ip), TransportSlice::Tcp(tcp)) => {
                Some((ip.header().source_addr(), tcp.to_header()))
            }
            _ => None,
        }
    }

    /// True when `needle` is somewhere in the frame.
    pub fn contains(&self, needle: &[u8]) -> bool {
        self.bytes.windows(needle.len()).any(|window| window == needle)
    }
}

/// Sends one frame out of `interface`, exactly these bytes.
///
/// # Errors
/// When there is no such interface or it is down.
pub fn inject(ns: &Netns, interface: &str, frame: &[u8]) -> Result<()> {
    let socket = open(ns, interface)?;
    socket.send(frame).with_context(|| format!("inject into {interface}"))?;
    Ok(())
}

/// Sends frames out of one interface, many of them.
#[derive(Debug)]
pub struct Injector(Socket);

impl Injector {
    /// Opens `interface` for sending.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn open(ns: &Netns, interface: &str) -> Result<Self> {
        Ok(Self(open(ns, interface)?))
    }

    /// The same with a socket that hears nothing: beside heavy traffic, hearing all of it costs.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn open_for_sending(ns: &Netns, interface: &str) -> Result<Self> {
        Ok(Self(open_filtered(ns, interface, 0, &[])?))
    }

    /// Sends one frame, exactly these bytes.
    ///
    /// # Errors
    /// When the interface is down.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.0.send(frame).context("inject")?;
        Ok(())
    }
}

/// A running capture; dropping it ends it.
#[derive(Debug)]
pub struct Capture {
    heard: Arc<Heard>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What a capture has, and the socket where more of it may wait.
#[derive(Debug)]
struct Heard {
    socket: Socket,
    frames: Mutex<Vec<Frame>>,
}

impl Heard {
    /// Takes what waits in the socket. Whoever asks does this too: the thread may come late, and a
    /// frame that has arrived would not count yet.
    fn frames(&self) -> MutexGuard<'_, Vec<Frame>> {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = vec![0; 70_000];
        while let Ok(frame) = receive(&self.socket, &mut buffer) {
            frames.push(frame);
        }
        frames
    }
}

impl Capture {
    /// Starts capturing on `interface`; frames are captured from the moment this returns.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn start(ns: &Netns, interface: &str) -> Result<Self> {
        let socket = open(ns, interface)?;
        socket.set_nonblocking(true)?;
        set_auxdata(&socket)?;
        let heard = Arc::new(Heard { socket, frames: Mutex::default() });
        let stop = Arc::new(AtomicBool::new(false));
        let (into, ended) = (Arc::clone(&heard), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let limit = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            while !ended.load(Ordering::Relaxed) {
                let mut readable = [PollFd::new(&into.socket, PollFlags::IN)];
                if poll(&mut readable, Some(&limit)).is_ok_and(|ready| ready > 0) {
                    drop(into.frames());
                }
            }
        });
        Ok(Self { heard, stop, thread: Some(thread) })
    }

    /// The frames so far.
    pub fn frames(&self) -> Vec<Frame> {
        self.heard.frames().clone()
    }

    /// Waits for a frame that `matches` accepts.
    ///
    /// # Errors
    /// When none comes within `limit`; the error says how many others came.
    pub fn wait_for(&self, limit: Duration, matches: impl Fn(&Frame) -> bool) -> Result<Frame> {
        let mut found = None;
        shell::wait_until(limit, || {
            found = self.frames().into_iter().find(&matches);
            found.is_some()
        });
        found.with_context(|| format!("no such frame among {}", self.frames().len()))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open(ns: &Netns, interface: &str) -> Result<Socket> {
    open_filtered(ns, interface, EVERY_ETHERTYPE, &[])
}

/// A socket that receives frames of one Ethertype (of none: 0) that `filter` lets through, and
/// sends any.
pub(crate) fn open_filtered(
    ns: &Netns,
    interface: &str,
    ethertype: u16,
    filter: &[SockFilter],
) -> Result<Socket> {
    let index = ns.ifindex(interface)?;
    // Bound before it may receive: protocol 0 receives nothing, bind sets the real one.
    let socket = ns.run(|| Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0))));
    let socket = socket.context("AF_PACKET socket")?;
    if !filter.is_empty() {
        socket.attach_filter(filter).context("filter of an AF_PACKET socket")?;
    }
    // SAFETY: `try_init` gives zeroed storage that is large enough for every address type, and
    // the length that is set is that of the type written.
    let (_, address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let address = libc::sockaddr_ll {
                sll_family: libc::AF_PACKET as u16,
                sll_protocol: ethertype.to_be(),
                sll_ifindex: index.cast_signed(),
                ..zeroed()
            };
            storage.cast::<libc::sockaddr_ll>().write(address);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    socket.bind(&address).with_context(|| format!("bind to {interface}"))?;
    socket.set_recv_buffer_size(8 << 20)?;
    Ok(socket)
}

fn set_auxdata(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option takes an int, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_AUXDATA,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Receives a frame, with the VLAN tag that the kernel took off put back.
fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<Frame> {
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = [0u64; 16];
    // SAFETY: all-zero is a valid value of both.
    let (mut from, mut message): (libc::sockaddr_ll, libc::msghdr) = unsafe { zeroed() };
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: every pointer in the message leads to memory of the length beside it.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let mut bytes = buffer[..length].to_vec();
    // SAFETY: the kernel filled the message; the macros walk its control buffer within bounds.
    let tag = unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if header.is_null() || (*header).cmsg_type != libc::PACKET_AUXDATA {
            None
        } else {
            let aux = libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned();
            (aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0)
                .then_some((aux.tp_vlan_tpid, aux.tp_vlan_tci))
        }
    };
    if let Some((tpid, tci)) = tag {
        let tag = [tpid.to_be_bytes(), tci.to_be_bytes()].concat();
        bytes.splice(12..12, tag);
    }
    Ok(Frame { bytes, outgoing: from.sll_pkttype == libc::PACKET_OUTGOING })
}
