//! Certificate requests as text (RFC 7468).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

const BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----";
const END: &str = "-----END CERTIFICATE REQUEST-----";

/// As it is carried from one machine to another.
pub(super) fn request_pem(der: &[u8]) -> String {
    let encoded = BASE64.encode(der);
    let mut text = format!("{BEGIN}\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at_checked(64).unwrap_or((rest, ""));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str(END);
    text.push('\n');
    text
}

/// The request in a text, if there is one.
pub(super) fn request_der(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, rest) = text.split_once(BEGIN)?;
    let (encoded, _) = rest.split_once(END)?;
    let encoded: String = encoded.split_whitespace().collect();
    BASE64.decode(encoded).ok()
}
