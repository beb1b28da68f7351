//! Keys as a token's objects: read, made, and what their signatures and points look like on the wire of certificates.

use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use penstock_proto::keys::KeyKind;

use super::error::TokenError;
use super::uri::KeyUri;

/// The curves as a token names them (DER): P-256 and P-384 by identifier, Ed25519 by identifier or by name.
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
const ED25519_NAMED: &[u8] = b"\x13\x0cedwards25519";

/// A key's public half, and what the token says of the private one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPublicKey {
    /// What kind of key it is.
    pub kind: KeyKind,
    /// The uncompressed point of ECDSA, the 32 bytes of Ed25519.
    pub bytes: Vec<u8>,
    /// The private half can be taken off the token, or the module does not say that it cannot.
    pub is_exportable: bool,
}

/// The private key that a URI means, and its public half.
pub(super) fn key(session: &Session, uri: &KeyUri) -> Result<(ObjectHandle, TokenPublicKey), TokenError> {
    let (token, key) = (uri.token_in_words(), uri.key_in_words());
    let failed = |error: Error| TokenError::Failed {
        token: uri.token_in_words(),
        what: "show its keys",
        why: error.to_string(),
    };
    let mut wanted = vec![Attribute::Class(ObjectClass::PRIVATE_KEY)];
    wanted.extend(
        uri.object
            .as_ref()
            .map(|label| Attribute::Label(label.clone().into())),
    );
    wanted.extend(uri.id.clone().map(Attribute::Id));
    let found = session.find_objects(&wanted).map_err(failed)?;
    let handle = match found.as_slice() {
        [] => return Err(TokenError::NoKey { token, key }),
        [one] => *one,
        many => {
            let ids: Vec<String> = many
                .iter()
                .take(8)
                .map(|one| hex::encode(id_of(session, *one)))
                .collect();
            return Err(TokenError::Ambiguous {
                token,
                key,
                count: many.len(),
                ids: ids.join(", "),
            });
        }
    };
    let asked = [
        AttributeType::KeyType,
        AttributeType::Sign,
        AttributeType::Sensitive,
        AttributeType::Extractable,
        AttributeType::AlwaysAuthenticate,
    ];
    // What a module does not answer is no promise.
    let (mut is_sensitive, mut stays, mut why) = (false, false, None);
    for attribute in session.get_attributes(handle, &asked).map_err(failed)? {
        match attribute {
            Attribute::KeyType(KeyType::EC | KeyType::EC_EDWARDS) => {}
            Attribute::KeyType(KeyType::RSA) => why = Some("is an RSA key".to_owned()),
            Attribute::KeyType(other) => why = Some(format!("is a key of another kind ({other})")),
            Attribute::Sign(false) => why = Some("is not one to sign with".to_owned()),
            Attribute::AlwaysAuthenticate(true) => {
                why = Some("wants its PIN typed before each signature, which nobody does here".to_owned());
            }
            Attribute::Sensitive(said) => is_sensitive = said,
            Attribute::Extractable(said) => stays = !said,
            _ => {}
        }
    }
    if let Some(why) = why {
        return Err(TokenError::Kind { token, key, why });
    }
    let mut beside = vec![Attribute::Class(ObjectClass::PUBLIC_KEY)];
    match id_of(session, handle) {
        id if id.is_empty() => beside.extend(
            uri.object
                .as_ref()
                .map(|label| Attribute::Label(label.clone().into())),
        ),
        id => beside.push(Attribute::Id(id)),
    }
    let public = session.find_objects(&beside).map_err(failed)?;
    let Some(public) = public.first() else {
        return Err(TokenError::NoPublicHalf { token, key });
    };
    let (mut curve, mut point) = (Vec::new(), Vec::new());
    let asked = [AttributeType::EcParams, AttributeType::EcPoint];
    for attribute in session.get_attributes(*public, &asked).map_err(failed)? {
        match attribute {
            Attribute::EcParams(bytes) => curve = bytes,
            Attribute::EcPoint(bytes) => point = bytes,
            _ => {}
        }
    }
    let Some((kind, bytes)) = public_key(&curve, &point) else {
        let why = "is on another curve, or its public half cannot be read".to_owned();
        return Err(TokenError::Kind { token, key, why });
    };
    let public = TokenPublicKey {
        kind,
        bytes,
        is_exportable: !(is_sensitive && stays),
    };
    Ok((handle, public))
}

fn id_of(session: &Session, object: ObjectHandle) -> Vec<u8> {
    let read = session
        .get_attributes(object, &[AttributeType::Id])
        .unwrap_or_default();
    read.into_iter()
        .find_map(|attribute| match attribute {
            Attribute::Id(id) => Some(id),
            _ => None,
        })
        .unwrap_or_default()
}

/// The kind and the bytes of a public key, whose point stands in an OCTET STRING (PKCS #11, 2.3.3) or, by some, without.
fn public_key(curve: &[u8], point: &[u8]) -> Option<(KeyKind, Vec<u8>)> {
    let (kind, length) = match curve {
        P256 => (KeyKind::EcdsaP256, 65),
        P384 => (KeyKind::EcdsaP384, 97),
        ED25519 | ED25519_NAMED => (KeyKind::Ed25519, 32),
        _ => return None,
    };
    let bare = match point {
        [0x04, said, rest @ ..] if usize::from(*said) == length && rest.len() == length => rest,
        bare if bare.len() == length => bare,
        _ => return None,
    };
    let is_whole = kind == KeyKind::Ed25519 || bare.first() == Some(&0x04);
    is_whole.then(|| (kind, bare.to_vec()))
}

/// Makes a key pair for signatures: ECDSA P-384 as in files, P-256 where the token has no other.
pub(super) fn make(session: &Session, uri: &KeyUri, id: &[u8]) -> Result<(), Error> {
    let mut named = vec![Attribute::Token(true), Attribute::Id(id.to_vec())];
    named.extend(
        uri.object
            .as_ref()
            .map(|label| Attribute::Label(label.clone().into())),
    );
    let mut last = None;
    for curve in [P384, P256] {
        let public = [
            &named[..],
            &[
                Attribute::Private(false),
                Attribute::Verify(true),
                Attribute::EcParams(curve.to_vec()),
            ],
        ];
        let private = [
            &named[..],
            &[
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::Sign(true),
            ],
        ];
        match session.generate_key_pair(&Mechanism::EccKeyPairGen, &public.concat(), &private.concat()) {
            Ok(_) => return Ok(()),
            Err(
                error @ Error::Pkcs11(
                    RvError::CurveNotSupported
                    | RvError::DomainParamsInvalid
                    | RvError::AttributeValueInvalid
                    | RvError::TemplateInconsistent
                    | RvError::MechanismParamInvalid,
                    _,
                ),
            ) => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    last.map_or(Ok(()), Err)
}

/// A signature's two numbers, one after the other, as certificates have them (RFC 3279, 2.2.3); `None`: they are not two.
pub(super) fn ecdsa_der(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.is_empty() || !raw.len().is_multiple_of(2) || raw.len() > 2 * 48 {
        return None;
    }
    let (r, s) = raw.split_at(raw.len() / 2);
    let integer = |number: &[u8]| {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        let digits = number.get(zeros..).unwrap_or_default();
        let positive = digits.first().is_none_or(|first| first & 0x80 != 0);
        let value: Vec<u8> = positive
            .then_some(0)
            .into_iter()
            .chain(digits.iter().copied())
            .collect();
        tagged(0x02, &value)
    };
    Some(tagged(0x30, &[integer(r), integer(s)].concat()))
}

/// Of at most 127 bytes.
fn tagged(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).unwrap_or(0x7f);
    [&[tag, length], value].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{
        ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
        UnparsedPublicKey,
    };
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn two_numbers_in_a_row_are_the_signature_that_others_verify() {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        // Short numbers are one in 128.
        for number in 0..300u32 {
            let message = number.to_be_bytes();
            let raw = key.sign(&random, &message).unwrap();
            let public = UnparsedPublicKey::new(&ECDSA_P384_SHA384_ASN1, key.public_key().as_ref());
            public
                .verify(&message, &ecdsa_der(raw.as_ref()).unwrap())
                .unwrap();
        }
        assert_eq!(ecdsa_der(&[0; 7]), None);
        assert_eq!(ecdsa_der(&[]), None);
    }

    proptest! {
        #[test]
        fn a_point_is_read_with_its_wrapping_and_without_and_nothing_else_is(bytes in proptest::collection::vec(any::<u8>(), 97)) {
            for (curve, kind, length) in [(P256, KeyKind::EcdsaP256, 65), (P384, KeyKind::EcdsaP384, 97), (ED25519, KeyKind::Ed25519, 32)] {
                let mut bare = bytes[..length].to_vec();
                if kind != KeyKind::Ed25519 {
                    bare[0] = 4;
                }
                let wrapped = tagged(4, &bare);
                prop_assert_eq!(public_key(curve, &bare), Some((kind, bare.clone())));
                prop_assert_eq!(public_key(curve, &wrapped), Some((kind, bare.clone())));
                prop_assert_eq!(public_key(curve, &bare[1..]), None);
                prop_assert_eq!(public_key(&curve[1..], &bare), None);
            }
        }
    }
}
