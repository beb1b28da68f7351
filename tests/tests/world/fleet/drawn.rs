//! Fleets and plans of rollouts, drawn from a seed.

use std::collections::BTreeMap;

use penstock_policy::ids::GatewayId;
use penstock_policy::rollout::{Fleet, LAB_LABEL, Member, RolloutPlan, Selector, Span, Wave, default_plan};

use crate::chance::Chance;

/// Single gateways, pairs, and laboratories in a few cells.
pub(super) fn fleet(chance: &mut Chance) -> Fleet {
    let mut members: Vec<Member> = Vec::new();
    let count = 1 + chance.below(9) as usize;
    let name = |at: usize| GatewayId::new(format!("gw-{at}")).unwrap();
    while members.len() < count {
        let at = members.len();
        let mut member = |partner: Option<usize>, at: usize| Member {
            id: name(at),
            site: "works".to_owned(),
            cell: format!("cell-{}", chance.below(3)),
            labels: match partner.is_none() && chance.once_in(6) {
                true => BTreeMap::from([(LAB_LABEL.to_owned(), "bench".to_owned())]),
                false => BTreeMap::new(),
            },
            partner: partner.map(name),
        };
        if at.is_multiple_of(3) && at + 1 < count {
            let pair = [member(Some(at + 1), at), member(Some(at), at + 1)];
            members.extend(pair);
        } else {
            members.push(member(None, at));
        }
    }
    Fleet::new(members).unwrap()
}

/// How a release is carried to it.
pub(super) fn plan(chance: &mut Chance, fleet: &Fleet) -> RolloutPlan {
    let mut plan = default_plan(fleet, chance.number());
    plan.shadow = Span::seconds(chance.below(3) * 200);
    plan.trial = Span::seconds(120 + chance.below(300));
    plan.silence = Span::seconds(60 + chance.below(200));
    plan.patience = Span::seconds(600 + chance.below(2_000));
    plan.converge.at_once = 1 + chance.below(3) as u32;
    if chance.once_in(2) {
        let wave = |name: &str, gateways| Wave {
            name: name.to_owned(),
            gateways,
            per_cell: 1,
            soak: Span::seconds(100),
        };
        let part = Selector::Percent(1 + chance.below(60) as u32);
        plan.waves = vec![wave("part", part), wave("rest", Selector::All)];
    }
    for wave in &mut plan.waves {
        wave.per_cell = 1 + chance.below(2) as u32;
        wave.soak = Span::seconds(chance.below(3) * 150);
    }
    plan
}
