//! The variables that Kubernetes sets in every pod for every Service of its namespace. Those of a Service named `cache` or
//! `dev-redis` look like ours: `CACHE_PORT=tcp://10.0.0.1:6379`.

/// The form of a service's address in `<SERVICE>_PORT` and similar variables.
const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// The Service that a variable describes, as it is written in its name; [`None`] if it is not such a variable.
pub(super) fn service<'a>(name: &'a str, value: &str) -> Option<&'a str> {
    address(name)
        .or_else(|| name.strip_suffix("_PORT").filter(|_| is_address(value)))
        .or_else(|| port_of_protocol(name))
        .filter(|service| !service.is_empty())
}

/// `<SERVICE>_SERVICE_HOST`, `<SERVICE>_SERVICE_PORT`, `<SERVICE>_SERVICE_PORT_<NAME>`
fn address(name: &str) -> Option<&str> {
    for end in ["_SERVICE_HOST", "_SERVICE_PORT"] {
        if let Some(service) = name.strip_suffix(end) {
            return Some(service);
        }
    }
    let (service, port) = name.split_once("_SERVICE_PORT_")?;
    (!port.is_empty()).then_some(service)
}

/// `<SERVICE>_PORT_<number>_<protocol>`, and the same with `_PROTO`, `_PORT` or `_ADDR` appended
fn port_of_protocol(name: &str) -> Option<&str> {
    let bare = ["_PROTO", "_PORT", "_ADDR"]
        .into_iter()
        .find_map(|end| name.strip_suffix(end))
        .unwrap_or(name);
    let (rest, protocol) = bare.rsplit_once('_')?;
    let (rest, number) = rest.rsplit_once('_')?;
    let is_port = number.parse::<u16>().is_ok()
        && PROTOCOLS
            .iter()
            .any(|known| known.eq_ignore_ascii_case(protocol));
    rest.strip_suffix("_PORT").filter(|_| is_port)
}

/// Returns whether a value is `tcp://10.0.0.1:6379` or the like.
fn is_address(value: &str) -> bool {
    value.split_once("://").is_some_and(|(scheme, rest)| {
        !rest.is_empty()
            && PROTOCOLS
                .iter()
                .any(|known| known.eq_ignore_ascii_case(scheme))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_service_is_found_in_each_of_its_variables() {
        for (name, value) in [
            ("CACHE_A_SERVICE_HOST", "10.0.0.1"),
            ("CACHE_A_SERVICE_PORT", "6379"),
            ("CACHE_A_SERVICE_PORT_REDIS_TLS", "6380"),
            ("CACHE_A_PORT", "tcp://10.0.0.1:6379"),
            ("CACHE_A_PORT", "udp://[fd00::1]:53"),
            ("CACHE_A_PORT_6379_TCP", "tcp://10.0.0.1:6379"),
            ("CACHE_A_PORT_6379_TCP_PROTO", "tcp"),
            ("CACHE_A_PORT_6379_TCP_PORT", "6379"),
            ("CACHE_A_PORT_53_UDP_ADDR", "10.0.0.1"),
            ("CACHE_A_PORT_9_SCTP", "sctp://10.0.0.1:9"),
        ] {
            assert_eq!(service(name, value), Some("CACHE_A"), "{name}={value}");
        }
    }

    #[test]
    fn similar_variables_are_not_service_links() {
        for (name, value) in [
            ("CACHE_PORT", "6379"),
            ("CACHE_PORT", "redis://10.0.0.1:6379"),
            ("CACHE_PORT", "tcp://"),
            ("CACHE_PORT_6379", "tcp://10.0.0.1:6379"),
            ("CACHE_PORT_X_TCP", "tcp://10.0.0.1:6379"),
            ("CACHE_PORT_6379_HTTP", "x"),
            ("CACHE_PORT_99999_TCP", "x"),
            ("CACHE_SERVICE_PORTS", "6379"),
            ("CACHE_SERVICE_PORT_", "6379"),
            ("_SERVICE_HOST", "10.0.0.1"),
            ("CACHE_POOL_MAX", "50"),
        ] {
            assert_eq!(service(name, value), None, "{name}={value}");
        }
    }
}
