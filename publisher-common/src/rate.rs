//! How often the host may send ICMP errors of its own (RFC 4443 §2.4 f, RFC 1812 §4.3.2.8).

use zerocopy::FromZeros;

/// Errors that may be sent at once.
pub const BURST: u64 = 50;
/// Nanoseconds in which one more may be sent: 100 a second.
pub const INTERVAL: u64 = 10_000_000;

/// A token bucket; full when it is new.
#[derive(Clone, Copy, Debug, FromZeros)]
#[repr(C)]
pub struct Bucket {
    /// Until when tokens have been handed out, nanoseconds of the monotonic clock.
    at: u64,
    /// How many there are.
    tokens: u64,
}

impl Bucket {
    /// Takes a token at time `now`; `false` where there is none.
    #[inline(always)]
    #[must_use]
    pub const fn take(&mut self, now: u64) -> bool {
        let earned = now.saturating_sub(self.at) / INTERVAL;
        if earned + self.tokens >= BURST {
            (self.tokens, self.at) = (BURST, now);
        } else {
            self.tokens += earned;
            self.at += earned * INTERVAL;
        }
        if self.tokens == 0 {
            return false;
        }
        self.tokens -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn taken(bucket: &mut Bucket, times: impl Iterator<Item = u64>) -> usize {
        times.filter(|now| bucket.take(*now)).count()
    }

    #[test]
    fn i14_a_burst_then_a_hundred_a_second() {
        let mut bucket = Bucket::new_zeroed();
        let start = 1_000 * SECOND;
        assert_eq!(taken(&mut bucket, (0..1_000).map(|step| start + step)), 50);
        // A million asked for in ten seconds.
        let asked = (0..1_000_000).map(|step| start + step * 10_000);
        assert_eq!(taken(&mut bucket, asked), 999);
        // After a rest it is full again, and not fuller.
        let rested = start + 3_600 * SECOND;
        assert_eq!(taken(&mut bucket, (0..1_000).map(|step| rested + step)), 50);
    }

    #[test]
    fn i14_time_that_seems_to_go_back_earns_nothing() {
        let mut bucket = Bucket::new_zeroed();
        assert_eq!(taken(&mut bucket, std::iter::repeat_n(5 * SECOND, 60)), 50);
        assert_eq!(taken(&mut bucket, (0..5).map(|step| step * SECOND)), 0);
    }
}
