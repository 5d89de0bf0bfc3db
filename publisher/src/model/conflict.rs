//! Whether a publication fits beside those that are there.

use super::{Publication, PublicationSpec};

/// What [`conflicts`] finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Nothing is in its way.
    Free,
    /// It is there already, the same in every point: adding it again is no error.
    Already(&'a Publication),
    /// It is there already, for other clients or within other limits.
    Guarded(&'a Publication),
    /// A port of it is taken by this one.
    Taken(&'a Publication),
}

/// Looks for a publication among `existing` that stands in the way of `spec`.
///
/// Two publications conflict if they have the same protocol, the same host address and at least one
/// port in common. "Every address" and one address of the host are not the same: the exact address
/// wins over the wildcard, so both can be published. Of several in the way the one with the lowest
/// id is named.
pub fn conflicts<'a>(existing: &'a [Publication], spec: &PublicationSpec) -> Verdict<'a> {
    let in_the_way = existing
        .iter()
        .filter(|publication| {
            let other = &publication.spec;
            other.protocol() == spec.protocol()
                && other.ports().overlaps(spec.ports())
                && other.host() == spec.host()
        })
        .min_by_key(|publication| publication.id);
    match in_the_way {
        None => Verdict::Free,
        Some(publication) if publication.spec == *spec => Verdict::Already(publication),
        Some(publication) if publication.spec.differs_in_guards_only(spec) => {
            Verdict::Guarded(publication)
        }
        Some(publication) => Verdict::Taken(publication),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Access, Limits, SourceMode, timestamp};
    use std::num::NonZeroU32;

    fn spec(published: &str, target: &str) -> PublicationSpec {
        PublicationSpec::new(published.parse().unwrap(), target.parse().unwrap(), SourceMode::Auto)
            .unwrap()
    }

    fn existing() -> Vec<Publication> {
        [
            (9, "8080", "172.17.0.2:80"),
            (2, "9000-9010", "172.17.0.2:9000-9010"),
            (5, "9011-9020", "172.17.0.2:9011-9020"),
            (6, "[2001:db8::1]:7000", "172.17.0.2:70"),
            (7, "[fe80::1%eth0]:7000", "172.17.0.2:70"),
        ]
        .map(|(id, published, target)| Publication {
            id,
            generation: 1,
            spec: spec(published, target),
            created: timestamp::now(),
        })
        .into()
    }

    #[track_caller]
    fn taken_by(published: &str, target: &str, id: u32) {
        let existing = existing();
        match conflicts(&existing, &spec(published, target)) {
            Verdict::Taken(publication) => assert_eq!(publication.id, id),
            other => panic!("{published}: {other:?}"),
        }
    }

    #[track_caller]
    fn free(published: &str) {
        assert_eq!(conflicts(&existing(), &spec(published, "172.17.0.3:80")), Verdict::Free);
    }

    #[test]
    fn the_same_again_is_there_already() {
        let existing = existing();
        for publication in &existing {
            assert_eq!(
                conflicts(&existing, &publication.spec.clone()),
                Verdict::Already(publication)
            );
        }
    }

    #[test]
    fn the_same_for_others_is_no_conflict() {
        let existing = existing();
        let limits = Limits { rate: NonZeroU32::new(1), ..Limits::default() };
        let limited = spec("8080", "172.17.0.2:80").guarded(Access::default(), limits);
        assert_eq!(conflicts(&existing, &limited), Verdict::Guarded(&existing[0]));
        let elsewhere = spec("8080", "172.17.0.3:80").guarded(Access::default(), limits);
        assert_eq!(conflicts(&existing, &elsewhere), Verdict::Taken(&existing[0]));
    }

    #[test]
    fn another_target_source_or_range_is_a_conflict() {
        taken_by("8080", "172.17.0.3:80", 9);
        taken_by("8080", "172.17.0.2:81", 9);
        taken_by("9000", "172.17.0.2:9000", 2);
        taken_by("9010-9011", "172.17.0.2:9010-9011", 2);
        taken_by("1-65535", "172.17.0.2:1-65535", 2);
        taken_by("[2001:db8::1]:7000", "172.17.0.2:71", 6);
        let existing = existing();
        let gateway = PublicationSpec::new(
            "8080".parse().unwrap(),
            "172.17.0.2:80".parse().unwrap(),
            SourceMode::Gateway,
        )
        .unwrap();
        assert!(matches!(conflicts(&existing, &gateway), Verdict::Taken(p) if p.id == 9));
    }

    #[test]
    fn another_protocol_port_or_host_address_is_free() {
        free("8080/udp");
        free("8081");
        free("[2001:db8::1]:8080");
        free("7000");
        free("[2001:db8::2]:7000");
        free("[fe80::1%eth1]:7000");
    }
}
