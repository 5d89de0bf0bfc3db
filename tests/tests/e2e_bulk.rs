//! Large transfers arrive unchanged, with offloads and without, alone and side by side.

use std::time::Duration;

use anyhow::{Context, Result};
use publisher_tests::case;
use publisher_tests::lab::{Lab, TARGET};
use publisher_tests::topology::{HOST_TUNNEL, Options, host};
use publisher_tests::traffic::bulk::{self, MIB};
use publisher_tests::traffic::{tcp, udp};

const ANY: [u8; 4] = [0, 0, 0, 0];

#[test]
fn one_gibibyte_each_way_with_offloads_on() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let _server = tcp::Server::start(lab.net.container(), (ANY, 80), bulk::serve)?;
        lab.daemon.add("8080", TARGET)?;
        let mut stream = tcp::connect(lab.net.client(), host(8080))?;
        let [up, down] = bulk::exchange(&mut stream, 1024 * MIB)?;
        println!("1 GiB up in {up:?}, down in {down:?}");
        Ok(())
    });
}

#[test]
fn sixty_four_mebibytes_each_way_with_offloads_off() {
    case::run(|case| {
        let lab = Lab::with(case, Options { offloads: false, ..Options::default() })?;
        let _server = tcp::Server::start(lab.net.container(), (ANY, 80), bulk::serve)?;
        lab.daemon.add("8080", TARGET)?;
        bulk::exchange(&mut tcp::connect(lab.net.client(), host(8080))?, 64 * MIB)?;
        Ok(())
    });
}

#[test]
fn eight_transfers_side_by_side() {
    case::run(|case| {
        let lab = Lab::simple(case)?;
        let _server = tcp::Server::start(lab.net.container(), (ANY, 80), bulk::serve)?;
        lab.daemon.add("8080", TARGET)?;
        let transfers: Vec<_> = (0..8)
            .map(|_| {
                let mut stream = tcp::connect(lab.net.client(), host(8080))?;
                Ok(std::thread::spawn(move || bulk::exchange(&mut stream, 16 * MIB)))
            })
            .collect::<Result<_>>()?;
        for (n, transfer) in transfers.into_iter().enumerate() {
            transfer.join().expect("transfer").with_context(|| format!("transfer {n}"))?;
        }
        Ok(())
    });
}

#[test]
fn eight_mebibytes_each_way_over_a_tun_uplink() {
    case::run(|case| {
        let lab = Lab::with(case, Options { tun: true, ..Options::default() })?;
        let _server = tcp::Server::start(lab.net.container(), (ANY, 80), bulk::serve)?;
        lab.daemon.add("8080", TARGET)?;
        let tunnel = lab.net.tunnel.as_ref().context("tunnel")?;
        bulk::exchange(&mut tcp::connect(tunnel, (HOST_TUNNEL, 8080))?, 8 * MIB)?;
        Ok(())
    });
}

/// Datagrams of every size that fits, each different, each answered unchanged.
fn datagrams_of_every_size(offloads: bool) {
    case::run(|case| {
        let lab = Lab::with(case, Options { offloads, ..Options::default() })?;
        let _server = udp::Server::echo(lab.net.container(), (ANY, 80))?;
        lab.daemon.add("8080/udp", TARGET)?;
        let socket = udp::client(lab.net.client(), 0)?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut state = 7;
        for length in 0..=1452 {
            let content: Vec<u8> =
                (0..length).map(|_| bulk::next_random(&mut state).to_le_bytes()[0]).collect();
            let (reply, _) = udp::ask(&socket, host(8080), &content)
                .with_context(|| format!("{length} bytes"))?;
            assert!(reply == content, "{length} bytes came back changed");
        }
        Ok(())
    });
}

#[test]
fn datagrams_of_every_size_with_offloads_on() {
    datagrams_of_every_size(true);
}

#[test]
fn datagrams_of_every_size_with_offloads_off() {
    datagrams_of_every_size(false);
}
