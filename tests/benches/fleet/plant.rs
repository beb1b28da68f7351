//! The plant: one control room, and as many stations at its edge as there are gateways, each a zone, an asset and a conduit.

use std::fmt::Write as _;

use penstock_policy::diagnostics::SourceFile;
use penstock_policy::ids::{ApproverId, Digest, OperatorId, Revision};
use penstock_policy::release::signing::ApproverKey;
use penstock_policy::release::{DocumentFile, Draft, build, document_digest};
use penstock_proto::v1;

pub(super) const PLANT: &str = "fleet";

/// A release as its author sends it.
pub(super) struct Built {
    pub(super) request: v1::ProposeReleaseRequest,
    revision: u64,
}

pub(super) fn gateway(number: u32) -> String {
    format!("gw-{number}")
}

fn key(person: &str) -> ApproverKey {
    ApproverKey::from_seed(&Digest::of(person.as_bytes()).0)
}

impl Built {
    pub(super) fn digest(&self) -> Digest {
        Digest::of(&self.request.statement)
    }

    pub(super) fn approval(&self, person: &str) -> v1::ApproveReleaseRequest {
        let approver = ApproverId::new(person).unwrap();
        let signature = key(person).sign(approver, &self.request.statement).unwrap();
        v1::ApproveReleaseRequest {
            revision: self.revision,
            statement_digest: self.digest().0.to_vec().into(),
            signature: Some(v1::Signature {
                approver: person.to_owned(),
                signature: signature.bytes.to_vec().into(),
            }),
            brought: false,
        }
    }
}

/// The release of this number for so many gateways; each has another plan than in the one before.
pub(super) fn release(gateways: u32, revision: u64, parent: Option<Digest>) -> Built {
    let text = document(gateways, revision);
    let source = SourceFile {
        name: "plant.yaml".to_owned(),
        text: text.clone(),
    };
    let loaded = penstock_policy::load(&[source], jiff::civil::date(2026, 1, 1));
    let faults: Vec<_> = loaded.diagnostics.errors().take(3).collect();
    let plant = loaded.plant.unwrap_or_else(|| panic!("{faults:?}"));
    let file = DocumentFile {
        name: "plant.yaml",
        content: text.as_bytes(),
    };
    let draft = Draft {
        revision: Revision(revision),
        parent,
        replaces: Vec::new(),
        document_digest: document_digest(&[file]),
        author: OperatorId::new("anna").unwrap(),
        ticket: None,
        reason: "a bench".to_owned(),
        created_ms: 1,
    };
    let statement = build(&plant, draft).unwrap().statement.to_bytes();
    let documents = vec![v1::DocumentFile {
        name: "plant.yaml".to_owned(),
        content: text.into_bytes().into(),
    }];
    Built {
        request: v1::ProposeReleaseRequest {
            statement: statement.into(),
            documents,
        },
        revision,
    }
}

fn document(gateways: u32, revision: u64) -> String {
    let mut text = format!(
        "plant: {PLANT}\napprovers:\n  threshold: 2\n  people:\n    bob: {{ key: \"{}\" }}\n    carol: {{ key: \"{}\" }}\n\
         sites: {{ works: {{ title: Works, timezone: UTC }} }}\nzones:\n  \
         centre: {{ title: Centre, kind: operations, networks: [10.0.0.0/16] }}\n",
        String::from(key("bob").public()),
        String::from(key("carol").public()),
    );
    let net = |number: u32| format!("10.{}.{}", 1 + number / 250, number % 250);
    for number in 0..gateways {
        let net = net(number);
        writeln!(
            text,
            "  z-{number}: {{ title: Station, kind: control, networks: [{net}.0/24] }}"
        )
        .unwrap();
    }
    text.push_str("assets:\n  hmi: { zone: centre, address: 10.0.255.21 }\n");
    for number in 0..gateways {
        let net = net(number);
        writeln!(text, "  plc-{number}: {{ zone: z-{number}, address: {net}.7 }}").unwrap();
    }
    text.push_str("gateways:\n");
    for number in 0..gateways {
        let net = net(number);
        let centre = net.replacen("10", "10.0", 1);
        writeln!(
            text,
            "  {}: {{ site: works, mode: routed, interfaces: {{ eth1: {{ zone: centre, address: {centre}/16 }}, \
             eth2: {{ zone: z-{number}, address: {net}.1/24 }} }}, management: {{ interface: eth0, peers: [192.0.2.10] }} }}",
            gateway(number),
        )
        .unwrap();
    }
    text.push_str("conduits:\n");
    for number in 0..gateways {
        writeln!(
            text,
            "  c-{number}: {{ title: Station, from: centre, to: z-{number}, via: [{}], flows: {{ poll: {{ source: hmi, \
             destination: plc-{number}, service: tcp/{} }} }} }}",
            gateway(number),
            1000 + revision,
        )
        .unwrap();
    }
    text
}
