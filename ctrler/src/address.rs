//! The text form of a server's address.

/// Longest address, bytes.
pub const MAX_ADDRESS: usize = 255;

/// Checks that `text` is "host:port" with a port from 1 to 65535; the error says what was
/// expected. Looks nothing up: whether the name resolves is found out when connecting, each time
/// anew.
pub fn check_address(text: &str) -> Result<(), String> {
    if text.len() > MAX_ADDRESS {
        return Err(format!(
            "an address of {} bytes is too long: at most {MAX_ADDRESS} are allowed",
            text.len()
        ));
    }
    match split(text) {
        Some((_, port)) if port != 0 => Ok(()),
        _ => Err(format!(
            "{text:?} is not an address: expected HOST:PORT with a port from 1 to 65535, such as \
             10.0.0.1:7000, db1.example:7000 or [::1]:7000"
        )),
    }
}

/// The port of a well-formed address.
pub fn port(text: &str) -> Option<u16> {
    split(text).map(|(_, port)| port)
}

fn split(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    // `u16::from_str` takes "+7"; an address does not.
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let port = port.parse().ok()?;
    let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let good = match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')?
            .parse::<std::net::Ipv6Addr>()
            .is_ok(),
        None => !host.is_empty() && host.bytes().all(name),
    };
    good.then_some((host, port))
}
