//! The session log, as the datapath writes it: a ring buffer that is read from time to time, since no
//! packet should have to wake anybody up.

use aya::maps::{MapData, PerCpuArray, PerCpuValues, RingBuf};
use publisher_common::layout::Record;
use std::ptr;

/// The reader of the session log. What has been read is gone; what hasn't been waits in the pinned buffer
/// for the next reader.
pub struct SessionLog {
    records: RingBuf<MapData>,
    lost: PerCpuArray<MapData, u64>,
}

impl SessionLog {
    pub(super) const fn new(records: RingBuf<MapData>, lost: PerCpuArray<MapData, u64>) -> Self {
        Self { records, lost }
    }

    /// Calls `each` with every record that waits, oldest first.
    pub fn drain(&mut self, mut each: impl FnMut(&Record)) {
        while let Some(item) = self.records.next() {
            if let Some(record) = read(&item) {
                // The next one is read only after this one's room is given back.
                drop(item);
                each(&record);
            }
        }
    }

    /// How many records have found no room since the last call.
    pub fn lost(&mut self) -> u64 {
        let Ok(counters) = self.lost.get(&0, 0) else { return 0 };
        let lost = counters.iter().sum();
        if lost > 0
            && let Ok(none) = PerCpuValues::try_from(vec![0; counters.len()])
        {
            // Read again, what comes between the two is lost to the count too: a few at most.
            let _ = self.lost.set(0, none, 0);
        }
        lost
    }
}

/// A record out of the buffer; `None` for what is too short for one.
fn read(bytes: &[u8]) -> Option<Record> {
    // SAFETY: there are enough bytes, `Record` is `Pod`, and nothing is asked of its alignment.
    (bytes.len() >= size_of::<Record>())
        .then(|| unsafe { ptr::read_unaligned(bytes.as_ptr().cast::<Record>()) })
}
