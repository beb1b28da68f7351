//! What a gateway does by itself: reports, obeys, activates, and goes back when its trial fails.

use super::*;

impl World {
    pub(super) fn standing(&self, at: u32) -> Standing {
        let gateway = &self.gateways[at as usize];
        let is_active = gateway.order.is_some_and(|order| order.upto == Upto::Active);
        match gateway.policy {
            Policy::Trial { sees, .. } => Standing::Trial { confirmable: sees },
            Policy::Confirmed => Standing::Confirmed,
            Policy::Reverted(why) => Standing::Reverted(why),
            _ if gateway.nature == Nature::Refuses && gateway.order.is_some() => Standing::Refused,
            _ if is_active && self.is_held(at) => Standing::Held {
                reason: HoldReason::Window,
                until_ms: None,
            },
            _ if is_active && self.lacks_session(at) => Standing::Held {
                reason: HoldReason::NoSession,
                until_ms: None,
            },
            Policy::None => Standing::Behind,
            Policy::Staged => Standing::Staged,
            _ if gateway.nature == Nature::Old => Standing::WithoutTrials,
            Policy::Shadow { since } => Standing::Shadow {
                cuts_must_flow: false,
                judged_ms: self.time - since,
            },
        }
    }

    fn is_held(&self, at: u32) -> bool {
        match self.gateways[at as usize].nature {
            Nature::HeldUntil(time) => self.time < time,
            Nature::HeldForEver => true,
            _ => false,
        }
    }

    /// Nobody ordered it in a session that stands, which half of them wait for: not those that are islanded, and no agents of old.
    fn lacks_session(&self, at: u32) -> bool {
        let gateway = &self.gateways[at as usize];
        let waits = at.is_multiple_of(2) && gateway.nature != Nature::Old;
        waits && !(gateway.is_linked && gateway.number > 0)
    }

    /// A gateway's own time passes.
    pub(super) fn live(&mut self, at: u32) {
        let (time, trial_ms) = (self.time, self.trial_seconds * 1_000);
        let nature = self.gateways[at as usize].nature;
        if !self.gateways[at as usize].is_linked && nature != Nature::NeverThere {
            // The coordinator's clean end of a session is heard before the next one opens.
            if self.calm || self.lots.once_in(6) {
                self.link(at);
            }
        }
        let gateway = self.gateway(at);
        if let Policy::Trial { since, .. } = gateway.policy {
            let away = !gateway.is_linked && gateway.down_since + trial_ms / 2 < time;
            let back = match nature {
                Nature::Breaks(event) => Some(RevertReason::Hard(event)),
                Nature::Fails => Some(RevertReason::Denials),
                _ if since + trial_ms <= time => Some(RevertReason::Timer),
                _ if away => Some(RevertReason::Hard(HardEvent::ManagementLost)),
                _ => None,
            };
            if let Some(why) = back {
                gateway.policy = Policy::Reverted(why);
                gateway.order = None;
            }
        }
        if gateway.is_linked {
            let order = gateway.number;
            let crashed = nature == Nature::Crashes && gateway.policy == Policy::Confirmed;
            let standing = self.standing(at);
            let gateway = self.gateway(at);
            gateway.has_judged |= matches!(standing, Standing::Shadow { .. });
            gateway.up.push_back(Fact::Report {
                gateway: at,
                order,
                standing,
            });
            if crashed {
                gateway.up.push_back(Fact::Hard {
                    gateway: at,
                    event: HardEvent::Crash,
                });
            }
        }
    }

    /// A gateway takes what was sent to it, and does it.
    pub(super) fn obey(&mut self, at: u32) {
        while let Some(message) = self.gateways[at as usize].down.front().copied() {
            if self.lots.once_in(4) {
                break;
            }
            let now = self.time;
            let gateway = self.gateway(at);
            gateway.down.pop_front();
            match message {
                Down::Target(target) => {
                    gateway.order = Some(target);
                    gateway.number = target.order;
                    let next = match (gateway.policy, target.upto) {
                        _ if gateway.nature == Nature::Refuses => gateway.policy,
                        (Policy::None, Upto::Staged) => Policy::Staged,
                        (Policy::None | Policy::Staged, Upto::Shadow | Upto::Active) => {
                            Policy::Shadow { since: now }
                        }
                        (policy, _) => policy,
                    };
                    gateway.policy = next;
                }
                Down::Confirm => {
                    if let Policy::Trial { .. } = gateway.policy {
                        gateway.policy = Policy::Confirmed;
                    }
                }
                Down::Revert => {
                    if let Policy::Trial { .. } = gateway.policy {
                        gateway.policy = Policy::Reverted(RevertReason::Ordered);
                        gateway.order = None;
                    }
                }
            }
        }
        let gateway = &self.gateways[at as usize];
        let may = gateway.order.is_some_and(|order| order.upto == Upto::Active);
        let can = matches!(gateway.policy, Policy::Shadow { .. }) && gateway.nature != Nature::Refuses;
        if may && can && !self.is_held(at) && !self.lacks_session(at) && self.lots.once_in(2) {
            self.swap(at);
        }
    }

    fn swap(&mut self, at: u32) {
        assert!(
            self.opened.contains(&at),
            "gateway {at} activated without having been opened"
        );
        // Nobody enforces what was never judged there beside live traffic.
        let gateway = &self.gateways[at as usize];
        let is_asked = self.plan.shadow.as_ms() > 0 && gateway.nature != Nature::Old;
        assert!(
            !is_asked || gateway.has_judged,
            "gateway {at} activated, and had reported no shadow"
        );
        let is_trial = |at: u32| matches!(self.gateways[at as usize].policy, Policy::Trial { .. });
        if let Some(partner) = self.fleet.partner(at) {
            assert!(
                !is_trial(partner),
                "{at} and {partner} are a pair, and both are unconfirmed"
            );
        }
        let cell = self.fleet.cell(at);
        let others = self
            .places()
            .filter(|other| is_trial(*other) && self.fleet.cell(*other) == cell)
            .count();
        let most = self.plan.waves.iter().map(|wave| wave.per_cell).max().unwrap();
        assert!(
            others < most as usize,
            "cell {cell} has more than {most} unconfirmed"
        );
        let time = self.time;
        let gateway = self.gateway(at);
        gateway.policy = match gateway.nature {
            Nature::Old => Policy::Confirmed,
            _ => Policy::Trial {
                since: time,
                sees: false,
            },
        };
        self.trace.push(format!("{} {at} activated", self.time));
        if !self.gateways[at as usize].is_linked {
            self.gateway(at).down_since = time;
            return;
        }
        // Its session goes with the old rules.
        self.cut(at);
        self.link(at);
    }
}
