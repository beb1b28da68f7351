//! A small plant, its releases as people make them, and the people who do.

use penstock_policy::diagnostics::SourceFile;
use penstock_policy::ids::{ApproverId, Digest, GatewayId, OperatorId, Revision};
use penstock_policy::release::signing::ApproverKey;
use penstock_policy::release::{DocumentFile, Draft, Release, build, document_digest};
use penstock_proto::v1;

use super::{Control, World};

pub fn key(person: &str) -> ApproverKey {
    ApproverKey::from_seed(&Digest::of(person.as_bytes()).0)
}

/// A small plant with two gateways. `limit` is a number in one of its rules, so that documents differ.
pub fn document(threshold: usize, limit: u32) -> String {
    let person = |name: &str| {
        format!(
            "    {name}: {{ key: \"{}\" }}\n",
            String::from(key(name).public())
        )
    };
    format!(
        "plant: riverside
approvers:
  threshold: {threshold}
  people:
{}{}{}sites:
  works: {{ title: Works, timezone: UTC }}
gateways:
  gw-a:
    site: works
    mode: routed
    interfaces:
      eth1: {{ zone: operations, address: 10.20.1.1/24 }}
      eth2: {{ zone: control, address: 10.20.4.1/24 }}
  gw-b:
    site: works
    mode: routed
    interfaces:
      eth1: {{ zone: operations, address: 10.20.1.2/24 }}
      eth2: {{ zone: safety, address: 10.20.9.1/24 }}
zones:
  operations: {{ title: Operations, kind: operations, networks: [10.20.1.0/24] }}
  control: {{ title: Control, kind: control, networks: [10.20.4.0/24] }}
  safety: {{ title: Safety, kind: safety, networks: [10.20.9.0/24] }}
assets:
  hmi: {{ zone: operations, address: 10.20.1.21 }}
  plc: {{ zone: control, address: 10.20.4.7 }}
conduits:
  watch:
    title: Watch
    from: operations
    to: control
    flows:
      poll:
        source: hmi
        destination: plc
        service: modbus-tcp
        allow:
          - read-holding-registers: {{ units: 1, addresses: 0-{limit} }}
",
        person("bob"),
        person("carol"),
        person("erin"),
    )
}

pub struct Built {
    pub release: Release,
    pub statement: Vec<u8>,
    pub request: v1::ProposeReleaseRequest,
}

impl Built {
    pub fn digest(&self) -> Digest {
        Digest::of(&self.statement)
    }

    pub fn end(&self, reason: &str) -> v1::EndReleaseRequest {
        v1::EndReleaseRequest {
            revision: self.release.statement.revision.0,
            statement_digest: self.digest().0.to_vec().into(),
            reason: reason.to_owned(),
        }
    }

    pub fn approval(&self, person: &str) -> v1::ApproveReleaseRequest {
        let approver = ApproverId::new(person).unwrap();
        let signature = key(person).sign(approver, &self.statement).unwrap();
        v1::ApproveReleaseRequest {
            revision: self.release.statement.revision.0,
            statement_digest: self.digest().0.to_vec().into(),
            signature: Some(v1::Signature {
                approver: person.to_owned(),
                signature: signature.bytes().to_vec().into(),
                ..Default::default()
            }),
            brought: false,
        }
    }
}

pub fn built(text: &str, revision: u64, parent: Option<Digest>, author: &str) -> Built {
    built_replacing(text, revision, parent, Vec::new(), author)
}

/// The same for a release that replaces heads of another history.
pub fn built_replacing(
    text: &str,
    revision: u64,
    parent: Option<Digest>,
    replaces: Vec<Digest>,
    author: &str,
) -> Built {
    built_as(text, author, |draft| Draft {
        revision: Revision(revision),
        parent,
        replaces,
        ..draft
    })
}

/// The same, drafted in another way.
pub fn built_as(text: &str, author: &str, drafted: impl FnOnce(Draft) -> Draft) -> Built {
    let loaded = penstock_policy::load(
        &[SourceFile {
            name: "plant.yaml".to_owned(),
            text: text.to_owned(),
        }],
        jiff::civil::date(2026, 1, 1),
    );
    let plant = loaded
        .plant
        .unwrap_or_else(|| panic!("{:?}", loaded.diagnostics.iter().collect::<Vec<_>>()));
    let draft = Draft {
        emergency: false,
        withdrawn: None,
        trust: None,
        trails: None,
        revision: Revision(1),
        parent: None,
        replaces: Vec::new(),
        document_digest: document_digest(&[DocumentFile {
            name: "plant.yaml",
            content: text.as_bytes(),
        }]),
        author: OperatorId::new(author).unwrap(),
        ticket: None,
        reason: "test".to_owned(),
        created_ms: 1,
    };
    let release = build(&plant, drafted(draft)).unwrap();
    let statement = release.statement.to_bytes();
    let request = v1::ProposeReleaseRequest {
        statement: statement.clone().into(),
        documents: vec![v1::DocumentFile {
            name: "plant.yaml".to_owned(),
            content: text.as_bytes().to_vec().into(),
        }],
    };
    Built {
        release,
        statement,
        request,
    }
}

/// People of all roles.
pub struct People {
    pub engineer: Control,
    pub bob: Control,
    pub carol: Control,
}

pub async fn people(world: &World) -> People {
    People {
        engineer: world.operator("anna", v1::Role::Engineer).await,
        bob: world.operator("bob", v1::Role::Approver).await,
        carol: world.operator("carol", v1::Role::Approver).await,
    }
}

pub async fn release(people: &mut People, release: &Built) {
    people
        .engineer
        .propose_release(release.request.clone())
        .await
        .unwrap();
    people.bob.approve_release(release.approval("bob")).await.unwrap();
    let done = people
        .carol
        .approve_release(release.approval("carol"))
        .await
        .unwrap();
    assert_eq!(done.into_inner().state(), v1::ReleaseState::Current);
}

pub fn mark(release: &Built, gateway: &str) -> v1::RevisionDigest {
    let plan = &release.release.plans[&GatewayId::new(gateway).unwrap()];
    v1::RevisionDigest {
        revision: release.release.statement.revision.0,
        plan_digest: Digest::of(plan).0.to_vec().into(),
        statement_digest: release.digest().0.to_vec().into(),
    }
}
