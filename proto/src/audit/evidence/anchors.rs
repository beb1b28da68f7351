//! Who else holds heads of the coordinator's tree, and whether the tree of the file begins with them: releases name one, by the signatures
//! of their approvers, and gateways write those that they see into their own trails. So a coordinator that rewrites its tree contradicts people and
//! machines that it cannot sign for, although it holds its own key.
//!
//! The approvers of a release are those that the release before it names. Who the approvers are at all, the file cannot prove: its reader
//! knows them, or one of the releases ([`Vouched`]). From a release that is known, those before it follow by their digests, and those after it
//! by their signatures.

use std::collections::BTreeMap;

use penstock_policy::ids::{ApproverId, Digest, GatewayId, PlantId, Revision};
use penstock_policy::merkle::Hash;
use penstock_policy::merkle::growing::TreeState;
use penstock_policy::model::ApproverSet;
use penstock_policy::release::{CHAIN_LINKS_MAX, Signature, Statement, TrailsAnchor, Trust, verify_release};

use rustls::pki_types::CertificateDer;

use super::EvidenceError;
use super::seen::{SeenHeads, Standing};
use crate::audit::cosignature::WitnessKey;
use crate::audit::note::Note;
use crate::audit::tree_head::TreeHead;
use crate::audit::verify::NotedHeads;
use crate::v1;

/// Contradictions that are named; more are counted.
const WRONG_MAX: usize = 20;
/// Cosigned heads in one file: one of each witness.
const COSIGNED_MAX: usize = 16;
/// Releases in one file.
const RELEASES_MAX: u64 = CHAIN_LINKS_MAX as u64 + 1;

/// What the reader of a file knows of the plant's releases from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vouched {
    /// Whose signatures a release of the file has to have.
    Approvers(ApproverSet),
    /// A release that was verified elsewhere; a file that does not have it may be from before it.
    Release(Digest),
}

/// What is known of the approvers of the releases in a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum History {
    /// The file says itself who they are.
    #[default]
    OwnWord,
    /// They are those that the reader knows.
    Known,
    /// The reader named approvers, and none of the releases is signed by them.
    Others,
}

/// A release that names a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchoringRelease {
    /// Its number.
    pub revision: Revision,
    /// Whose signatures count; empty: of the first one in the file, whose approvers are not there.
    pub signers: Vec<ApproverId>,
    /// What it names.
    pub head: TrailsAnchor,
}

/// A head that an external witness cosigned, with which the tree begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CosignedHead {
    /// The witness.
    pub witness: String,
    /// When, by the witness's clock, seconds since 1970.
    pub time_s: u64,
    /// How many blocks there were.
    pub size: u64,
}

/// What comes of the heads that others than the coordinator hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnchorsReport {
    /// Releases in the file.
    pub releases: u64,
    /// Who their approvers are.
    pub history: History,
    /// The newest release that names a head with which the tree begins.
    pub newest: Option<AnchoringRelease>,
    /// Releases whose head the tree begins with.
    pub anchored: u64,
    /// Different heads in gateways' trails that the tree begins with.
    pub seen: u64,
    /// By the witnesses whose keys the reader knows: the newest of each.
    pub cosigned: Vec<CosignedHead>,
    /// Cosigned heads in the file, whoever's.
    pub witnessed: u64,
    /// The newest release that says that the trails begin again, and how many heads from before it the tree does not begin with.
    pub again: Option<(AnchoringRelease, u64)>,
    /// What contradicts, in sentences.
    pub wrong: Vec<String>,
    /// What contradicts and is one gateway's word alone, by that gateway: nobody else's trail is proved less because of it.
    pub doubted: BTreeMap<String, Vec<String>>,
    /// Contradictions that are not among `wrong`, since there are so many.
    pub further: u64,
    /// Heads in gateways' trails that were not held against the tree, since there are so many.
    pub unjudged: u64,
}

impl AnchorsReport {
    /// Whether nothing contradicts.
    pub fn is_sound(&self) -> bool {
        self.wrong.is_empty() && self.doubted.is_empty()
    }

    fn contradicts(&mut self, sentence: String) {
        match self.wrong.len() < WRONG_MAX {
            true => self.wrong.push(sentence),
            false => self.further += 1,
        }
    }
}

#[derive(Debug)]
struct ReleaseHead {
    release: AnchoringRelease,
    created_ms: u64,
    standing: Standing,
}

/// Gathers heads, then their proofs.
#[derive(Debug, Default)]
pub(super) struct Anchors {
    begun: bool,
    vouched: Option<Vouched>,
    is_known: bool,
    /// What the next release has to follow.
    trust: Option<Trust>,
    count: u64,
    releases: Vec<ReleaseHead>,
    seen: SeenHeads,
    witnesses: Vec<WitnessKey>,
    cosigned: Vec<WitnessedHead>,
}

#[derive(Debug)]
struct WitnessedHead {
    note: Note,
    head: TreeHead,
    standing: Standing,
}

impl Anchors {
    pub(super) fn believe_witnesses(&mut self, witnesses: Vec<WitnessKey>) {
        self.witnesses = witnesses;
    }

    /// A head that somebody cosigned; `false`: it is none, or there are more than witnesses.
    pub(super) fn cosigned(&mut self, note: &[u8]) -> bool {
        self.begun = true;
        let read = || {
            let note = Note::parse(note).ok()?;
            let head = TreeHead::parse(&note.text)?;
            Some(WitnessedHead {
                note,
                head,
                standing: Standing::Unproved,
            })
        };
        let Some(read) = read().filter(|_| self.cosigned.len() < COSIGNED_MAX) else {
            return false;
        };
        self.cosigned.push(read);
        true
    }

    pub(super) fn believe(&mut self, vouched: Vouched) {
        self.vouched = Some(vouched);
    }

    /// Whether a release or a proof came, behind which no blocks do.
    pub(super) fn have_begun(&self) -> bool {
        self.begun
    }

    /// Heads that stand in the trail of `source`.
    pub(super) fn seen(&mut self, source: &str, noted: NotedHeads) {
        self.seen.take(source, noted);
    }

    /// The sizes of all heads.
    pub(super) fn sizes(&self) -> Vec<u64> {
        let releases = self.releases.iter().map(|one| one.release.head.size);
        let seen = self.seen.sizes();
        let cosigned = self.cosigned.iter().map(|one| one.head.tree.size);
        let mut sizes: Vec<u64> = releases.chain(seen).chain(cosigned).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// The next release.
    pub(super) fn release(
        &mut self,
        release: &v1::SignedRelease,
        plant: &PlantId,
    ) -> Result<(), EvidenceError> {
        self.begun = true;
        self.count += 1;
        let wrong = |revision: u64, why: String| EvidenceError::History { revision, why };
        let statement = Statement::from_bytes(&release.statement).map_err(|why| wrong(0, chain(&why)))?;
        let revision = statement.revision;
        let wrong = |why: String| wrong(revision.0, why);
        if self.count > RELEASES_MAX {
            return Err(wrong(format!("more than {RELEASES_MAX} releases are not read")));
        }
        let signatures = signatures(release).map_err(wrong)?;
        match &self.vouched {
            Some(Vouched::Release(known)) => self.is_known |= *known == Digest::of(&release.statement),
            Some(Vouched::Approvers(approvers)) if !self.is_known => {
                let trust = first_of(plant, approvers).map_err(wrong)?;
                self.is_known = verify_release(&trust, &release.statement, &signatures).is_ok();
            }
            _ => {}
        }
        let (next, signers) = match self.trust.take() {
            Some(trust) => {
                let verified = verify_release(&trust, &release.statement, &signatures);
                let verified = verified.map_err(|why| wrong(chain(&why)))?;
                (verified.next, verified.signers)
            }
            None => begin(plant, &statement, release, &signatures).map_err(wrong)?,
        };
        self.trust = Some(next);
        if let Some(head) = statement.trails {
            self.releases.push(ReleaseHead {
                release: AnchoringRelease {
                    revision,
                    signers,
                    head,
                },
                created_ms: statement.created_ms,
                standing: Standing::Unproved,
            });
        }
        Ok(())
    }

    /// The proof for all heads of this size.
    pub(super) fn proof(&mut self, earlier: u64, path: &[Hash], tree: &TreeState) {
        self.begun = true;
        let judged = |head: &TreeState| match tree.continues(head, path) {
            true => Standing::Holds,
            false => Standing::Contradicts,
        };
        for one in &mut self.releases {
            if one.release.head.size == earlier && one.standing != Standing::Holds {
                one.standing = judged(&one.release.head.tree());
            }
        }
        for one in &mut self.cosigned {
            if one.head.tree.size == earlier && one.standing != Standing::Holds {
                one.standing = judged(&one.head.tree);
            }
        }
        self.seen.prove(earlier, judged);
    }

    /// What comes of all. `coordinator`: the certificate of the key that signed the head of the file.
    pub(super) fn report(self, coordinator: Option<&CertificateDer<'_>>) -> AnchorsReport {
        let history = match (self.is_known, &self.vouched) {
            (true, _) => History::Known,
            (false, Some(Vouched::Approvers(_))) if self.count > 0 => History::Others,
            (false, _) => History::OwnWord,
        };
        let mut report = AnchorsReport {
            releases: self.count,
            history,
            ..AnchorsReport::default()
        };
        if history == History::Others {
            report.contradicts(
                "none of the releases in the file is signed by the approvers that you named".to_owned(),
            );
        }
        let again_at = self.releases.iter().rposition(|one| one.release.head.again);
        let again = again_at.and_then(|at| self.releases.get(at));
        let mut given_up = 0;
        for (at, one) in self.releases.iter().enumerate() {
            let AnchoringRelease { revision, head, .. } = &one.release;
            match one.standing {
                Standing::Holds => {
                    report.anchored += 1;
                    report.newest = Some(one.release.clone());
                }
                _ if again_at.is_some_and(|again| at < again) => given_up += 1,
                standing => report.contradicts(format!(
                    "release {revision}, as its approvers signed it, names the first {} blocks of all trails, and {}",
                    head.size,
                    standing.in_words()
                )),
            }
        }
        let again_of = again.map(|again| (again.release.revision, again.created_ms));
        let seen = self.seen.judge(again_of, coordinator);
        (report.seen, report.unjudged, report.doubted) = (seen.held, seen.unjudged, seen.doubted);
        given_up += seen.given_up;
        for sentence in seen.wrong {
            report.contradicts(sentence);
        }
        for witness in &self.witnesses {
            let of_witness = self
                .cosigned
                .iter()
                .filter_map(|one| Some((one, witness.cosigned(&one.note)?)));
            let Some((newest, time_s)) = of_witness.max_by_key(|(_, time_s)| *time_s) else {
                report.contradicts(format!("no head in the file is cosigned by {}", witness.name()));
                continue;
            };
            match newest.standing {
                Standing::Holds => report.cosigned.push(CosignedHead {
                    witness: witness.name().to_owned(),
                    time_s,
                    size: newest.head.tree.size,
                }),
                // The witness's own clock, not the coordinator's.
                _ if again.is_some_and(|again| time_s.saturating_mul(1000) <= again.created_ms) => {
                    given_up += 1
                }
                standing => report.contradicts(format!(
                    "{} cosigned a head of the trails with {} blocks, and {}",
                    witness.name(),
                    newest.head.tree.size,
                    standing.in_words()
                )),
            }
        }
        report.witnessed = self.cosigned.len() as u64;
        report.again = again.map(|again| (again.release.clone(), given_up));
        report
    }
}

/// What a release has to be that these approvers signed, whatever came before it.
fn first_of(plant: &PlantId, approvers: &ApproverSet) -> Result<Trust, String> {
    Ok(Trust {
        plant: plant.clone(),
        // Only a gateway's own plan depends on its name, and here is none.
        gateway: GatewayId::new("evidence").map_err(|error| error.to_string())?,
        approvers: approvers.clone(),
        floor: Revision(0),
        current: None,
    })
}

/// What follows from the first release of the file: the plant's first one is judged by the approvers that it names itself; of another one, those
/// who signed it may not be here.
fn begin(
    plant: &PlantId,
    statement: &Statement,
    release: &v1::SignedRelease,
    signatures: &[Signature],
) -> Result<(Trust, Vec<ApproverId>), String> {
    let own = first_of(plant, &statement.approvers)?;
    match verify_release(&own, &release.statement, signatures) {
        Ok(verified) => Ok((verified.next, verified.signers)),
        Err(why) if statement.parent.is_none() || statement.plant != *plant => Err(chain(&why)),
        Err(_) => {
            let next = Trust {
                floor: statement.revision,
                current: Some(Digest::of(&release.statement)),
                ..own
            };
            Ok((next, Vec::new()))
        }
    }
}

fn signatures(release: &v1::SignedRelease) -> Result<Vec<Signature>, String> {
    let read = |signature: &v1::Signature| {
        let approver = ApproverId::new(&signature.approver).map_err(|error| error.to_string())?;
        Signature::new(approver, &signature.algorithm, &signature.signature)
            .map_err(|error| error.to_string())
    };
    release.signatures.iter().map(read).collect()
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        words = format!("{words}: {next}");
        cause = next.source();
    }
    words
}
