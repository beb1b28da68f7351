//! When a source's identity key is asked for its word for a seal: with the first one, with other certificates, with new seal keys, and each hour in
//! which the trail was sealed.
//!
//! Pure: whoever asks the key says how long ago it gave its last word.

use std::time::Duration;

use rustls::pki_types::CertificateDer;

use super::seal::SealText;

/// How often the identity key vouches for a trail that grows.
const EVERY: Duration = Duration::from_secs(3600);

/// For what the identity key gave its word last.
#[derive(Debug, Clone, Default)]
pub struct Vouching {
    last: Option<(SealText, Vec<CertificateDer<'static>>)>,
}

impl Vouching {
    /// Whether its word for the seal of this text is due, which comes with these certificates; it gave the last one so long ago.
    pub fn is_due(&self, text: &SealText, chain: &[CertificateDer<'_>], since_last: Duration) -> bool {
        let Some((vouched, with)) = &self.last else {
            return true;
        };
        if text == vouched {
            return false;
        }
        let has_other_keys = text.number <= vouched.number || text.head.epoch != vouched.head.epoch;
        has_other_keys || chain != with.as_slice() || since_last >= EVERY
    }

    /// It vouched for this seal.
    pub fn vouched(&mut self, text: SealText, chain: &[CertificateDer<'static>]) {
        self.last = Some((text, chain.to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Head;
    use crate::audit::seal::NamedBlocks;

    fn text(epoch: u64, number: u64) -> SealText {
        SealText {
            name: "works/gw-a".to_owned(),
            head: Head {
                epoch,
                next_sequence: 10 * number,
                digest: [1; 32],
            },
            time_ms: 0,
            blocks: NamedBlocks {
                since: 0,
                classes: Vec::new(),
            },
            number,
            key: [2; 32],
            next_key: [3; 32],
        }
    }

    #[test]
    fn a_word_is_due_first_with_other_certificates_with_other_keys_and_each_hour_in_which_there_was_a_seal() {
        let (first, second) = ([CertificateDer::from(vec![1])], [CertificateDer::from(vec![2])]);
        let (now, hour) = (Duration::ZERO, EVERY);
        let mut vouching = Vouching::default();
        assert!(vouching.is_due(&text(1, 5), &first, now));
        vouching.vouched(text(1, 5), &first);
        assert!(
            !vouching.is_due(&text(1, 5), &second, hour),
            "it vouched for this one"
        );
        assert!(!vouching.is_due(&text(1, 6), &first, now));
        assert!(vouching.is_due(&text(1, 6), &first, hour));
        assert!(vouching.is_due(&text(1, 6), &second, now));
        assert!(vouching.is_due(&text(1, 0), &first, now), "new keys");
        assert!(vouching.is_due(&text(2, 6), &first, now), "a new epoch");
    }
}
