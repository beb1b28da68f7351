//! What counts for how long: with seals and words that were verified already, so that many of them cost nothing.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::audit::seal::NamedBlocks;

fn place(sequence: u64) -> Place {
    Place { epoch: 1, sequence }
}

/// A trail of nothing but seals, each by the key that the one before announced.
struct Seals {
    chain: SealChain,
    texts: Vec<SealText>,
}

fn key(line: u8, number: u64) -> [u8; 32] {
    let mut key = [line; 32];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key
}

impl Seals {
    fn new() -> Self {
        Self {
            chain: SealChain::default(),
            texts: Vec::new(),
        }
    }

    /// The next seal, by the keys of this line.
    fn seal(&mut self, line: u8, number: u64) -> Vec<SealFinding> {
        let at = place(self.texts.len() as u64);
        let text = SealText {
            name: "works/gw-a".to_owned(),
            head: Head {
                epoch: 1,
                next_sequence: at.sequence,
                digest: [0; 32],
            },
            time_ms: 1,
            blocks: NamedBlocks {
                since: at.sequence,
                classes: Vec::new(),
            },
            number,
            key: key(line, number),
            next_key: key(line, number + 1),
        };
        self.texts.push(text.clone());
        let seals = vec![Ok(CheckedSeal::Seal(text))];
        self.chain.follow(&CheckedSeals { at, seals })
    }

    /// The identity key's word for the seal that stands there.
    fn word(&mut self, of: usize) -> Vec<SealFinding> {
        let at = place(self.texts.len() as u64);
        let seals = vec![Ok(CheckedSeal::Word {
            named: place(of as u64),
            text_digest: sha2::Sha256::digest(self.texts[of].to_string()).into(),
        })];
        self.chain.follow(&CheckedSeals { at, seals })
    }

    fn newest(&self) -> usize {
        self.texts.len() - 1
    }
}

#[test]
fn a_word_for_a_seal_before_a_fault_ends_nothing_and_one_for_what_came_after_ends_it() {
    let mut seals = Seals::new();
    seals.seal(1, 0);
    seals.seal(1, 1);
    // One is missing.
    seals.seal(1, 3);
    assert!(seals.chain.fault().is_some());
    assert!(seals.word(1).is_empty());
    assert!(
        seals.chain.fault().is_some() && seals.chain.unvouched.is_some(),
        "of before"
    );
    assert!(seals.word(2).is_empty());
    assert_eq!((seals.chain.fault(), seals.chain.unvouched), (None, None));
}

#[test]
fn other_keys_and_a_copy_stay_a_fault_until_a_person_acknowledged_them_whatever_the_identity_key_says() {
    // Began again, another key, went back.
    for (line, number) in [(2, 0), (2, 2), (1, 0)] {
        let mut seals = Seals::new();
        seals.seal(1, 0);
        seals.seal(1, 1);
        let found = seals.seal(line, number);
        assert!(found.iter().any(SealFinding::needs_person), "{found:?}");
        seals.word(seals.newest());
        seals.seal(line, number + 1);
        seals.word(seals.newest());
        // Something lesser hides it no more than a word ends it.
        seals.seal(line, number + 9);
        seals.word(seals.newest());
        let fault = seals.chain.fault().unwrap().clone();
        assert_eq!((fault.at, fault.needs_person), (place(2), true));
        let kept = serde_json::to_string(&seals.chain).unwrap();
        let mut read: SealChain = serde_json::from_str(&kept).unwrap();
        assert_eq!(read, seals.chain);
        assert!(read.acknowledge() && read.fault().is_none());
        assert!(!read.acknowledge(), "nothing is left");
    }
}

#[test]
fn an_identity_key_that_falls_silent_is_reported_soon_after_new_keys_and_later_once_no_hour_explains_it() {
    let mut seals = Seals::new();
    let reported = |seals: &mut Seals, numbers: std::ops::Range<u64>| -> Vec<u64> {
        let mut found = Vec::new();
        for number in numbers {
            let silent = seals.seal(1, number).into_iter();
            found.extend(silent.filter_map(|found| match found {
                SealFinding::Unvouched { seals, .. } => Some(seals),
                _ => None,
            }));
        }
        found
    };
    assert_eq!(reported(&mut seals, 0..200), [UNVOUCHED_MAX]);
    seals.word(seals.newest());
    assert_eq!(seals.chain.fault(), None);
    assert_eq!(reported(&mut seals, 200..200 + UNVOUCHED_AGAIN_MAX - 1), [0; 0]);
    seals.word(seals.newest());
    let from = 200 + UNVOUCHED_AGAIN_MAX - 1;
    assert_eq!(
        reported(&mut seals, from..from + UNVOUCHED_AGAIN_MAX + 9),
        [UNVOUCHED_AGAIN_MAX]
    );
}

#[test]
fn what_older_software_kept_of_seals_is_read_and_goes_on() {
    let older = r#"{"last":{"at":{"epoch":1,"sequence":4},"number":2,"time_ms":5,"key":[KEY],"next_key":[KEY]},"began":{"epoch":1,"sequence":0},"vouchable":[],"vouched":null,"unvouched":3,"fault":"seals are missing"}"#;
    let mut chain: SealChain = serde_json::from_str(&older.replace("KEY", &["7"; 32].join(","))).unwrap();
    let fault = chain.fault().unwrap();
    assert_eq!(
        (fault.words.as_str(), fault.needs_person),
        ("seals are missing", false)
    );
    assert!(!chain.acknowledge());
    let next = SealFinding::Unsealed {
        at: place(9),
        after: place(4),
        blocks: 5,
    };
    assert_eq!(chain.unsealed(place(9), 5), Some(next));
    assert_eq!(
        SealChain::default().unsealed(place(9), 5),
        None,
        "it was never sealed"
    );
}

#[test]
fn faults_that_need_a_person_are_held_together_within_a_bound_the_first_and_the_newest_of_them_whole() {
    let mut seals = Seals::new();
    seals.seal(1, 0);
    seals.seal(1, 1);
    seals.seal(1, 0);
    let first = seals.chain.fault().unwrap().clone();
    assert!(first.words.contains("began again"), "{first:?}");
    // Another key, and what its agent reports, with a text of any length in more than one byte a character.
    seals.seal(2, 1);
    let both = seals.chain.fault().unwrap().clone();
    assert!(
        both.words.ends_with(&first.words) && both.words.len() > first.words.len(),
        "{both:?}"
    );
    for number in 0..40 {
        let words = format!("spool-set-back: {number} {}", "ü".repeat(3000));
        seals.chain.reported(place(100 + number), words);
        let fault = seals.chain.fault().unwrap();
        assert!(fault.words.len() <= WORDS_MAX, "{}", fault.words.len());
        let newest = format!("its agent reports spool-set-back: {number} ü");
        assert!(
            fault.words.starts_with(&newest) && fault.words.ends_with(&first.words),
            "{fault:?}"
        );
        assert_eq!(fault.at, place(100 + number));
    }
    // The same again is not more than whoever looks can see.
    let held = seals.chain.fault().unwrap().clone();
    seals
        .chain
        .reported(place(900), format!("spool-set-back: 39 {}", "ü".repeat(3000)));
    assert_eq!(seals.chain.fault(), Some(&held));
    assert!(seals.chain.acknowledge() && seals.chain.fault().is_none());
    let found = seals.chain.reported(place(901), "x".repeat(1 << 20));
    assert!(found.to_string().len() < 600);
    assert!(seals.chain.fault().unwrap().words.len() < 600);
}
