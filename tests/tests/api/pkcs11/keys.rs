//! Keys on a token by themselves: made, found, refused; a root's.

use penstock_coordinator::ca::OfflineRoot;
use penstock_coordinator::pkcs11::{TokenError, TokenKey};
use penstock_proto::keys::{Key, KeyHolder as _, certificate_request};
use penstock_proto::tls::certificates_to_pem;

use super::hsm::{self, Hsm, MODULE, watched_module};
use super::{openssl, uri};
use crate::authority::{complains, types};
use crate::world::{certified, file_key, now_ms};

#[test]
fn a_key_that_a_token_makes_never_leaves_it_and_signs_what_others_verify() {
    let hsm = Hsm::new("makes");
    let (key, is_new) = TokenKey::open_or_make(&uri(&hsm.uri("issuing"))).unwrap();
    assert!(is_new);
    let listed = hsm.tool(&["--list-objects", "--type", "privkey"]);
    for word in [
        "issuing",
        "sensitive",
        "always sensitive",
        "never extractable",
        "local",
    ] {
        assert!(listed.contains(word), "{word}: {listed}");
    }
    // Somebody else's tool sees the same public key.
    let seen: String = hsm
        .tool(&["--list-objects", "--type", "pubkey"])
        .split_whitespace()
        .collect();
    let point: String = key
        .public_key()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(point.len() == 2 * 97 && seen.contains(&point), "{point}: {seen}");
    // And keys of each kind that it makes sign here what OpenSSL verifies.
    let mut keys = vec![key];
    for kind in ["EC:prime256v1", "EC:secp384r1", "EC:edwards25519"] {
        let name = kind.replace(':', "-");
        hsm.tool(&["--keypairgen", "--key-type", kind, "--label", &name]);
        keys.push(TokenKey::open(&uri(&hsm.uri(&name))).unwrap());
    }
    let folder = hsm.folder.path();
    for key in keys {
        let request = certificate_request(&Key::new(key), None).unwrap();
        std::fs::write(folder.join("request.der"), &request).unwrap();
        openssl(
            &["req", "-inform", "DER", "-in", "request.der", "-verify", "-noout"],
            folder,
        );
    }
}

#[test]
fn a_key_that_cannot_be_told_apart_or_is_of_another_kind_or_could_be_copied_is_refused_by_name() {
    let hsm = Hsm::new("odd");
    hsm.tool(&[
        "--keypairgen",
        "--key-type",
        "rsa:2048",
        "--label",
        "rsa",
        "--id",
        "01",
    ]);
    for id in ["02", "03"] {
        hsm.tool(&[
            "--keypairgen",
            "--key-type",
            "EC:prime256v1",
            "--label",
            "both",
            "--id",
            id,
        ]);
    }
    hsm.tool(&[
        "--keypairgen",
        "--key-type",
        "EC:secp521r1",
        "--label",
        "curve",
        "--id",
        "04",
    ]);
    hsm.tool(&[
        "--keypairgen",
        "--key-type",
        "EC:prime256v1",
        "--label",
        "half",
        "--id",
        "05",
    ]);
    hsm.tool(&["--delete-object", "--type", "pubkey", "--id", "05"]);
    // One that was made in a file, and whose copies nobody has counted.
    let folder = hsm.folder.path();
    openssl(
        &[
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-outform",
            "DER",
            "-out",
            "k.der",
        ],
        folder,
    );
    openssl(
        &[
            "pkey", "-inform", "DER", "-in", "k.der", "-pubout", "-outform", "DER", "-out", "p.der",
        ],
        folder,
    );
    for (kind, file) in [("privkey", "k.der"), ("pubkey", "p.der")] {
        let file = folder.join(file);
        let object = [
            "--write-object",
            file.to_str().unwrap(),
            "--type",
            kind,
            "--label",
            "copied",
            "--id",
            "06",
        ];
        let extractable: &[&str] = if kind == "privkey" {
            &["--extractable"]
        } else {
            &[]
        };
        hsm.tool(&[&object, extractable].concat());
    }
    let why = |object: &str| TokenKey::open(&uri(&hsm.uri(object))).unwrap_err().to_string();
    for (object, words) in [
        ("rsa", "the key 'rsa' on the token 'odd' is an RSA key; use ECDSA"),
        (
            "both",
            "holds 2 private keys that are a key 'both' (identifiers 02, 03)",
        ),
        ("curve", "is on another curve"),
        ("half", "holds no public key object beside the key 'half'"),
        ("copied", "can be taken off it"),
        ("none", "the token 'odd' holds no key 'none'"),
    ] {
        let why = why(object);
        // SoftHSM lists them in any order.
        assert!(
            why.contains(words) || why.contains(&words.replace("02, 03", "03, 02")),
            "{object}: {why}"
        );
    }
    // By its identifier it is one.
    TokenKey::open(&uri(&hsm.uri("both").replace('?', ";id=%03?"))).unwrap();
    let nowhere = uri(&hsm.uri("x").replace("token=odd", "token=elsewhere"));
    let why = TokenKey::open(&nowhere).unwrap_err().to_string();
    assert!(
        why.contains("the token 'elsewhere' is not there (") && why.contains("'odd'"),
        "{why}"
    );
    let no_module = uri(&hsm.uri("x").replace(MODULE, "/nowhere/m.so"));
    let why = TokenKey::open(&no_module).unwrap_err().to_string();
    assert!(why.contains("/nowhere/m.so cannot be loaded"), "{why}");
    let no_pin = uri(hsm.uri("x").split('&').next().unwrap());
    assert!(matches!(TokenKey::open(&no_pin), Err(TokenError::NoPin(_))));
}

#[tokio::test]
async fn whoever_checks_a_configuration_hears_that_a_module_is_not_there_or_is_none() {
    let hsm = Hsm::new("checked");
    let folder = hsm.folder.path();
    let configured = |key: &str| {
        let text = format!(
            "plant = \"water\"\nname = \"c1\"\ndata = \"/nowhere\"\n[listen]\ngrpc = [\"127.0.0.1:7643\"]\n[authority]\nkeys = [{key:?}]\n"
        );
        std::fs::write(folder.join("c.toml"), text).unwrap();
    };
    let command = "penstock-coordinator config --check c.toml";
    configured(&hsm.uri("x"));
    let said = types(command, folder, &[]).await;
    assert!(
        said.contains("authority.keys: the key 'x' on the token 'checked'"),
        "{said}"
    );
    let text = folder.join("text.so");
    std::fs::write(&text, "text").unwrap();
    for module in ["/nowhere/m.so", text.to_str().unwrap()] {
        configured(&hsm.uri_by("x", std::path::Path::new(module)));
        let why = complains(command, folder).await;
        for words in [
            "nothing can be issued on this machine by c.toml",
            &format!("the PKCS #11 module {module} cannot be loaded"),
            "mend module-path in `authority.keys`",
        ] {
            assert!(why.contains(words), "{words}: {why}");
        }
    }
}

#[test]
fn a_key_of_which_the_module_does_not_say_that_it_stays_is_neither_certified_nor_installed() {
    let hsm = Hsm::new("mute");
    let dir = hsm.folder.path().join("made");
    let (plant, key) = ("water".parse().unwrap(), uri(&hsm.uri("root")));
    let made = OfflineRoot::create_on(&dir, plant, &key, now_ms()).unwrap();
    let proves = |key| {
        let key = TokenKey::of_certificate(made.certificate(), vec![key]).unwrap();
        key.prove(made.certificate())
    };
    proves(key).unwrap();
    let module = watched_module(hsm.folder.path());
    std::fs::write(hsm.folder.path().join("mute"), "").unwrap();
    let mute = uri(&hsm.uri_by("root", &module));
    for refused in [TokenKey::open(&mute).map(|_| ()), proves(mute.clone())] {
        let refused = refused.unwrap_err();
        assert!(matches!(refused, TokenError::Exportable { .. }), "{refused}");
    }
    // What issues by it already goes on.
    let key = TokenKey::of_certificate(made.certificate(), vec![mute]).unwrap();
    key.look_for().unwrap();
}

#[test]
fn a_wrong_pin_is_shown_to_the_token_once_and_another_one_when_the_file_holds_it() {
    let hsm = Hsm::new("pin");
    let module = watched_module(hsm.folder.path());
    let key = uri(&hsm.uri_by("issuing", &module));
    let logins = || std::fs::read(hsm.folder.path().join("logins")).map_or(0, |bytes| bytes.len());
    hsm.write_pin("9999");
    for _ in 0..5 {
        let refused = TokenKey::open_or_make(&key).unwrap_err();
        assert!(matches!(&refused, TokenError::PinRefused { .. }), "{refused}");
        assert!(!refused.to_string().contains("9999"));
        assert_eq!(logins(), 1);
    }
    // Others may read it: it is not even shown.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(hsm.pin_file(), open).unwrap();
    let refused = TokenKey::open_or_make(&key).unwrap_err().to_string();
    assert!(
        refused.contains("can be read by others") && logins() == 1,
        "{refused}"
    );
    hsm.write_pin(hsm::PIN);
    TokenKey::open_or_make(&key).unwrap();
    assert!(logins() >= 2);
}

#[test]
fn a_root_on_a_token_certifies_as_one_in_a_file_does() {
    let hsm = Hsm::new("root");
    let dir = hsm.folder.path().join("my-root");
    let plant: penstock_policy::ids::PlantId = "water".parse().unwrap();
    let made = OfflineRoot::create_on(&dir, plant.clone(), &uri(&hsm.uri("root")), now_ms()).unwrap();
    assert!(!dir.join("root.key").exists());
    // A second plant does not get the same key.
    let again = OfflineRoot::create_on(
        &hsm.folder.path().join("b"),
        plant,
        &uri(&hsm.uri("root")),
        now_ms(),
    );
    assert!(again.err().unwrap().to_string().contains("has a key of its own"));
    // Nothing of the attempt is in the way of the next one.
    assert!(!hsm.folder.path().join("b").exists());
    let opened = OfflineRoot::open(&dir, || unreachable!()).unwrap();
    let request = certificate_request(&file_key(), None).unwrap();
    let folder = hsm.folder.path();
    std::fs::write(
        folder.join("issuing.pem"),
        certified(&opened, &request, &"c1".parse().unwrap()),
    )
    .unwrap();
    std::fs::write(
        folder.join("root.pem"),
        certificates_to_pem(&[made.certificate().clone()]),
    )
    .unwrap();
    openssl(
        &["verify", "-x509_strict", "-CAfile", "root.pem", "issuing.pem"],
        folder,
    );
    hsm.unplug();
    let refused = OfflineRoot::open(&dir, || unreachable!())
        .err()
        .unwrap()
        .to_string();
    assert!(refused.contains("is not there"), "{refused}");
    hsm.plug_in();
}

#[tokio::test]
async fn a_plant_can_have_its_root_and_its_issuing_key_on_a_token_from_the_beginning() {
    let hsm = Hsm::new("new");
    let folder = hsm.folder.path();
    let (root, first) = (hsm.uri("root"), hsm.uri("issuing-1"));
    let typed = async |command: &str| types(command, folder, &[("ROOT", &root), ("FIRST", &first)]).await;
    typed("penstock-coordinator authority new r --plant water --key 'ROOT'").await;
    typed(
        "penstock-coordinator init --under r/root.pem --data data --plant water --address 127.0.0.1:9 --metrics none --key 'FIRST'",
    )
    .await;
    typed("penstock-coordinator authority sign data/issuing-request.pem --root r --coordinator coordinator-1 -o i.pem").await;
    typed("penstock-coordinator authority install --config data/coordinator.toml i.pem").await;
    let shown = typed("penstock-coordinator authority show --config data/coordinator.toml").await;
    assert!(
        shown.contains("issuing key: key 'issuing-1' on the token 'new'"),
        "{shown}"
    );
    let kept = typed("penstock-coordinator backup --config data/coordinator.toml --to backup").await;
    assert!(
        kept.contains("which is the key 'issuing-1' on the token 'new'"),
        "{kept}"
    );
    openssl(
        &[
            "verify",
            "-x509_strict",
            "-CAfile",
            "r/root.pem",
            "data/ca/issuing.pem",
        ],
        folder,
    );
    let keys = std::process::Command::new("find")
        .args(["r", "data", "backup", "-name", "*.key"])
        .current_dir(folder)
        .output();
    assert_eq!(String::from_utf8_lossy(&keys.unwrap().stdout), "");
    // A PIN is taken from a file alone.
    let refused = complains("penstock-coordinator init --under r/root.pem --data d --plant water --address 127.0.0.1:9 --key 'pkcs11:token=a;object=b?module-path=/m&pin-value=77'", folder).await;
    assert!(
        refused.contains("holds the PIN itself") && !refused.contains("77"),
        "{refused}"
    );
}
