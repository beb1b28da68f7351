//! How trails go on and end: in other epochs, behind what somebody else wrote, without seals, and cut off.

use super::*;
use crate::audit::EPOCH_LEAD_MAX;
use crate::audit::chain::UNSEALED_MAX;

fn has(report: &TrailReport, is: impl Fn(&Finding) -> bool) -> usize {
    report.findings.iter().filter(|found| is(found)).count()
}

#[test]
fn what_a_thief_wrote_in_an_epoch_far_ahead_keeps_no_later_block_of_the_source_from_being_read() {
    let mut source = trail(&[(0, 1), (5, 0), (0, 2)]);
    source.event("open when the thief came");
    let mut thief = Source::new();
    thief.head.epoch = source.head.epoch + EPOCH_LEAD_MAX;
    thief.event("never happened");
    thief.seal();
    let before = source.blocks.len();
    source.event("goes on");
    source.seal();
    source.vouch(Plant::shared());
    let mut blocks = source.blocks.clone();
    blocks.splice(before..before, thief.blocks.clone());
    let report = read(&blocks);
    assert_eq!(
        has(&report, |found| matches!(found, Finding::Rewound { .. })),
        1,
        "{report}"
    );
    // By its own keys, which is said, too; and none of it is held against the source.
    assert_eq!(alarms(&report).len(), 2, "{report}");
    assert_eq!(
        (report.unexplained(), report.blocks),
        (0, blocks.len() as u64),
        "{report}"
    );
    let last_seal = place_of(&source.newest.as_ref().unwrap().head);
    assert_eq!(
        (report.sealed, report.vouched),
        (Some(last_seal), Some(last_seal))
    );
    // What was taken out behind it shows as ever.
    blocks.remove(before + thief.blocks.len());
    assert_eq!(read(&blocks).unexplained(), 1);
    // And a block of an epoch before is none that goes on, where nobody is that far ahead.
    let mut moved = trail(&[(0, 1)]);
    let repeated = moved.blocks[1].clone();
    moved.new_epoch();
    moved.event("another epoch");
    moved.blocks.push(repeated);
    let report = read(&moved.blocks);
    assert!(
        matches!(
            report.findings.last(),
            Some(Finding::Chain(ChainError::Held { .. }))
        ),
        "{report}"
    );
}

#[test]
fn a_new_epoch_hides_no_end_that_was_cut_off() {
    let mut source = trail(&[(0, 1), (5, 0)]);
    let witnessed = source.head;
    let read_with = |blocks: &[AuditBlock]| {
        let mut verifier = TrailVerifier::new(Plant::shared().trust()).with_witness(witnessed);
        for block in blocks {
            verifier.take(block, None);
        }
        verifier.report()
    };
    let is_cut = |found: &Finding| matches!(found, Finding::CutOff { .. });
    let whole = source.blocks.len();
    source.new_epoch();
    source.event("after the disk was set back");
    assert_eq!(has(&read_with(&source.blocks), is_cut), 0);
    let mut cut = source.blocks.clone();
    cut.drain(whole - 2..whole);
    let report = read_with(&cut);
    assert_eq!(has(&report, is_cut), 1, "{report}");
    // Where nothing is left of the epoch, it may have been given up.
    assert_eq!(has(&read_with(&source.blocks[whole..]), is_cut), 0);
}

#[test]
fn a_sealed_trail_that_goes_on_without_seals_is_found_once_and_an_older_one_without_any_never() {
    let mut older = Source::new();
    let mut sealed = Source::new();
    sealed.event("begin");
    sealed.seal();
    sealed.vouch(Plant::shared());
    for _ in 0..UNSEALED_MAX + 5 {
        older.event("");
        sealed.event("");
    }
    let is_unsealed = |found: &Finding| matches!(found, Finding::Seal(SealFinding::Unsealed { .. }));
    assert!(read(&older.blocks).is_whole());
    let report = read(&sealed.blocks);
    assert_eq!(has(&report, is_unsealed), 1, "{report}");
    assert_eq!(alarms(&report).len(), 1, "{report}");
}

#[test]
fn more_blocks_between_two_seals_than_are_held_are_proved_by_the_chain_and_that_is_said() {
    let mut source = Source::new();
    for _ in 0..OPEN_MAX + 20 {
        source.event("");
    }
    source.seal();
    source.vouch(Plant::shared());
    let report = read(&source.blocks);
    assert!(report.is_whole() && report.loose == 0, "{report}");
    assert_eq!(report.by_chain, OPEN_MAX as u64 + 20);
    assert!(
        report.to_string().contains("Proved by the chain alone"),
        "{report}"
    );
    let mut altered_early = source.blocks.clone();
    altered(&mut altered_early[3]);
    assert!(!read(&altered_early).is_whole());
    // Behind a gap, the chain proves nothing of what stands before it.
    let shed = source.blocks.remove(OPEN_MAX + 10);
    let report = read(&source.blocks);
    assert_eq!(
        (report.loose, report.unexplained()),
        (shed.sequence, 1),
        "{report}"
    );
}
