//! Clients on the host itself, beside docker-proxy: by the kernel path, and by the socket proxy where the
//! kernel path can't be.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::Result;
use publisher_tests::bench::pair::{PORTS, Pair, window};
use publisher_tests::bench::service::Service;
use publisher_tests::bench::work::{self, Direction};
use publisher_tests::lab::Lab;

fn service(lab: &Lab<'_>) -> Result<Service> {
    Service::start(lab.net.container(), IpAddr::from(lab.net.containers[0].address))
}

fn gigabits(lab: &Lab<'_>, direction: Direction) -> Result<f64> {
    let to = (Ipv6Addr::LOCALHOST, PORTS[1]).into();
    let stream = work::stream(&lab.net.host, to, &service(lab)?, direction, window())?;
    Ok(stream.gigabits)
}

fn connections(lab: &Lab<'_>) -> Result<f64> {
    let _service = service(lab)?;
    let to = (Ipv6Addr::LOCALHOST, PORTS[0]).into();
    Ok(work::connections(&lab.net.host, to, window())?.per_second)
}

fn pair<'a>(what: &'a str, path: &'a str, floor: f64) -> Pair<'a> {
    Pair { what, udp: false, path, floor }
}

#[test]
fn the_host_sends_faster_to_a_container() {
    let pair = pair("Gb/s from the host to the container by ::1", "auto", 1.0);
    pair.compare(|lab| gigabits(lab, Direction::Up));
}

#[test]
fn the_host_receives_faster_from_a_container() {
    let pair = pair("Gb/s from the container to the host by ::1", "auto", 1.0);
    pair.compare(|lab| gigabits(lab, Direction::Down));
}

#[test]
fn the_host_connects_faster() {
    pair("new connections/s to ::1", "auto", 1.5).compare(connections);
}

#[test]
fn the_host_connects_faster_by_the_proxy_too() {
    pair("new connections/s to ::1 by the proxy", "proxy", 0.8).compare(connections);
}
