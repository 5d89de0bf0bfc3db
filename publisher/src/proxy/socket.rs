//! Sockets with the options that a proxy needs.

use quinn_udp::UdpSocketState;
use rustix::net::sockopt;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};

/// Connections that may wait to be accepted; the kernel makes of it what `net.core.somaxconn` allows.
const BACKLOG: i32 = 65_535;
/// An idle connection is asked after this time whether the other side is still there, and given up after
/// five questions.
const KEEPALIVE: Duration = Duration::from_secs(60);
const QUESTIONS: u32 = 5;
const BETWEEN: Duration = Duration::from_secs(15);
/// How long the container may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Source ports that are used when those of the kernel's choice aren't enough: below the ephemeral range.
const MORE_PORTS: Range<u16> = 10_000..32_768;
/// How many of them are tried for one connection.
const ATTEMPTS: usize = 64;
/// Room for datagrams that wait, in bytes; the kernel makes of it what `net.core.rmem_max` allows, unless
/// the daemon may ask for more.
const UDP_BUFFER: usize = 4 << 20;

/// A socket bound to `address`, if need be before the host has that address. One for every address of
/// the host serves IPv4 clients too, unless somebody has the port there.
fn bind(kind: Type, protocol: Protocol, address: SocketAddrV6, shares: bool) -> io::Result<Socket> {
    let try_to = |only_v6: bool| {
        let socket = Socket::new(Domain::IPV6, kind.nonblocking().cloexec(), Some(protocol))?;
        socket.set_only_v6(only_v6)?;
        sockopt::set_ipv6_freebind(&socket, true)?;
        if kind == Type::STREAM {
            // A port can be bound although old connections of it are in TIME_WAIT.
            socket.set_reuse_address(true)?;
        }
        socket.set_reuse_port(shares)?;
        socket.bind(&address.into())?;
        Ok(socket)
    };
    if !address.ip().is_unspecified() {
        return try_to(true);
    }
    try_to(false).or_else(|error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => try_to(true),
        _ => Err(error),
    })
}

/// A socket that accepts connections at `address`. What is set on it holds for those too.
pub(super) fn listen(address: SocketAddrV6, shares: bool) -> io::Result<Socket> {
    let socket = bind(Type::STREAM, Protocol::TCP, address, shares)?;
    set_up(&SockRef::from(&socket))?;
    socket.listen(BACKLOG)?;
    socket.set_reuse_port(false)?;
    Ok(socket)
}

fn set_up(socket: &SockRef<'_>) -> io::Result<()> {
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE).with_retries(QUESTIONS).with_interval(BETWEEN);
    socket.set_tcp_keepalive(&keepalive)?;
    // Who sent small segments at once wants them delivered at once.
    socket.set_tcp_nodelay(true)
}

/// A socket that receives datagrams to `address`, and says which address was asked.
pub(super) fn bind_udp(
    address: SocketAddrV6,
    shares: bool,
) -> io::Result<(Socket, UdpSocketState)> {
    let socket = bind(Type::DGRAM, Protocol::UDP, address, shares)?;
    socket.set_reuse_port(false)?;
    // Both are best effort: a smaller buffer works too.
    if sockopt::set_socket_recv_buffer_size_force(&socket, UDP_BUFFER).is_err() {
        let _ = socket.set_recv_buffer_size(UDP_BUFFER);
    }
    let state = datagrams(&socket)?;
    Ok((socket, state))
}

/// What quinn-udp knows how to do with a socket, without what only QUIC wants of it.
fn datagrams(socket: &Socket) -> io::Result<UdpSocketState> {
    let state = UdpSocketState::new(socket.into())?;
    // A datagram that is too large for the way is sent in fragments, as its sender would have it.
    if socket.domain()? == Domain::IPV6 {
        sockopt::set_ipv6_mtu_discover(socket, sockopt::Ipv6PathMtuDiscovery::DONT)?;
        may_fragment(socket)?;
    }
    sockopt::set_ip_mtu_discover(socket, sockopt::Ipv4PathMtuDiscovery::DONT)?;
    Ok(state)
}

/// Turns IPV6_DONTFRAG off, which rustix has no name for.
fn may_fragment(socket: &Socket) -> io::Result<()> {
    let off: libc::c_int = 0;
    // SAFETY: the option takes an int, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_DONTFRAG,
            (&raw const off).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A socket that exchanges datagrams with a container, and nobody else.
pub(super) fn connect_udp(target: SocketAddrV4) -> io::Result<(Socket, UdpSocketState)> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::IPV4, kind, Some(Protocol::UDP))?;
    socket.connect(&target.into())?;
    let state = datagrams(&socket)?;
    Ok((socket, state))
}

/// Connects to a container. Where no port of the kernel's choice is left, because tens of thousands of
/// connections to this target have ended within a minute (TIME_WAIT), one out of [`MORE_PORTS`] is taken.
///
/// With `has_data` there is something to send already: that acknowledges the container's SYN, which needs no
/// packet of its own.
pub(super) async fn connect(target: SocketAddrV4, has_data: bool) -> io::Result<TcpStream> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut done = connect_from(target, None, has_data).await;
    for _ in 0..ATTEMPTS {
        let port = match &done {
            Err(error) if is_no_port(error) => NEXT.fetch_add(1, Ordering::Relaxed),
            _ => break,
        };
        let count = u32::from(MORE_PORTS.end - MORE_PORTS.start);
        let port = MORE_PORTS.start + (port % count) as u16;
        done = connect_from(target, Some(port), has_data).await;
    }
    done
}

fn is_no_port(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse)
}

async fn connect_from(
    target: SocketAddrV4,
    port: Option<u16>,
    has_data: bool,
) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    set_up(&SockRef::from(&socket))?;
    if has_data {
        sockopt::set_tcp_quickack(&socket, false)?;
    }
    if let Some(port) = port {
        // What wants to listen on the port later isn't kept from it.
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::UNSPECIFIED, port).into())?;
    }
    match tokio::time::timeout(CONNECT, socket.connect(target.into())).await {
        Ok(done) => done,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// A connection that is closed from here on is reset.
pub(super) fn reset(stream: &TcpStream) {
    // It may be gone already.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
