//! Whether `bpf_redirect_peer` through a veth would skip something that the owner put there.
//!
//! It hands a packet to the container's end directly, past the egress queueing discipline and
//! egress programs of the host's end, and past native XDP at the container's end.

use std::io;

use super::{
    netlink::{Client, Request, attribute, string},
    types::LinkInfo,
    uapi::tc,
};

/// Size of `struct tcmsg`.
const TCMSG: usize = 20;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_TCX_EGRESS: u32 = 47;

/// What stands in the way on the host's side of the veth.
pub fn check_host_side(netlink: &Client, veth: &LinkInfo) -> Result<(), String> {
    let name = &veth.name;
    if !veth.is_kind("veth") {
        return Err(format!("{name} is not a veth"));
    }
    if veth.link_netnsid.is_none() {
        return Err(format!("the peer of {name} is not in another network namespace"));
    }
    match veth.qdisc.as_deref() {
        None | Some("noqueue") => {}
        Some(qdisc) => return Err(format!("egress qdisc {qdisc} on {name}")),
    }
    match egress_filter(netlink, veth.ifindex) {
        Ok(None) => {}
        Ok(Some(filter)) => return Err(format!("egress tc filter {filter} on {name}")),
        Err(error) => return Err(format!("egress tc filters of {name} can't be read: {error}")),
    }
    match tcx_egress_programs(veth.ifindex) {
        Ok(0) => Ok(()),
        Ok(_) => Err(format!("egress tcx program on {name}")),
        Err(error) => Err(format!("egress tcx programs of {name} can't be read: {error}")),
    }
}

/// What stands in the way at the container's end, as seen in its namespace.
pub fn check_container_side(peer: &LinkInfo) -> Result<(), String> {
    match peer.native_xdp {
        true => Err(format!("native XDP on {} in the container", peer.name)),
        false => Ok(()),
    }
}

/// Kind of the first filter at clsact egress, if there is one.
fn egress_filter(netlink: &Client, ifindex: u32) -> io::Result<Option<String>> {
    let mut header = [0; TCMSG];
    header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    header[12..16].copy_from_slice(&tc::CLSACT_EGRESS.to_ne_bytes());
    let request = Request::new(libc::RTM_GETTFILTER, libc::NLM_F_DUMP, &header);
    let filters = match netlink.dump(&request) {
        Ok(filters) => filters,
        // No clsact there, said in one way or another by one kernel or another.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EINVAL | libc::ENOENT | libc::EOPNOTSUPP)
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let kind = |body: &Vec<u8>| attribute(body.get(TCMSG..)?, tc::TCA_KIND).map(string);
    Ok(filters.iter().find_map(kind))
}

/// The part of `union bpf_attr` that `BPF_PROG_QUERY` uses, up to `revision`.
#[repr(C)]
#[derive(Default)]
struct ProgQuery {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// How many tcx programs run at egress; 0 on kernels without tcx (before 6.6).
fn tcx_egress_programs(ifindex: u32) -> io::Result<u32> {
    let mut query =
        ProgQuery { target_ifindex: ifindex, attach_type: BPF_TCX_EGRESS, ..Default::default() };
    // SAFETY: the structure is as large as told and outlives the call; with `prog_cnt` 0 and no
    // buffers the kernel only writes the structure itself.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_QUERY,
            &raw mut query,
            size_of::<ProgQuery>() as libc::c_uint,
        )
    };
    if result == 0 {
        return Ok(query.prog_cnt);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // EINVAL and E2BIG: a kernel that doesn't know this attach type or structure.
        Some(libc::EINVAL | libc::E2BIG | libc::ENOENT | libc::ENOSYS) => Ok(0),
        _ => Err(error),
    }
}
