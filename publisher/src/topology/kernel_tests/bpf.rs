//! The least that is needed to have a program of someone else's in the way.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

pub const SCHED_CLS: u32 = 3;
pub const XDP: u32 = 6;
pub const XDP_LINK: u32 = 37;
pub const TCX_INGRESS: u32 = 46;
pub const TCX_EGRESS: u32 = 47;
pub const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
pub const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;

/// Attaches a program that lets everything pass; it is gone when the descriptor is closed.
pub fn attach(program_type: u32, attach_type: u32, ifindex: u32, flags: u32) -> OwnedFd {
    // TC_ACT_OK is 0, XDP_PASS is 2: r0 = n; exit.
    let verdict = if program_type == XDP { 2_u64 } else { 0 };
    let instructions = [0xb7 | verdict << 32, 0x95];
    let license = CString::new("GPL").unwrap();

    let mut load = [0_u64; 20];
    load[0] = u64::from(program_type) | (instructions.len() as u64) << 32;
    load[1] = instructions.as_ptr() as u64;
    load[2] = license.as_ptr() as u64;
    let program = bpf(BPF_PROG_LOAD, &mut load);

    let mut create = [0_u64; 8];
    create[0] = program.as_raw_fd() as u64 | u64::from(ifindex) << 32;
    create[1] = u64::from(attach_type) | u64::from(flags) << 32;
    bpf(BPF_LINK_CREATE, &mut create)
}

/// Index of an interface of the calling thread's namespace.
pub fn ifindex(name: &str) -> u32 {
    let name = CString::new(name).unwrap();
    // SAFETY: a string with its closing NUL, alive during the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0, "no interface {name:?}");
    index
}

fn bpf(command: libc::c_long, attributes: &mut [u64]) -> OwnedFd {
    // SAFETY: the attributes are as long as told, and what they point to outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_mut_ptr(),
            size_of_val(attributes) as libc::c_uint,
        )
    };
    assert!(result >= 0, "bpf command {command}: {}", io::Error::last_os_error());
    // SAFETY: a descriptor that the kernel has just made for us.
    unsafe { OwnedFd::from_raw_fd(result as i32) }
}
