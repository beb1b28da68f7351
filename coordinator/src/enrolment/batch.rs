//! Tokens for a whole batch of gateways, which two approvers of the release in force signed (IEC 62443-3-3 SR 1.4, SR 1.5).
//!
//! It is judged as a whole: what is wrong with any of its gateways is named, and then none gets a token. A batch's id is used once.
//! The same batch again, since its answer was lost or it was broken off, makes new secrets for the gateways that have not enrolled with it
//! yet, since secrets are not kept; those that have are left alone. So it is written in parts, the record of the batch first.

use std::collections::BTreeMap;

use penstock_policy::batch::{Batch, SIGNERS_NEEDED, SignedBatch};
use penstock_policy::ids::{Digest, GatewayId, PlantId};
use penstock_policy::model::ApproverSet;
use penstock_policy::text;
use penstock_proto::peer::Subject;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::times::instant;
use penstock_proto::token::{SECRET_BYTES, Secret};
use serde::{Deserialize, Serialize};

use super::{GATEWAY_PREFIX, GatewayRecord, TokenRecord, hash, key_of};
use crate::journal::Deed;
use crate::store::{Change, Expect, Store};
use crate::subjects::{Standing, Subjects};

/// Prefix of the records.
const PREFIX: &str = "batch/";
/// Tokens that are written at once, with their events.
const AT_ONCE: usize = 200;
/// Faults that are named in words.
const NAMED_MAX: usize = 40;

/// That it was used.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchRecord {
    digest: Digest,
    submitted_ms: u64,
    by: String,
}

/// What a batch is held against.
pub(crate) struct BatchGround<'a> {
    /// Whose signatures count: those of the release in force.
    pub(crate) approvers: &'a ApproverSet,
    /// The plant.
    pub(crate) plant: &'a PlantId,
    /// Whether the release in force has a plan for a gateway.
    pub(crate) is_planned: &'a (dyn Fn(&GatewayId) -> bool + Send + Sync),
}

/// The tokens of a batch.
#[derive(Debug)]
pub(crate) struct BatchTokens {
    /// The secret of each gateway that has not enrolled with it yet.
    pub(crate) secrets: Vec<(GatewayId, Secret)>,
    /// When they end, milliseconds since 1970.
    pub(crate) expires_ms: u64,
}

/// Makes the tokens of a batch. `made` is what the trail says of each.
pub(crate) async fn submit_batch(
    (store, subjects): (&Store, &Subjects),
    signed: &SignedBatch,
    ground: BatchGround<'_>,
    (deed, made): (Deed<'_>, Deed<'_>),
    now_ms: u64,
) -> Result<BatchTokens, Refusal> {
    let bad = |what: String| Refusal::new(Reason::BadRequest, what);
    let batch = Batch::from_bytes(&signed.payload).map_err(|error| bad(text::sentence(&error)))?;
    let digest = signed.digest();
    if batch.plant != *ground.plant {
        return Err(bad(format!(
            "the batch is of plant {}, and this coordinator is of {}",
            batch.plant, ground.plant
        )));
    }
    if batch.until_ms <= now_ms {
        let ended = instant(batch.until_ms);
        return Err(bad(format!(
            "the batch ended at {ended}: make another one, and have it signed"
        )));
    }
    let signers = signed.signers(ground.approvers);
    if signers.len() < SIGNERS_NEEDED {
        let names: Vec<&str> = signers.iter().map(|name| name.as_str()).collect();
        return Err(Refusal::new(
            Reason::BadSignature,
            format!(
                "the batch takes the signatures of {SIGNERS_NEEDED} approvers of the release in force, each with a key of their own; it \
                 has good ones of: {}",
                if names.is_empty() {
                    "nobody".to_owned()
                } else {
                    names.join(", ")
                }
            ),
        ));
    }
    let record_key = format!("{PREFIX}{}", batch.id);
    let expect = match store.get_json::<BatchRecord>(&record_key).await? {
        None => Expect::Absent,
        Some((record, revision)) if record.digest == digest => Expect::Revision(revision),
        Some((record, _)) => {
            return Err(Refusal::new(
                Reason::AlreadyExists,
                format!(
                    "a batch {} was submitted by {} at {}, and it was another one: an id is used once",
                    batch.id,
                    record.by,
                    instant(record.submitted_ms)
                ),
            ));
        }
    };
    let tokens = store
        .list_json::<TokenRecord>(&format!("token/{GATEWAY_PREFIX}"))
        .await?;
    let tokens: BTreeMap<String, (TokenRecord, u64)> = tokens
        .into_iter()
        .map(|(name, record, revision)| (name, (record, revision)))
        .collect();
    let is_done = |gateway: &GatewayId| {
        let token = tokens.get(gateway.as_str());
        token.is_some_and(|(token, _)| token.batch == Some(digest) && token.used.is_some())
    };
    let known = store.list_json::<GatewayRecord>(GATEWAY_PREFIX).await?;
    let enrolled: BTreeMap<String, u64> = known
        .into_iter()
        .map(|(name, record, _)| (name, record.enrolled_ms))
        .collect();
    let mut faults = Vec::new();
    let gateways = batch.gateways.iter().filter(|one| !is_done(&one.gateway));
    for one in gateways.clone() {
        let name = &one.gateway;
        let record = subjects.record(&Subject::Gateway(name.clone()));
        let standing = record.as_ref().map_or(Standing::Active, |record| record.standing);
        let has_key = record.is_some_and(|record| record.key.is_some());
        let was_enrolled = enrolled.get(name.as_str()).is_some_and(|at_ms| *at_ms > 0);
        if standing != Standing::Active {
            faults.push(format!("{name} is {}", standing.as_str()));
        } else if has_key || was_enrolled {
            faults.push(format!("{name} is enrolled"));
        }
        if !(ground.is_planned)(name) {
            faults.push(format!("{name} is not in the release in force"));
        }
    }
    if !faults.is_empty() {
        let named = faults
            .iter()
            .take(NAMED_MAX)
            .cloned()
            .collect::<Vec<_>>()
            .join("; ");
        let more = match faults.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        return Err(bad(format!(
            "no token was made, since the batch does not fit: {named}{more}"
        )));
    }
    let record = BatchRecord {
        digest,
        submitted_ms: now_ms,
        by: deed.operator().to_owned(),
    };
    let names: Vec<&str> = signers.iter().map(|name| name.as_str()).collect();
    let words = format!(
        "{digest}, {} gateways, signed by {}",
        batch.gateways.len(),
        names.join(" and ")
    );
    let noted = Change::noted(deed.event(&record_key, &words));
    store.apply(noted.json(&record_key, expect, &record)?).await?;

    let mut secrets = Vec::new();
    let gateways: Vec<_> = gateways.collect();
    for part in gateways.chunks(AT_ONCE) {
        let mut records = Vec::new();
        let mut events = Vec::new();
        for one in part {
            let mut secret = Secret([0; SECRET_BYTES]);
            getrandom::fill(&mut secret.0)
                .map_err(|_| Refusal::new(Reason::Internal, "the system provides no random numbers"))?;
            let subject = Subject::Gateway(one.gateway.clone());
            let token = TokenRecord {
                device_role: None,
                secret: hash(&secret),
                role: None,
                key: one.key,
                batch: Some(digest),
                approvers: Some(ground.approvers.digest()),
                expires_ms: batch.until_ms,
                created_by: deed.operator().to_owned(),
                created_ms: now_ms,
                used: None,
            };
            let before = tokens.get(one.gateway.as_str());
            let expect = before.map_or(Expect::Absent, |(_, revision)| Expect::Revision(*revision));
            records.push((key_of(&subject), expect, token));
            let key = one
                .key
                .map_or_else(String::new, |key| format!(", for the key {key}"));
            events.push((subject.to_string(), format!("by the batch {}{key}", batch.id)));
            secrets.push((one.gateway.clone(), secret));
        }
        let mut change = Change::noted(made.events(&events));
        for (key, expect, token) in &records {
            change = change.json(key, *expect, token)?;
        }
        store.apply(change).await?;
    }
    Ok(BatchTokens {
        secrets,
        expires_ms: batch.until_ms,
    })
}
