use super::*;
use proptest::prelude::*;
use zerocopy::FromZeros;

fn datagram() -> Datagram {
    Datagram::new_zeroed()
}

fn put(datagram: &mut Datagram, start: u16, end: u16, more: bool) -> Place {
    place(datagram, Range { start, end }, more)
}

#[test]
fn s14_in_order_one_range_grows() {
    let mut datagram = datagram();
    for start in (0..64_000).step_by(1_448) {
        assert_eq!(put(&mut datagram, start, start + 1_448, true), Place::New);
        assert!(!is_whole(&datagram));
    }
    assert_eq!(put(&mut datagram, 65_160, 65_515, false), Place::New);
    assert!(is_whole(&datagram));
    assert_eq!(datagram.ranges.iter().filter(|range| **range != Range::default()).count(), 1);
}

#[test]
fn s14_every_order_of_five_fragments_is_whole_at_the_end() {
    let parts = [(0u16, 8u16), (8, 16), (16, 24), (24, 32), (32, 37)];
    let mut orders = std::vec![std::vec::Vec::new()];
    for _ in 0..5 {
        orders = orders
            .into_iter()
            .flat_map(|order: std::vec::Vec<usize>| {
                (0..5).filter_map(move |next| {
                    let mut order = order.clone();
                    (!order.contains(&next)).then(|| {
                        order.push(next);
                        order
                    })
                })
            })
            .collect();
    }
    assert_eq!(orders.len(), 120);
    for order in orders {
        let mut datagram = datagram();
        for (number, index) in order.iter().enumerate() {
            let (start, end) = parts[*index];
            let place = put(&mut datagram, start, end, *index != 4);
            assert_eq!(place, Place::New, "{order:?}");
            assert_eq!(is_whole(&datagram), number == 4, "{order:?}");
        }
    }
}

#[test]
fn s14_overlaps_are_told_from_repetitions() {
    for (start, end, more, expected) in [
        (16u16, 32u16, true, Place::Again),
        (16, 24, true, Place::Again),
        (24, 32, false, Place::Again),
        (8, 24, true, Place::Overlaps),
        (24, 40, true, Place::Overlaps),
        (8, 40, true, Place::Overlaps),
        (0, 64, true, Place::Overlaps),
        (0, 8, false, Place::Overlaps),
        (8, 16, true, Place::New),
        (32, 40, true, Place::New),
        (32, 33, false, Place::New),
    ] {
        let mut datagram = datagram();
        assert_eq!(put(&mut datagram, 16, 32, true), Place::New);
        assert_eq!(put(&mut datagram, start, end, more), expected, "{start}..{end}");
    }
}

#[test]
fn s14_nothing_lies_behind_the_end() {
    let mut datagram = datagram();
    assert_eq!(put(&mut datagram, 32, 40, false), Place::New);
    assert_eq!(put(&mut datagram, 40, 48, true), Place::Overlaps);
    assert_eq!(put(&mut datagram, 24, 48, true), Place::Overlaps);
    assert_eq!(put(&mut datagram, 0, 8, false), Place::Overlaps);
    assert_eq!(put(&mut datagram, 0, 8, true), Place::New);
}

#[test]
fn s14_what_is_kept_is_bounded() {
    let mut datagram = datagram();
    for index in 0..RANGES as u16 {
        assert_eq!(put(&mut datagram, index * 16, index * 16 + 8, true), Place::New);
    }
    assert_eq!(put(&mut datagram, 4_000, 4_008, true), Place::TooFar);
    assert_eq!(put(&mut datagram, 8, 16, true), Place::New);
    assert_eq!(put(&mut datagram, 4_000, 4_008, true), Place::New);
}

#[test]
fn s14_lengths_that_no_fragment_has() {
    let malformed = Err(Stop::Drop(Reason::Fragment));
    assert_eq!(check(true, 0, 8), Ok(()));
    assert_eq!(check(false, 0, 1), Ok(()));
    assert_eq!(check(false, 65_512, 3), Ok(()));
    for (more, offset, length) in
        [(true, 0, 9), (true, 0, 0), (false, 8, 0), (false, 65_512, 4), (false, 65_528, 65_535)]
    {
        assert_eq!(check(more, offset, length), malformed, "{more} {offset} {length}");
    }
}

proptest! {
    /// Against a bitmap: no byte is taken twice, and a datagram is whole when each was.
    #[test]
    fn s14_no_byte_is_taken_twice(parts: std::vec::Vec<(u8, u8, bool)>) {
        let (mut datagram, mut bytes) = (datagram(), [false; 600]);
        for (start, length, more) in parts {
            let (start, end) = (u16::from(start), u16::from(start) + u16::from(length).max(1));
            if put(&mut datagram, start, end, more) == Place::New {
                for byte in &mut bytes[usize::from(start)..usize::from(end)] {
                    prop_assert!(!*byte);
                    *byte = true;
                }
            }
            let end = usize::from(datagram.end);
            prop_assert_eq!(is_whole(&datagram), end != 0 && bytes[..end].iter().all(|byte| *byte));
        }
    }
}
