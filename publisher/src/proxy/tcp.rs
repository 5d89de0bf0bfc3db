//! TCP: connections are accepted and passed on to their container.

use super::budget::Share;
use super::guard::Counted;
use super::listeners::Bound;
use super::session::Session;
use super::table::{Ends, now};
use super::{Shared, header, relay, socket};
use crate::api::types::CloseReason;
use crate::model::{Protocol, Publication};
use publisher_common::wire::protocol;
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use std::io;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, TcpStream as StdStream};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tracing::{debug, error};

/// Connections of one port that are accepted before the others have their turn.
const IN_A_ROW: usize = 64;
/// A connection takes a descriptor on each side.
const DESCRIPTORS: i64 = 2;

/// Accepts connections for as long as the daemon runs.
pub(super) async fn accept(shared: &Arc<Shared>) {
    loop {
        let bound = match shared.tcp.ready().await {
            Ok(bound) => bound,
            Err(error) => {
                error!("can't wait for connections: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        for bound in bound {
            if accept_some(shared, &bound).await.is_break() {
                break;
            }
        }
        tokio::task::coop::consume_budget().await;
    }
}

/// Accepts what waits at one port. Without descriptors nothing is accepted, here or elsewhere: it waits in
/// the kernel.
async fn accept_some(shared: &Arc<Shared>, bound: &Arc<Bound>) -> ControlFlow<()> {
    let publication = bound.port.publication();
    for _ in 0..IN_A_ROW {
        if bound.is_gone() {
            break;
        }
        let Some(descriptors) = shared.budget.take(DESCRIPTORS) else {
            shared.budget.note_shortage();
            shared.budget.wait().await;
            return ControlFlow::Break(());
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match acceptfrom_with(&bound.socket, flags) {
            Ok((accepted, from)) => {
                let Some(Ok(SocketAddr::V6(client))) = from.map(SocketAddr::try_from) else {
                    continue;
                };
                let stream = TcpStream::from_std(StdStream::from(accepted));
                let Ok(stream) = stream else { continue };
                let incoming = Incoming { stream, client, port: bound.number, descriptors };
                take(shared, bound, &publication, incoming);
            }
            Err(Errno::AGAIN) => break,
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                shared.budget.note_shortage();
                tokio::time::sleep(Duration::from_millis(100)).await;
                return ControlFlow::Break(());
            }
            // The client is gone already.
            Err(_) => {}
        }
    }
    ControlFlow::Continue(())
}

/// A connection that was accepted.
struct Incoming {
    stream: TcpStream,
    client: SocketAddrV6,
    port: u16,
    descriptors: Share,
}

fn take(
    shared: &Arc<Shared>,
    bound: &Arc<Bound>,
    publication: &Arc<Publication>,
    incoming: Incoming,
) {
    let client = *incoming.client.ip();
    let Some(counted) = shared.guard.admit(&bound.port, publication, client, now()) else {
        socket::reset(&incoming.stream);
        return;
    };
    let (shared, publication) = (Arc::clone(shared), Arc::clone(publication));
    tokio::spawn(async move { serve(&shared, &publication, incoming, counted).await });
}

async fn serve(
    shared: &Arc<Shared>,
    publication: &Publication,
    incoming: Incoming,
    counted: Counted,
) {
    let Incoming { stream, client, port, descriptors: _descriptors } = incoming;
    let spec = &publication.spec;
    let Some(target_port) = spec.target_port(port) else { return };
    let target = SocketAddrV4::new(spec.target(), target_port);
    // A client that speaks first has mostly spoken by now.
    let Ok(first) = relay::what_is_there(&stream) else {
        socket::reset(&stream);
        return;
    };
    let container = match socket::connect(target, !first.is_empty()).await {
        Ok(container) => container,
        Err(error) => {
            debug!("no connection to {target} for {client}: {error}");
            socket::reset(&stream);
            return;
        }
    };
    let (Ok(SocketAddr::V6(host)), Ok(SocketAddr::V4(source))) =
        (stream.local_addr(), container.local_addr())
    else {
        return;
    };
    // A target that is the host's own, on a port that is held here: it would be its own client for ever.
    if *source.ip() == spec.target() && !shared.tcp.at(target_port).is_empty() {
        debug!("{target} leads back to the proxy");
        socket::reset(&stream);
        return;
    }
    let ends = Ends { protocol: protocol::TCP, client, host, source, target };
    let Some(session) = Session::enter(shared, publication, ends, counted) else {
        socket::reset(&stream);
        socket::reset(&container);
        return;
    };
    let mut opening = Vec::new();
    if spec.proxy_protocol().is_some() {
        let (client, host) = ((*client.ip(), client.port()), (*host.ip(), host.port()));
        opening = header::header(Protocol::Tcp, client, host);
    }
    opening.extend_from_slice(&first);
    // Nothing reaches the container before the session may be. The first bytes always find room.
    if !opening.is_empty() && container.try_write(&opening).ok() != Some(opening.len()) {
        socket::reset(&stream);
        socket::reset(&container);
        return;
    }
    let connection = &session.connection;
    connection.from_client.add(0, first.len());
    let reason = tokio::select! {
        done = relay::relay(&stream, &container, &shared.pipes, connection) => reason_of(&done),
        reason = connection.ended() => reason,
    };
    if reason != CloseReason::Fin {
        socket::reset(&stream);
        socket::reset(&container);
    }
    session.end(reason);
}

/// Why a connection has ended.
fn reason_of(done: &io::Result<()>) -> CloseReason {
    match done {
        Ok(()) => CloseReason::Fin,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => CloseReason::Idle,
        Err(_) => CloseReason::Rst,
    }
}
