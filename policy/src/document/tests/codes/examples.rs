//! For each code a document that has it, made from one that has none. Those of people and rollout plans: `of_people`.

use super::Spoil::{self, Beside, Edit, Made, Whole};
use super::made::*;
use super::*;

pub(super) const EXAMPLES: &[(Code, Spoil)] = &[
    (Code::NotYaml, Edit("kind: safety", "kind: {safety")),
    (
        Code::TooLarge,
        Made(|| format!("plant: {}\n", "a".repeat(17_000))),
    ),
    (
        Code::TooDeep,
        Edit(
            "boundary: a cabinet",
            "boundary: [[[[[[[[[[[[[[[[[x]]]]]]]]]]]]]]]]]",
        ),
    ),
    (
        Code::DuplicateKey,
        Edit(
            "    boundary: a cabinet",
            "    boundary: a cabinet\n    kind: control",
        ),
    ),
    (Code::DuplicateKey, Beside("zones:\n  ops: { kind: control }\n")),
    (Code::DuplicateKey, Beside("plant: other-works\n")),
    (
        Code::Alias,
        Edit(
            "accountable: it\n    boundary",
            "accountable: &who it\n    boundary",
        ),
    ),
    (
        Code::Alias,
        Edit("boundary: a cabinet", "boundary: &b a cabinet\n    title: *b"),
    ),
    (
        Code::Alias,
        Edit("    kind: safety", "    <<: { tunnel: yes }\n    kind: safety"),
    ),
    (Code::Tag, Edit("kind: safety", "kind: !!str safety")),
    (Code::ManyDocuments, Edit("sites:", "---\nsites:")),
    (Code::EmptyDocument, Whole("# nothing yet\n")),
    (
        Code::KeyNotText,
        Edit("  works: { timezone: UTC }", "  ? [works]\n  : { timezone: UTC }"),
    ),
    (
        Code::HiddenCharacter,
        Edit("boundary: a cabinet", "boundary: a \u{202e}tenibac"),
    ),
    (
        Code::HiddenCharacter,
        Edit("boundary: a cabinet", "boundary: \"a \\e[8mcabinet\""),
    ),
    (Code::TooManyFaults, Made(many_faults)),
    (
        Code::UnknownKey,
        Edit("on_agent_loss: block", "on_agent_los: block"),
    ),
    (Code::UnknownKey, Edit("on_agent_loss: block", "colour: red")),
    (
        Code::MissingKey,
        Edit("works: { timezone: UTC }", "works: { title: Works }"),
    ),
    (
        Code::WrongShape,
        Edit("peers: 192.0.2.10", "peers: { a: 192.0.2.10 }"),
    ),
    (Code::WrongShape, Edit("works: { timezone: UTC }", "works: UTC")),
    (Code::EmptyValue, Edit("boundary: a cabinet", "boundary:")),
    (Code::EmptyList, Edit("networks: 10.3.0.0/24", "networks: []")),
    (
        Code::EmptyList,
        Edit("allow: [{ publish: { topics: a/b } }]", "allow: []"),
    ),
    (Code::BadName, Edit("  clerk: {", "  Clerk_1: {")),
    (Code::BadName, Edit("eth3: {", "\"eth 3\": {")),
    (Code::NotOneOf, Edit("kind: safety", "kind: safty")),
    (Code::NotANumber, Edit("likelihood: 2", "likelihood: 02")),
    (Code::OutOfRange, Edit("sl_target: 3", "sl_target: 5")),
    (
        Code::OutOfRange,
        Edit(
            "[{ read-coils: { units: 1, addresses: 0-9 } }]",
            "[{ write-single-coil: { units: 1, addresses: 1, values: 2 } }]",
        ),
    ),
    (
        Code::NotABoolean,
        Edit(
            "sl_target: 3\n    accountable: safety\n    on_agent_loss",
            "tunnel: maybe\n    sl_target: 3\n    accountable: safety\n    on_agent_loss",
        ),
    ),
    (
        Code::NotANetwork,
        Edit("networks: 10.3.0.0/24", "networks: 10.3.0.0/33"),
    ),
    (
        Code::HostBits,
        Edit("networks: 10.3.0.0/24", "networks: 10.3.0.1/24"),
    ),
    (Code::NotADate, Edit("expires: 2027-06-30", "expires: 30.06.2027")),
    (
        Code::NotAWindow,
        Edit("192.0.2.10 }\n", "192.0.2.10 }\n    window: Sun 23:00-01:00\n"),
    ),
    (Code::NotAKey, Edit("ed25519:3b6a", "ed25519:zz6a")),
    (Code::NotARange, Edit("addresses: 0-9", "addresses: 9-0")),
    (Code::AmbiguousText, Edit("boundary: a cabinet", "boundary: 2.10")),
    (
        Code::RepeatedItem,
        Edit("source: clerk", "source: [clerk, clerk]"),
    ),
    (
        Code::RepeatedItem,
        Edit("networks: 10.3.0.0/24", "networks: [10.3.0.0/24, 10.3.0.0/25]"),
    ),
    (
        Code::NotAHardwareAddress,
        Edit("00:1d:9c:00:47:07", "001d9c004707"),
    ),
    (
        Code::NotATimeZone,
        Edit("works: { timezone: UTC }", "works: { timezone: CET }"),
    ),
    (
        Code::NotCertificates,
        Edit(
            "service: mqtt\n",
            "service: mqtts\n        tls: { server_authorities: ca.pem }\n",
        ),
    ),
    (Code::SecretInText, Made(private_key)),
    (
        Code::SecretInText,
        Whole("MC4CAQAwBQYDK2VwBCIEIH3nVo0T3Qz9iWjLhV5sN1oC"),
    ),
    (
        Code::NotADnsName,
        Edit(
            "service: mqtt\n",
            "service: mqtts\n        tls: { server_name: \"*.example\" }\n",
        ),
    ),
    (
        Code::NotADnsName,
        Edit(
            "service: mqtt\n",
            "service: mqtts\n        tls: { server_name: 10.2.0.20 }\n",
        ),
    ),
    (Code::UnknownName, Edit("destination: plc", "destination: pcl")),
    (
        Code::ParentCycle,
        Edit("    kind: operations", "    parent: cells\n    kind: operations"),
    ),
    (
        Code::NotMutual,
        Edit("    mode: routed", "    mode: routed\n    redundant_with: gw-1"),
    ),
    (
        Code::NetworksOverlap,
        Edit("networks: 10.3.0.0/24", "networks: [10.3.0.0/24, 10.1.0.64/28]"),
    ),
    (
        Code::NotTheInternet,
        Edit("networks: 10.1.0.0/24", "networks: internet"),
    ),
    (
        Code::TagTwice,
        Edit(
            "clerk: { zone: office, address: 10.1.0.20 }",
            "clerk: { zone: office, address: 10.1.0.20, tag: PC_01 }\n  guest: { zone: office, tag: PC_01 }",
        ),
    ),
    (
        Code::AddressTwice,
        Edit("address: 10.1.0.20", "address: 10.1.0.1"),
    ),
    (
        Code::AddressOutsideZone,
        Edit("address: 10.1.0.20", "address: 10.3.0.20"),
    ),
    (
        Code::AddressOutsideZone,
        Edit("address: 10.1.0.20", "address: 172.16.0.20"),
    ),
    (
        Code::NotAHostAddress,
        Edit("address: 10.1.0.20", "address: 224.0.0.20"),
    ),
    (
        Code::ZoneRecordIncomplete,
        Edit("    consequence: safety\n    accountable: safety\n", ""),
    ),
    (Code::ZoneUnguarded, Edit("behind: cells, ", "")),
    (
        Code::NotWithinParent,
        Edit("networks: 10.2.0.128/26", "networks: 10.2.0.0/23"),
    ),
    (
        Code::InterfaceOutsideZone,
        Edit("address: 10.3.0.1/24", "address: 10.4.0.1/24"),
    ),
    (Code::AddressOnBridge, Edit("mode: routed", "mode: bridged")),
    (
        Code::RoutedWithoutAddress,
        Edit(
            "eth3: { zone: safety, address: 10.3.0.1/24 }",
            "eth3: { zone: safety }",
        ),
    ),
    (Code::TooFewSides, Made(one_sided)),
    (
        Code::NoManagement,
        Edit("    management: { interface: eth0, peers: 192.0.2.10 }\n", ""),
    ),
    (
        Code::ZoneOnTwoSides,
        Edit("eth3: { zone: safety,", "eth3: { zone: safety, behind: cells,"),
    ),
    (
        Code::TunnelEndUnfit,
        Edit("mode: routed", "mode: routed\n    tunnel: { interface: eth9 }"),
    ),
    (Code::TunnelEndUnfit, Edit("      eth3: {", "      pst-3: {")),
    (
        Code::TunnelUnused,
        Edit("mode: routed", "mode: routed\n    tunnel: { interface: eth1 }"),
    ),
    (
        Code::NotTunnelled,
        Edit(
            "    on_agent_loss: block",
            "    on_agent_loss: block\n    tunnel: yes",
        ),
    ),
    (Code::PastTheTunnel, Made(past_the_tunnel)),
    (
        Code::NotACondition,
        Edit(
            "192.0.2.10 }\n",
            "192.0.2.10 }\n    safe_to_change: { modbus: plc, mqtt: hmi, coil: 1, is: on }\n",
        ),
    ),
    (
        Code::NotACondition,
        Edit(
            "192.0.2.10 }\n",
            "192.0.2.10 }\n    safe_to_change: { mqtt: hmi, topic: line/+/safe, unit: 1, is: \"yes\" }\n",
        ),
    ),
    (
        Code::NeverAsked,
        Edit(
            "mode: routed\n    interfaces:\n      eth1: { zone: office, address: 10.1.0.1/24 }\n      eth2: { zone: ops, behind: cells, address: 10.2.0.1/24 }\n      eth3: { zone: safety, address: 10.3.0.1/24 }\n",
            "mode: bridged\n    safe_to_change: { modbus: plc, coil: 1, is: on }\n    interfaces:\n      eth1: { zone: office }\n      eth2: { zone: ops, behind: cells }\n      eth3: { zone: safety }\n",
        ),
    ),
    (
        Code::SameZone,
        Edit(
            "    from: office\n    to: ops",
            "    from: office\n    to: office",
        ),
    ),
    (
        Code::EndOutsideConduit,
        Edit("source: clerk, destination: hmi", "source: plc, destination: hmi"),
    ),
    (
        Code::EndOutsideConduit,
        Edit("source: clerk, destination: hmi", "source: hmi, destination: hmi"),
    ),
    (
        Code::NoGatewayBetween,
        Edit("    from: office\n    to: ops", "    from: cells\n    to: ops"),
    ),
    (
        Code::NotOnTheWay,
        Edit(
            "    from: office\n    to: ops",
            "    via: gw-1\n    from: cells\n    to: ops",
        ),
    ),
    (
        Code::MissingAllow,
        Edit(
            "        allow: [{ read-coils: { units: 1, addresses: 0-9 } }]\n",
            "",
        ),
    ),
    (
        Code::AllowWithoutOperations,
        Edit("service: https }", "service: https, allow: [get] }"),
    ),
    (Code::UnknownService, Edit("service: https }", "service: htpps }")),
    (Code::UnknownService, Edit("service: https }", "service: tcp/0 }")),
    (Code::UnknownOperation, Edit("read-coils:", "read-coil:")),
    (Code::UnknownOperation, Edit("publish:", "write:")),
    (
        Code::OperationIncomplete,
        Edit(
            "read-coils: { units: 1, addresses: 0-9 }",
            "write-single-coil: { units: 1 }",
        ),
    ),
    (
        Code::OperationIncomplete,
        Edit("{ read-coils: { units: 1, addresses: 0-9 } }", "read-only"),
    ),
    (
        Code::NotForOperation,
        Edit("addresses: 0-9 }", "addresses: 0-9, values: 1 }"),
    ),
    (
        Code::NotEnforcedHere,
        Edit("    on_agent_loss: block\n", "    enforced_by: none\n"),
    ),
    (
        Code::RegisterNumbers,
        Edit(
            "read-coils: { units: 1, addresses: 0-9 }",
            "read-holding-registers: { units: 1, addresses: 40001-40200 }",
        ),
    ),
    (
        Code::NotARange,
        Edit(
            "read-coils: { units: 1, addresses: 0-9 }",
            "read-holding-registers: { units: 1, addresses: 400001-400200 }",
        ),
    ),
    (
        Code::MixedFamilies,
        Edit(
            "addresses: [10.2.0.20, \"fd00:2::20\"]",
            "address: \"fd00:2::20\"",
        ),
    ),
    (
        Code::NoAddress,
        Edit("{ zone: office, address: 10.1.0.20 }", "{ zone: office }"),
    ),
    (Code::NotATopicFilter, Edit("topics: a/b", "topics: \"a/#/b\"")),
    (
        Code::EnterpriseToSafety,
        Edit("kind: operations", "kind: external"),
    ),
    (Code::AnyPort, Edit("service: https }", "service: tcp/any }")),
    (
        Code::ConduitRecordIncomplete,
        Edit("    sl_target: 1\n    accountable: it\n    flows", "    flows"),
    ),
    (
        Code::PassIntoSafety,
        Edit("on_agent_loss: block", "on_agent_loss: pass"),
    ),
    (
        Code::AssuranceTooLow,
        Edit("on_agent_loss: block", "minimum_assurance: D2"),
    ),
    (
        Code::PassWithoutInspection,
        Edit(
            "    accountable: it\n    flows",
            "    accountable: it\n    on_agent_loss: pass\n    flows",
        ),
    ),
    (Code::TooDeep, Made(nested_zones)),
    (Code::BrokenWay, Made(broken_way)),
    (
        Code::RefusalWithoutOperations,
        Edit("service: https }", "service: https, on_refusal: reset }"),
    ),
    (
        Code::AcknowledgeWithoutMqtt,
        Edit(
            "service: modbus-tcp\n",
            "service: modbus-tcp\n        on_refusal: acknowledge\n",
        ),
    ),
    (
        Code::AnswersNotMatched,
        Edit("service: https }", "service: https, answers: in-order }"),
    ),
    (
        Code::TlsNotEnded,
        Edit("service: https }", "service: https, tls: {} }"),
    ),
    (
        Code::BridgeEnds,
        Edit("service: mqtt\n", "service: mqtt-bridge\n"),
    ),
    (
        Code::BridgeOperations,
        Edit("service: https }", "service: mqtt-bridge, allow: any }"),
    ),
    (
        Code::BridgeOperations,
        Edit(
            "service: https }",
            "service: mqtt-bridge, allow: [{ subscribe: { topics: a/b } }] }",
        ),
    ),
    (
        Code::BridgeGateway,
        Made(|| {
            BASE.replace("mode: routed", "mode: bridged")
                .replace("service: mqtt\n", "service: mqtt-bridge\n")
        }),
    ),
    (
        Code::BridgeGateway,
        Made(|| second_gateway().replace("service: mqtt\n", "service: mqtt-bridge\n")),
    ),
    (
        Code::NameOfTwoServers,
        Edit(
            "service: mqtt\n",
            "service: mqtts-bridge\n        tls: { server_name: broker.example }\n",
        ),
    ),
    (
        Code::TlsEndedTwice,
        Made(|| second_gateway().replace("service: mqtt\n", "service: mqtts\n")),
    ),
    (
        Code::EndsOfNoBridge,
        Edit(
            "service: mqtt\n",
            "service: { source: mqtt-bridge, destination: mqtts }\n",
        ),
    ),
    (
        Code::EndsOfNoBridge,
        Edit(
            "service: mqtt\n",
            "service: mqtts\n        tls: { source: {}, destination: {} }\n",
        ),
    ),
    (
        Code::TlsNotEnded,
        Edit(
            "service: mqtt\n",
            "service: { source: mqtt-bridge, destination: mqtts-bridge }\n        tls: { source: {}, destination: {} }\n",
        ),
    ),
    (
        Code::TlsBeforeZone,
        Edit(
            "destination: hmi\n        service: mqtt\n",
            "destination: zone:ops\n        service: mqtts\n",
        ),
    ),
    (
        Code::TlsDisagrees,
        Edit(
            "service: mqtt\n",
            "service: mqtts\n        allow: [connect]\n      shout:\n        source: zone:safety\n        destination: zone:ops\n        service: mqtt:8883\n",
        ),
    ),
    (
        Code::TlsDisagrees,
        Edit(
            "service: https }",
            "service: https, tls: { server: plain } }\n      all: { source: clerk, destination: hmi, service: tcp/400-500 }",
        ),
    ),
    (
        Code::TlsBeforeZone,
        Edit(
            "destination: hmi, service: https }",
            "destination: zone:ops, service: https, tls: { server: plain } }",
        ),
    ),
];
