//! What people compare by telephone: eight words for a release, and how many days old it is.
//!
//! A coordinator can show different people different releases, and can keep a release from a gateway. No signature says so: only
//! people who compare what each of them sees notice it. Everything that shows a release to people shows these words, made where they
//! are shown and of the statement's exact bytes.
//!
//! The words are the first 64 bits of the statement's SHA-256, a byte each, from a list of 256 of which no two sound alike: they
//! differ in three letters at least, and in the first three. 64 bits suffice, since the words prove nothing by themselves: a gateway
//! obeys the signatures over all of the bytes, and an approver's own machine compiles what it signs. Who wants two people to take one
//! release for another needs a second statement with the words of one that is already announced, which takes 2⁶⁴ attempts, within the
//! hours between proposal and telephone call, and then a threshold of signatures over it that nobody gives.
//!
//! The list is part of the format: a word that was exchanged would make two versions of the software disagree.

use crate::ids::Digest;

/// How many words stand for a digest.
pub const WORDS_SPOKEN: usize = 8;

/// The eight words of a digest: `acorn tiger …`.
///
/// ```
/// use penstock_policy::ids::Digest;
/// use penstock_policy::release::spoken;
///
/// assert_eq!(spoken(&Digest([0; 32])), ["abbey"; 8].join(" "));
/// ```
pub fn spoken(digest: &Digest) -> String {
    let bytes = digest.0.iter().take(WORDS_SPOKEN);
    let words: Vec<&str> = bytes
        .filter_map(|byte| WORDS.get(usize::from(*byte)).copied())
        .collect();
    words.join(" ")
}

/// How long ago something was, in whole days: `less than a day ago`, `1 day ago`, `27 days ago`.
///
/// ```
/// assert_eq!(penstock_policy::release::days_ago(0, 27 * 86_400_000), "27 days ago");
/// ```
pub fn days_ago(then_ms: u64, now_ms: u64) -> String {
    const DAY_MS: u64 = 86_400_000;
    match now_ms.checked_sub(then_ms).map(|ms| ms / DAY_MS) {
        None => "at a time that this clock has not reached".to_owned(),
        Some(0) => "less than a day ago".to_owned(),
        Some(1) => "1 day ago".to_owned(),
        Some(days) => format!("{days} days ago"),
    }
}

#[rustfmt::skip] // Eight a line.
const WORDS: [&str; 256] = [
    "abbey", "acorn", "agent", "album", "anchor", "angel", "ankle", "april",
    "argon", "aspen", "atlas", "attic", "autumn", "avenue", "axis", "badge",
    "bamboo", "banjo", "barley", "basket", "beaver", "bishop", "blossom", "bonfire",
    "border", "bottle", "bronze", "bubble", "buffalo", "butter", "cabin", "cactus",
    "camel", "canoe", "carpet", "castle", "cedar", "cement", "chalk", "cherry",
    "chimney", "cinema", "circle", "citrus", "cliff", "clock", "coach", "cobalt",
    "coffee", "copper", "cotton", "cousin", "cradle", "cricket", "crystal", "curtain",
    "cushion", "cymbal", "dagger", "daisy", "decade", "denim", "dessert", "diamond",
    "dinner", "dollar", "donkey", "drawer", "drummer", "duchess", "dune", "dwarf",
    "eagle", "easter", "echo", "eclipse", "elbow", "elder", "empire", "engine",
    "equator", "evening", "fabric", "falcon", "farmer", "feather", "fence", "fiddle",
    "flannel", "flour", "flute", "forest", "fossil", "freckle", "furnace", "galaxy",
    "garden", "gazelle", "ghost", "giant", "giraffe", "glacier", "globe", "goblet",
    "gorilla", "granite", "guitar", "gypsum", "harbor", "helmet", "heron", "hickory",
    "horizon", "hotel", "hurdle", "iceberg", "igloo", "indigo", "insect", "island",
    "ivory", "jaguar", "jasmine", "jelly", "jersey", "jigsaw", "jungle", "jury",
    "kayak", "kernel", "kidney", "kiosk", "kitchen", "kiwi", "knight", "koala",
    "ladder", "lagoon", "lantern", "leopard", "library", "lilac", "linen", "lizard",
    "lobster", "locket", "logic", "lotus", "lumber", "lunar", "magnet", "marble",
    "meadow", "melody", "meteor", "minute", "mirror", "mitten", "morning", "mosaic",
    "muffin", "museum", "napkin", "nectar", "needle", "nephew", "nickel", "north",
    "nugget", "nurse", "nutmeg", "nylon", "oatmeal", "obelisk", "ocean", "octopus",
    "office", "olive", "onion", "opera", "orange", "orbit", "orchard", "oxygen",
    "palace", "panther", "paper", "parcel", "peanut", "pelican", "pencil", "pickle",
    "pigeon", "pillow", "pirate", "plaza", "plough", "potato", "prince", "puppet",
    "quail", "queen", "quiver", "rabbit", "raisin", "ranch", "raven", "recipe",
    "rhyme", "ribbon", "roof", "rumba", "sailor", "salad", "sandal", "school",
    "scout", "silver", "skate", "sketch", "sleigh", "snow", "spider", "spoon",
    "squid", "stamp", "stone", "sunset", "syrup", "teapot", "temple", "thumb",
    "tiger", "toast", "token", "topaz", "tulip", "tundra", "tuxedo", "twig",
    "urchin", "vacuum", "violin", "voyage", "waffle", "walnut", "weasel", "wheat",
    "widow", "world", "yacht", "yard", "yogurt", "zebra", "zenith", "zigzag",
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::collections::BTreeSet;

    use super::*;

    /// How many letters have to be changed, added or left out.
    fn distance(one: &str, other: &str) -> usize {
        let (one, other) = (one.as_bytes(), other.as_bytes());
        let mut row: Vec<usize> = (0..=other.len()).collect();
        for (at, letter) in one.iter().enumerate() {
            let mut next = vec![at + 1];
            for (place, against) in other.iter().enumerate() {
                let exchanged = row[place] + usize::from(letter != against);
                next.push(exchanged.min(row[place + 1] + 1).min(next[place] + 1));
            }
            row = next;
        }
        row[other.len()]
    }

    #[test]
    fn no_two_words_of_the_list_are_taken_for_each_other() {
        assert!(WORDS.is_sorted());
        let beginnings: BTreeSet<&str> = WORDS.iter().map(|word| &word[..3]).collect();
        assert_eq!(beginnings.len(), WORDS.len());
        for (at, word) in WORDS.iter().enumerate() {
            assert!((4..=7).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_lowercase()));
            for other in &WORDS[at + 1..] {
                assert!(distance(word, other) >= 3, "{word} {other}");
            }
        }
    }

    #[test]
    fn the_words_of_a_release_are_those_that_every_version_says() {
        // Of the list as it was when releases were first read out: two programs that differ in it would make people suspect a lie.
        let list = Digest::of(WORDS.join(" ").as_bytes()).to_string();
        assert_eq!(
            list,
            "sha256:0f9dce412cbe575f3fdbf1bbf5e64f6ee65193e69632d677010e96f0c9e60db7"
        );
        let mut bytes = [0; 32];
        bytes[..9].copy_from_slice(&[0, 1, 127, 128, 255, 3, 2, 1, 77]);
        assert_eq!(
            spoken(&Digest(bytes)),
            "abbey acorn jury kayak zigzag album agent acorn"
        );
    }

    #[test]
    fn every_bit_of_the_first_eight_bytes_is_heard() {
        let digest = Digest([0xa5; 32]);
        let heard: BTreeSet<String> = (0..64)
            .map(|bit| {
                let mut other = digest;
                other.0[bit / 8] ^= 1 << (bit % 8);
                spoken(&other)
            })
            .chain([spoken(&digest)])
            .collect();
        assert_eq!(heard.len(), 65);
    }

    #[test]
    fn an_age_counts_whole_days_and_a_clock_that_is_behind_is_named() {
        let day = 86_400_000;
        assert_eq!(days_ago(0, day - 1), "less than a day ago");
        assert_eq!(days_ago(5, day + 5), "1 day ago");
        assert_eq!(days_ago(5, 27 * day + 6), "27 days ago");
        assert!(days_ago(6, 5).contains("not reached"));
    }
}
