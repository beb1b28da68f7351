//! The plant's authority, and gateways with its certificates.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use penstock_agent::identity::{Enrolment, Identity, IdentityFolder};
use penstock_coordinator::ca::{Authority, Lifetimes, ProvenKey};
use penstock_policy::model::ApproverSet;
use penstock_proto::peer::{Epoch, Subject};
use penstock_proto::tls::certificates_to_pem;
use penstock_proto::tls::names::ServerNames;
use penstock_proto::withdrawn::WithdrawnView;

use super::world::PLANT;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// An authority, and when it issues.
pub struct Pki {
    authority: Authority,
    folder: PathBuf,
    now_ms: u64,
}

impl Pki {
    /// One whose certificates hold for a year, as of so long ago.
    pub fn issuing(folder: &Path, ago: Duration) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let then = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - ago;
        let now_ms = u64::try_from(then.as_millis()).unwrap();
        let lifetimes = Lifetimes {
            gateway: 365 * DAY,
            operator: 365 * DAY,
            coordinator: 365 * DAY,
            device: 365 * DAY,
        };
        Self {
            authority: Authority::create(folder, PLANT.parse().unwrap(), lifetimes, now_ms).unwrap(),
            folder: folder.to_owned(),
            now_ms,
        }
    }

    /// The folder of a gateway's key and certificates, as an agent's state folder.
    pub fn state_of(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The identity of the gateway of this name, which judges others by this list of withdrawn keys.
    pub fn gateway(&self, name: &str, withdrawn: WithdrawnView) -> Arc<Identity> {
        let key = rcgen::KeyPair::generate().unwrap();
        let request = rcgen::CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        let proven = ProvenKey::of_request(request.der()).unwrap();
        let subject = Subject::Gateway(name.parse().unwrap());
        let issued = self
            .authority
            .issue(
                (&subject, Epoch(1)),
                &ServerNames::default(),
                &proven,
                self.now_ms,
            )
            .unwrap();
        let folder = self.folder.join(name);
        let own = folder.join("identity");
        std::fs::create_dir_all(&own).unwrap();
        std::fs::write(
            own.join("roots.pem"),
            certificates_to_pem(&self.authority.roots()),
        )
        .unwrap();
        std::fs::write(own.join("chain.pem"), certificates_to_pem(&issued.chain)).unwrap();
        std::fs::write(own.join("key.pem"), key.serialize_pem()).unwrap();
        let enrolment = Enrolment {
            plant: PLANT.parse().unwrap(),
            gateway: name.parse().unwrap(),
            coordinators: Vec::new(),
            root_digest: self.authority.root_digest(),
            approvers: ApproverSet {
                emergency_threshold: None,
                threshold: 1,
                people: BTreeMap::new(),
            },
        };
        Arc::new(
            IdentityFolder::new(&folder)
                .knowing(withdrawn)
                .load(enrolment)
                .unwrap(),
        )
    }
}
