//! Large deterministic transfers, compared by SHA-256.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

/// Bytes in a mebibyte.
pub const MIB: u64 = 1 << 20;

/// SHA-256 of a transfer.
pub type Sum = [u8; 32];

/// Data that is the same for the same seed and repeats nowhere: a random block whose every 1 KiB
/// carries the position.
#[derive(Debug)]
pub struct Data {
    block: Vec<u8>,
    position: u64,
}

impl Data {
    /// Starts the data of `seed`.
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        let words = (0..64 * 1024 / 8).flat_map(|_| next_random(&mut state).to_le_bytes());
        Self { block: words.collect(), position: 0 }
    }

    /// The next 64 KiB.
    pub fn next_block(&mut self) -> &[u8] {
        for chunk in self.block.chunks_exact_mut(1024) {
            chunk[..8].copy_from_slice(&self.position.to_be_bytes());
            self.position += 1;
        }
        &self.block
    }
}

/// SplitMix64.
pub fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Sends `length` bytes of the data of `seed`, closes the sending half, and returns their sum.
///
/// # Errors
/// When the connection breaks or stalls.
pub fn send(stream: &mut TcpStream, seed: u64, length: u64) -> Result<Sum> {
    let mut data = Data::new(seed);
    let mut sum = Sha256::new();
    let mut left = length;
    while left > 0 {
        let block = data.next_block();
        let part = &block[..block.len().min(usize::try_from(left)?)];
        stream.write_all(part).with_context(|| format!("{left} bytes not sent"))?;
        sum.update(part);
        left -= part.len() as u64;
    }
    stream.shutdown(Shutdown::Write).context("close the sending half")?;
    Ok(sum.finalize().into())
}

/// Receives until the other side closes; returns the number of bytes and their sum.
///
/// # Errors
/// When the connection breaks or stalls.
pub fn receive(stream: &mut TcpStream) -> Result<(u64, Sum)> {
    let mut sum = Sha256::new();
    let mut length = 0;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let part = stream.read(&mut buffer).with_context(|| format!("after {length} bytes"))?;
        if part == 0 {
            return Ok((length, sum.finalize().into()));
        }
        sum.update(&buffer[..part]);
        length += part as u64;
    }
}

/// A server's behaviour for [`exchange`]: receives everything and answers with the sum of it and
/// as many bytes of its own (seed 2).
pub fn serve(mut stream: TcpStream) {
    let Ok((length, sum)) = receive(&mut stream) else { return };
    if stream.write_all(&sum).is_ok() {
        let _ = send(&mut stream, 2, length);
    }
}

/// Sends `length` bytes through a connection to [`serve`], receives as many, and checks both sums.
/// Returns the time that each direction took.
///
/// # Errors
/// When a sum differs, or the connection breaks or stalls.
pub fn exchange(stream: &mut TcpStream, length: u64) -> Result<[Duration; 2]> {
    let start = Instant::now();
    let sent = send(stream, 1, length)?;
    let mut heard: Sum = [0; 32];
    stream.read_exact(&mut heard).context("the sum of the upload")?;
    let up = start.elapsed();
    ensure!(heard == sent, "the upload arrived changed");
    let (received, sum) = receive(stream)?;
    let down = start.elapsed() - up;
    ensure!(received == length, "download of {received} bytes, expected {length}");
    ensure!(sum == sum_of(2, length)?, "the download arrived changed");
    Ok([up, down])
}

/// The sum of `length` bytes of the data of `seed`.
///
/// # Errors
/// When the length doesn't fit the machine.
pub fn sum_of(seed: u64, length: u64) -> Result<Sum> {
    let mut data = Data::new(seed);
    let mut sum = Sha256::new();
    let mut left = length;
    while left > 0 {
        let block = data.next_block();
        let part = &block[..block.len().min(usize::try_from(left)?)];
        sum.update(part);
        left -= part.len() as u64;
    }
    Ok(sum.finalize().into())
}

/// A server's behaviour for [`rush`]: receives everything, says so with one byte, and sends as
/// many bytes. Nothing is summed, so the path is what takes the time.
pub fn serve_rush(mut stream: TcpStream) {
    let mut buffer = vec![0; 256 * 1024];
    let mut length = 0;
    while let Ok(part) = stream.read(&mut buffer) {
        if part == 0 {
            let _ = stream.write_all(b"!").and_then(|()| pour(&mut stream, length));
            return;
        }
        length += part as u64;
    }
}

fn pour(stream: &mut TcpStream, length: u64) -> std::io::Result<()> {
    let block = vec![0x55; 256 * 1024];
    let mut left = length;
    while left > 0 {
        let part = left.min(block.len() as u64);
        stream.write_all(&block[..part as usize])?;
        left -= part;
    }
    stream.shutdown(Shutdown::Write)
}

/// Sends `length` bytes through a connection to [`serve_rush`] and receives as many. Returns the
/// time that each direction took.
///
/// # Errors
/// When bytes are missing, or the connection breaks or stalls.
pub fn rush(stream: &mut TcpStream, length: u64) -> Result<[Duration; 2]> {
    let start = Instant::now();
    pour(stream, length).context("upload")?;
    stream.read_exact(&mut [0; 1]).context("end of the upload")?;
    let up = start.elapsed();
    let mut buffer = vec![0; 256 * 1024];
    let mut received = 0;
    loop {
        match stream.read(&mut buffer).with_context(|| format!("download at {received}"))? {
            0 => break,
            part => received += part as u64,
        }
    }
    ensure!(received == length, "download of {received} bytes, expected {length}");
    Ok([up, start.elapsed() - up])
}
