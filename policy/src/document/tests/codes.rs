//! Every code has an example here that gives it, and the text that people see is held by a golden file.
//!
//! To accept new texts: `PENSTOCK_UPDATE_GOLDENS=1 cargo nextest run -p penstock-policy golden`, then read the diff.

mod examples;
mod made;
mod of_frames;
mod of_people;
mod of_plain_servers;
mod of_roles;
mod of_templates;

use std::fmt::Write as _;
use std::path::Path;

use super::{BASE, TODAY};
use crate::diagnostics::{Code, Severity, SourceFile, Style};
use crate::document::{LoadedDocument, load};
use crate::rollout::{Fleet, ReadPlan};

/// How the base document is spoilt so that a code appears.
enum Spoil {
    /// One text replaced by another.
    Edit(&'static str, &'static str),
    /// Another document altogether.
    Whole(&'static str),
    /// A second file beside the base document.
    Beside(&'static str),
    /// A document made by a function, too large to be written here.
    Made(fn() -> String),
    /// A rollout plan for the base document's gateways, from what follows on its seed.
    Plan(&'static str),
}
use Spoil::{Beside, Edit, Made, Plan, Whole};

fn examples() -> impl Iterator<Item = &'static (Code, Spoil)> {
    examples::EXAMPLES
        .iter()
        .chain(of_roles::EXAMPLES)
        .chain(of_people::EXAMPLES)
        .chain(of_plain_servers::EXAMPLES)
        .chain(of_templates::EXAMPLES)
        .chain(of_frames::EXAMPLES)
}

fn spoilt(spoil: &Spoil) -> LoadedDocument {
    let file = |text: &str| SourceFile::new("plant.yaml", text);
    match spoil {
        Edit(from, to) => {
            assert!(BASE.contains(from), "the base document holds `{from}`");
            load(&[file(&BASE.replacen(from, to, 1))], TODAY)
        }
        Whole(text) => load(&[file(text)], TODAY),
        Beside(text) => load(&[file(BASE), SourceFile::new("second.yaml", *text)], TODAY),
        Made(make) => load(&[file(&make())], TODAY),
        Plan(rest) => {
            let plant = load(&[file(BASE)], TODAY).plant.unwrap();
            let fleet = Fleet::of(&plant).unwrap();
            let text = format!("format: penstock-rollout/1\nseed: 1\n{rest}");
            let (plan, diagnostics) = ReadPlan::of(&SourceFile::new("plan.yaml", text)).judged(Some(&fleet));
            LoadedDocument {
                plant: plan.map(|_| plant),
                diagnostics,
                ..load(&[file(BASE)], TODAY)
            }
        }
    }
}

#[test]
fn the_base_document_itself_has_no_fault() {
    let loaded = load(&[SourceFile::new("plant.yaml", BASE)], TODAY);
    assert_eq!(loaded.diagnostics.render(Style::Narrated), "");
}

#[test]
fn every_code_has_an_example_that_gives_it() {
    for code in Code::ALL {
        assert!(
            examples().any(|(example, _)| example == code),
            "{code} has no example"
        );
    }
    for (code, spoil) in examples() {
        let loaded = spoilt(spoil);
        let found = super::codes(&loaded);
        assert!(found.contains(code), "{code} is not among {found:?}");
        assert_eq!(loaded.plant.is_none(), loaded.diagnostics.has_errors(), "{code}");
    }
}

#[test]
fn codes_are_numbered_in_order_and_explained() {
    let numbers: Vec<u16> = Code::ALL.iter().map(|code| code.number()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "each number once, in order");
    for code in Code::ALL {
        assert_eq!(Code::parse(&code.to_string().to_lowercase()), Some(*code));
        assert!(
            code.meaning().ends_with('.') && code.meaning().len() <= 110,
            "{code} has one line"
        );
        assert!(
            code.explanation().len() > code.meaning().len() / 2,
            "{code} is explained"
        );
    }
    assert_eq!(Code::parse("PS9999"), None);
}

/// What a person sees for every example, and one of them as a machine does.
#[test]
fn golden_texts_of_all_diagnostics() {
    let mut text = String::new();
    for (code, spoil) in examples() {
        let loaded = spoilt(spoil);
        writeln!(text, "=== {code} {}", code.meaning()).unwrap();
        // Only the code in question: what else the spoilt document brings is another example's business.
        for diagnostic in loaded
            .diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.code == *code)
        {
            let one = crate::diagnostics::Diagnostics::only(&loaded.diagnostics, diagnostic);
            text.push_str(&one.render(Style::Graphical {
                colour: false,
                width: 110,
            }));
        }
        text.push('\n');
    }
    let duplicate = spoilt(&Beside("plant: other-works\n"));
    writeln!(
        text,
        "=== as JSON\n{}",
        serde_json::to_string_pretty(&duplicate.diagnostics).unwrap()
    )
    .unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/document/tests/golden.txt");
    if std::env::var_os("PENSTOCK_UPDATE_GOLDENS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    let differs = golden.lines().zip(text.lines()).position(|(a, b)| a != b);
    assert!(
        golden == text,
        "line {:?} of {} differs from what is said now",
        differs.map(|line| line + 1),
        path.display()
    );
}

#[test]
fn an_error_always_has_a_place_or_concerns_the_whole() {
    for (code, spoil) in examples() {
        for diagnostic in &spoilt(spoil).diagnostics {
            let whole = matches!(
                diagnostic.code,
                Code::TooLarge | Code::TooManyFaults | Code::EmptyDocument
            );
            assert!(
                diagnostic.location.is_some() || whole,
                "{code}: {}",
                diagnostic.message
            );
            assert!(
                diagnostic.severity == Severity::Warning || diagnostic.code.severity() == Severity::Error
            );
            assert!(!diagnostic.message.contains('\n'), "one sentence");
        }
    }
}
