//! `BPF_PROG_TEST_RUN`: one packet through a loaded TC program, without an interface carrying it.
//!
//! The program sees the device that [`Input::ifindex`] names, in the network namespace of the
//! calling thread, and the kernel's own `eth_type_trans` decides from its hardware address whether
//! the frame is for this host. What the program asks for is answered, not done: a redirect goes
//! nowhere.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use zerocopy::{Immutable, IntoBytes};

/// `BPF_PROG_TEST_RUN`.
const COMMAND: libc::c_int = 10;
/// `BPF_F_TEST_SKB_CHECKSUM_COMPLETE` (Linux 6.16): the packet comes with `CHECKSUM_COMPLETE`, and
/// the run fails with `EBADMSG` where `skb->csum` doesn't fit the bytes that are left.
const CHECKSUM_COMPLETE: u32 = 1 << 2;
/// Longer than any result: the kernel takes frames of up to a page.
const ROOM: usize = 8_192;

/// Bytes of `struct __sk_buff`, and where its fields are, in words of 4 bytes.
const CONTEXT_WORDS: usize = 48;
const IFINDEX: usize = 10;
const GSO_SEGMENTS: usize = 41;
const GSO_SIZE: usize = 44;

/// The verdict that leaves the packet to the next program, or to the stack.
pub const PASS: i32 = -1;
/// The verdict that drops the packet.
pub const DROP: i32 = 2;
/// The verdict that sends the packet elsewhere.
pub const REDIRECT: i32 = 7;

/// A frame, and what the kernel is told about it.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The bytes, from the Ethernet header on.
    pub frame: &'a [u8],
    /// The device it comes in by.
    pub ifindex: u32,
    /// Payload of each segment of a super-packet; 0 for a plain packet.
    pub gso_size: u32,
    /// Segments of a super-packet.
    pub gso_segments: u32,
    /// Whether the kernel checks what becomes of `skb->csum`; see [`checks_sums`].
    pub checked: bool,
}

/// What a program made of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its verdict.
    pub action: i32,
    /// The bytes, from the Ethernet header on.
    pub frame: Vec<u8>,
}

/// The arm of `union bpf_attr` that the command takes.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Attributes {
    program: u32,
    action: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    reserved: u32,
}

/// Runs a program once.
///
/// # Errors
/// `EINVAL` for a frame that is too short to have its network header or longer than a page,
/// `EBADMSG` where [`Input::checked`] finds a wrong sum, `ENODEV` for an unknown device.
pub fn run(program: BorrowedFd<'_>, input: &Input<'_>) -> io::Result<Output> {
    let mut context = [0u32; CONTEXT_WORDS];
    context[IFINDEX] = input.ifindex;
    context[GSO_SEGMENTS] = input.gso_segments;
    context[GSO_SIZE] = input.gso_size;
    let mut out = vec![0u8; ROOM];
    let mut attributes = Attributes {
        program: program.as_raw_fd() as u32,
        action: 0,
        size_in: input.frame.len() as u32,
        size_out: out.len() as u32,
        data_in: input.frame.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat: 1,
        duration: 0,
        context_size_in: size_of_val(&context) as u32,
        context_size_out: 0,
        context_in: context.as_ptr() as u64,
        context_out: 0,
        flags: if input.checked { CHECKSUM_COMPLETE } else { 0 },
        cpu: 0,
        batch: 0,
        reserved: 0,
    };
    let size = size_of::<Attributes>();
    // SAFETY: the attributes and the buffers that they point to live through the call, with the
    // sizes that are named.
    let result = unsafe { libc::syscall(libc::SYS_bpf, COMMAND, &raw mut attributes, size) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    out.truncate(attributes.size_out as usize);
    Ok(Output { action: attributes.action as i32, frame: out })
}

/// Whether the kernel can check sums ([`Input::checked`]), asked of the kernel and not of its version.
///
/// # Errors
/// When it refuses the run for another reason than the flag.
pub fn checks_sums(program: BorrowedFd<'_>) -> io::Result<bool> {
    let frame = [0u8; 64];
    let input = Input { frame: &frame, ifindex: 0, gso_size: 0, gso_segments: 0, checked: false };
    run(program, &input)?;
    match run(program, &Input { checked: true, ..input }) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}
