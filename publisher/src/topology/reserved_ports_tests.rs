use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn set(text: &str) -> PortSet {
    text.parse().unwrap()
}

fn ports(set: &PortSet) -> BTreeSet<u16> {
    set.ranges().flatten().collect()
}

/// Sets within a few hundred ports and at both ends, so that ranges meet.
fn any_set() -> impl Strategy<Value = PortSet> {
    let start = prop_oneof![0..300_u16, 65_300..=65_535_u16];
    let range = (start, 0..40_u16).prop_map(|(first, more)| first..=first.saturating_add(more));
    prop::collection::vec(range, 0..12).prop_map(PortSet::from_iter)
}

#[test]
fn texts() {
    for (text, canonical) in [
        ("", ""),
        ("\n", ""),
        ("80\n", "80"),
        ("8000-8010,80", "80,8000-8010"),
        (" 1-3, 4 ,9-9,8", "1-4,8-9"),
        ("0-65535", "0-65535"),
        ("65535,65534", "65534-65535"),
    ] {
        assert_eq!(set(text).to_string(), canonical, "{text:?}");
    }
    for text in ["x", "1-", "-1", "5-4", "65536", "1-2-3"] {
        let error = text.parse::<PortSet>().unwrap_err().to_string();
        assert_eq!(error, format!("`{text}` is not a list of ports"));
    }
}

#[test]
fn what_is_reserved_and_given_back() {
    let (none, foreign) = (PortSet::default(), set("40010,50000-50010"));
    let published = set("80,40000-40010,50005-50020");
    let first = reserve(&foreign, &none, &published, 32_768..=60_999);
    assert_eq!(first.ours.to_string(), "40000-40009,50011-50020");
    assert_eq!(first.next.to_string(), "40000-40010,50000-50020");
    // Its owner adds a port in the meantime.
    let current = first.next.union(&set("33000"));
    let second = reserve(&current, &first.ours, &set("40003"), 32_768..=60_999);
    assert_eq!(second.ours.to_string(), "40003");
    assert_eq!(second.next.to_string(), "33000,40003,40010,50000-50010");
    let last = reserve(&second.next, &second.ours, &none, 32_768..=60_999);
    assert_eq!(last.next, foreign.union(&set("33000")));
    assert!(last.ours.is_empty());
}

proptest! {
    #[test]
    fn set_operations_are_those_of_sets(a in any_set(), b in any_set()) {
        let (x, y) = (ports(&a), ports(&b));
        prop_assert_eq!(ports(&a.union(&b)), &x | &y);
        prop_assert_eq!(ports(&a.intersection(&b)), &x & &y);
        prop_assert_eq!(ports(&a.difference(&b)), &x - &y);
        prop_assert_eq!(set(&a.to_string()), a.clone());
        for port in [0, 1, 150, 299, 65_534, 65_535] {
            prop_assert_eq!(a.contains(port), x.contains(&port));
        }
        prop_assert_eq!(a.is_empty(), x.is_empty());
    }

    #[test]
    fn ranges_stay_apart_and_ascend(a in any_set(), b in any_set()) {
        for set in [a.union(&b), a.intersection(&b), a.difference(&b)] {
            let ranges: Vec<_> = set.ranges().collect();
            for pair in ranges.windows(2) {
                prop_assert!(u32::from(*pair[0].end()) + 1 < u32::from(*pair[1].start()));
            }
        }
    }

    /// Whatever is published in between, exactly what the owner had is left in the end.
    #[test]
    fn giving_back_restores_the_owners_ports(
        owner in any_set(),
        published in prop::collection::vec(any_set(), 0..5),
        ephemeral in (0..300_u16, 0..300_u16),
    ) {
        let ephemeral = ephemeral.0..=ephemeral.0 + ephemeral.1;
        let mut state = Reservation { next: owner.clone(), ours: PortSet::default() };
        for published in &published {
            state = reserve(&state.next, &state.ours, published, ephemeral.clone());
            for port in published.ranges().flatten() {
                prop_assert!(!ephemeral.contains(&port) || state.next.contains(port));
            }
            prop_assert!(state.ours.intersection(&owner).is_empty());
            prop_assert_eq!(owner.difference(&state.next), PortSet::default());
        }
        let end = reserve(&state.next, &state.ours, &PortSet::default(), ephemeral);
        prop_assert_eq!(end.next, owner);
        prop_assert!(end.ours.is_empty());
    }
}
