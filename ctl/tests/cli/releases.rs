//! Releases on a person's machine: what is signed, what is verified, and what is neither.

use crate::said::{altered, ends, json, penstock, sign, statement, works};

#[test]
fn a_release_is_signed_and_verified_without_a_coordinator() {
    let folder = works();
    statement(folder.path(), "k.ito");
    sign(folder.path(), 0, "r1.statement", "j.meyer", "r1.one");
    let verify = |code, file| {
        ends(
            folder.path(),
            code,
            &[
                "release",
                "verify",
                file,
                "--approvers",
                "plant",
                "--documents",
                "plant",
            ],
        )
    };
    let under = verify(7, "r1.one");
    assert!(
        under.err.contains("error:") && under.out.is_empty(),
        "{}",
        under.err
    );
    sign(folder.path(), 0, "r1.one", "a.silva", "r1.two");
    let whole = verify(0, "r1.two").out;
    assert!(
        whole.contains("✓ signed by a.silva, j.meyer; 2 needed"),
        "{whole}"
    );
    assert!(whole.contains("✓ its documents compile to exactly what it states"));
    // The approvers that count are those that the reader believes, not those in the file.
    altered(folder.path(), "others", "threshold: 2", "threshold: 3");
    ends(
        folder.path(),
        7,
        &["release", "verify", "r1.two", "--approvers", "others"],
    );
}

#[test]
fn nothing_is_signed_whose_documents_say_something_else() {
    let folder = works();
    let bytes = statement(folder.path(), "k.ito");
    let path = folder.path().join("plant/plant.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("addresses: 0-199", "addresses: 0-65535")).unwrap();
    let said = sign(folder.path(), 7, "r1.statement", "j.meyer", "r1.signed");
    assert!(said.err.contains("its document digest differs"), "{}", said.err);
    assert!(!folder.path().join("r1.signed").exists());
    std::fs::write(&path, text).unwrap();
    // Every byte of a statement counts: with any one changed it is refused, or it is not what the documents say.
    for at in (0..bytes.len()).step_by(23) {
        let mut tampered = bytes.clone();
        tampered[at] = if tampered[at] == b'7' { b'8' } else { b'7' };
        if tampered == bytes {
            continue;
        }
        std::fs::write(folder.path().join("tampered"), &tampered).unwrap();
        let arguments = [
            "release",
            "sign",
            "tampered",
            "--key",
            "j.meyer.key",
            "--as",
            "j.meyer",
            "--documents",
            "plant",
            "-o",
            "t.signed",
            "--yes",
        ];
        let said = penstock(folder.path(), &arguments);
        let honest_text = String::from_utf8_lossy(&tampered).into_owned();
        let free = ["\"author\":", "\"ticket\":", "\"reason\":", "\"created_ms\":"];
        // Author, ticket, reason and time are the author's own words: the documents cannot contradict them.
        let in_free = free
            .iter()
            .any(|key| honest_text.find(key).is_some_and(|start| at >= start));
        if !in_free {
            assert_eq!(said.code, 7, "byte {at}: {}{}", said.out, said.err);
            assert!(!folder.path().join("t.signed").exists());
        }
        let _ = std::fs::remove_file(folder.path().join("t.signed"));
    }
}

#[test]
fn a_signed_release_that_was_tampered_with_is_not_believed() {
    let folder = works();
    statement(folder.path(), "k.ito");
    sign(folder.path(), 0, "r1.statement", "j.meyer", "r1.one");
    sign(folder.path(), 0, "r1.one", "a.silva", "r1.two");
    let whole = std::fs::read_to_string(folder.path().join("r1.two")).unwrap();
    let envelope = json(&whole);
    let mut swapped = envelope.clone();
    swapped["signatures"][0]["sig"] = envelope["signatures"][1]["sig"].clone();
    let mut cut = whole.clone();
    cut.truncate(whole.len() - 5);
    for tampered in [
        swapped.to_string(),
        cut,
        whole.replace("release+json", "other+json"),
    ] {
        std::fs::write(folder.path().join("bad"), tampered).unwrap();
        ends(
            folder.path(),
            7,
            &["release", "verify", "bad", "--approvers", "plant"],
        );
    }
}

#[test]
fn the_author_cannot_sign_and_neither_can_a_key_of_somebody_else() {
    let folder = works();
    statement(folder.path(), "j.meyer");
    let said = sign(folder.path(), 4, "r1.statement", "j.meyer", "r1.signed");
    assert!(
        said.err.contains("nobody approves their own release"),
        "{}",
        said.err
    );
    let arguments = [
        "release",
        "sign",
        "r1.statement",
        "--key",
        "a.silva.key",
        "--as",
        "m.okoye",
        "--documents",
        "plant",
        "-o",
        "x",
        "--yes",
    ];
    let said = ends(folder.path(), 6, &arguments);
    assert!(
        said.err
            .contains("not the key that the plant document has for m.okoye"),
        "{}",
        said.err
    );
}
