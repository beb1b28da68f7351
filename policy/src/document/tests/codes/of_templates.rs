//! The same for templates, stations and groups: what stands in the base document by hand is made by a template here.

use super::Spoil::{self, Edit};
use super::*;

/// Puts a template with one station before the base document's sites.
macro_rules! with_template {
    ($template:literal, $station:literal) => {
        Edit(
            "sites:\n",
            concat!(
                "templates:\n  yard:\n    parameters: { clock: text, net: { kind: network, default: 10.9.0.0/24 } }\n",
                $template,
                "\nstations:\n",
                $station,
                "\nsites:\n"
            ),
        )
    };
}

pub(super) const EXAMPLES: &[(Code, Spoil)] = &[
    (
        Code::BadPlaceholder,
        with_template!(
            "    sites: { $(station): { timezone: $(clok), title: at $(net) } }",
            "  north: { template: yard, clock: UTC }"
        ),
    ),
    (
        Code::BadPlaceholder,
        with_template!(
            "    sites: { $(station): { timezone: $(clock), title: at $(net - 1) } }",
            "  north: { template: yard, clock: UTC }"
        ),
    ),
    (
        Code::ParameterUnused,
        with_template!(
            "    sites: { $(station): { timezone: $(clock) } }",
            "  north: { template: yard, clock: UTC }"
        ),
    ),
    (
        Code::SameAtEveryStation,
        with_template!(
            "    sites: { yard: { timezone: $(clock), title: at $(net) } }",
            "  north: { template: yard, clock: UTC }"
        ),
    ),
    (
        Code::TemplateUnused,
        Edit(
            "sites:\n",
            "templates:\n  yard:\n    sites: { $(station): { timezone: UTC } }\nsites:\n",
        ),
    ),
    (
        Code::OutsideParameter,
        with_template!(
            "    sites: { $(station): { timezone: $(clock), title: at $(net + 300) } }",
            "  north: { template: yard, clock: UTC }\n  south: { template: yard, clock: UTC }"
        ),
    ),
    (
        Code::NotATimeZone,
        with_template!(
            "    sites: { $(station): { timezone: $(clock), title: at $(net) } }",
            "  north: { template: yard, clock: CET }\n  south: { template: yard, clock: CET }\n  west: { template: yard, clock: UTC }"
        ),
    ),
    (
        Code::GroupUnfit,
        Edit("zones:\n", "groups: { all: group:others }\nzones:\n"),
    ),
];
