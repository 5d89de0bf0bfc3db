//! Chosen packets through the loaded programs, judged by etherparse; every step is compared with
//! the native core too, and where the kernel can, it checks `skb->csum` after the program
//! (`BPF_F_TEST_SKB_CHECKSUM_COMPLETE`), the one thing that bytes don't show.

#[path = "random/frames.rs"]
mod frames;
#[path = "fixtures/oracle.rs"]
mod oracle;

use std::net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use anyhow::{Context as _, Result, bail, ensure};
use etherparse::{Icmpv4Type, Icmpv6Type, SlicedPacket, TcpOptionElement, TransportSlice, icmpv4};
use frames::{Body, Embedding, client_error, client_packet, container_error, container_packet};
use oracle::{checksum, judge, replace_payload, reply_to};
use publisher::datapath::Hook;
use publisher_common::decide::Stop;
use publisher_common::layout::{ForwardKey, ReplyKey};
use publisher_common::native::{Outcome, samples};
use publisher_common::reason::Reason;
use publisher_common::wire::{IPV4_LENGTH, IPV6_LENGTH, protocol, tcp_flags};
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

/// Gives a frame to both sides that comes to an error of the host's own; unchecked, since with another
/// length the kernel forgets the sum.
fn answer(mirror: &mut Mirror, hook: Hook, bytes: Vec<u8>) -> Result<Outcome> {
    let frame = Frame { hook, bytes, gso_size: 0, gso_segments: 0, checked: false };
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
fn i3_i6_too_big_and_fragmentation_needed() {
    with_mirror(|mirror| {
        for flow in [samples::flow(), udp(samples::flow())] {
            let reply = establish(mirror, &flow)?;
            for length in [48, 100, 1_200] {
                let frame = client_error(&flow, (2, 0), 1_400, &Embedding::of(length));
                let Outcome::ToContainer(packet, _) = send(mirror, Hook::UplinkEthernet, frame)?
                else {
                    bail!("not translated")
                };
                let parsed = SlicedPacket::from_ip(&packet)?;
                let Some(TransportSlice::Icmpv4(icmp)) = parsed.transport else {
                    bail!("{parsed:?}")
                };
                let kind =
                    icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1_380 };
                assert_eq!(icmp.icmp_type(), Icmpv4Type::DestinationUnreachable(kind));
                assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()));
            }
            for length in [28, 100, 548] {
                let second = [0, 0, 0x05, 0x78];
                let mac = samples::TARGET_MAC;
                let frame = container_error(&reply, mac, (3, 4), second, &Embedding::of(length));
                let Outcome::ToClient(packet, _) = send(mirror, Hook::Veth, frame)? else {
                    bail!("not translated")
                };
                let parsed = SlicedPacket::from_ip(&packet)?;
                let Some(TransportSlice::Icmpv6(icmp)) = parsed.transport else {
                    bail!("{parsed:?}")
                };
                assert_eq!(icmp.icmp_type(), Icmpv6Type::PacketTooBig { mtu: 1_420 });
                assert!(icmp.is_checksum_valid(flow.host, flow.client));
            }
        }
        Ok(())
    });
}

#[test]
fn i2_i5_i10_i11_other_errors_with_whatever_they_carry() {
    with_mirror(|mirror| {
        for flow in [samples::flow(), udp(samples::flow())] {
            let reply = establish(mirror, &flow)?;
            for (length, extension) in [
                (48, 0),
                (49, 0),
                (547, 0),
                (600, 0),
                (1_232, 0),
                (128, 12),
                (160, 13),
                (1_000, 200),
            ] {
                let embedding = Embedding { length, extension, fragment: None };
                let units = if extension == 0 { 0 } else { length / 8 };
                let frame = client_error(&flow, (1, 4), (units as u32) << 24, &embedding);
                let outcome = send(mirror, Hook::UplinkEthernet, frame)?;
                let Outcome::ToContainer(packet, _) = outcome else { bail!("{outcome:?}") };
                assert_eq!((packet[20], packet[21], packet[25] != 0), (3, 3, extension != 0));
                ensure!(packet.len() <= 576, "{} bytes", packet.len());
                assert_eq!(checksum(&packet[20..], &[]), 0, "{length} {extension}");

                let units = if extension == 0 { 0 } else { (length / 4) as u8 };
                let second = [0, units, 0, 0];
                let frame =
                    container_error(&reply, samples::TARGET_MAC, (3, 3), second, &embedding);
                let outcome = send(mirror, Hook::Veth, frame)?;
                let Outcome::ToClient(packet, _) = outcome else { bail!("{outcome:?}") };
                assert_eq!((packet[40], packet[41], packet[44] != 0), (1, 4, extension != 0));
                let payload = (packet.len() - 40) as u32;
                let pseudo = [&packet[8..40], &payload.to_be_bytes(), &[0, 0, 0, 58]].concat();
                assert_eq!(checksum(&packet[40..], &pseudo), 0, "{length} {extension}");
            }
        }
        Ok(())
    });
}

#[test]
fn i12_a_wrong_checksum_isnt_made_right() {
    with_mirror(|mirror| {
        let flow = samples::flow();
        let reply = establish(mirror, &flow)?;
        for length in [48, 600, 1_232] {
            let embedding = Embedding::of(length);
            let there = client_error(&flow, (1, 4), 0, &embedding);
            let back = container_error(&reply, samples::TARGET_MAC, (3, 3), [0; 4], &embedding);
            for (hook, frame, header) in
                [(Hook::UplinkEthernet, there, IPV6_LENGTH), (Hook::Veth, back, IPV4_LENGTH)]
            {
                for at in [14 + header + 2, 14 + header + 8 + 5, frame.len() - 1] {
                    let mut wrong = frame.clone();
                    wrong[at] ^= 1;
                    let outcome = send(mirror, hook, wrong)?;
                    assert_eq!(outcome, Outcome::Stop(Stop::Drop(Reason::IcmpChecksum)), "{at}");
                }
            }
        }
        Ok(())
    });
}

#[test]
fn i12_errors_about_a_half_open_session() {
    with_mirror(|mirror| {
        let flow = udp(samples::flow());
        let reply = reply_to(&from_client(mirror, &flow, &Body::Udp { payload: 5 })?);
        let frame =
            container_error(&reply, samples::TARGET_MAC, (3, 3), [0; 4], &Embedding::of(33));
        let outcome = send(mirror, Hook::Veth, frame)?;
        ensure!(matches!(outcome, Outcome::ToClient(..)), "{outcome:?}");
        let frame = client_error(&flow, (2, 0), 1_400, &Embedding::of(1_000));
        let outcome = send(mirror, Hook::UplinkEthernet, frame)?;
        ensure!(matches!(outcome, Outcome::ToContainer(..)), "{outcome:?}");
        Ok(())
    });
}

#[test]
fn h3_h9_g3_the_sender_is_told() {
    with_mirror(|mirror| {
        let flow = udp(samples::flow());
        let reply = establish(mirror, &flow)?;
        for payload in [0, 1, 1_472, 1_473, 2_000] {
            let mut frame = client_packet(&flow, &Body::Udp { payload });
            if payload < 1_473 {
                frame[21] = 1;
            }
            let expected = if payload < 1_473 { (3, 0) } else { (2, 1_520) };
            let Outcome::Answered(packet, _) = answer(mirror, Hook::UplinkEthernet, frame)? else {
                bail!("nobody is told")
            };
            let length = (packet.len() - 40) as u32;
            let pseudo = [&packet[8..40], &length.to_be_bytes(), &[0, 0, 0, 58]].concat();
            assert_eq!(checksum(&packet[40..], &pseudo), 0, "{payload}");
            let second = u32::from_be_bytes([packet[44], packet[45], packet[46], packet[47]]);
            assert_eq!((packet[40], second), expected, "{payload}");
        }
        for payload in [1_453, 1_472, 2_000] {
            let body = Body::Udp { payload };
            let frame = container_packet(&reply, samples::TARGET_MAC, &body);
            let Outcome::Answered(packet, _) = answer(mirror, Hook::Veth, frame)? else {
                bail!("nobody is told")
            };
            assert_eq!(checksum(&packet[20..], &[]), 0, "{payload}");
            assert_eq!(packet[20..22], [3, 4]);
            assert_eq!(packet[26..28], 1_480u16.to_be_bytes(), "{payload}");
        }
        Ok(())
    });
}

#[test]
fn i14_of_many_packets_not_every_sender_is_told() {
    with_mirror(|mirror| {
        let flow = udp(samples::flow());
        let mut frame = client_packet(&flow, &Body::Udp { payload: 3 });
        frame[21] = 1;
        for _ in 0..300 {
            answer(mirror, Hook::UplinkEthernet, frame.clone())?;
        }
        // 50 at once on each of the CPUs that the runs were on, and 100 a second.
        let told = 300 - mirror.suppressed;
        ensure!((50..290).contains(&told), "{told} were told");
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
        mirror.native.sockets.insert(flow);
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
        mirror.native.sockets.insert(flow);
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
