//! What keeps `redirect_peer` from being used, and neighbour entries that lie.

use super::{
    bpf,
    harness::{bridge_container, bridge_host},
};

#[test]
fn egress_qdisc_and_filters() {
    let host = bridge_host();
    let _container = bridge_container(&host, "veth1", "172.30.0.2", 0x12);
    let peer = || host.resolve("172.30.0.2").unwrap().peer;
    host.tc("qdisc add dev veth1 root tbf rate 1mbit burst 10k latency 50ms");
    assert_eq!(peer(), Err("egress qdisc tbf on veth1".to_owned()));
    host.tc("qdisc del dev veth1 root");
    assert_eq!(peer(), Ok(()));

    host.tc("qdisc add dev veth1 clsact");
    assert_eq!(peer(), Ok(()));
    host.tc_filter("veth1", "ingress");
    assert_eq!(peer(), Ok(()));
    host.tc_filter("veth1", "egress");
    assert_eq!(peer(), Err("egress tc filter bpf on veth1".to_owned()));
}

#[test]
fn egress_tcx_program() {
    let host = bridge_host();
    let _container = bridge_container(&host, "veth1", "172.30.0.2", 0x12);
    let veth = host.resolve("172.30.0.2").unwrap().veth.unwrap();
    let tcx = |attach| host.enter(|| bpf::attach(bpf::SCHED_CLS, attach, veth.ifindex, 0));
    let ingress = tcx(bpf::TCX_INGRESS);
    assert_eq!(host.resolve("172.30.0.2").unwrap().peer, Ok(()));
    let egress = tcx(bpf::TCX_EGRESS);
    let why = "egress tcx program on veth1".to_owned();
    assert_eq!(host.resolve("172.30.0.2").unwrap().peer, Err(why));
    drop((ingress, egress));
}

#[test]
fn xdp_in_the_container() {
    let native = "native XDP on eth0 in the container".to_owned();
    for (mode, expected) in
        [(bpf::XDP_FLAGS_SKB_MODE, Ok(())), (bpf::XDP_FLAGS_DRV_MODE, Err(native))]
    {
        let host = bridge_host();
        let container = bridge_container(&host, "veth1", "172.30.0.2", 0x12);
        assert_eq!(host.resolve("172.30.0.2").unwrap().peer, Ok(()));
        let _program =
            container.enter(|| bpf::attach(bpf::XDP, bpf::XDP_LINK, bpf::ifindex("eth0"), mode));
        assert_eq!(host.resolve("172.30.0.2").unwrap().peer, expected);
    }
}

#[test]
fn neighbour_entry_of_a_container_that_is_gone() {
    let host = bridge_host();
    let _container = bridge_container(&host, "veth1", "172.30.0.2", 0x12);
    host.ip("neigh replace 172.30.0.2 lladdr 02:00:00:00:00:99 dev br0 nud reachable");
    let resolved = host.resolve("172.30.0.2").unwrap();
    assert_eq!(resolved.mac, Some([2, 0, 0, 0, 0, 0x12]));
    assert_eq!(resolved.veth.unwrap().name, "veth1");
}

#[test]
fn forwarding_entry_that_has_aged_out() {
    let host = bridge_host();
    let _container = bridge_container(&host, "veth1", "172.30.0.2", 0x12);
    host.resolve("172.30.0.2").unwrap();
    host.bridge("fdb del 02:00:00:00:00:12 dev veth1 master");
    assert_eq!(host.resolve("172.30.0.2").unwrap().veth.unwrap().name, "veth1");
}

#[test]
fn neighbour_entry_set_by_hand_is_left_alone() {
    let host = bridge_host();
    let _container = bridge_container(&host, "veth1", "172.30.0.2", 0x12);
    host.ip("neigh replace 172.30.0.2 lladdr 02:00:00:00:00:99 dev br0 nud permanent");
    let resolved = host.resolve("172.30.0.2").unwrap();
    assert_eq!(resolved.mac, Some([2, 0, 0, 0, 0, 0x99]));
    assert_eq!(resolved.veth, None);
    let why = "br0 has no forwarding entry for 172.30.0.2".to_owned();
    assert_eq!(resolved.peer, Err(why));
}
