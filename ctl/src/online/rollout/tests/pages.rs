//! What people see of a rollout: in whole, folded for a thousand gateways, on a narrow terminal, and of names that lie.

use penstock_proto::v1::{FreezeState, Rollout, RolloutGateway, RolloutWait};

use super::super::fixture::{rollout, sent};
use super::super::view::{RolloutList, RolloutView};
use crate::output::{Page, Report, Style};

fn page_of(report: &impl Report, width: usize, wrap: bool) -> String {
    let mut page = Page::new(Style {
        color: false,
        width,
        wrap,
    });
    report.page(&mut page);
    page.finish()
}

#[test]
fn a_gateway_that_people_override_is_shown_with_until_when_and_by_whom_though_it_did_not_fail() {
    let mut sent = sent();
    sent.gateways = vec![RolloutGateway {
        name: "gw-4".to_owned(),
        state: "confirmed".to_owned(),
        wave: 1,
        connected: true,
        overridden: vec!["overridden until noon by anna and bert: a device".to_owned()],
        ..RolloutGateway::default()
    }];
    let shown = page_of(&RolloutView::of(sent).unwrap(), 120, false);
    assert!(
        shown.contains("confirmed; overridden until noon by anna and bert: a device"),
        "{shown}"
    );
}

#[test]
fn a_rollout_is_shown_with_what_failed_first_and_who_waits_for_what() {
    crate::times::choose(jiff::tz::TimeZone::UTC);
    let mut view = rollout();
    view.halted = "gateway gw-3 crashed".to_owned();
    let expected = "\
r5 (070707070707)  ✗ opening, wave 2 of 3 (one-percent)
  ✗ halted: gateway gw-3 crashed
  5 of 12 gateways enforce it: 5 confirmed, 1 reverted-hard, 2 trial, 4 waiting · 1 failed of 8 that activated
  gw-3  ✗ went back from r5 (crash) 60 s ago: the agent ended; it refuses r5 until a person on site clears that
  waits for
    2 gateways: gw-1, gw-2: the gateway's trial to show that it can be confirmed
    4 gateways: its turn

started by anna 1970-01-01T00:00:01Z (119 s ago): Historian reads PLC 7 (CHG-4711)
  1970-01-01T00:00:01Z  anna  started: Historian reads PLC 7 (CHG-4711)
";
    assert_eq!(
        page_of(&view, 200, false),
        expected.replace("119 s ago", "1 min ago")
    );
}

fn wait(gateway: &str, gateways: u32, reason: String) -> RolloutWait {
    RolloutWait {
        gateway: gateway.to_owned(),
        gateways,
        reason,
    }
}

#[test]
fn a_thousand_gateways_that_wait_and_fail_fit_on_a_screen() {
    let mut many = sent();
    let name = |at: u32| format!("gw-{at:04}");
    many.waits = (0..900)
        .map(|at| wait(&name(at), 0, "its window to open".to_owned()))
        .collect();
    many.waits
        .extend((0..40).map(|at| wait(&name(at), 0, format!("reason {at}"))));
    many.further_waits = 60;
    many.gateways = (0..100)
        .map(|at| RolloutGateway {
            name: name(at),
            state: "silent".to_owned(),
            connected: false,
            ..RolloutGateway::default()
        })
        .collect();
    many.further_gateways = 400;
    let view = RolloutView::of(many).unwrap();
    let mut page = Page::new(Style {
        color: false,
        width: 100,
        wrap: true,
    });
    view.live(&mut page);
    let text = page.finish();
    assert!(text.lines().count() <= 40, "{text}");
    assert!(
        text.contains(
            "900 gateways: gw-0000, gw-0001, gw-0002, gw-0003, gw-0004, gw-0005 and 894 more: its window"
        ),
        "{text}"
    );
    assert!(
        text.contains("  gw-0009  ✗ silent, not connected") && !text.contains("gw-0010  ✗"),
        "{text}"
    );
    assert!(
        text.contains("and 490 more") && text.contains("and 89 more"),
        "{text}"
    );
}

#[test]
fn whatever_names_and_reasons_hold_the_terminal_obeys_none_of_it_and_lines_end_in_time() {
    let evil = "gw\u{1b}[2J\u{202e}\nroot";
    let mut lying = sent();
    lying.wave_name = evil.to_owned();
    lying.halted = evil.to_owned();
    lying.started_by = evil.to_owned();
    lying.stage = evil.to_owned();
    lying.waits = vec![wait(evil, 0, evil.to_owned())];
    lying.counts = [(evil.to_owned(), 3)].into_iter().collect();
    lying.gateways[0].name = evil.to_owned();
    lying.events[0].message = evil.to_owned();
    lying.freeze = Some(FreezeState {
        frozen: true,
        by: evil.to_owned(),
        reason: evil.to_owned(),
        ..FreezeState::default()
    });
    let view = RolloutView::of(lying).unwrap();
    let list = RolloutList {
        frozen: view.frozen.clone(),
        rollouts: vec![view.clone()],
    };
    for (text, width) in [(page_of(&view, 60, true), 60), (page_of(&list, 200, true), 200)] {
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
        for line in text.lines() {
            assert!(line.chars().count() <= width, "{line}");
        }
    }
}

#[test]
fn a_list_shows_the_newest_first_and_a_freeze_before_all_of_them() {
    let older = Rollout {
        revision: 4,
        stage: "completed".to_owned(),
        ..sent()
    };
    let list = RolloutList {
        frozen: RolloutView::of(Rollout {
            freeze: Some(FreezeState {
                frozen: true,
                by: "anna".to_owned(),
                reason: "smoke".to_owned(),
                ticket: "INC-9".to_owned(),
                since_ms: 1_000,
            }),
            ..sent()
        })
        .unwrap()
        .frozen,
        rollouts: vec![rollout(), RolloutView::of(older).unwrap()],
    };
    let text = page_of(&list, 200, false);
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("▲ the plant is frozen by anna since 1970"),
        "{text}"
    );
    assert!(lines[2].starts_with("r5") && lines[3].starts_with("r4"), "{text}");
    assert!(lines[3].contains("✓ completed"), "{text}");
}
