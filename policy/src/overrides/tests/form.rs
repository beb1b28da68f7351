//! Which bytes are an override.

use super::*;

pub(super) fn request() -> Override {
    Override {
        format: OVERRIDE_FORMAT.to_owned(),
        plant: id("water-works"),
        gateway: id("gw-works"),
        release: Digest::of(b"release"),
        number: Digest::of(b"number"),
        seconds: 4 * 3600,
        reason: "PLC 7 burnt out".to_owned(),
        ticket: None,
        effects: vec![Effect::Unasked],
    }
}

fn refused(spoil: impl Fn(&mut Override)) -> String {
    let mut spoilt = request();
    spoil(&mut spoilt);
    Override::from_bytes(&spoilt.to_bytes()).unwrap_err().to_string()
}

fn replaced(number: u8) -> Effect {
    Effect::Device {
        address: id("10.20.4.7"),
        mac: Mac([2, 0, 0, 0, 0, number]),
    }
}

fn observe(one: &str, other: &str) -> Effect {
    Effect::Observe {
        one: id(one),
        other: id(other),
    }
}

#[test]
fn an_override_reads_back_from_its_one_form_and_from_no_other() {
    let mut asked = request();
    asked.ticket = Some("INC-7".to_owned());
    asked.effects = vec![
        replaced(1),
        observe("10.20.4.0/24", "10.20.1.0/24"),
        Effect::Unasked,
    ];
    let bytes = asked.to_bytes();
    assert_eq!(Override::from_bytes(&bytes).unwrap(), asked);
    let spaced = [b" ".to_vec(), bytes.clone()].concat();
    assert!(
        Override::from_bytes(&spaced)
            .unwrap_err()
            .to_string()
            .contains("one form")
    );
    let text = String::from_utf8(bytes).unwrap();
    let more = text.replacen('{', "{\"more\":1,", 1);
    assert!(Override::from_bytes(more.as_bytes()).is_err(), "nothing unknown");
    let upper = text.replace("02:00:00:00:00:01", "02:00:00:00:00:0A");
    assert!(Override::from_bytes(upper.as_bytes()).is_err(), "one spelling");
}

#[test]
fn what_no_override_may_say_is_refused() {
    assert!(refused(|it| it.format.push('0')).contains("penstock-override/1"));
    for seconds in [0, 59, 7 * 24 * 3600 + 1, u32::MAX] {
        assert!(refused(|it| it.seconds = seconds).contains("less than a minute or more than seven days"));
    }
    for text in [
        "",
        " \t",
        "a\nb",
        "a\u{1b}[2Jb",
        "a\u{202e}b",
        &"x".repeat(TEXT_BYTES_MAX + 1),
    ] {
        assert!(
            refused(|it| it.reason = text.to_owned()).contains("reason or ticket"),
            "{text:?}"
        );
        assert!(
            refused(|it| it.ticket = Some(text.to_owned())).contains("reason or ticket"),
            "{text:?}"
        );
    }
    assert!(refused(|it| it.effects.clear()).contains("no effect"));
    assert!(refused(|it| it.effects = (0..17).map(replaced).collect()).contains("more than 16"));
    assert!(refused(|it| it.effects = vec![Effect::Unasked, replaced(1)]).contains("not in order"));
    assert!(refused(|it| it.effects = vec![replaced(1), replaced(1)]).contains("stands there twice"));
    assert!(
        refused(|it| it.effects = vec![replaced(1), replaced(2)]).contains("what device has one address")
    );
    assert!(
        refused(|it| it.effects = vec![observe("10.20.4.7/24", "10.20.1.0/24")])
            .contains("beyond its prefix")
    );
    let long = vec![b' '; BYTES_MAX + 1];
    assert!(
        Override::from_bytes(&long)
            .unwrap_err()
            .to_string()
            .contains("16 KiB")
    );
}

#[test]
fn a_file_that_holds_something_else_is_no_request() {
    let signed = Signed {
        payload: request().to_bytes(),
        signatures: Vec::new(),
    };
    let json = signed.to_json();
    assert_eq!(Signed::from_json(&json).unwrap(), signed);
    let release = json.replace("penstock.override", "penstock.release");
    assert!(Signed::from_json(&release).is_err());
    assert!(Signed::from_json("{}").is_err());
}
