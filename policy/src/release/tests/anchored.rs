//! Releases that name the list of withdrawn keys and the trust bundle.

use super::*;

#[test]
fn a_release_that_names_what_goes_beside_it_has_a_format_of_its_own_and_software_from_before_says_so() {
    let anchor = Anchor {
        number: 7,
        digest: Digest::of(b"list"),
    };
    for (withdrawn, trust) in [
        (Some(anchor), None),
        (None, Some(anchor)),
        (Some(anchor), Some(anchor)),
    ] {
        let named = Draft {
            withdrawn,
            trust,
            ..draft(1, None)
        };
        let statement = build(&plant(), named).unwrap().statement;
        assert_eq!(statement.format, STATEMENT_FORMAT_ANCHORED);
        let read = Statement::from_bytes(&statement.to_bytes()).unwrap();
        assert_eq!((read.withdrawn, read.trust), (withdrawn, trust));
        // Neither is left out, nor put under a format that has none.
        for (format, withdrawn, trust) in [
            (STATEMENT_FORMAT, withdrawn, trust),
            (STATEMENT_FORMAT_SSH, withdrawn, trust),
            (STATEMENT_FORMAT_ANCHORED, None, None),
        ] {
            let other = Statement {
                format: format.to_owned(),
                withdrawn,
                trust,
                ..statement.clone()
            };
            let refused = Statement::from_bytes(&other.to_bytes()).unwrap_err();
            assert!(matches!(refused, StatementError::Contradiction(_)), "{refused}");
        }
        let again = build(&plant(), Draft::of(&statement)).unwrap().statement;
        assert_eq!(again, statement, "approvers and coordinator build the same");
    }
    let nothing = Anchor { number: 0, ..anchor };
    let named = Draft {
        withdrawn: Some(nothing),
        ..draft(1, None)
    };
    assert!(matches!(build(&plant(), named), Err(BuildError::Refused(_))));
}

#[test]
fn a_release_that_names_the_coordinators_trails_has_a_format_of_its_own_whatever_else_it_names() {
    let anchor = Anchor {
        number: 7,
        digest: Digest::of(b"list"),
    };
    let trails = TrailsAnchor {
        size: 4711,
        root: Digest::of(b"root"),
        again: false,
    };
    for withdrawn in [None, Some(anchor)] {
        for again in [false, true] {
            let named = Draft {
                withdrawn,
                trails: Some(TrailsAnchor { again, ..trails }),
                ..draft(1, None)
            };
            let statement = build(&plant(), named).unwrap().statement;
            assert_eq!(statement.format, STATEMENT_FORMAT_TRAILS);
            let bytes = statement.to_bytes();
            assert_eq!(Statement::from_bytes(&bytes).unwrap(), statement);
            // What is not so stands nowhere.
            assert_eq!(String::from_utf8_lossy(&bytes).contains("again"), again);
            let rebuilt = build(&plant(), Draft::of(&statement)).unwrap().statement;
            assert_eq!(rebuilt, statement, "approvers and coordinator build the same");
            for format in [STATEMENT_FORMAT, STATEMENT_FORMAT_SSH, STATEMENT_FORMAT_ANCHORED] {
                let other = Statement {
                    format: format.to_owned(),
                    ..statement.clone()
                };
                let refused = Statement::from_bytes(&other.to_bytes()).unwrap_err();
                assert!(matches!(refused, StatementError::Contradiction(_)), "{refused}");
            }
            let without = Statement {
                trails: None,
                ..statement
            };
            assert!(Statement::from_bytes(&without.to_bytes()).is_err());
        }
    }
    let empty = Draft {
        trails: Some(TrailsAnchor { size: 0, ..trails }),
        ..draft(1, None)
    };
    assert!(matches!(build(&plant(), empty), Err(BuildError::Refused(_))));
}
