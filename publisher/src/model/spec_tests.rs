//! The syntax of published ports and targets: what is taken, what is refused and why.

use proptest::prelude::*;

use super::*;

fn published(text: &str) -> Result<Published, SpecError> {
    text.parse()
}

fn target(text: &str) -> Result<Target, SpecError> {
    text.parse()
}

#[test]
fn written_as_in_the_contract() {
    for text in [
        "8080/tcp",
        "8080/udp",
        "8000-8010/tcp",
        "[2001:db8::1]:8080/tcp",
        "[::1]:53/udp",
        "[fe80::1%eth0]:1-65535/udp",
    ] {
        assert_eq!(published(text).unwrap().to_string(), text);
    }
    assert_eq!(published("8080").unwrap().to_string(), "8080/tcp");
    assert_eq!(published("[::]:8080").unwrap().to_string(), "8080/tcp");
    assert_eq!(published("8000-8000").unwrap().to_string(), "8000/tcp");
    let spec = PublicationSpec::new(
        published("8000-8010").unwrap(),
        target("172.17.0.2:80-90").unwrap(),
        SourceMode::Auto,
    )
    .unwrap();
    assert_eq!(spec.to_string(), "8000-8010/tcp -> 172.17.0.2:80-90");
    assert_eq!(spec.target_port(8000), Some(80));
    assert_eq!(spec.target_port(8010), Some(90));
    assert_eq!(spec.target_port(8011), None);
    assert_eq!(spec.target_port(7999), None);
}

#[test]
fn published_ports_refused() {
    for (text, message) in [
        ("0", "port 0 can't be published: ports are 1 to 65535"),
        ("65536", "port 65536 is out of range: ports are 1 to 65535"),
        ("8010-8000", "port range 8010-8000 runs backwards"),
        ("8080/sctp", "protocol sctp is not supported: only tcp and udp are published"),
        ("8080/", "'' is not a protocol: use tcp or udp"),
        ("8080/tcp/udp", "'tcp/udp' is not a protocol: use tcp or udp"),
        ("", "'' is not a port number"),
        ("http", "'http' is not a port number"),
        ("[::1]:", "'' is not a port number"),
        ("[::1]", "host address '[::1]' is not an IPv6 address"),
        ("[::1", "host address '[::1' is not an IPv6 address"),
        ("[::1]8080", "host address '[::1]8080' is not an IPv6 address"),
        ("[]:80", "host address '' is not an IPv6 address"),
        (":8080", "host address '' is not an IPv6 address"),
        ("localhost:8080", "host address 'localhost' is not an IPv6 address"),
        ("::1:8080", "IPv6 address in '::1:8080' is not in brackets"),
        ("fe80::1%eth0:8080", "IPv6 address in 'fe80::1%eth0:8080' is not in brackets"),
        (
            "[ff02::1]:80",
            "host address [ff02::1] is multicast: only an address of the host can be published",
        ),
        (
            "127.0.0.1:8080",
            "host address 127.0.0.1 is IPv4: this version publishes on the host's IPv6 addresses",
        ),
        (
            "[::ffff:127.0.0.1]:8080",
            "host address 127.0.0.1 is IPv4: this version publishes on the host's IPv6 addresses",
        ),
        ("[fe80::1]:80", "host address [fe80::1] is link-local: it needs an interface"),
    ] {
        let error = published(text).unwrap_err();
        assert_eq!(error.to_string(), message, "{text}");
        assert!(error.hint().is_some(), "{text}");
    }
}

#[test]
fn targets_refused() {
    for (text, message) in [
        ("172.17.0.2", "target '172.17.0.2' has no port"),
        ("172.17.0.2:0", "port 0 can't be published: ports are 1 to 65535"),
        ("172.17.0.2:", "'' is not a port number"),
        ("172.17.0.2:80/tcp", "'80/tcp' is not a port number"),
        ("web:80", "target 'web' is not an IPv4 address"),
        ("web", "target 'web' is not an IPv4 address"),
        ("80", "target '80' is not an IPv4 address"),
        ("172.17.0.256:80", "target '172.17.0.256' is not an IPv4 address"),
        ("172.17.2:80", "target '172.17.2' is not an IPv4 address"),
        (
            "[2001:db8::2]:80",
            "target '[2001:db8::2]:80' is IPv6: this publishes IPv4-only containers",
        ),
        ("2001:db8::2", "target '2001:db8::2' is IPv6: this publishes IPv4-only containers"),
        (
            "fd00:1:2:3:4:5:6:7:80",
            "target 'fd00:1:2:3:4:5:6:7:80' is IPv6: this publishes IPv4-only containers",
        ),
        ("0.0.0.0:80", "target 0.0.0.0 is unspecified: it can't be a container's address"),
        ("0.1.2.3:80", "target 0.1.2.3 is in 0.0.0.0/8: it can't be a container's address"),
        ("127.1.2.3:80", "target 127.1.2.3 is loopback: it can't be a container's address"),
        ("224.0.0.1:80", "target 224.0.0.1 is multicast: it can't be a container's address"),
        (
            "239.255.255.255:80",
            "target 239.255.255.255 is multicast: it can't be a container's address",
        ),
        (
            "255.255.255.255:80",
            "target 255.255.255.255 is broadcast: it can't be a container's address",
        ),
    ] {
        let error = target(text).unwrap_err();
        assert_eq!(error.to_string(), message, "{text}");
        assert!(error.hint().is_some(), "{text}");
    }
}

#[test]
fn ranges_must_be_as_long_as_each_other() {
    let spec = |host, container| {
        PublicationSpec::new(published(host).unwrap(), target(container).unwrap(), SourceMode::Auto)
    };
    assert!(spec("8000-8010", "172.17.0.2:80-90").is_ok());
    assert!(spec("1-65535", "172.17.0.2:1-65535").is_ok());
    for (host, container) in [
        ("8000-8010", "172.17.0.2:80"),
        ("8000", "172.17.0.2:80-81"),
        ("8000-8010", "172.17.0.2:80-89"),
    ] {
        assert!(matches!(spec(host, container), Err(SpecError::UnequalRanges { .. })));
    }
}

#[test]
fn json_goes_through_the_same_checks() {
    let parse =
        |text: &str| serde_json::from_str::<PublicationSpec>(text).map_err(|e| e.to_string());
    let good = r#"{"ports":{"first":80,"last":80},"protocol":"tcp","target":"172.17.0.2","target_ports":{"first":80,"last":80}}"#;
    assert_eq!(parse(good).unwrap().to_string(), "80/tcp -> 172.17.0.2:80");
    for (from, to, said) in [
        (r#""last":80},"protocol""#, r#""last":81},"protocol""#, "both ranges"),
        ("172.17.0.2", "127.0.0.1", "loopback"),
        ("\"tcp\"", "\"sctp\"", "not supported"),
        (r#"{"ports""#, r#"{"host":"ff02::1","ports""#, "multicast"),
        (r#"{"ports""#, r#"{"pathh":"proxy","ports""#, "unknown field"),
        (r#"{"ports""#, r#"{"path":"magic","ports""#, "not a path"),
        (r#"{"ports""#, r#"{"proxy_protocol":"v1","ports""#, "use v2"),
        (
            r#"{"ports""#,
            r#"{"path":"kernel","proxy_protocol":"v2","ports""#,
            "--path kernel has none",
        ),
        (r#""first":80,"last":80},"protocol""#, r#""first":0,"last":0},"protocol""#, "port 0"),
    ] {
        let text = good.replace(from, to);
        assert_ne!(text, good);
        let error = parse(&text).unwrap_err();
        assert!(error.contains(said), "{text}: {error}");
    }
}

prop_compose! {
    fn any_range()(a in 1..=u16::MAX, b in 1..=u16::MAX) -> PortRange {
        PortRange::new(a.min(b), a.max(b)).unwrap()
    }
}

fn any_host() -> impl Strategy<Value = HostAddress> {
    prop_oneof![
        Just(HostAddress::Any),
        (any::<u128>(), "[a-z][a-z0-9.@_-]{0,14}").prop_filter_map(
            "not a host address",
            |(bits, name)| {
                let address = Ipv6Addr::from_bits(bits);
                let scope = address.is_unicast_link_local().then_some(name.as_str());
                HostAddress::new(address, scope).ok()
            }
        ),
        (any::<u64>(), "[a-z][a-z0-9.@_-]{0,14}").prop_map(|(low, name)| {
            let address = Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(low));
            HostAddress::new(address, Some(&name)).unwrap()
        }),
    ]
}

prop_compose! {
    fn any_published()(
        host in any_host(),
        ports in any_range(),
        protocol in prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)],
    ) -> Published {
        Published { host, ports, protocol }
    }
}

proptest! {
    #[test]
    fn parsing_undoes_display(written in any_published()) {
        prop_assert_eq!(written.to_string().parse(), Ok(written));
    }

    #[test]
    fn parsing_a_target_undoes_display(address in any::<u32>(), ports in any_range()) {
        if let Ok(written) = Target::new(Ipv4Addr::from_bits(address), ports) {
            prop_assert_eq!(written.to_string().parse(), Ok(written));
        }
    }

    #[test]
    fn json_undoes_json(published in any_published(), to in any::<u16>()) {
        let length = published.ports.len() as u16;
        let first = to % (u16::MAX - length + 1) + 1;
        let ports = PortRange::new(first, first + (length - 1)).unwrap();
        let target = Target::new(Ipv4Addr::new(10, 0, 0, 1), ports).unwrap();
        let spec = PublicationSpec::new(published, target, SourceMode::Gateway).unwrap();
        let json = serde_json::to_string(&spec).unwrap();
        prop_assert_eq!(serde_json::from_str::<PublicationSpec>(&json).unwrap(), spec);
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in ".{0,40}") {
        let _ = text.parse::<Published>().map_err(|error| (error.to_string(), error.hint()));
        let _ = text.parse::<Target>().map_err(|error| (error.to_string(), error.hint()));
    }

    #[test]
    fn whatever_parses_is_shown_in_a_form_that_parses_to_the_same(
        text in r"(\[[0-9a-f:]{2,8}\]:)?[0-9]{1,5}(-[0-9]{1,5})?(/(tcp|udp|TCP))?"
    ) {
        if let Ok(parsed) = text.parse::<Published>() {
            prop_assert_eq!(parsed.to_string().parse(), Ok(parsed));
        }
    }
}
