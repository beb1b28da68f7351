#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NOW_S: u64 = 1_800_000_000;
const ISSUER: &str = "https://login.example/realms/works";

/// A provider as these tests make one.
struct Signer(EcdsaKeyPair);

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

impl Signer {
    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn jwk(&self) -> Value {
        let point = self.0.public_key().as_ref();
        let half = |from: usize| URL_SAFE_NO_PAD.encode(&point[from..from + 32]);
        json!({"kty": "EC", "crv": "P-256", "kid": "k1", "use": "sig", "alg": "ES256", "x": half(1), "y": half(33)})
    }

    fn keys(&self) -> Keys {
        Keys::read(json!({ "keys": [self.jwk()] }).to_string().as_bytes()).unwrap()
    }

    fn sign(&self, head: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encoded(head), encoded(claims));
        let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

fn key() -> Digest {
    Digest::of(b"the key that asks")
}

fn expected() -> Expected<'static> {
    Expected {
        issuer: ISSUER,
        client_id: "penstock",
        key: key(),
        max_age_s: 300,
        amr: &[],
        acr: &[],
    }
}

fn head() -> Value {
    json!({"alg": "ES256", "kid": "k1"})
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "sub": "8f1c", "aud": "penstock", "exp": NOW_S + 600, "iat": NOW_S - 5, "auth_time": NOW_S - 20,
        "nonce": nonce(key()), "amr": ["pwd", "otp"], "acr": "2", "preferred_username": "a.silva"
    })
}

/// The claims with one of them changed; `null`: left out.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

fn judge(signer: &Signer, claims: &Value) -> Result<ProvenAccount, TokenRefused> {
    verify(&signer.sign(&head(), claims), &signer.keys(), &expected(), NOW_S)
}

#[test]
fn a_token_of_the_provider_for_this_key_proves_who_it_is_and_by_which_means() {
    let proven = judge(&Signer::new(), &claims()).unwrap();
    assert_eq!(
        proven,
        ProvenAccount {
            subject: "8f1c".to_owned(),
            shown: "a.silva".to_owned(),
            amr: vec!["pwd".to_owned(), "otp".to_owned()],
            acr: Some("2".to_owned()),
            auth_time_s: NOW_S - 20,
        }
    );
}

#[test]
fn each_claim_that_is_missing_or_wrong_is_refused_by_its_own_reason() {
    let signer = Signer::new();
    let unreadable = || TokenRefused::Unreadable(String::new());
    let cases: Vec<(&str, Value, TokenRefused)> = vec![
        ("iss", json!("https://other.example"), TokenRefused::Issuer),
        // As near as it gets.
        ("iss", json!(format!("{ISSUER}/")), TokenRefused::Issuer),
        ("iss", json!([ISSUER, "https://other.example"]), unreadable()),
        ("iss", Value::Null, unreadable()),
        ("aud", json!("other"), TokenRefused::Audience),
        ("aud", json!([]), TokenRefused::Audience),
        ("aud", json!(["penstock", "other"]), TokenRefused::AuthorizedParty),
        ("azp", json!("other"), TokenRefused::AuthorizedParty),
        ("exp", json!(NOW_S - LEEWAY_S), TokenRefused::Expired),
        ("exp", Value::Null, unreadable()),
        ("iat", json!(NOW_S + LEEWAY_S + 1), TokenRefused::Future),
        ("nbf", json!(NOW_S + LEEWAY_S + 1), TokenRefused::Future),
        ("iat", json!(NOW_S - 300 - LEEWAY_S - 1), TokenRefused::Old(300)),
        ("auth_time", Value::Null, TokenRefused::NoAuthTime),
        (
            "auth_time",
            json!(NOW_S - 300 - LEEWAY_S - 1),
            TokenRefused::AuthOld(300),
        ),
        ("auth_time", json!(NOW_S + LEEWAY_S + 1), TokenRefused::Future),
        ("nonce", Value::Null, TokenRefused::Unbound),
        (
            "nonce",
            json!(nonce(Digest::of(b"a thief's key"))),
            TokenRefused::OtherKey,
        ),
        ("sub", json!(""), TokenRefused::Subject),
        ("sub", json!("x".repeat(256)), TokenRefused::Subject),
        ("sub", json!("a\nb"), TokenRefused::Subject),
        ("sub", Value::Null, unreadable()),
    ];
    for (name, value, why) in cases {
        let refused = judge(&signer, &with(name, value.clone())).unwrap_err();
        match why {
            TokenRefused::Unreadable(_) => assert!(
                matches!(refused, TokenRefused::Unreadable(_)),
                "{name} {value}: {refused:?}"
            ),
            why => assert_eq!(refused, why, "{name} {value}"),
        }
    }
    // What is right by a hair.
    for (name, value) in [
        ("exp", json!(NOW_S - LEEWAY_S + 1)),
        ("iat", json!(NOW_S - 300 - LEEWAY_S)),
        ("auth_time", json!(NOW_S - 300 - LEEWAY_S)),
        ("aud", json!(["penstock"])),
        ("azp", json!("penstock")),
    ] {
        judge(&signer, &with(name, value)).unwrap();
    }
}

#[test]
fn a_required_factor_or_class_that_the_token_does_not_name_is_refused() {
    let signer = Signer::new();
    let (amr, acr) = (["mfa".to_owned(), "hwk".to_owned()], ["3".to_owned()]);
    let judge = |expected: Expected<'_>, claims: &Value| {
        verify(&signer.sign(&head(), claims), &signer.keys(), &expected, NOW_S)
    };
    let factor = Expected {
        amr: &amr,
        ..expected()
    };
    assert!(matches!(
        judge(factor, &claims()),
        Err(TokenRefused::Means { .. })
    ));
    assert!(matches!(
        judge(factor, &with("amr", Value::Null)),
        Err(TokenRefused::Means { .. })
    ));
    judge(factor, &with("amr", json!(["pwd", "hwk"]))).unwrap();
    let class = Expected {
        acr: &acr,
        ..expected()
    };
    assert!(matches!(judge(class, &claims()), Err(TokenRefused::Class { .. })));
    judge(class, &with("acr", json!("3"))).unwrap();
}

#[test]
fn nothing_unsigned_nothing_signed_by_the_public_key_as_a_secret_and_nothing_of_another_key_counts() {
    let signer = Signer::new();
    let verify = |token: &str, keys: &Keys| verify(token, keys, &expected(), NOW_S);
    let algorithm = |head: Value| {
        let message = format!("{}.{}", encoded(&head), encoded(&claims()));
        let secret = hmac::Key::new(hmac::HMAC_SHA256, signer.0.public_key().as_ref());
        let tag = hmac::sign(&secret, message.as_bytes());
        [
            format!("{message}."),
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref())),
        ]
    };
    for name in ["none", "None", "HS256", "RS512", "ES384", ""] {
        for token in algorithm(json!({"alg": name, "kid": "k1"})) {
            assert_eq!(
                verify(&token, &signer.keys()),
                Err(TokenRefused::Algorithm(name.to_owned()))
            );
        }
    }
    // The algorithm of the head is not the key's.
    let other = signer.sign(&json!({"alg": "RS256", "kid": "k1"}), &claims());
    assert_eq!(
        verify(&other, &signer.keys()),
        Err(TokenRefused::UnknownKey("k1".to_owned()))
    );
    let unknown = signer.sign(&json!({"alg": "ES256", "kid": "k2"}), &claims());
    assert_eq!(
        verify(&unknown, &signer.keys()),
        Err(TokenRefused::UnknownKey("k2".to_owned()))
    );
    let forged = Signer::new().sign(&head(), &claims());
    assert_eq!(verify(&forged, &signer.keys()), Err(TokenRefused::Signature));
    let unsigned = format!("{}.{}.", encoded(&head()), encoded(&claims()));
    verify(&unsigned, &signer.keys()).unwrap_err();
    let extended = signer.sign(
        &json!({"alg": "ES256", "kid": "k1", "crit": ["x"], "x": 1}),
        &claims(),
    );
    assert!(matches!(
        verify(&extended, &signer.keys()),
        Err(TokenRefused::Unreadable(_))
    ));
    let carrying = signer.sign(
        &json!({"alg": "ES256", "kid": "k3", "jwk": Signer::new().jwk()}),
        &claims(),
    );
    assert!(
        verify(&carrying, &signer.keys()).is_err(),
        "a key in the token is not looked at"
    );
    let long = format!(
        "{}{}",
        signer.sign(&head(), &claims()),
        "x".repeat(TOKEN_BYTES_MAX)
    );
    assert_eq!(verify(&long, &signer.keys()), Err(TokenRefused::TooLong));
}

#[test]
fn secrets_keys_for_encryption_and_keys_of_unknown_kinds_are_no_keys_of_a_provider() {
    let signer = Signer::new();
    let mut encrypting = signer.jwk();
    encrypting["use"] = json!("enc");
    let set = json!({"keys": [
        {"kty": "oct", "kid": "k1", "k": "c2VjcmV0"}, {"kty": "AKP", "kid": "k1", "alg": "ML-DSA-44", "pub": "AAAA"},
        encrypting, 7, {"kty": "RSA", "kid": "k1", "n": "!", "e": "AQAB"}, {}
    ]});
    let keys = Keys::read(set.to_string().as_bytes()).unwrap();
    let refused = verify(&signer.sign(&head(), &claims()), &keys, &expected(), NOW_S);
    assert_eq!(refused, Err(TokenRefused::UnknownKey("k1".to_owned())));
    assert!(Keys::read(b"{}").is_err() && Keys::read(b"[]").is_err());
    // Without a name only where there is no choice.
    let nameless = signer.sign(&json!({"alg": "ES256"}), &claims());
    verify(&nameless, &signer.keys(), &expected(), NOW_S).unwrap();
    let two = json!({"keys": [signer.jwk(), Signer::new().jwk()]});
    let two = Keys::read(two.to_string().as_bytes()).unwrap();
    assert_eq!(
        verify(&nameless, &two, &expected(), NOW_S),
        Err(TokenRefused::UnknownKey(String::new()))
    );
}

proptest! {
    #[test]
    fn a_token_of_which_one_byte_differs_never_proves_anything_else(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let signer = Signer::new();
        let token = signer.sign(&head(), &claims());
        let own = verify(&token, &signer.keys(), &expected(), NOW_S).unwrap();
        let mut bytes = token.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        // The last letter of base64 holds bits that say nothing: what is proven stays the same.
        if let Ok(changed) = String::from_utf8(bytes)
            && let Ok(proven) = verify(&changed, &signer.keys(), &expected(), NOW_S)
        {
            prop_assert_eq!(proven, own);
            prop_assert_eq!(changed, token);
        }
    }

    #[test]
    fn whatever_is_sent_as_a_token_or_as_keys_is_refused_without_a_fault(token in ".{0,200}", keys in any::<Vec<u8>>()) {
        prop_assert!(verify(&token, &Signer::new().keys(), &expected(), NOW_S).is_err());
        let _ = Keys::read(&keys);
    }
}
