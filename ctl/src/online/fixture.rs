//! A small plant and records of its trail, for example tests.

#![allow(clippy::panic)]

use penstock_proto::v1::audit_event::Kind;
use penstock_proto::v1::{AuditEvent, AuditRecord};

use crate::args::{Color, Format};
use crate::documents::Documents;
use crate::loading::{self, LoadedPlant};
use crate::online::releases::FetchedPlant;
use crate::output::Output;

/// One gateway between operations and control, with these assets and conduits.
macro_rules! riverside {
    ($rest:literal) => {
        concat!(
            "plant: riverside
approvers:
  threshold: 1
  people:
    bob: { key: \"ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\" }
sites:
  works: { title: Works, timezone: UTC }
gateways:
  gw-a:
    site: works
    mode: routed
    interfaces:
      eth1: { zone: operations, address: 10.20.1.1/24 }
      eth2: { zone: control, address: 10.20.4.1/24 }
zones:
  operations: { title: Operations, kind: operations, networks: [10.20.1.0/24] }
  control: { title: Control, kind: control, networks: [10.20.4.0/24] }
",
            $rest
        )
    };
}
pub(in crate::online) use riverside;

/// The plant that a document describes.
pub(in crate::online) fn loaded(text: &str) -> LoadedPlant {
    let out = Output::new(Format::Json, Color::Never);
    let documents = Documents::received("r1", [("plant.yaml".to_owned(), text.as_bytes().to_vec())]);
    loading::judge(documents, &out).unwrap_or_else(|failure| panic!("{failure:?}"))
}

/// The same as it came from a coordinator, and was verified here.
pub(in crate::online) fn fetched(text: &str) -> FetchedPlant {
    FetchedPlant {
        stated: penstock_policy::ids::Digest([7; 32]),
        emergency: false,
        revision: 1,
        loaded: loaded(text),
        verified: true,
    }
}

/// What a gateway that enforces this revision said.
pub(in crate::online) fn record(gateway: &str, revision: u64, kind: Kind) -> AuditRecord {
    AuditRecord {
        source: gateway.to_owned(),
        event: Some(AuditEvent {
            revision,
            kind: Some(kind),
            ..AuditEvent::default()
        }),
        ..AuditRecord::default()
    }
}
