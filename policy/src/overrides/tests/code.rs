//! Codes on paper.

use super::*;
use crate::overrides::{Code, NoCode};

#[test]
fn a_code_is_read_as_people_type_it() {
    let code = Code::from_random(std::array::from_fn(|place| u8::try_from(place).unwrap()));
    let text = code.to_string();
    assert_eq!(text, "01234-56789-ABCDE-FGHJK-MNPQR-S");
    for typed in [
        text.clone(),
        text.to_lowercase(),
        text.replace('-', ""),
        text.replace('-', " "),
        format!("  {text}\r\n"),
        text.replacen('0', "O", 1).replacen('1', "l", 1),
        text.replacen('0', "o", 1).replacen('1', "I", 1),
    ] {
        assert_eq!(Code::parse(&typed).as_ref(), Ok(&code), "{typed:?}");
    }
    for wrong in [
        String::new(),
        text[..text.len() - 1].to_owned(),
        format!("{text}S"),
        text.replacen('2', "U", 1),
        text.replacen('2', "é", 1),
        text.replacen('2', "2\0", 1),
    ] {
        assert_eq!(Code::parse(&wrong).err(), Some(NoCode), "{wrong:?}");
    }
    assert_eq!(format!("{code:?}"), "Code(…)", "not into a log");
}

#[test]
fn a_code_opens_one_gateway_of_one_plant() {
    let code = Code::from_random([7; 26]);
    let digest = |plant: &str, gateway: &str| code.digest(&id(plant), &id(gateway));
    let digests = [
        digest("works", "gw-1"),
        digest("works", "gw-2"),
        digest("other", "gw-1"),
    ];
    assert_eq!(std::collections::BTreeSet::from(digests).len(), 3);
    assert_ne!(
        Code::from_random([8; 26]).digest(&id("works"), &id("gw-1")),
        digests[0]
    );
}

proptest! {
    #[test]
    fn whatever_random_bytes_a_code_is_made_of_it_reads_back_from_its_paper(random in any::<[u8; 26]>()) {
        let code = Code::from_random(random);
        prop_assert_eq!(Code::parse(&code.to_string()), Ok(code));
    }

    #[test]
    fn no_text_that_is_typed_for_a_code_is_read_in_two_ways(text in "[0-9A-Za-z -]{20,40}") {
        if let Ok(code) = Code::parse(&text) {
            prop_assert_eq!(Code::parse(&code.to_string()), Ok(code));
        }
    }
}
