//! An address as a URL, which other programs take: `mqtt://host:port`.

/// The host and port behind the scheme, if there is one; what is wrong with schemes that ask for more than plain MQTT.
pub(super) fn split(text: &str) -> Result<&str, String> {
    let Some((scheme, rest)) = text.split_once("://") else { return Ok(text) };
    match scheme.to_ascii_lowercase().as_str() {
        "mqtt" | "tcp" => Ok(rest.strip_suffix('/').unwrap_or(rest)),
        "mqtts" | "ssl" | "tls" => Err("there is no TLS yet".to_owned()),
        "ws" => Err("there is no WebSocket yet".to_owned()),
        "wss" => Err("there is neither WebSocket nor TLS yet".to_owned()),
        _ => Err("only mqtt:// is known".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_plain_scheme_is_taken_off() {
        for (text, rest) in [
            ("a:1", Some("a:1")),
            ("mqtt://a:1", Some("a:1")),
            ("MQTT://a:1/", Some("a:1")),
            ("tcp://[::1]", Some("[::1]")),
            ("mqtts://a", None),
            ("wss://a/mqtt", None),
            ("http://a", None),
        ] {
            assert_eq!(split(text).ok(), rest, "{text}");
        }
    }
}
