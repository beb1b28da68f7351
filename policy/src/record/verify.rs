//! What a record proves, claim by claim: by signatures, by digests, or only by the word of who wrote it down.
//!
//! The judge believes the keys that it is given and nothing in the record. Without them it says what the record says of itself, and
//! that this proves nothing.

mod outcome;
mod words;

use self::outcome::outcome;
use self::words::{counted, gateways_of, short, some_of};
use super::content::{ChangeRecord, GatewayRecord, RecordedStatement, SignedRecord};
use crate::ids::{Digest, GatewayId, Revision};
use crate::merkle::{Tree, leaf_hash};
use crate::model::{ApproverSet, PublicKey};
use crate::release::{
    EnvelopeError, Link, OfferRefused, Signature, Statement, Trust, follow, leaf_bytes, verify_release,
};
use crate::rollout::{Fleet, assign};

/// What the reader knows by themselves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Believed<'a> {
    /// The approvers in force at the baseline, from the reader's own copy of its document.
    pub approvers: Option<&'a ApproverSet>,
    /// The key of who made the record.
    pub maker: Option<PublicKey>,
    /// The gateways of the release, from its documents, which were compiled and found to be what its statement says.
    pub fleet: Option<&'a Fleet>,
}

/// What a claim rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// Something in the record contradicts something else, or a signature does not fit: it must not be believed.
    Contradicted,
    /// Signatures of keys that the reader believes, and digests.
    Proved,
    /// The word of the coordinator, or of who made the record.
    Word,
}

/// One thing that the record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Stable code.
    pub code: &'static str,
    /// What it rests on.
    pub grade: Grade,
    /// In words.
    pub words: String,
}

#[derive(Default)]
struct Claims(Vec<Claim>);

impl Claims {
    fn add(&mut self, grade: Grade, code: &'static str, words: impl Into<String>) {
        self.0.push(Claim {
            code,
            grade,
            words: words.into(),
        });
    }
}

/// What a record proves to somebody who believes this; in the order in which a change happens.
pub fn verify(record: &ChangeRecord, signed: &SignedRecord, believed: Believed<'_>) -> Vec<Claim> {
    let mut claims = Claims::default();
    match authorised(record, believed, &mut claims) {
        Ok(Some((statement, known))) => {
            plans(record, &statement, &mut claims);
            waves(record, &statement, believed.fleet, &mut claims);
            implementation(record, &statement, &mut claims);
            outcome(record, &statement, &mut claims);
            made(record, signed, known.as_ref(), believed, &mut claims);
        }
        Ok(None) => {}
        Err(error) => claims.add(
            Grade::Contradicted,
            "unreadable",
            format!("a statement or signature in it cannot be read: {error}"),
        ),
    }
    claims.0
}

/// Why a statement in the record is none.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error(transparent)]
    Signature(#[from] EnvelopeError),
    #[error("{0}")]
    Statement(#[from] crate::release::StatementError),
    #[error("{0}")]
    Name(#[from] crate::ids::NameError),
}

fn read(recorded: &RecordedStatement) -> Result<(Statement, Vec<Signature>), Unreadable> {
    let statement = Statement::from_bytes(recorded.statement.as_bytes())?;
    Ok((statement, recorded.signatures()?))
}

/// The release's statement, and the approvers that its signatures make believable beside those that are believed.
type Authorised = Option<(Statement, Option<ApproverSet>)>;

/// Whether the release was allowed: the statements from the baseline on, each signed by the approvers in force before it.
fn authorised(
    record: &ChangeRecord,
    believed: Believed<'_>,
    claims: &mut Claims,
) -> Result<Authorised, Unreadable> {
    let release = &record.authorisation.release;
    let (statement, signatures) = read(release)?;
    let named = format!("{} ({})", statement.revision, short(&release.digest()));
    if statement.plant != record.plant {
        claims.add(
            Grade::Contradicted,
            "wrong-plant",
            format!(
                "the record is of plant {}, its release {named} of plant {}",
                record.plant, statement.plant
            ),
        );
        return Ok(None);
    }
    let baseline = record.baseline.as_ref().map(read).transpose()?;
    let own = match &baseline {
        Some((before, _)) => &before.approvers,
        None => &statement.approvers,
    };
    let approvers = believed.approvers.unwrap_or(own);
    let mut between = Vec::new();
    for link in &record.between {
        between.push((link.statement.as_bytes(), read(link)?.1));
    }
    let links: Vec<Link<'_>> = between
        .iter()
        .map(|(statement, signatures)| Link {
            statement,
            signatures,
        })
        .collect();
    let current = record.baseline.as_ref().map(RecordedStatement::digest);
    let trust = Trust {
        plant: record.plant.clone(),
        // Only a gateway's own plan depends on its name, and here is none.
        gateway: GatewayId::new("offline")?,
        approvers: approvers.clone(),
        floor: baseline
            .as_ref()
            .map_or(Revision(0), |(before, _)| before.revision),
        current,
    };
    let bytes = release.statement.as_bytes();
    let reached =
        follow(&trust, &links, bytes).and_then(|reached| verify_release(&reached, bytes, &signatures));
    let verified = match reached {
        Ok(verified) => verified,
        Err(refused) => {
            claims.add(Grade::Contradicted, "not-approved", refusal(&named, &refused));
            return Ok(None);
        }
    };
    let signers: Vec<&str> = verified.signers.iter().map(|signer| signer.as_str()).collect();
    let emergency = match statement.emergency {
        true => ", as an emergency",
        false => "",
    };
    let who = format!(
        "release {named} of {} was approved by {}{emergency}; its author {} does not count",
        record.plant,
        some_of(&signers),
        statement.author
    );
    match believed.approvers {
        Some(_) => claims.add(Grade::Proved, "approved", format!("{who}: signed with keys that you believe")),
        None => claims.add(
            Grade::Word,
            "approved",
            format!(
                "{who}: signed with keys that the record itself names; whether they were the plant's approvers is not proved without \
                 your own copy of the document before"
            ),
        ),
    }
    let grade = match believed.approvers {
        Some(_) => Grade::Proved,
        None => Grade::Word,
    };
    match &baseline {
        Some((before, _)) => claims.add(
            grade,
            "baseline",
            format!(
                "what it was approved on top of is {} ({}), the baseline",
                before.revision,
                short(&Digest::of(&before.to_bytes()))
            ),
        ),
        None if statement.parent.is_none() => {
            claims.add(grade, "baseline", "it is the plant's first release: there was no baseline");
        }
        None => claims.add(
            Grade::Word,
            "baseline",
            "no rollout before it had put a release in force: the baseline is empty on the coordinator's word",
        ),
    }
    let reason = match &statement.ticket {
        Some(ticket) => format!("{} ({ticket})", statement.reason),
        None => statement.reason.clone(),
    };
    claims.add(grade, "reason", format!("what was approved says why: {reason}"));
    let known = believed.approvers.is_some().then(|| statement.approvers.clone());
    Ok(Some((statement, known)))
}

fn refusal(named: &str, refused: &OfferRefused) -> String {
    format!(
        "release {named} was not approved as the record says ({}): {refused}",
        refused.code()
    )
}

/// The gateways' plans are those under the approved root.
fn plans(record: &ChangeRecord, statement: &Statement, claims: &mut Claims) {
    let gateways = &record.verification.gateways;
    let is_ordered = gateways
        .iter()
        .zip(gateways.iter().skip(1))
        .all(|(a, b)| a.name < b.name);
    let leaf = |gateway: &GatewayRecord| {
        leaf_hash(&leaf_bytes(
            &gateway.name,
            statement.revision,
            gateway.plan_digest,
        ))
    };
    let tree = Tree::new(gateways.iter().map(leaf).collect());
    let is_whole =
        is_ordered && tree.size() == statement.gateways && Digest(tree.root()) == statement.plans_root;
    if is_whole {
        claims.add(
            Grade::Proved,
            "plans",
            format!(
                "the digests of the plans of {} are those of the release: together they give the root that its statement names",
                gateways_of(gateways.len())
            ),
        );
    } else {
        claims.add(
            Grade::Contradicted,
            "plans",
            "the gateways and plans in the record are not those of the release: they do not give the root that its statement names",
        );
    }
}

fn waves(record: &ChangeRecord, statement: &Statement, fleet: Option<&Fleet>, claims: &mut Claims) {
    let Some(fleet) = fleet else {
        claims.add(
            Grade::Word,
            "waves",
            "who was in which wave is the coordinator's word: with the release's documents it is worked out again",
        );
        return;
    };
    claims.add(
        Grade::Proved,
        "documents",
        format!(
            "the documents that you gave compile to exactly what {} states",
            statement.revision
        ),
    );
    let plan = &record.implementation.plan;
    let waves = assign(plan, fleet);
    let differs = record.verification.gateways.iter().find(|gateway| {
        let at = fleet.find(&gateway.name).and_then(|at| waves.get(at as usize));
        let wave = at.copied().flatten().map_or(0, |wave| u32::from(wave) + 1);
        // 0: the coordinator did not say.
        gateway.wave != 0 && gateway.wave != wave
    });
    match differs {
        None => claims.add(
            Grade::Proved,
            "waves",
            format!(
                "by the plan's seed {}, each gateway was in the wave that the record gives",
                plan.seed
            ),
        ),
        Some(gateway) => claims.add(
            Grade::Contradicted,
            "waves",
            format!(
                "by the plan and its seed, {} was not in wave {}, where the record has it",
                gateway.name, gateway.wave
            ),
        ),
    }
}

fn implementation(record: &ChangeRecord, statement: &Statement, claims: &mut Claims) {
    let implementation = &record.implementation;
    let by = match implementation.started_by.as_str() {
        "" => "the coordinator by its settings",
        by => by,
    };
    claims.add(
        Grade::Word,
        "implementation",
        format!(
            "that {by} started the rollout, all times, who steered it and why, and what gateways reported meanwhile ({} and {} of their \
             trails, whose places in them are given): on the coordinator's word",
            counted(implementation.events.len(), "event"),
            counted(implementation.trail.len(), "record")
        ),
    );
    if implementation.trail_is_cut {
        claims.add(
            Grade::Word,
            "trail-cut",
            "gateways reported more than the record holds; the rest is in their trails",
        );
    }
    let times = implementation.events.iter().map(|event| event.time_ms);
    let goes_back = times.clone().zip(times.skip(1)).any(|(a, b)| a > b);
    if goes_back {
        claims.add(
            Grade::Word,
            "times",
            "the times of its events go back at least once: a clock was set meanwhile",
        );
    }
    if implementation.started_ms < statement.created_ms {
        claims.add(
            Grade::Word,
            "times",
            "it was started before its release was made, by the clocks of the two machines: one of them was wrong",
        );
    }
    if implementation.ended_ms != 0 && implementation.ended_ms < implementation.started_ms {
        claims.add(
            Grade::Word,
            "times",
            "it ended before it was started: a clock was set meanwhile",
        );
    }
}

/// Who made the record, and whether it is as they made it.
fn made(
    record: &ChangeRecord,
    signed: &SignedRecord,
    approved: Option<&ApproverSet>,
    believed: Believed<'_>,
    claims: &mut Claims,
) {
    claims.add(
        Grade::Word,
        "preview",
        format!(
            "the words about what changed are those of {}'s machine",
            record.made_by
        ),
    );
    let asked = signed.signable();
    // Whoever takes a signature away must not gain by it.
    let fits = |maker: PublicKey| signed.signatures.iter().any(|one| one.verifies(&asked, &maker));
    if believed.maker.is_some_and(|maker| !fits(maker)) {
        claims.add(
            Grade::Contradicted,
            "not-by-maker",
            "no signature in it was made with the key that you gave for who made it: the record was altered, its signature was taken away, \
             or somebody else made it",
        );
    }
    if signed.signatures.is_empty() {
        claims.add(
            Grade::Word,
            "unsigned",
            "nobody signed the record: whoever had the file may have altered all that is not proved above",
        );
        return;
    }
    for signature in &signed.signatures {
        let name = &signature.approver;
        let sets = [believed.approvers, approved];
        let of_set = sets.into_iter().flatten().find_map(|set| set.people.get(name));
        let is_maker = name.as_str() == record.made_by.as_str();
        let given = believed.maker.filter(|_| is_maker);
        let Some(key) = given.or(of_set.map(|person| person.key)) else {
            claims.add(
                Grade::Word,
                "signer-unknown",
                format!("it bears a signature of {name}, whose key you did not give: it proves nothing"),
            );
            continue;
        };
        if !signature.verifies(&asked, &key) {
            claims.add(
                Grade::Contradicted,
                "altered",
                format!("the signature of {name} does not fit the record: it was altered, or signed with another key"),
            );
            continue;
        }
        let role = if is_maker {
            "who made it"
        } else {
            "beside who made it"
        };
        claims.add(
            Grade::Proved,
            "signed",
            format!(
                "{name}, {role}, signed the record with {}: it is as they signed it, also where it repeats the coordinator",
                String::from(key)
            ),
        );
    }
}
