//! Notes, texts and files of keys: each has one form, and keeps it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::*;
use crate::audit::note::NoteError;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 5))]

    #[test]
    fn a_text_and_its_note_are_read_in_their_only_form(
        (epoch, next_sequence) in any::<(u64, u64)>(), digest in any::<[u8; 32]>(), (number, time_ms) in any::<(u64, u64)>(),
        classes in proptest::collection::vec(0..5_usize, 0..9), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let head = Head { epoch, next_sequence, digest };
        let keys = SealKeys::from_text(&SealKeys::begin().unwrap().to_text().replacen(" 0 ", &format!(" {number} "), 1)).unwrap();
        let mut since = BlocksSince::new(next_sequence);
        classes.iter().for_each(|severity| since.take(*severity, &digest));
        let (text, event) = keys.seal("works/gw-a", head, since.named(), time_ms);
        let note = Note::parse(&event.note).unwrap();
        prop_assert_eq!(note.to_bytes(), event.note.to_vec());
        prop_assert_eq!(SealText::parse(&note.text), Some(text.clone()));
        prop_assert!(note.verify_ed25519("works/gw-a", &text.key).is_ok());
        let mut other = event.note.to_vec();
        let at = at.index(other.len());
        if other[at] != byte {
            other[at] = byte;
            let counts = Note::parse(&other).is_ok_and(|note| note.verify_ed25519("works/gw-a", &text.key).is_ok());
            prop_assert!(!counts);
        }
    }
}

/// `PENSTOCK_FIXTURES=write` writes what it should be.
#[test]
fn a_seal_that_was_made_when_the_form_was_made_is_read_and_made_the_same_today() {
    let encoded = |byte: u8| BASE64_STANDARD.encode([byte; 32]);
    let text = format!("penstock-seal-keys/1 17 {} {}\n", encoded(1), encoded(2));
    let keys = SealKeys::from_text(&text).unwrap();
    assert_eq!(*keys.to_text(), text);
    let head = Head {
        epoch: 3,
        next_sequence: 1207,
        digest: [7; 32],
    };
    let mut since = BlocksSince::new(1190);
    since.take(3, &[8; 32]);
    since.take(1, &[9; 32]);
    let (text, seal) = keys.seal("works/gw-a", head, since.named(), 1_790_000_000_000);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/seal-1.txt");
    if std::env::var_os("PENSTOCK_FIXTURES").is_some_and(|what| what == "write") {
        std::fs::write(path, &seal.note).unwrap();
    }
    let kept = std::fs::read(path).unwrap();
    let note = Note::parse(&kept).unwrap();
    assert_eq!(SealText::parse(&note.text), Some(text.clone()));
    note.verify_ed25519("works/gw-a", &text.key).unwrap();
    assert_eq!(kept, seal.note);
}

#[test]
fn keys_are_read_from_their_file_and_a_damaged_one_is_none() {
    let keys = SealKeys::begin().unwrap().advanced().unwrap();
    let text = keys.to_text();
    let read = SealKeys::from_text(&text).unwrap();
    assert_eq!((read.number(), read.to_text()), (1, text.clone()));
    for damaged in [
        "",
        "\n",
        text.trim_end(),
        &text[..text.len() - 3],
        &format!("{}x\n", text.trim_end()),
    ] {
        assert!(SealKeys::from_text(damaged).is_none(), "{damaged:?}");
    }
    assert!(format!("{keys:?}").len() < 100, "what it holds is not printed");
}

#[test]
fn a_note_has_a_text_and_signature_lines_and_nothing_else() {
    let (_, event) = Source::new().sealed_as("works/gw-a");
    let note = String::from_utf8(event.note.to_vec()).unwrap();
    assert!(Note::parse(note.as_bytes()).is_ok());
    let cases = [
        String::new(),
        note.replace("\u{2014}", "-"),
        note.trim_end().to_owned(),
        note.replace("works/gw-a ", "works/gw+a "),
        note.replacen('\n', "\r\n", 1),
        format!("{note}\n"),
        note.clone() + note.lines().last().unwrap() + "\n" + &"x".repeat(9000),
    ];
    for case in cases {
        assert_eq!(Note::parse(case.as_bytes()), Err(NoteError::Form), "{case:?}");
    }
}
