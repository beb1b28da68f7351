//! Keys in the forms that people write, made by `ssh-keygen`.

#![allow(clippy::unwrap_used)]
use super::*;

/// `ssh-keygen -t ed25519`.
const SSH: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop";
const POINT: &str = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29";

fn key(text: &str) -> Result<PublicKey, PublicKeyError> {
    PublicKey::try_from(text.to_owned())
}

fn hardware(application: &str) -> String {
    let mut blob = Vec::new();
    ssh::put(&mut blob, HARDWARE_KIND.as_bytes());
    ssh::put(&mut blob, &hex::decode(POINT).unwrap());
    ssh::put(&mut blob, application.as_bytes());
    format!("{HARDWARE_KIND} {}", BASE64.encode(blob))
}

#[test]
fn a_key_is_written_in_the_form_in_which_it_was_read_without_its_comment() {
    let plain = format!("ed25519:{POINT}");
    let hard = hardware("ssh:");
    let verified = format!("verify-required {hard}");
    for (text, written) in [
        (plain.clone(), &plain),
        (plain.to_uppercase().replace("ED25519", "ed25519"), &plain),
        (format!("{SSH} j.meyer@office  2031"), &SSH.to_owned()),
        (format!(" {}\t", SSH.replace(' ', "  ")), &SSH.to_owned()),
        (format!("{hard} j.meyer"), &hard),
        (verified.clone(), &verified),
    ] {
        let read = key(&text).unwrap();
        assert_eq!(read.to_string(), *written, "{text}");
        assert_eq!(hex::encode(read.point()), POINT);
        assert_eq!(serde_json::to_value(read).unwrap(), *written.as_str());
    }
}

#[test]
fn the_forms_of_one_point_are_one_persons_and_not_one_key() {
    let keys = [
        format!("ed25519:{POINT}"),
        SSH.to_owned(),
        hardware("ssh:"),
        hardware("ssh:penstock"),
    ];
    let keys = keys.map(|text| key(&text).unwrap());
    for (at, one) in keys.iter().enumerate() {
        for (beside, other) in keys.iter().enumerate() {
            assert_eq!(one.point(), other.point());
            assert_eq!(one == other, at == beside);
            // Only how a key outside hardware is written makes no other of it.
            assert_eq!(one.is_held_as(other), at == beside || at.max(beside) < 2);
        }
    }
    let verified = key(&format!("verify-required {}", hardware("ssh:"))).unwrap();
    assert!(verified.is_held_as(&keys[2]) && verified != keys[2]);
}

#[test]
fn what_is_no_key_that_counts_is_refused_by_what_it_is() {
    let weak = BASE64.encode({
        let mut blob = Vec::new();
        ssh::put(&mut blob, b"ssh-ed25519");
        ssh::put(&mut blob, &[0; 32]);
        blob
    });
    let other = |kind: &str| PublicKeyError::Kind(kind.to_owned());
    let long = "x".repeat(APPLICATION_BYTES_MAX + 1);
    let swapped = hardware("ssh:").replace(HARDWARE_KIND, SSH_KIND);
    for (text, expected) in [
        (String::new(), PublicKeyError::Form),
        (format!("ed25519:{}", &POINT[2..]), PublicKeyError::Form),
        ("PRIVATE KEY".to_owned(), PublicKeyError::Form),
        (
            format!("{SSH} {}", "x".repeat(TEXT_BYTES_MAX)),
            PublicKeyError::Form,
        ),
        ("ssh-rsa AAAAB3NzaC1yc2E=".to_owned(), other("ssh-rsa")),
        (
            "sk-ecdsa-sha2-nistp256@openssh.com AAAA".to_owned(),
            other("sk-ecdsa-sha2-nistp256@openssh.com"),
        ),
        (
            format!("no-touch-required {}", hardware("ssh:")),
            other("no-touch-required"),
        ),
        (SSH[..SSH.len() - 4].to_owned(), PublicKeyError::Damaged),
        (format!("{SSH}AAAA"), PublicKeyError::Damaged),
        (swapped, PublicKeyError::Damaged),
        (format!("ssh-ed25519 {weak}"), PublicKeyError::Point),
        (format!("ed25519:{}", "00".repeat(32)), PublicKeyError::Point),
        (hardware(&long), PublicKeyError::Application(long.len())),
        (format!("verify-required {SSH}"), PublicKeyError::NothingToVerify),
    ] {
        assert_eq!(key(&text).unwrap_err(), expected, "{text}");
    }
    assert!(key(&hardware(&long[1..])).is_ok());
}
