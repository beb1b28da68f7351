//! Approvers whose keys OpenSSH holds, in files and in hardware: what `ssh-keygen -Y sign` made counts just where it should.
//!
//! `fixtures/sshsig.json` was made by OpenSSH, with a FIDO2 token in software (`ctl/tests/cli/token.c`).

use super::*;
use crate::model::{Approver, PublicKey};
use crate::release::sshsig::{SshSignature, SshSignatureError};

#[derive(serde::Deserialize)]
struct Made {
    payload: String,
    keys: BTreeMap<String, PublicKey>,
    signatures: BTreeMap<String, String>,
}

use std::collections::BTreeMap;

fn made() -> Made {
    #[derive(serde::Deserialize)]
    struct File {
        #[serde(flatten)]
        made: Made,
    }
    serde_json::from_str::<File>(include_str!("../../../fixtures/sshsig.json"))
        .unwrap()
        .made
}

impl Made {
    fn read(&self, name: &str) -> SshSignature {
        SshSignature::from_armor(&self.signatures[name]).unwrap()
    }

    fn signature(&self, name: &str) -> Signature {
        let read = self.read(name);
        Signature::new(id("j.meyer"), read.algorithm.as_str(), &read.bytes).unwrap()
    }

    fn check(&self, name: &str, key: &PublicKey) -> Result<(), Misfit> {
        let signed = Signable::release(self.payload.as_bytes());
        self.signature(name).check(&signed, key)
    }
}

fn verify_required(key: &PublicKey) -> PublicKey {
    PublicKey::try_from(format!("verify-required {key}")).unwrap()
}

#[test]
fn what_ssh_keygen_signed_counts_for_the_key_that_it_signed_with() {
    let made = made();
    for name in ["ssh", "touched", "verified"] {
        let key = made.keys[name];
        assert_eq!(made.read(name).key, key);
        assert_eq!(made.read(name).namespace, "penstock-release");
        assert_eq!(made.check(name, &key), Ok(()), "{name}");
        for other in made.keys.values().filter(|other| **other != key) {
            assert!(made.check(name, other).is_err(), "{name} by {other}");
        }
    }
    assert_eq!(
        made.check("verified", &verify_required(&made.keys["verified"])),
        Ok(())
    );
}

#[test]
fn a_hardware_key_that_nobody_touched_or_that_asked_for_no_pin_does_not_count() {
    let made = made();
    let refused = |name: &str, key: &PublicKey| made.check(name, key).unwrap_err();
    assert_eq!(refused("untouched", &made.keys["untouched"]), Misfit::NotTouched);
    let demanding = verify_required(&made.keys["touched"]);
    assert_eq!(refused("touched", &demanding), Misfit::NotVerified);
    // And what the hardware states cannot be altered afterwards.
    for (name, key) in [("untouched", made.keys["untouched"]), ("touched", demanding)] {
        let honest = made.signature(name);
        let mut bytes = honest.bytes().to_vec();
        bytes[64] |= 0x05;
        let forged = Signature::new(id("j.meyer"), honest.algorithm().as_str(), &bytes).unwrap();
        let signed = Signable::release(made.payload.as_bytes());
        assert_eq!(forged.check(&signed, &key), Err(Misfit::Forged), "{name}");
    }
}

#[test]
fn every_bit_of_an_ssh_signature_and_of_what_it_signs_counts() {
    let made = made();
    for name in ["ssh", "touched"] {
        let honest = made.signature(name);
        for bit in 0..honest.bytes().len() * 8 {
            let mut bytes = honest.bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let altered = Signature::new(id("j.meyer"), honest.algorithm().as_str(), &bytes).unwrap();
            let signed = Signable::release(made.payload.as_bytes());
            assert!(!altered.verifies(&signed, &made.keys[name]), "{name}, bit {bit}");
        }
        let other = Signable::release(b"other bytes");
        assert!(!honest.verifies(&other, &made.keys[name]), "{name}");
        let as_override = Signable::new(crate::overrides::PAYLOAD_TYPE, made.payload.as_bytes());
        assert!(!honest.verifies(&as_override, &made.keys[name]), "{name}");
    }
    assert_eq!(made.read("ssh, for an override").namespace, "penstock-override");
    assert_eq!(
        made.check("ssh, for an override", &made.keys["ssh"]),
        Err(Misfit::Forged)
    );
}

/// The seed's key, as the document may have it.
fn forms(seed: u8) -> [PublicKey; 3] {
    let plain = key(seed).public();
    let ssh = PublicKey::from_ssh(&plain.to_ssh()).unwrap();
    let mut blob = Vec::new();
    for part in [b"sk-ssh-ed25519@openssh.com", &plain.point()[..], b"ssh:"] {
        crate::ssh::put(&mut blob, part);
    }
    [plain, ssh, PublicKey::from_ssh(&blob).unwrap()]
}

#[test]
fn a_key_of_one_form_never_counts_with_the_signature_of_another() {
    use ed25519_dalek::Signer as _;
    use sha2::{Digest as _, Sha256};
    let signed = Signable::release(b"statement");
    let secret = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    let sshsig = crate::release::sshsig::message("penstock-release", b"statement");
    let stated = [5, 0, 0, 0, 1];
    let around = [
        Sha256::digest(b"ssh:").as_slice(),
        &stated,
        Sha256::digest(&sshsig).as_slice(),
    ]
    .concat();
    // The same secret signs each of them honestly: only the form of the key decides.
    let signatures = [
        ("ed25519", secret.sign(&signed.dsse()).to_vec()),
        ("ssh-ed25519", secret.sign(&sshsig).to_vec()),
        (
            "sk-ssh-ed25519@openssh.com",
            [secret.sign(&around).to_vec(), stated.to_vec()].concat(),
        ),
    ];
    let counts = signatures.map(|(algorithm, bytes)| {
        let signature = Signature::new(id("j.meyer"), algorithm, &bytes).unwrap();
        forms(7).map(|key| match signature.check(&signed, &key) {
            Ok(()) => true,
            Err(Misfit::Algorithm { .. }) => false,
            Err(other) => panic!("{algorithm} by {key}: {other}"),
        })
    });
    assert_eq!(
        counts,
        [[true, true, false], [false, true, false], [false, false, true]]
    );
}

#[test]
fn an_algorithm_that_is_unknown_is_refused_by_its_name_and_a_length_that_is_wrong_too() {
    let refused = |algorithm: &str, length: usize| {
        Signature::new(id("j.meyer"), algorithm, &vec![0; length]).map_err(OfferRefused::from)
    };
    let unknown = refused("ml-dsa-65", 3309).unwrap_err();
    assert_eq!(unknown.code(), "unknown-algorithm");
    assert!(unknown.to_string().contains("`ml-dsa-65`"), "{unknown}");
    let hostile = refused(&"\u{1b}[2J x".repeat(1000), 64).unwrap_err().to_string();
    assert!(!hostile.contains('\u{1b}') && hostile.len() < 300, "{hostile}");
    for (algorithm, right) in [
        ("", 64),
        ("ed25519", 64),
        ("ssh-ed25519", 64),
        ("sk-ssh-ed25519@openssh.com", 69),
    ] {
        assert!(refused(algorithm, right).is_ok());
        for wrong in [0, right - 1, right + 1, 1 << 20] {
            assert_eq!(refused(algorithm, wrong).unwrap_err().code(), "altered");
        }
    }
}

#[test]
fn a_signature_reads_back_with_its_algorithm_from_each_form_in_which_it_is_kept() {
    let made = made();
    let signatures = vec![made.signature("touched"), {
        let mut plain = key(1).sign_payload(id("a.silva"), &Signable::release(b"x"));
        plain.approver = id("a.silva");
        plain
    }];
    for signature in &signatures {
        let text = signature.to_text();
        let read = Signature::from_text(signature.approver.clone(), &text).unwrap();
        assert_eq!(read, *signature);
    }
    // As software from before wrote it.
    assert!(
        signatures[1]
            .to_text()
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit())
    );
    let envelope = Envelope {
        statement: b"x".to_vec(),
        signatures,
    };
    assert_eq!(Envelope::from_json(&envelope.to_json()).unwrap(), envelope);
    assert_eq!(envelope.to_json().matches("algorithm").count(), 1);
    let unknown = envelope
        .to_json()
        .replace("sk-ssh-ed25519@openssh.com", "ml-dsa-65");
    assert!(matches!(
        Envelope::from_json(&unknown),
        Err(EnvelopeError::Algorithm { .. })
    ));
}

#[test]
fn a_file_that_ssh_keygen_did_not_write_or_wrote_otherwise_is_refused() {
    let made = made();
    let refused = |text: &str| SshSignature::from_armor(text).unwrap_err();
    assert!(matches!(
        refused(&made.signatures["ssh, sha256"]),
        SshSignatureError::Hash(hash) if hash == "sha256"
    ));
    for name in ["ssh", "touched"] {
        let whole = &made.signatures[name];
        for length in 0..whole.len() - 1 {
            assert!(SshSignature::from_armor(&whole[..length]).is_err(), "{length}");
        }
        refused(&whole.replace("SIGNATURE", "SIGNED MESSAGE"));
        refused(&format!("{whole}{whole}"));
        assert!(SshSignature::from_armor(&format!("\n {}", whole.replace('\n', "\r\n"))).is_ok());
    }
}

/// A plant whose approver j.meyer has this key; the others are as before.
fn with_key(key: PublicKey) -> Plant {
    let mut plant = plant();
    let meyer = plant.approvers.people.get_mut(&id("j.meyer")).unwrap();
    *meyer = Approver {
        key,
        role: meyer.role.clone(),
    };
    plant
}

#[test]
fn software_from_before_is_shown_a_format_that_it_does_not_know_and_only_where_it_must_be() {
    let [plain, ssh, hardware] = forms(1);
    let format = |plant: &Plant| build(plant, draft(1, None)).unwrap().statement.format;
    assert_eq!(format(&with_key(plain)), STATEMENT_FORMAT);
    assert_eq!(format(&with_key(ssh)), STATEMENT_FORMAT_SSH);
    assert_eq!(format(&with_key(hardware)), STATEMENT_FORMAT_SSH);
    let mut overridden = plant();
    overridden.break_glass = Some(crate::model::Overriders {
        longest_s: 3600,
        people: [("kim", hardware), ("lee", forms(9)[0])]
            .map(|(name, key)| (id(name), crate::model::Overrider { key, sites: None }))
            .into(),
        sealed: BTreeMap::new(),
    });
    assert_eq!(format(&overridden), STATEMENT_FORMAT_SSH);
    // The format of before has no such keys: a statement that says both is one that software from before reads otherwise.
    let mut both = build(&with_key(hardware), draft(1, None)).unwrap().statement;
    both.format = STATEMENT_FORMAT.to_owned();
    assert!(matches!(
        Statement::from_bytes(&both.to_bytes()),
        Err(StatementError::Contradiction(_))
    ));
}

#[test]
fn a_release_is_approved_with_keys_of_all_forms_and_each_person_counts_once() {
    let [_, ssh, hardware] = forms(1);
    for key_of_meyer in [ssh, hardware] {
        let release = build(&with_key(key_of_meyer), draft(1, None)).unwrap();
        let trust = Trust {
            approvers: release.statement.approvers.clone(),
            ..trust()
        };
        let mut parts = Parts::of(&release, &gateway(), &[("a.silva", 2)]);
        assert_eq!(parts.refusal(&trust), "under-signed");
        // What Penstock signs with the secret itself, as for a key in a file.
        parts.signatures = sign(&parts.statement, TWO);
        match key_of_meyer == ssh {
            true => assert_eq!(parts.verify(&trust).unwrap().release.signers.len(), 2),
            false => assert_eq!(parts.refusal(&trust), "unfit-signature"),
        }
    }
    // One person under two names and two forms of one key.
    let mut twice = trust();
    let silva = twice.approvers.people.get_mut(&id("a.silva")).unwrap();
    silva.key = ssh;
    let parts = Parts::of(&first(), &gateway(), &[("j.meyer", 1), ("a.silva", 1)]);
    assert_eq!(parts.refusal(&twice), "under-signed");
}
