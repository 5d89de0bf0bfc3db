//! The arguments of `sessions` and `whois`.

use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::api::{ApiError, ErrorCode, SessionFilter};
use crate::model::{PortRange, Protocol, quoted};

/// Reads `KEY=VALUE` arguments; each key once.
pub(super) fn session_filter(arguments: &[String]) -> Result<SessionFilter, ApiError> {
    let mut filter = SessionFilter::default();
    for argument in arguments {
        let SessionFilter { protocol, port, client, alias, state, publication, limit } =
            &mut filter;
        let Some((key, value)) = argument.split_once('=') else {
            return Err(usage(format!("filter {} is not KEY=VALUE", quoted(argument))));
        };
        match key {
            "proto" | "protocol" => set(protocol, argument, value.parse::<Protocol>())?,
            "port" => set(port, argument, single_port(value))?,
            "client" => set(client, argument, bare(value).parse::<Ipv6Addr>())?,
            "alias" => set(alias, argument, value.parse::<Ipv4Addr>())?,
            "state" => set(state, argument, value.parse())?,
            "publication" => set(publication, argument, value.parse::<u32>())?,
            "limit" => set(limit, argument, value.parse::<u32>())?,
            _ => return Err(usage(format!("there is no filter {}", quoted(key)))),
        }
    }
    Ok(filter)
}

/// Reads `ALIAS` or `ALIAS:PORT`.
pub(super) fn alias(text: &str) -> Result<(Ipv4Addr, Option<u16>), ApiError> {
    let (address, port) = match text.split_once(':') {
        Some((address, port)) => (address, Some(single_port(port)?)),
        None => (text, None),
    };
    let address = address.parse().map_err(|_| {
        ApiError::new(ErrorCode::Usage, format!("{} is not an IPv4 address", quoted(text)))
            .with_hint("write an alias as 198.18.0.4 or 198.18.0.4:40000")
    })?;
    Ok((address, port))
}

fn single_port(text: &str) -> Result<u16, ApiError> {
    let range: PortRange = text.parse()?;
    if range.len() == 1 {
        Ok(range.first())
    } else {
        Err(ApiError::new(ErrorCode::Usage, format!("{range} is more than one port")))
    }
}

/// An address with or without its brackets.
fn bare(text: &str) -> &str {
    text.strip_prefix('[').and_then(|inside| inside.strip_suffix(']')).unwrap_or(text)
}

fn set<T, E: Display>(
    slot: &mut Option<T>,
    argument: &str,
    value: Result<T, E>,
) -> Result<(), ApiError> {
    let value = value.map_err(|error| usage(format!("filter {}: {error}", quoted(argument))))?;
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(usage(format!("filter {} comes a second time", quoted(argument)))),
    }
}

fn usage(message: String) -> ApiError {
    ApiError::new(ErrorCode::Usage, message).with_hint(
        "filters are proto=udp port=8080 client=2001:db8::5 alias=198.18.0.4 \
         state=established publication=3 limit=1000",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::SessionState;

    fn filter(arguments: &[&str]) -> Result<SessionFilter, String> {
        let arguments: Vec<_> = arguments.iter().map(|&text| text.to_owned()).collect();
        session_filter(&arguments).map_err(|error| {
            assert_eq!(error.code, ErrorCode::Usage);
            assert!(error.hint.is_some());
            error.message
        })
    }

    #[test]
    fn all_of_them() {
        assert_eq!(filter(&[]), Ok(SessionFilter::default()));
        let all = filter(&[
            "proto=udp",
            "port=8080",
            "client=[2001:db8::5]",
            "alias=198.18.0.4",
            "state=v6-fin",
            "publication=3",
            "limit=10",
        ]);
        let expected = SessionFilter {
            protocol: Some(Protocol::Udp),
            port: Some(8080),
            client: Some("2001:db8::5".parse().unwrap()),
            alias: Some("198.18.0.4".parse().unwrap()),
            state: Some(SessionState::V6Fin),
            publication: Some(3),
            limit: Some(10),
        };
        assert_eq!(all, Ok(expected));
    }

    #[test]
    fn each_mistake_is_named() {
        for (argument, said) in [
            ("udp", "filter 'udp' is not KEY=VALUE"),
            ("colour=red", "there is no filter 'colour'"),
            ("proto=sctp", "filter 'proto=sctp': protocol sctp is not supported"),
            ("port=0", "filter 'port=0': port 0"),
            ("port=1-2", "1-2 is more than one port"),
            ("client=198.18.0.4", "filter 'client=198.18.0.4': invalid IPv6"),
            ("alias=::1", "filter 'alias=::1': invalid IPv4"),
            ("state=open", "'open' is not a session state: use one of half-open, established"),
            ("publication=-1", "filter 'publication=-1': invalid digit"),
        ] {
            let error = filter(&[argument]).unwrap_err();
            assert!(error.contains(said), "{argument}: {error}");
        }
        assert!(filter(&["port=1", "port=2"]).unwrap_err().contains("second time"));
    }

    #[test]
    fn aliases() {
        let address = Ipv4Addr::new(198, 18, 0, 4);
        assert_eq!(alias("198.18.0.4"), Ok((address, None)));
        assert_eq!(alias("198.18.0.4:40000"), Ok((address, Some(40_000))));
        for text in ["", "198.18.0.4:", "198.18.0.4:0", "2001:db8::5", "web:80", "198.18.0.4:1:2"] {
            assert_eq!(alias(text).unwrap_err().code, ErrorCode::Usage, "{text}");
        }
    }
}
