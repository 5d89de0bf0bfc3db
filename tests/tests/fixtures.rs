//! Chosen packets through the loaded programs, judged by etherparse; every step is compared with
//! the native core too, and where the kernel can, it checks `skb->csum` after the program
//! (`BPF_F_TEST_SKB_CHECKSUM_COMPLETE`), the one thing that bytes don't show.

#[path = "random/frames.rs"]
mod frames;
#[path = "fixtures/icmp.rs"]
mod icmp;
#[path = "fixtures/oracle.rs"]
mod oracle;

use std::net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use anyhow::{Context as _, Result, bail, ensure};
use etherparse::{SlicedPacket, TcpOptionElement, TransportSlice};
use frames::{Body, client_packet, container_packet};
use oracle::{judge, replace_payload, reply_to};
use publisher::datapath::Hook;
use publisher_common::decide::Stop;
use publisher_common::layout::{ForwardKey, ReplyKey};
use publisher_common::native::{Outcome, samples};
use publisher_common::reason::Reason;
use publisher_common::wire::{protocol, tcp_flags};
use publisher_tests::mirror::{BRIDGED_MAC, BRIDGED_PORT, Frame, MAC, Mirror, Step};
use publisher_tests::{case, netns::Netns};
use socket2::{Domain, Socket, Type};

/// A container's initial sequence number.
const ISN: u32 = 0xffff_ffff;

/// Runs a case inside a namespace with a mirror.
fn with_mirror(body: impl Fn(&mut Mirror) -> Result<()> + Send + Sync) {
    case::run(|_| {
        let netns = Netns::new("fixtures")?;
        let mut mirror = Mirror::new(&netns)?;
        // The host's and a client's address, for sockets of the host's own.
        for address in [samples::HOST, samples::CLIENT] {
            netns.ip(&format!("-6 addr add {}/128 dev lo nodad", Ipv6Addr::from(address)))?;
        }
        netns.run(|| {
            body(&mut mirror)?;
            mirror.compare()
        })
    });
}

/// Gives a frame to both sides, with the check of sums where the kernel has it.
fn send(mirror: &mut Mirror, hook: Hook, bytes: Vec<u8>) -> Result<Outcome> {
    let checked = mirror.checks_sums()?;
    let frame = Frame { hook, bytes, gso_size: 0, gso_segments: 0, checked };
    Mirror::keep_off_the_second();
    match mirror.step(&frame)? {
        Step::Agreed(outcome) => Ok(outcome),
        other => bail!("{other:?}: run it again"),
    }
}

fn from_client(mirror: &mut Mirror, flow: &ForwardKey, body: &Body) -> Result<Vec<u8>> {
    match send(mirror, Hook::UplinkEthernet, client_packet(flow, body))? {
        Outcome::ToContainer(packet, _) => Ok(packet),
        other => bail!("not to the container: {other:?}"),
    }
}

fn from_container(mirror: &mut Mirror, reply: &ReplyKey, body: &Body) -> Result<Vec<u8>> {
    let (hook, mac) = if reply.target == samples::TARGET {
        (Hook::Veth, samples::TARGET_MAC)
    } else {
        (Hook::Bridge, BRIDGED_MAC)
    };
    match send(mirror, hook, container_packet(reply, mac, body))? {
        Outcome::ToClient(packet, _) => Ok(packet),
        other => bail!("not to the client: {other:?}"),
    }
}

const fn segment(flags: u8, payload: usize) -> Body {
    let acknowledgment = ISN.wrapping_add(1);
    Body::Tcp { flags, sequence: ISN, acknowledgment, options: Vec::new(), payload }
}

/// Opens a session and brings it to where both sides have proved themselves.
fn establish(mirror: &mut Mirror, flow: &ForwardKey) -> Result<ReplyKey> {
    let (open, answer, proof) = if flow.protocol == protocol::UDP {
        (Body::Udp { payload: 5 }, Body::Udp { payload: 6 }, Body::Udp { payload: 7 })
    } else {
        (
            segment(tcp_flags::SYN, 0),
            segment(tcp_flags::SYN | tcp_flags::ACK, 0),
            segment(tcp_flags::ACK, 0),
        )
    };
    let reply = reply_to(&from_client(mirror, flow, &open)?);
    from_container(mirror, &reply, &answer)?;
    from_client(mirror, flow, &proof)?;
    ensure!(mirror.native.forward.contains_key(flow), "not established");
    mirror.compare()?;
    Ok(reply)
}

fn udp(flow: ForwardKey) -> ForwardKey {
    ForwardKey { protocol: protocol::UDP, ..flow }
}

#[test]
fn tcp_and_udp_both_ways() {
    with_mirror(|mirror| {
        for flow in [samples::flow(), udp(samples::flow())] {
            let reply = establish(mirror, &flow)?;
            let body = |payload| match flow.protocol {
                protocol::UDP => Body::Udp { payload },
                _ => segment(tcp_flags::ACK, payload),
            };
            for payload in [0, 1, 2, 3, 4, 63, 1_000, 1_400, 1_440] {
                let there = from_client(mirror, &flow, &body(payload))?;
                let (from, to, data) = judge(&there);
                assert_eq!((from, to, data.len()), (49_153, 80, payload));
                assert_eq!(reply_to(&there), reply);
                let back = from_container(mirror, &reply, &body(payload))?;
                let (from, to, data) = judge(&back);
                assert_eq!((from, to, data.len()), (8_080, 49_153, payload));
                assert_eq!((&back[8..24], &back[24..40]), (&flow.host[..], &flow.client[..]));
            }
        }
        Ok(())
    });
}

#[test]
fn g12_datagrams_whose_sum_is_0_are_sent_with_ffff() {
    with_mirror(|mirror| {
        let flow = udp(samples::flow());
        let reply = establish(mirror, &flow)?;
        // The first packet says by how much the payload has to change for a sum of 0.
        let payload_of = |packet: &[u8], sum: usize, length: usize| {
            let old = u16::from_be_bytes([packet[sum], packet[sum + 1]]);
            let first = u16::from_be_bytes([packet[length - 2], packet[length - 1]]);
            let word = u32::from(first) + u32::from(old);
            (((word & 0xffff) + (word >> 16)) as u16).to_be_bytes()
        };
        let there = from_client(mirror, &flow, &Body::Udp { payload: 2 })?;
        let word = payload_of(&there, 26, there.len());
        let mut frame = client_packet(&flow, &Body::Udp { payload: 2 });
        replace_payload(&mut frame, 14 + 46, word);
        let Outcome::ToContainer(packet, _) = send(mirror, Hook::UplinkEthernet, frame)? else {
            bail!("not translated")
        };
        assert_eq!(packet[26..28], [0xff, 0xff]);

        let back = from_container(mirror, &reply, &Body::Udp { payload: 2 })?;
        let word = payload_of(&back, 46, back.len());
        let mut frame = container_packet(&reply, samples::TARGET_MAC, &Body::Udp { payload: 2 });
        replace_payload(&mut frame, 14 + 26, word);
        let Outcome::ToClient(packet, _) = send(mirror, Hook::Veth, frame)? else {
            bail!("not translated")
        };
        assert_eq!(packet[46..48], [0xff, 0xff]);
        Ok(())
    });
}

#[test]
fn s19_segment_sizes_are_clamped_with_the_sum_kept_right() {
    with_mirror(|mirror| {
        let flow = ForwardKey { host_port: BRIDGED_PORT, ..samples::flow() };
        // The option's value at even and at odd offsets.
        for options in [vec![2, 4, 0x05, 0xa0], vec![1, 2, 4, 0x05, 0xa0, 1, 1, 1]] {
            let body = |flags| Body::Tcp {
                flags,
                sequence: ISN,
                acknowledgment: 0,
                options: options.clone(),
                payload: 0,
            };
            let there = from_client(mirror, &flow, &body(tcp_flags::SYN))?;
            let reply = reply_to(&there);
            let answer = body(tcp_flags::SYN | tcp_flags::ACK);
            let back = from_container(mirror, &reply, &answer)?;
            for packet in [there, back] {
                judge(&packet);
                let parsed = SlicedPacket::from_ip(&packet)?;
                let Some(TransportSlice::Tcp(tcp)) = parsed.transport else { bail!("{parsed:?}") };
                let found = tcp.options_iterator().find_map(|option| match option {
                    Ok(TcpOptionElement::MaximumSegmentSize(size)) => Some(size),
                    _ => None,
                });
                assert_eq!(found, Some(1_360), "1400 bytes less 40");
            }
        }
        Ok(())
    });
}

#[test]
fn super_packets_of_both_sides() {
    with_mirror(|mirror| {
        let flow = samples::flow();
        let reply = establish(mirror, &flow)?;
        let checked = mirror.checks_sums()?;
        Mirror::keep_off_the_second();
        for (gso_size, dont_fragment) in [(1_220, false), (1_221, true)] {
            let bytes = client_packet(&flow, &segment(tcp_flags::ACK, 3_000));
            let frame =
                Frame { hook: Hook::UplinkEthernet, bytes, gso_size, gso_segments: 3, checked };
            let Step::Agreed(Outcome::ToContainer(packet, _)) = mirror.step(&frame)? else {
                bail!("not translated")
            };
            judge(&packet);
            assert_eq!(packet[6] & 0x40 != 0, dont_fragment);
            let bytes =
                container_packet(&reply, samples::TARGET_MAC, &segment(tcp_flags::ACK, 3_000));
            let frame = Frame { hook: Hook::Veth, bytes, gso_size, gso_segments: 3, checked };
            let Step::Agreed(Outcome::ToClient(packet, _)) = mirror.step(&frame)? else {
                bail!("not translated")
            };
            judge(&packet);
        }
        assert_eq!(mirror.native.forward[&flow].usage.packets, 2 + 6);
        Ok(())
    });
}

#[test]
fn frames_for_others_and_with_tags_pass() {
    with_mirror(|mirror| {
        let frame = client_packet(&samples::flow(), &segment(tcp_flags::SYN, 0));
        let mut other = frame.clone();
        other[..6].copy_from_slice(&[2, 0, 0, 0, 0, 0x78]);
        let mut multicast = frame.clone();
        multicast[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
        let mut tagged = frame[..12].to_vec();
        tagged.extend_from_slice(&[0x81, 0, 0, 10]);
        tagged.extend_from_slice(&frame[12..]);
        for bytes in [other, multicast, tagged] {
            let outcome = send(mirror, Hook::UplinkEthernet, bytes)?;
            assert_eq!(outcome, Outcome::Stop(Stop::Pass));
        }
        assert_eq!(frame[..6], MAC);
        let outcome = send(mirror, Hook::UplinkEthernet, frame)?;
        ensure!(matches!(outcome, Outcome::ToContainer(..)), "the frame itself is translated");

        // A container addresses the bridge, which at the veth is somebody else; all others pass.
        let reply = establish(mirror, &samples::flow())?;
        let right = container_packet(&reply, samples::TARGET_MAC, &segment(tcp_flags::ACK, 0));
        let mut to_bridge = right.clone();
        to_bridge[..6].copy_from_slice(&[2, 0x42, 0, 0, 0, 9]);
        let outcome = send(mirror, Hook::Veth, to_bridge)?;
        ensure!(matches!(outcome, Outcome::ToClient(..)), "{outcome:?}");
        for address in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1]] {
            let mut bytes = right.clone();
            bytes[..6].copy_from_slice(&address);
            assert_eq!(send(mirror, Hook::Veth, bytes)?, Outcome::Stop(Stop::Pass));
        }
        Ok(())
    });
}

#[test]
fn a_socket_of_the_host_wins_where_there_is_no_session() {
    with_mirror(|mirror| {
        let flow = udp(samples::flow());
        let datagram = client_packet(&flow, &Body::Udp { payload: 3 });
        let socket = UdpSocket::bind("[::]:8080").context("bind")?;
        mirror.native.sockets.insert(flow, false);
        let outcome = send(mirror, Hook::UplinkEthernet, datagram.clone())?;
        assert_eq!(outcome, Outcome::Stop(Stop::Pass), "UDP");
        drop(socket);
        mirror.native.sockets.remove(&flow);
        let outcome = send(mirror, Hook::UplinkEthernet, datagram)?;
        ensure!(matches!(outcome, Outcome::ToContainer(..)), "{outcome:?}");

        let flow = samples::flow();
        let data = client_packet(&flow, &segment(tcp_flags::ACK, 3));
        let outcome = send(mirror, Hook::UplinkEthernet, data.clone())?;
        assert_eq!(outcome, Outcome::Stop(Stop::Drop(Reason::NoSession)));
        let (_near, _far) = connect(&flow)?;
        mirror.native.sockets.insert(flow, true);
        let outcome = send(mirror, Hook::UplinkEthernet, data)?;
        assert_eq!(outcome, Outcome::Stop(Stop::Pass), "a connection of the host's own");
        let syn = client_packet(&flow, &segment(tcp_flags::SYN, 0));
        let outcome = send(mirror, Hook::UplinkEthernet, syn)?;
        ensure!(matches!(outcome, Outcome::ToContainer(..)), "a SYN asks for what is published");
        Ok(())
    });
}

/// A connection within the namespace with a flow's addresses and ports; no listener is left.
fn connect(flow: &ForwardKey) -> Result<(Socket, std::net::TcpStream)> {
    let address = |address: [u8; 16], port: [u8; 2]| {
        SocketAddr::from((Ipv6Addr::from(address), u16::from_be_bytes(port)))
    };
    let listener = TcpListener::bind(address(flow.host, flow.host_port)).context("listen")?;
    let near = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    near.bind(&address(flow.client, flow.client_port).into())?;
    near.connect(&address(flow.host, flow.host_port).into())?;
    let (far, _) = listener.accept()?;
    Ok((near, far))
}
