//! Programs run with less than they want: without root, without the bpf() system call.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::daemon::programs;

/// The user id of nobody.
const NOBODY: u32 = 65_534;

/// Copies a program where everybody may run it, below `directory`, which is opened to everybody.
///
/// # Errors
/// When it isn't built.
pub fn for_everybody(program: &str, directory: &Path) -> Result<PathBuf> {
    let copy = directory.join(program);
    fs::copy(programs()?.join(program), &copy).with_context(|| format!("copy {program}"))?;
    for path in [directory, &copy] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(copy)
}

/// Makes `command` run as nobody, with no group and no capability.
pub fn as_nobody(command: &mut Command) -> &mut Command {
    command.uid(NOBODY).gid(NOBODY)
}

/// Makes bpf() answer ENOSYS to `command` and its children, as a kernel without it does.
pub fn without_bpf(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec the closure only calls prctl, which is async-signal-safe,
    // with data that the closure owns.
    unsafe { command.pre_exec(deny_bpf) }
}

fn deny_bpf() -> io::Result<()> {
    const NUMBER_AT: u32 = 0; // offsetof(struct seccomp_data, nr)
    let statement = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    let mut filter = [
        statement(load, 0, 0, NUMBER_AT),
        statement(equal, 0, 1, libc::SYS_bpf as u32),
        statement(answer, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        statement(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the filter lives through the call, and its length is right.
    let result = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
