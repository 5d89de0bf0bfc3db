//! Which way a publication's clients take.

use crate::config::HostFirewall;
use crate::model::{PathMode, PublicationSpec};
use crate::topology::FirewallFinding;

/// The way of clients that come in on an uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The kernel's.
    Kernel,
    /// The proxy's, for this reason.
    Proxy(String),
}

impl Way {
    /// Whether it is the proxy's.
    pub const fn is_proxy(&self) -> bool {
        matches!(self, Self::Proxy(_))
    }
}

/// The way for `spec`, given what of the host's firewall could block clients, and whether the kernel path
/// serves the host itself.
///
/// Packets on the kernel path don't meet the firewall. Where it could block some, the proxy is behind it,
/// unless somebody has said who may connect (`--allow`), or that the firewall doesn't matter.
pub fn way_of(
    spec: &PublicationSpec,
    firewall: &[FirewallFinding],
    said: HostFirewall,
    loopback: bool,
) -> Way {
    if let Some(version) = spec.proxy_protocol() {
        return Way::Proxy(format!("the PROXY protocol {version} is asked for"));
    }
    match spec.path() {
        PathMode::Kernel => Way::Kernel,
        PathMode::Proxy => Way::Proxy("asked for".into()),
        PathMode::Auto if spec.host().address().is_loopback() && !loopback => Way::Proxy(
            "only the host itself has this address, which the kernel path doesn't serve".into(),
        ),
        PathMode::Auto => match firewall.first() {
            Some(finding) if said == HostFirewall::Honour && spec.access().allow().is_empty() => {
                Way::Proxy(format!("the host's firewall may block clients ({finding})"))
            }
            _ => Way::Kernel,
        },
    }
}

/// Whether the ports of `spec` are held by sockets of the proxy.
pub fn is_held(spec: &PublicationSpec) -> bool {
    spec.path() != PathMode::Kernel
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Access, Limits, ProxyProtocol, SourceMode};
    use crate::topology::FirewallBackend;

    fn spec(published: &str, path: PathMode, v2: bool, allow: &[&str]) -> PublicationSpec {
        let target = "172.17.0.2:80".parse().unwrap();
        let spec = PublicationSpec::new(published.parse().unwrap(), target, SourceMode::Auto);
        let access = Access::new(allow.iter().map(|it| it.parse().unwrap()), []).unwrap();
        let spec = spec.unwrap().guarded(access, Limits::default());
        spec.by_way_of(path, v2.then_some(ProxyProtocol::V2)).unwrap()
    }

    #[test]
    fn the_firewall_is_met_unless_somebody_has_said_otherwise() {
        let finding = FirewallFinding {
            backend: FirewallBackend::Nftables,
            table: "inet filter".into(),
            chain: "input".into(),
            why: "policy drop".into(),
        };
        let (honour, bypass) = (HostFirewall::Honour, HostFirewall::Bypass);
        use PathMode::{Auto, Kernel, Proxy};
        for (spec, firewall, said, proxied) in [
            (spec("80", Auto, false, &[]), false, honour, false),
            (spec("80", Auto, false, &[]), true, honour, true),
            (spec("80", Auto, false, &[]), true, bypass, false),
            (spec("80", Auto, false, &["::/0"]), true, honour, false),
            (spec("80", Kernel, false, &[]), true, honour, false),
            (spec("80", Proxy, false, &["::/0"]), false, bypass, true),
            (spec("80", Auto, true, &["::/0"]), false, bypass, true),
            (spec("[::1]:80", Auto, false, &[]), false, bypass, false),
            (spec("[::1]:80", Auto, false, &[]), true, honour, true),
            (spec("[::1]:80", Kernel, false, &[]), false, bypass, false),
        ] {
            let findings = if firewall { vec![finding.clone()] } else { Vec::new() };
            let way = way_of(&spec, &findings, said, true);
            assert_eq!(
                way.is_proxy(),
                proxied,
                "{spec} {} {firewall} {said}: {way:?}",
                spec.path()
            );
        }
    }

    #[test]
    fn without_the_loopback_interface_the_hosts_own_address_is_the_proxys() {
        let way = |published| {
            way_of(&spec(published, PathMode::Auto, false, &[]), &[], HostFirewall::Honour, false)
        };
        assert!(way("[::1]:80").is_proxy());
        assert!(!way("80").is_proxy());
    }
}
