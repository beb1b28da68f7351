//! What a proposal names beside the policy, and whether the gateways can read it: how far the list of withdrawn keys and the trust bundle go,
//! so that approvers sign both, and a gateway that was set back learns them from its approvers; and how far the coordinator's trails go, so that
//! nobody who holds the coordinator rewrites them unnoticed.
//!
//! A release that an agent cannot read leaves its gateway with the policy before. So nothing is named unless every gateway says that it can, and
//! keys in OpenSSH's form, without which the document is another one, are warned of.

use std::collections::BTreeMap;

use penstock_policy::ids::GatewayId;
use penstock_policy::model::Plant;
use penstock_policy::release::{
    Anchor, STATEMENT_FORMAT, STATEMENT_FORMAT_ANCHORED, STATEMENT_FORMAT_TRAILS, TrailsAnchor,
};
use penstock_proto::v1::{Gateway, GetWithdrawnRequest, ListGatewaysRequest, Standing};
use penstock_proto::withdrawn::{SignedList, Withdrawn};

use super::super::trails::{HeldHead, ServedTree};
use super::super::{Online, malformed, refused};
use crate::failure::Failure;
use crate::output::Output;
use crate::words;

/// Gateways that are named in one remark.
const NAMED_MAX: usize = 8;

/// What a proposal names, and which formats its gateways read.
pub(super) struct Carried {
    pub(super) withdrawn: Option<Anchor>,
    pub(super) trust: Option<Anchor>,
    pub(super) trails: Option<TrailsAnchor>,
    /// The trails of which that is said, to be remembered once it was proposed.
    tree: Option<ServedTree>,
    formats: Vec<(GatewayId, Vec<String>)>,
}

impl Carried {
    /// As it is now, for the gateways of this plant.
    pub(super) async fn now(online: &mut Online, plant: &Plant, out: &Output) -> Result<Self, Failure> {
        let answer = online.client.list_gateways(ListGatewaysRequest {}).await;
        let listed = answer.map_err(|status| refused(&status))?.into_inner().gateways;
        let mut carried = Self {
            withdrawn: None,
            trust: None,
            trails: None,
            tree: None,
            formats: formats(plant, listed),
        };
        let (withdrawn, trust) = anchors(online).await?;
        if withdrawn.or(trust).is_none() {
            return Ok(carried);
        }
        let cannot = carried.not_reading(STATEMENT_FORMAT_ANCHORED);
        if cannot.is_empty() {
            (carried.withdrawn, carried.trust) = (withdrawn, trust);
        } else {
            out.remark(&format!(
                "the release does not name the list of withdrawn keys and the trust bundle, so that a gateway that was set back would not learn them from it: {} not known to read that (update the agent, or connect it once)",
                some_of(&cannot)
            ));
        }
        Ok(carried)
    }

    /// Names how far the coordinator's trails go, where they begin with what was named `before` and with what this login saw, or the author says that
    /// they begin `again`. Whatever is wrong with them, the release can be proposed.
    pub(super) async fn name_trails(
        &mut self,
        online: &mut Online,
        (before, again): (Vec<HeldHead>, bool),
        out: &Output,
    ) -> Result<(), Failure> {
        let cannot = self.not_reading(STATEMENT_FORMAT_TRAILS);
        if !cannot.is_empty() {
            out.remark(&format!(
                "the release does not name the head of the coordinator's trails, so that its approvers do not vouch for them: {} not known to read that (update the agent, or connect it once)",
                some_of(&cannot)
            ));
            return Ok(());
        }
        let seen = match online.seen_before() {
            Ok(seen) => seen,
            Err(failure) => {
                out.remark(&format!(
                    "▲ the release does not name the head of the coordinator's trails: {}",
                    failure.message
                ));
                return Ok(());
            }
        };
        let held: Vec<HeldHead> = before.into_iter().chain(seen).collect();
        let served = online.served_tree(&held).await;
        let tree = match served.unwrap_or_else(|failure| Err(failure.message)) {
            Ok(tree) => tree,
            Err(why) => {
                out.remark(&format!(
                    "the release does not name the head of the coordinator's trails, which shows none: {why}"
                ));
                return Ok(());
            }
        };
        match tree.contradicts(&held) {
            None => {
                if again {
                    out.remark(
                        "▲ the release says that the trails begin again, as you asked, although they begin with all that this login and the releases saw: \
                         gateways and approvers may have seen more. Its approvers are asked to accept that",
                    );
                }
                self.trails = tree.anchor(again);
                self.tree = Some(tree);
            }
            Some(why) if again => {
                out.remark(&format!(
                    "▲ {why}. The release says that the trails begin again: its approvers are asked to accept that"
                ));
                self.trails = tree.anchor(true);
                self.tree = Some(tree);
            }
            Some(why) => out.remark(&format!(
                "▲ {why}. So the release names no head of the trails. If the coordinator was restored from a backup, propose with --again, which says that they \
                 begin again; if not, keep everything as it is, and see docs/evidence.md"
            )),
        }
        Ok(())
    }

    /// Remembers how far the trails go of which the release, which was proposed, says that.
    pub(super) fn keep_seen(&self, online: &Online) -> Result<(), Failure> {
        self.tree.as_ref().map_or(Ok(()), |tree| online.keep_seen(tree))
    }

    /// Warns of gateways that may refuse a release of this format, and so stay with the policy that they have.
    pub(super) fn warn(&self, format: &str, out: &Output) {
        // Every agent reads the first one.
        if format == STATEMENT_FORMAT {
            return;
        }
        let cannot = self.not_reading(format);
        if !cannot.is_empty() {
            out.remark(&format!(
                "▲ releases with keys in OpenSSH's form need agents that read `{format}`, and {} not known to do so: such a gateway refuses the release (`unknown-format`) and stays with the policy that it has. \
                 Update its agent first",
                some_of(&cannot)
            ));
        }
    }

    /// The gateways that do not say that they read this format.
    fn not_reading(&self, format: &str) -> Vec<&GatewayId> {
        let cannot = self
            .formats
            .iter()
            .filter(|(_, reads)| !reads.iter().any(|read| read == format));
        cannot.map(|(gateway, _)| gateway).collect()
    }
}

/// What each gateway of the plant says that it can do; but for those that have not enrolled, whose agents are yet to come, and those whose keys no
/// longer count.
fn formats(plant: &Plant, listed: Vec<Gateway>) -> Vec<(GatewayId, Vec<String>)> {
    let mut listed: BTreeMap<String, Gateway> = listed
        .into_iter()
        .map(|gateway| (gateway.name.clone(), gateway))
        .collect();
    let in_service = |gateway: &Gateway| {
        let standing = gateway.identity.as_ref().map(|identity| identity.standing());
        gateway.enrolled && !matches!(standing, Some(Standing::Revoked | Standing::Retired))
    };
    let of_plant = plant.gateways.keys().filter_map(|name| {
        let gateway = listed.remove(name.as_str()).filter(in_service)?;
        Some((name.clone(), gateway.capabilities))
    });
    of_plant.collect()
}

/// How far the list of withdrawn keys and the trust bundle go, verified by the roots of this login. Nothing, where the coordinator's software is older.
async fn anchors(online: &mut Online) -> Result<(Option<Anchor>, Option<Anchor>), Failure> {
    let answer = online.client.get_withdrawn(GetWithdrawnRequest {}).await;
    let answer = answer.map_err(|status| refused(&status))?.into_inner();
    if answer.held.is_empty() {
        return Ok((None, None));
    }
    let trusted = online.contexts.trusted(&online.login.name)?;
    let mut list = Withdrawn::default();
    if !answer.payload.is_empty() {
        let verified = SignedList::from(answer)
            .verify(&online.login.context.plant, &trusted.certificates())
            .and_then(|all| list.take(&all));
        verified.map_err(|error| malformed(&error.to_string()))?;
    }
    let held = list.held();
    let anchor = |number, digest| (number > 0).then_some(Anchor { number, digest });
    Ok((
        anchor(held.number, held.digest),
        anchor(trusted.number, trusted.digest),
    ))
}

/// "a, b and 3 more gateways are", for sentences.
fn some_of(gateways: &[&GatewayId]) -> String {
    let named: Vec<&str> = gateways
        .iter()
        .take(NAMED_MAX)
        .map(|gateway| gateway.as_str())
        .collect();
    let named = named.join(", ");
    match gateways.len() {
        1 => format!("{named} is"),
        count if count > NAMED_MAX => {
            let more = words::count(count - NAMED_MAX, "other");
            format!("{named} and {more} are")
        }
        _ => format!("{named} are"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use penstock_policy::release::{STATEMENT_FORMAT_SSH, STATEMENT_FORMATS};
    use penstock_proto::v1::SubjectState;

    use super::*;
    use crate::online::fixture::{loaded, riverside};

    fn gateway(name: &str, reads: &[&str], standing: Standing) -> Gateway {
        Gateway {
            name: name.to_owned(),
            enrolled: true,
            capabilities: reads.iter().map(|&format| format.to_owned()).collect(),
            identity: Some(SubjectState {
                standing: standing.into(),
                ..SubjectState::default()
            }),
            ..Gateway::default()
        }
    }

    #[test]
    fn gateways_whose_agents_do_not_say_that_they_read_a_format_are_named_and_those_out_of_service_are_not() {
        let mut plant = loaded(riverside!("")).plant;
        let like = plant.gateways.values().next().unwrap().clone();
        plant.gateways.clear();
        for name in ["gw-dark", "gw-new", "gw-none", "gw-old", "gw-stolen"] {
            plant.gateways.insert(name.parse().unwrap(), like.clone());
        }
        let listed = vec![
            gateway("gw-dark", &[], Standing::Active),
            gateway("gw-new", &STATEMENT_FORMATS, Standing::Active),
            gateway("gw-old", &["trials", STATEMENT_FORMAT], Standing::Active),
            gateway("gw-stolen", &[], Standing::Revoked),
            gateway("gw-elsewhere", &[], Standing::Active),
        ];
        let carried = Carried {
            withdrawn: None,
            trust: None,
            trails: None,
            tree: None,
            formats: formats(&plant, listed),
        };
        let cannot = carried.not_reading(STATEMENT_FORMAT_SSH);
        assert_eq!(some_of(&cannot), "gw-dark, gw-old are");
        assert_eq!(carried.not_reading(STATEMENT_FORMAT_ANCHORED), cannot);
        let many: Vec<GatewayId> = (0..10)
            .map(|number| format!("gw-{number}").parse().unwrap())
            .collect();
        let many: Vec<&GatewayId> = many.iter().collect();
        assert!(
            some_of(&many).ends_with("gw-7 and 2 others are"),
            "{}",
            some_of(&many)
        );
    }
}
