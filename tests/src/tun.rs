//! A pair of tun devices joined by two threads: an uplink without Ethernet headers.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::netns::Netns;

/// The cable; dropping it ends its threads and removes both devices.
#[derive(Debug)]
pub struct Cable {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Cable {
    /// Makes tun device `name` in both namespaces, up with `mtu` bytes, joined.
    ///
    /// # Errors
    /// When `/dev/net/tun` is missing or refuses.
    pub fn new(a: &Netns, b: &Netns, name: &str, mtu: u32) -> Result<Self> {
        let a_end = open(a, name, mtu)?;
        let b_end = open(b, name, mtu)?;
        let stop = Arc::new(AtomicBool::new(false));
        let threads = [(a_end.try_clone()?, b_end.try_clone()?), (b_end, a_end)]
            .into_iter()
            .map(|(from, to)| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || pump(from, to, &stop))
            })
            .collect();
        Ok(Self { stop, threads })
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn open(ns: &Netns, name: &str, mtu: u32) -> Result<File> {
    let path = "/dev/net/tun";
    let open = || OpenOptions::new().read(true).write(true).open(path);
    let file = ns.run(open).with_context(|| format!("{path}: is the tun driver there?"))?;
    let mut request = [0u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    let flags = (libc::IFF_TUN | libc::IFF_NO_PI) as u16;
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // The device appears in the namespace of the thread that asks.
    ns.run(|| {
        // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, 40 bytes, which `request` is.
        match unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    })
    .context("TUNSETIFF")?;
    ns.ip(&format!("link set {name} mtu {mtu} up"))?;
    Ok(file)
}

/// Copies packets until told to stop.
fn pump(mut from: File, mut to: File, stop: &AtomicBool) {
    let mut packet = vec![0; 65_536];
    let tick = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    while !stop.load(Ordering::Relaxed) {
        let mut fds = [PollFd::new(&from, PollFlags::IN)];
        if !poll(&mut fds, Some(&tick)).is_ok_and(|ready| ready > 0) {
            continue;
        }
        match from.read(&mut packet) {
            // A device that isn't up refuses the packet: lost, as on a wire.
            Ok(length) => drop(to.write(&packet[..length])),
            Err(_) => return,
        }
    }
}
