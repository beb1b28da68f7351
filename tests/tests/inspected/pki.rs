//! The plant's certificates, issued by the coordinator's own authority, as the files that programs of others read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use penstock_agent::identity::{Enrolment, Identity, IdentityFolder};
use penstock_coordinator::ca::{Authority, Lifetimes, ProvenKey};
use penstock_policy::ids::RoleName;
use penstock_policy::model::ApproverSet;
use penstock_proto::peer::{Epoch, Subject};
use penstock_proto::tls::certificates_to_pem;
use penstock_proto::tls::names::ServerNames;
use penstock_proto::withdrawn::WithdrawnView;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// An authority and a folder of what it issued.
pub struct Pki {
    authority: Authority,
    folder: PathBuf,
}

/// Files in PEM: the authority to trust, a certificate, its key.
#[derive(Clone)]
pub struct Files {
    pub authority: String,
    pub certificate: String,
    pub key: String,
}

impl Files {
    /// As mosquitto's clients take them.
    pub fn arguments(&self) -> [&str; 6] {
        [
            "--cafile",
            &self.authority,
            "--cert",
            &self.certificate,
            "--key",
            &self.key,
        ]
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

impl Pki {
    pub fn new(folder: &Path) -> Self {
        Self::of("works", folder)
    }

    pub fn of(plant: &str, folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let lifetimes = Lifetimes {
            gateway: YEAR,
            operator: YEAR,
            coordinator: YEAR,
            device: YEAR,
        };
        Self {
            authority: Authority::create(folder, plant.parse().unwrap(), lifetimes, now_ms()).unwrap(),
            folder: folder.to_owned(),
        }
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn issue(&self, folder: &str, life: (&Subject, Epoch), names: &[&str]) -> Files {
        self.issue_in_role(folder, life, None, names)
    }

    fn issue_in_role(
        &self,
        folder: &str,
        (subject, epoch): (&Subject, Epoch),
        role: Option<&RoleName>,
        names: &[&str],
    ) -> Files {
        let key = rcgen::KeyPair::generate().unwrap();
        let request = rcgen::CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        let proven = ProvenKey::of_request(request.der()).unwrap();
        let mut good_for = ServerNames::default();
        for name in names {
            good_for.add(name).unwrap();
        }
        let issued = self
            .authority
            .issue_in_role((subject, epoch), role, &good_for, &proven, now_ms())
            .unwrap();
        Files {
            authority: self.write(
                &format!("{folder}/roots.pem"),
                &certificates_to_pem(&self.authority.roots()),
            ),
            certificate: self.write(
                &format!("{folder}/chain.pem"),
                &certificates_to_pem(&issued.chain),
            ),
            key: self.write(&format!("{folder}/key.pem"), &key.serialize_pem()),
        }
    }

    /// What `asset` gets, good for `names` as a server.
    pub fn device(&self, asset: &str, names: &[&str]) -> Files {
        self.device_in_life(asset, names, 0)
    }

    /// The same in this life of the asset.
    pub fn device_in_life(&self, asset: &str, names: &[&str], epoch: u32) -> Files {
        self.issue(
            &format!("device-{asset}-{epoch}"),
            (&Subject::Device(asset.parse().unwrap()), Epoch(epoch)),
            names,
        )
    }

    /// The same in a role.
    pub fn device_in_role(&self, asset: &str, role: &str) -> Files {
        self.issue_in_role(
            &format!("device-{asset}-as-{role}"),
            (&Subject::Device(asset.parse().unwrap()), Epoch::default()),
            Some(&role.parse().unwrap()),
            &[],
        )
    }

    /// What OpenSSL makes of the plant's own key for `asset`, with a role extension of each of these values as it writes them
    /// (`UTF8String:operator`).
    pub fn device_by_openssl(&self, asset: &str, name: &str, roles: &[&str]) -> Files {
        let own = self.folder.to_str().unwrap();
        let path = |file: &str| format!("{own}/openssl-{name}-{file}");
        let mut settings = format!(
            "subjectAltName = URI:spiffe://works/device/{asset}\nkeyUsage = digitalSignature\nextendedKeyUsage = clientAuth\n"
        );
        for role in roles {
            let value = match role.strip_prefix("DER:") {
                Some(bytes) => format!("DER:{bytes}"),
                None => format!("ASN1:{role}"),
            };
            settings += &format!("1.3.6.1.4.1.50316.802.1 = {value}\n");
        }
        settings += "[roles]\none = UTF8String:operator\ntwo = UTF8String:engineer\n";
        let settings = self.write(&format!("openssl-{name}.cnf"), &settings);
        let openssl = |arguments: &[&str]| {
            let output = Command::new("openssl").args(arguments).output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {output:?}");
        };
        let (key, request, certificate) = (path("key.pem"), path("request.pem"), path("leaf.pem"));
        openssl(&[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            &key,
            "-subj",
            "/CN=device",
            "-out",
            &request,
        ]);
        let (root, root_key) = (format!("{own}/root.pem"), format!("{own}/root.key"));
        openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &root,
            "-CAkey",
            &root_key,
            "-days",
            "30",
            "-extfile",
            &settings,
            "-out",
            &certificate,
        ]);
        Files {
            authority: root,
            certificate,
            key,
        }
    }

    /// The gateway's identity, newly issued for its clients' `names` of servers.
    pub fn gateway(&self, names: &[&str]) -> Arc<Identity> {
        self.gateway_knowing(names, WithdrawnView::default())
    }

    /// The same, which judges its peers by this list of withdrawn keys.
    pub fn gateway_knowing(&self, names: &[&str], withdrawn: WithdrawnView) -> Arc<Identity> {
        self.issue(
            "gateway/identity",
            (&Subject::Gateway("gw".parse().unwrap()), Epoch::default()),
            names,
        );
        let enrolment = Enrolment {
            plant: "works".parse().unwrap(),
            gateway: "gw".parse().unwrap(),
            coordinators: Vec::new(),
            root_digest: self.authority.root_digest(),
            approvers: ApproverSet {
                emergency_threshold: None,
                threshold: 1,
                people: BTreeMap::new(),
            },
        };
        let folder = IdentityFolder::new(&self.folder.join("gateway")).knowing(withdrawn);
        Arc::new(folder.load(enrolment).unwrap())
    }
}
