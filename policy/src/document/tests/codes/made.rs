//! Documents with a fault that are too large, or too much alike, to be written out.

use super::BASE;

pub(super) fn many_faults() -> String {
    let zones: String = (0..600)
        .map(|n| format!("  z{n}: {{ kind: contrl, colour: red }}\n"))
        .collect();
    BASE.replace("zones:\n", &format!("zones:\n{zones}"))
}

pub(super) fn nested_zones() -> String {
    let zones: String = (0..18)
        .map(|n| format!("  z{n}: {{ kind: control, parent: z{} }}\n", n + 1))
        .collect();
    BASE.replace(
        "zones:\n",
        &format!("zones:\n{zones}  z18: {{ kind: control }}\n"),
    )
}

/// From the office to the safety zone two gateways are crossed, and the second does not know the office.
pub(super) fn private_key() -> String {
    let key = "|\n            -----BEGIN PRIVATE KEY-----\n            MC4CAQ==\n            -----END PRIVATE KEY-----\n";
    BASE.replace(
        "service: mqtt\n",
        &format!("service: mqtts\n        tls:\n          server_authorities: {key}"),
    )
}

/// A bump in the wire in front of the safety zone, which the conduit crosses too.
pub(super) fn second_gateway() -> String {
    BASE.replace(
        "\nzones:\n",
        "\n  gw-2:\n    site: works\n    mode: bridged\n    interfaces:\n      eth1: { zone: ops }\n      eth2: { zone: safety }\n    \
         management: { interface: eth0, peers: 192.0.2.10 }\nzones:\n",
    )
}

pub(super) fn broken_way() -> String {
    let second = "  gw-2:\n    site: works\n    mode: routed\n    interfaces:\n      eth1: { zone: ops, address: 10.2.0.2/24 }\n      \
                  eth2: { zone: safety, address: 10.3.0.1/24 }\n    management: { interface: eth0, peers: 192.0.2.10 }\nzones:\n";
    BASE.replace("      eth3: { zone: safety, address: 10.3.0.1/24 }\n", "")
        .replace("behind: cells", "behind: [cells, safety]")
        .replace("zones:\n", second)
        .replace(
            "    from: office\n    to: ops",
            "    from: office\n    to: safety",
        )
        .replace(
            "source: clerk, destination: hmi",
            "source: clerk, destination: plc",
        )
}

pub(super) fn past_the_tunnel() -> String {
    let second = "  look:\n    from: ops\n    to: safety\n    sl_target: 3\n    accountable: safety\n    flows:\n      \
                  page: { source: hmi, destination: plc, service: https }\nremote_access:\n";
    crate::document::tests::tunnels::tunnelled().replace("remote_access:\n", second)
}

pub(super) fn one_sided() -> String {
    BASE.replace(
        "      eth2: { zone: ops, behind: cells, address: 10.2.0.1/24 }\n",
        "",
    )
    .replace("      eth3: { zone: safety, address: 10.3.0.1/24 }\n", "")
}

/// Somebody vouches for a server that shows no certificate.
pub(super) fn vouched_for_in_the_plain() -> String {
    let authority = "|\n            -----BEGIN CERTIFICATE-----\n            MIIB\n            -----END CERTIFICATE-----\n";
    BASE.replace(
        "service: mqtt\n",
        &format!(
            "service: mqtts\n        tls:\n          server: plain\n          server_authorities: {authority}"
        ),
    )
}
