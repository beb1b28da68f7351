//! The few structures of EST in DER: certificates in a PKCS#7 that signs nothing, and what a request should look like.
//!
//! A `certs-only` answer (RFC 7030, 4.1.3; RFC 5272, 4.1) is a CMS `SignedData` without a signer whose set of certificates is all that it
//! says. Nobody believes anything because it stands in one.

use rustls::pki_types::CertificateDer;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `[0]`, constructed: what a `ContentInfo` holds, and the certificates of a `SignedData`.
const FIRST: u8 = 0xa0;

/// 1.2.840.113549.1.7.2, `id-signedData`.
const SIGNED_DATA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
/// 1.2.840.113549.1.7.1, `id-data`.
const DATA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
/// 1.2.840.10045.2.1, `id-ecPublicKey`.
const EC_PUBLIC_KEY: &[u8] = &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
/// 1.2.840.10045.3.1.7, `secp256r1`.
const SECP256R1: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
/// 1.2.840.10045.4.3.2, `ecdsa-with-SHA256`.
const ECDSA_WITH_SHA256: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
/// The number 1.
const VERSION: &[u8] = &[0x02, 1, 1];

/// A value with its tag and length.
fn tagged(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut written = vec![tag];
    match u8::try_from(content.len()) {
        Ok(length @ 0..=0x7f) => written.push(length),
        _ => {
            let bytes = content.len().to_be_bytes();
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            let length = bytes.get(zeros..).unwrap_or_default();
            written.push(0x80 | u8::try_from(length.len()).unwrap_or(8));
            written.extend_from_slice(length);
        }
    }
    written.extend(content);
    written
}

/// These certificates, as `application/pkcs7-mime; smime-type=certs-only` has them.
pub(super) fn certs_only(certificates: &[CertificateDer<'_>]) -> Vec<u8> {
    // The order of a set in DER.
    let mut sorted: Vec<&[u8]> = certificates.iter().map(AsRef::as_ref).collect();
    sorted.sort_unstable();
    let signed = tagged(
        SEQUENCE,
        &[
            VERSION,
            &tagged(SET, &[]),
            &tagged(SEQUENCE, &[DATA]),
            &tagged(FIRST, &sorted),
            &tagged(SET, &[]),
        ],
    );
    tagged(SEQUENCE, &[SIGNED_DATA, &tagged(FIRST, &[&signed])])
}

/// What a request should have (RFC 7030, 4.5.2): an ECDSA key on P-256, by which it is signed with SHA-256.
pub(super) fn csr_attributes() -> Vec<u8> {
    let key = tagged(SEQUENCE, &[EC_PUBLIC_KEY, &tagged(SET, &[SECP256R1])]);
    tagged(SEQUENCE, &[&key, ECDSA_WITH_SHA256])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_length_is_written_in_as_few_bytes_as_it_takes() {
        for (length, head) in [
            (0, &[0x30, 0][..]),
            (0x7f, &[0x30, 0x7f]),
            (0x80, &[0x30, 0x81, 0x80]),
            (0xff, &[0x30, 0x81, 0xff]),
            (0x100, &[0x30, 0x82, 1, 0]),
            (0x1_0000, &[0x30, 0x83, 1, 0, 0]),
        ] {
            let written = tagged(SEQUENCE, &[&vec![7; length]]);
            assert!(written.starts_with(head), "{length}");
            assert_eq!(written.len(), head.len() + length);
        }
    }
}
