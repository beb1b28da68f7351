//! The same for what is said of people: approvers, who may override a gateway, and the records that they answer for.

use super::Spoil::{self, Edit, Made, Plan};
use super::made::second_gateway;
use super::*;

pub(super) const EXAMPLES: &[(Code, Spoil)] = &[
    (Code::ThresholdUnreachable, Edit("threshold: 2", "threshold: 3")),
    (
        Code::EmergencyThreshold,
        Edit("threshold: 2", "threshold: 2\n  emergency_threshold: 3"),
    ),
    (
        Code::EmergencyThreshold,
        Edit("threshold: 2", "threshold: 1\n  emergency_threshold: 1"),
    ),
    (
        Code::SharedKey,
        Edit(
            "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c",
            "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29",
        ),
    ),
    (
        Code::NotAccepted,
        Edit(
            "risk:\n",
            "accepted:\n  - { code: PS0405, where: safety, by: anna, reason: known, expires: 2027-06-30 }\nrisk:\n",
        ),
    ),
    (
        Code::NotAccepted,
        Edit(
            "risk:\n",
            "accepted:\n  - { code: PC0120, where: [watch/tell, gw-1], by: anna, reason: known, expires: 2027-06-30 }\n  \
             - { code: PC0120, where: [gw-1, watch/tell], by: ben, reason: known, expires: 2027-06-30 }\nrisk:\n",
        ),
    ),
    (Code::UnknownRequirement, Edit("SR 1.2", "SR 1.22")),
    (Code::Expired, Edit("expires: 2027-06-30", "expires: 2026-11-21")),
    (Code::NoSubject, Edit("    zone: safety\n    asset: plc\n", "")),
    (
        Code::SubjectsDisagree,
        Edit(
            "    zone: safety\n    asset: plc\n",
            "    zone: ops\n    asset: plc\n",
        ),
    ),
    (
        Code::EndsBeforeItBegins,
        Edit("until: 2026-12-01T16:00:00Z", "until: 2026-12-01T07:00:00Z"),
    ),
    (
        Code::GrantTooLong,
        Edit("until: 2026-12-01T16:00:00Z", "until: 2027-12-01T16:00:00Z"),
    ),
    (Code::ResidualAboveRisk, Edit("residual: 4", "residual: 11")),
    (Code::OneSignature, Edit("threshold: 2", "threshold: 1")),
    (Code::StandsWithoutGrant, Edit("    only_by_grant: yes\n", "")),
    (Code::NotByGrant, Edit("only_by_grant: yes", "only_by_grant: no")),
    (
        Code::NotByGrant,
        Edit("service: ssh }", "service: ssh, must_flow: yes }"),
    ),
    (
        Code::NotACodeDigest,
        Edit("risk:\n", "break_glass:\n  sealed: { gw-1: 7WQ4M-X1 }\nrisk:\n"),
    ),
    (
        Code::OutOfRange,
        Edit(
            "risk:\n",
            "break_glass:\n  longest: 8d\n  sealed: { gw-1: \"sha256:1111111111111111111111111111111111111111111111111111111111111111\" }\nrisk:\n",
        ),
    ),
    (
        Code::UnknownName,
        Edit(
            "risk:\n",
            "break_glass:\n  sealed: { gw-9: \"sha256:1111111111111111111111111111111111111111111111111111111111111111\" }\nrisk:\n",
        ),
    ),
    (
        Code::SharedKey,
        Edit(
            "risk:\n",
            "break_glass:\n  people:\n    kim: { key: \"ed25519:0ac89f326ec1a4d2cfe9fa3a92deab2eabf9e532f72b39c14830d1a03edce4c8\" }\n    lee: { key: \"ed25519:0ac89f326ec1a4d2cfe9fa3a92deab2eabf9e532f72b39c14830d1a03edce4c8\" }\nrisk:\n",
        ),
    ),
    (
        Code::NotAKey,
        Edit(
            "risk:\n",
            "break_glass:\n  people:\n    kim: { key: \"ed25519:0000000000000000000000000000000000000000000000000000000000000000\" }\n    lee: { key: \"ed25519:0ac89f326ec1a4d2cfe9fa3a92deab2eabf9e532f72b39c14830d1a03edce4c8\" }\nrisk:\n",
        ),
    ),
    (
        Code::OverriddenByNobody,
        Edit("risk:\n", "break_glass: { longest: 4h }\nrisk:\n"),
    ),
    (
        Code::OverriddenByNobody,
        Edit(
            "risk:\n",
            "break_glass:\n  people:\n    kim: { key: \"ed25519:0ac89f326ec1a4d2cfe9fa3a92deab2eabf9e532f72b39c14830d1a03edce4c8\" }\n  sealed: { gw-1: \"sha256:1111111111111111111111111111111111111111111111111111111111111111\" }\nrisk:\n",
        ),
    ),
    (
        Code::NotOverridable,
        Edit(
            "risk:\n",
            "break_glass:\n  people:\n    kim: { key: \"ed25519:0ac89f326ec1a4d2cfe9fa3a92deab2eabf9e532f72b39c14830d1a03edce4c8\", sites: annex }\n    lee: { key: \"ed25519:8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c\" }\nrisk:\n",
        ),
    ),
    (
        Code::CodeOfTwoGateways,
        Made(|| {
            second_gateway().replace("risk:\n", "break_glass:\n  sealed:\n    gw-1: \"sha256:1111111111111111111111111111111111111111111111111111111111111111\"\n    gw-2: \"sha256:1111111111111111111111111111111111111111111111111111111111111111\"\nrisk:\n")
        }),
    ),
    (
        Code::RolloutPlanUnfit,
        Plan(
            "shadow: 1h\ntrial: 30s\nsilence: 5m\npatience: 8d\ngate: { soft_rate: 0.02 }\nconverge: { at_once: 1 }\n\
             waves:\n  - { name: first, gateways: { list: [gw-9] }, per_cell: 1, soak: 1h }\n",
        ),
    ),
    (
        Code::RolloutPlanDoubtful,
        Plan(
            "shadow: 0s\ntrial: 10m\nsilence: 5m\npatience: 8d\ngate: { soft_rate: 0.02 }\nconverge: { at_once: 1 }\n\
             waves:\n  - { name: all, gateways: all, per_cell: 1, soak: 1h }\n",
        ),
    ),
];
