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
