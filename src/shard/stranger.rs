//! Connections that do not begin with CONNECT: a guess at their protocol, from their first bytes.

/// The name of another protocol, with advice for the operator.
pub(super) fn protocol_of(bytes: &[u8]) -> Option<&'static str> {
    const METHODS: [&[u8]; 8] =
        [b"GET ", b"POST ", b"HEAD ", b"PUT ", b"OPTIONS ", b"DELETE ", b"CONNECT ", b"PRI * "];
    const PROXY: [&[u8]; 2] = [b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];
    let begins_with = |beginnings: &[&[u8]]| beginnings.iter().any(|one| bytes.starts_with(one));
    // This is a record of a handshake.
    if let [0x16, 3, 0..=4, ..] = bytes {
        return Some("TLS, and this port speaks plain MQTT; there is no TLS yet");
    }
    if begins_with(&METHODS) {
        let says_upgrade = bytes.windows(9).any(|word| word.eq_ignore_ascii_case(b"websocket"));
        return Some(match says_upgrade {
            true => "WebSocket, and this port speaks plain MQTT; there is no WebSocket yet",
            false => "HTTP, and this port speaks MQTT",
        });
    }
    if begins_with(&PROXY) {
        return Some("the PROXY protocol, which is not there yet: switch it off in the balancer");
    }
    bytes.starts_with(b"SSH-").then_some("SSH, and this port speaks MQTT")
}

#[cfg(test)]
mod tests {
    use super::protocol_of;

    #[test]
    fn the_protocol_is_told_by_its_first_bytes() {
        for (bytes, told) in [
            (&b"\x16\x03\x01\x02\x00\x01"[..], Some("TLS")),
            (b"\x16\x03\x05", None),
            (b"GET / HTTP/1.1\r\n\r\n", Some("HTTP")),
            (b"GET /mqtt HTTP/1.1\r\nUpgrade: WebSocket\r\n\r\n", Some("WebSocket")),
            (b"PROXY TCP4 10.0.0.1", Some("the PROXY protocol")),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11", Some("the PROXY protocol")),
            (b"SSH-2.0-OpenSSH", Some("SSH")),
            (b"\x10\x0c\x00\x04MQTT", None),
            (b"GETTING", None),
            (b"", None),
        ] {
            let found = protocol_of(bytes);
            assert_eq!(found.is_some(), told.is_some(), "{bytes:?}");
            assert!(found.is_none_or(|found| found.starts_with(told.unwrap())), "{bytes:?}");
        }
    }
}
