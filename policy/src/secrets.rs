//! What looks like a secret in a text: a private key, a token, or one long word of random letters.
//!
//! Plant documents hold none. They go into version control, to the coordinator and to people's screens, and the file that a
//! person names may be the wrong one: so whoever reads texts looks here first, and shows nothing of one with a secret in it.

/// A secret in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Secret {
    /// Where it begins, bytes.
    pub at: usize,
    /// What it is, with its article.
    pub what: &'static str,
}

/// How secrets begin that say what they are.
const BEGINNINGS: [(&str, &str); 3] = [
    ("penstock-token-1.", "an enrolment token"),
    ("AGE-SECRET-KEY-", "a private key"),
    ("PuTTY-User-Key-File-", "a private key"),
];
/// A word of at least so many characters may be a key; 32 bytes in base64 have 43.
const KEY_LENGTH_MIN: usize = 40;

/// The first secret in `text`, if any.
pub fn find(text: &str) -> Option<Secret> {
    let named = BEGINNINGS.iter().filter_map(|(beginning, what)| {
        let at = text.find(beginning)?;
        Some(Secret { at, what })
    });
    named
        .chain(private_key(text))
        .chain(only_a_key(text))
        .min_by_key(|secret| secret.at)
}

/// Whether the line of a text that holds the byte `at` may show a secret: it has one in it, or a key that is named like one.
/// For readers of configurations, whose libraries would print the line that they refuse.
pub fn on_line(text: &str, at: usize) -> bool {
    let (before, after) = text.split_at_checked(at).unwrap_or((text, ""));
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let line: String = [
        before.get(start..).unwrap_or_default(),
        after.lines().next().unwrap_or_default(),
    ]
    .concat();
    let key = line
        .split(['=', ':'])
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let named = ["password", "passphrase", "secret", "token", "key"];
    named.iter().any(|name| key.ends_with(name)) || find(text).is_some()
}

/// `-----BEGIN … PRIVATE KEY-----`, of whatever kind.
fn private_key(text: &str) -> Option<Secret> {
    const BEGIN: &str = "-----BEGIN ";
    text.match_indices(BEGIN).find_map(|(at, _)| {
        let label = text.get(at + BEGIN.len()..)?.lines().next()?;
        label.contains("PRIVATE KEY").then_some(Secret {
            at,
            what: "a private key",
        })
    })
}

/// A text that is one long word, as keys in hexadecimal or base64 are. Nothing that says something is.
fn only_a_key(text: &str) -> Option<Secret> {
    let word = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let of_a_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_');
    let is_one =
        word.len() >= KEY_LENGTH_MIN && word.lines().all(|line| line.trim_end().chars().all(of_a_key));
    is_one.then_some(Secret {
        at: 0,
        what: "what looks like a key",
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_and_tokens_are_known_wherever_they_stand_and_of_whatever_kind() {
        for (text, what, at) in [
            ("-----BEGIN PRIVATE KEY-----\nMC4C", "a private key", 0),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMC4C", "a private key", 0),
            (
                "\u{feff}-----BEGIN OPENSSH PRIVATE KEY-----\r\nb3Bl",
                "a private key",
                3,
            ),
            (
                "zones:\n  # -----BEGIN EC PRIVATE KEY-----\n",
                "a private key",
                11,
            ),
            ("# created\nAGE-SECRET-KEY-1QQQ\n", "a private key", 10),
            ("penstock-token-1.eyJwbGFudCI6\n", "an enrolment token", 0),
            ("note: penstock-token-1.eyJwbGFudCI6\n", "an enrolment token", 6),
            (
                "yGpVnWzQ0kSf3D1cZqT7uJb5eRmXoH2aLw8vN4iE6Ks=\n",
                "what looks like a key",
                0,
            ),
        ] {
            assert_eq!(find(text), Some(Secret { at, what }), "{text}");
        }
    }

    #[test]
    fn a_line_of_a_configuration_that_is_named_like_a_secret_is_not_shown() {
        let text = "[bridge]\nuser = \"u\"\npassword = \"hunter2\"\npassword_file = 5\n";
        assert!(on_line(text, text.find("hunter2").unwrap()));
        assert!(on_line(text, text.find("password =").unwrap()));
        for shown in ["[bridge]", "\"u\"", "5"] {
            assert!(!on_line(text, text.find(shown).unwrap()), "{shown}");
        }
        assert!(on_line("penstock-token-1.eyJwbGFudCI6", 0));
        assert!(!on_line("", 7));
    }

    #[test]
    fn documents_certificates_and_public_keys_are_no_secrets() {
        for text in [
            "",
            "plant: works\n",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
            "key: \"ed25519:3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29\"\n",
            "a line about -----BEGIN CERTIFICATE----- and, elsewhere,\na PRIVATE KEY-----\n",
            "# this text has no values, but it is long enough for one\n",
        ] {
            assert_eq!(find(text), None, "{text}");
        }
    }
}
