//! The role that a device's certificate gives it: the X.509 extension of Modbus/TCP Security (MB-TCP-Security-v21, role-based client
//! authorization), one name as a UTF8String.
//!
//! Only what the plant's authority certified is read, and read strictly: a certificate has no role, or exactly one that is a name. What is
//! anything else (two extensions, two names, another type, an empty or too long name) is a fault with its reason, never a guess at one of
//! them. The cost is bounded: nothing is read beyond the extension's first hundred bytes.

use penstock_policy::ids::{NAME_LENGTH_MAX, NameError, RoleName};
use rustls::pki_types::CertificateDer;
use x509_parser::oid_registry::Oid;

/// The extension's object identifier, 1.3.6.1.4.1.50316.802.1: Modbus.org's.
pub const ROLE_OID: &[u64] = &[1, 3, 6, 1, 4, 1, 50316, 802, 1];
/// The tag of a UTF8String (X.680).
const UTF8_STRING: u8 = 0x0c;

/// Why a certificate's role is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    /// It is no X.509 certificate.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// The extension stands there more than once.
    #[error("the certificate has {0} role extensions, and one device has one role")]
    Extensions(usize),
    /// Not a UTF8String.
    #[error("the role in the certificate is not a UTF8String (its tag is {0:#04x}, not 0x0c)")]
    Type(u8),
    /// The extension is empty, its length is not its length, or it is not written as DER.
    #[error("the role extension of the certificate is not well-formed DER")]
    Encoding,
    /// Something follows the name.
    #[error("the role extension of the certificate holds more than one role")]
    Several,
    /// Bytes that are no UTF-8.
    #[error("the role in the certificate is not UTF-8")]
    Text,
    /// Not the form of a name.
    #[error("the role in the certificate is not a name: {0}")]
    Name(#[source] NameError),
}

/// The role in the leaf of a chain that *has been verified*; `None`: it has none.
///
/// # Errors
/// There is a role extension and not exactly one role in it.
pub fn role_of(leaf: &CertificateDer<'_>) -> Result<Option<RoleName>, RoleError> {
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).map_err(|_| RoleError::Unreadable)?;
    let oid = Oid::from(ROLE_OID).map_err(|_| RoleError::Unreadable)?;
    let mut found = certificate
        .extensions()
        .iter()
        .filter(|extension| extension.oid == oid);
    match (found.next(), found.count()) {
        (None, _) => Ok(None),
        (Some(extension), 0) => read(extension.value).map(Some),
        (Some(_), more) => Err(RoleError::Extensions(more.saturating_add(1))),
    }
}

/// Reads what is in the extension.
fn read(value: &[u8]) -> Result<RoleName, RoleError> {
    let (tag, rest) = value.split_first().ok_or(RoleError::Encoding)?;
    if *tag != UTF8_STRING {
        return Err(RoleError::Type(*tag));
    }
    let (length, rest) = match rest.split_first().ok_or(RoleError::Encoding)? {
        (short @ 0..=0x7f, rest) => (usize::from(*short), rest),
        // What is longer is no name. DER has the short form wherever that is enough.
        (0x81, rest) => match rest.split_first() {
            Some((length @ 0x80.., rest)) if rest.len() == usize::from(*length) => {
                return Err(RoleError::Name(NameError::TooLong(rest.len())));
            }
            _ => return Err(RoleError::Encoding),
        },
        (0x82, rest) => match rest {
            [high @ 1..=0xff, low, rest @ ..]
                if rest.len() == usize::from(u16::from_be_bytes([*high, *low])) =>
            {
                return Err(RoleError::Name(NameError::TooLong(rest.len())));
            }
            _ => return Err(RoleError::Encoding),
        },
        _ => return Err(RoleError::Encoding),
    };
    if rest.len() < length {
        return Err(RoleError::Encoding);
    }
    if rest.len() > length {
        return Err(RoleError::Several);
    }
    let text = std::str::from_utf8(rest).map_err(|_| RoleError::Text)?;
    RoleName::new(text).map_err(RoleError::Name)
}

/// What stands in the extension of a certificate for a device in this role.
pub fn encoded(role: &RoleName) -> Vec<u8> {
    const {
        assert!(
            NAME_LENGTH_MAX < 0x80,
            "the short form of a length is enough for a name"
        )
    };
    let text = role.as_str().as_bytes();
    // A name has at most 63 bytes.
    let length = u8::try_from(text.len()).unwrap_or(0x7f);
    let mut value = vec![UTF8_STRING, length];
    value.extend_from_slice(text);
    value
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn certificate(values: &[&[u8]]) -> CertificateDer<'static> {
        let mut params = rcgen::CertificateParams::default();
        for value in values {
            let extension = rcgen::CustomExtension::from_oid_content(ROLE_OID, value.to_vec());
            params.custom_extensions.push(extension);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    fn name(text: &str) -> RoleName {
        RoleName::new(text).unwrap()
    }

    proptest! {
        #[test]
        fn every_role_is_read_as_it_was_written_and_no_other_bytes_are_that_role(
            text in "[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", at in any::<prop::sample::Index>(), bit in 0_u8..8
        ) {
            let role = name(&text);
            let written = encoded(&role);
            prop_assert_eq!(read(&written), Ok(role.clone()));
            let mut other = written.clone();
            other[at.index(written.len())] ^= 1_u8 << bit;
            prop_assert_ne!(read(&other), Ok(role.clone()));
            prop_assert!(read(&written[..at.index(written.len())]).is_err());
            let mut longer = written;
            longer.push(b'x');
            prop_assert_eq!(read(&longer), Err(RoleError::Several));
        }

        #[test]
        fn whatever_stands_in_the_extension_is_one_role_in_its_only_spelling_or_refused(value in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(role) = read(&value) {
                prop_assert_eq!(encoded(&role), value);
            }
        }
    }

    #[test]
    fn a_certificate_has_no_role_or_exactly_one() {
        let operator = encoded(&name("operator"));
        assert_eq!(role_of(&certificate(&[])), Ok(None));
        assert_eq!(role_of(&certificate(&[&operator])), Ok(Some(name("operator"))));
        let engineer = encoded(&name("engineer"));
        assert_eq!(
            role_of(&certificate(&[&operator, &engineer])),
            Err(RoleError::Extensions(2))
        );
    }

    #[test]
    fn near_misses_of_a_role_are_refused_each_with_its_reason() {
        let of = |tag: u8, text: &[u8]| {
            let mut value = vec![tag, u8::try_from(text.len()).unwrap()];
            value.extend_from_slice(text);
            value
        };
        let two = [of(0x0c, b"operator"), of(0x0c, b"engineer")].concat();
        let mut long_form = vec![0x0c, 0x81, 8];
        long_form.extend_from_slice(b"operator");
        let mut too_long = vec![0x0c, 0x82, 1, 0x2c];
        too_long.extend_from_slice(&[b'a'; 300]);
        for (value, expected) in [
            (of(0x13, b"operator"), RoleError::Type(0x13)),
            (of(0x30, &two), RoleError::Type(0x30)),
            (of(0x0c, b""), RoleError::Name(NameError::Empty)),
            (of(0x0c, &[b'a'; 64]), RoleError::Name(NameError::TooLong(64))),
            (too_long, RoleError::Name(NameError::TooLong(300))),
            (
                of(0x0c, b"Operator"),
                RoleError::Name(NameError::Malformed("Operator".to_owned())),
            ),
            (of(0x0c, b"\xff\xfe"), RoleError::Text),
            (two, RoleError::Several),
            (long_form, RoleError::Encoding),
            (b"\x0c\x09operator".to_vec(), RoleError::Encoding),
            (b"\x0c\x80operator\0\0".to_vec(), RoleError::Encoding),
            (Vec::new(), RoleError::Encoding),
        ] {
            assert_eq!(
                role_of(&certificate(&[&value])),
                Err(expected.clone()),
                "{value:?}"
            );
            assert!(!expected.to_string().is_empty());
        }
    }
}
