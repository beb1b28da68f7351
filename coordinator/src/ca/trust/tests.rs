//! From one root to another, as the coordinator goes.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use penstock_policy::ids::CoordinatorId;
use penstock_proto::bundle::{Bundle, BundleRoot, Phase, to_json};
use penstock_proto::v1::TrustHeld;

use super::super::{IssuingTerms, Lifetimes, OfflineRoot};
use super::*;

const NOW_MS: u64 = 1_800_000_000_000;
const DAY: Duration = Duration::from_secs(86_400);

fn plant() -> PlantId {
    "water".parse().unwrap()
}

struct Machines {
    folder: tempfile::TempDir,
    new: OfflineRoot,
    bundles: Vec<SignedBundle>,
}

impl Machines {
    /// A coordinator whose own root issues, and another root elsewhere.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca");
        std::fs::create_dir(&ca).unwrap();
        Authority::create(&ca, plant(), Lifetimes::all(90 * DAY), NOW_MS).unwrap();
        let new = OfflineRoot::create(&folder.path().join("new"), plant(), None, NOW_MS).unwrap();
        Self {
            folder,
            new,
            bundles: Vec::new(),
        }
    }

    fn authority(&self) -> Authority {
        Authority::load(&self.ca(), plant(), Lifetimes::all(90 * DAY)).unwrap()
    }

    fn ca(&self) -> std::path::PathBuf {
        self.folder.path().join("ca")
    }

    fn old(&self) -> OfflineRoot {
        OfflineRoot::open(&self.ca(), || panic!("it has no passphrase")).unwrap()
    }

    /// The next bundle, signed by the first of these, with these phases of both.
    fn bundle(&mut self, signer: &OfflineRoot, phases: [Option<Phase>; 2], withdrawn: &[Digest]) -> String {
        let (old, new) = (self.old(), self.new.certificate().clone());
        let roots = [old.certificate().clone(), new].into_iter().zip(phases);
        let roots = roots
            .filter_map(|(root, phase)| Some(BundleRoot::new(&root, phase?)))
            .collect();
        let before = trusted(&self.ca(), &self.bundles).unwrap();
        let bundle = Bundle::following(&before, &plant(), NOW_MS, roots, withdrawn.iter().copied()).unwrap();
        let mut signed = SignedBundle::unsigned(&bundle);
        signer.sign_bundle(&mut signed).unwrap();
        self.bundles.push(signed);
        to_json(&self.bundles)
    }

    fn takes(&self, text: &str) -> Result<(), CaError> {
        let (_, all) = self.authority().with_bundles(text)?;
        Authority::keep_bundles(&self.ca(), &all)
    }

    fn install(&self) -> Result<(), CaError> {
        let terms = IssuingTerms {
            coordinator: CoordinatorId::new("c1").unwrap(),
            lifetime: 1825 * DAY,
            constrained: true,
        };
        let request = Authority::request(&self.ca()).unwrap();
        let pem = self.new.sign(&request, &terms, NOW_MS).unwrap();
        Authority::install(&self.ca(), &plant(), pem.as_bytes(), &[], NOW_MS)
    }
}

fn held(number: u64) -> TrustHeld {
    TrustHeld {
        number,
        ..TrustHeld::default()
    }
}

#[test]
fn a_root_that_issues_itself_gives_way_to_one_that_is_elsewhere_phase_by_phase() {
    let mut machines = Machines::new();
    let (old, new) = (machines.old(), Digest::of(machines.new.certificate()));
    let refused = machines.install().unwrap_err().to_string();
    assert!(
        refused.contains("no root certificate that is trusted here"),
        "{refused}"
    );
    let prepared = machines.bundle(&old, [Some(Phase::Active), Some(Phase::Next)], &[]);
    machines.takes(&prepared).unwrap();
    assert_eq!(machines.authority().roots().len(), 2);
    let refused = machines.install().unwrap_err().to_string();
    assert!(refused.contains("is next in the trust bundle"), "{refused}");
    let activated = machines.bundle(&old, [Some(Phase::Retiring), Some(Phase::Active)], &[]);
    machines.takes(&activated).unwrap();
    // Dropping the root below which it still issues would leave it alone.
    let opened = OfflineRoot::open(&machines.folder.path().join("new"), || panic!("it has none")).unwrap();
    let retired = machines.bundle(&opened, [None, Some(Phase::Active)], &[]);
    let refused = machines.takes(&retired).unwrap_err().to_string();
    assert!(
        refused.contains("issues below a root that the trust bundle drops"),
        "{refused}"
    );
    assert_eq!(
        Digest::of(machines.authority().root()),
        Digest::of(old.certificate())
    );
    machines.install().unwrap();
    assert_eq!(Digest::of(machines.authority().root()), new);
    machines.takes(&retired).unwrap();
    let authority = machines.authority();
    assert_eq!(authority.roots(), [machines.new.certificate().clone()]);
    assert_eq!((authority.trusted_since(new), authority.trusted().number), (1, 3));
    // The same once more says nothing new.
    assert!(machines.takes(&retired).is_err());
    // Whoever was dark gets what came since, and who holds the newest nothing.
    let sent = |held: &TrustHeld| authority.bundles_since(held).len();
    assert_eq!([held(0), held(1), held(2)].map(|held| sent(&held)), [3, 2, 1]);
    assert_eq!(sent(&TrustHeld::from(authority.trusted())), 0);
    assert_eq!(sent(&held(9)), 0, "one that is ahead");
    assert_eq!(
        sent(&held(3)),
        1,
        "another one of the same number is answered by ours: an alarm there"
    );
}

#[test]
fn a_coordinator_takes_no_bundle_that_withdraws_what_it_issues_by_nor_one_of_a_stranger() {
    let mut machines = Machines::new();
    let old = machines.old();
    for phases in [
        [Some(Phase::Active), Some(Phase::Next)],
        [Some(Phase::Retiring), Some(Phase::Active)],
    ] {
        let text = machines.bundle(&old, phases, &[]);
        machines.takes(&text).unwrap();
    }
    machines.install().unwrap();
    let own = Digest::of(machines.authority().issuers().first().unwrap());
    let kept = machines.bundles.clone();
    let withdrawing = machines.bundle(&old, [Some(Phase::Retiring), Some(Phase::Active)], &[own]);
    let refused = machines.takes(&withdrawing).unwrap_err().to_string();
    assert!(
        refused.contains("issues by a certificate that the trust bundle withdraws"),
        "{refused}"
    );
    machines.bundles = kept;
    let stranger = OfflineRoot::create(&machines.folder.path().join("thief"), plant(), None, NOW_MS).unwrap();
    let strange = machines.bundle(&stranger, [Some(Phase::Retiring), Some(Phase::Active)], &[]);
    let refused = machines.takes(&strange).unwrap_err().to_string();
    assert!(
        refused.contains("no root certificate that is trusted here signed"),
        "{refused}"
    );
    // With its next key it takes the bundle, and the key before is not installed again.
    machines.bundles.pop();
    machines.install().unwrap();
    let withdrawing = machines.bundle(&old, [Some(Phase::Retiring), Some(Phase::Active)], &[own]);
    machines.takes(&withdrawing).unwrap();
    assert!(machines.authority().trusted().withdrawn.contains(&own));
}

#[test]
fn a_coordinator_that_lost_a_bundle_takes_it_back_from_a_gateway_by_a_root_that_it_trusts_and_from_nobody_else()
 {
    let mut machines = Machines::new();
    let old = machines.old();
    let stranger = OfflineRoot::create(&machines.folder.path().join("other"), plant(), None, NOW_MS).unwrap();
    let both = [Some(Phase::Active), Some(Phase::Next)];
    machines.bundle(&stranger, both, &[]);
    let forged = machines.bundles.pop().unwrap();
    machines.bundle(&old, both, &[]);
    let lost = machines.bundles.clone();
    let authority = machines.authority();
    assert!(authority.take_back(&[forged]).is_err() && authority.take_back(&[]).is_err());
    assert_eq!(machines.authority().trusted().number, 0);
    assert_eq!(authority.take_back(&lost).unwrap().unwrap().number, 1);
    assert_eq!(machines.authority().trusted().number, 1, "from the next start on");
}

#[test]
fn a_bundle_that_was_taken_back_is_not_overwritten_by_an_older_one_that_another_gateway_gives() {
    let mut machines = Machines::new();
    let old = machines.old();
    machines.bundle(&old, [Some(Phase::Active), Some(Phase::Next)], &[]);
    machines.bundle(&old, [Some(Phase::Retiring), Some(Phase::Active)], &[]);
    let both = machines.bundles.clone();
    let authority = machines.authority();
    assert_eq!(authority.take_back(&both).unwrap().unwrap().number, 2);
    let file = machines.ca().join(FILE);
    let kept = std::fs::read(&file).unwrap();
    assert!(authority.take_back(&both[..1]).unwrap().is_none());
    assert!(authority.take_back(&both).unwrap().is_none(), "once");
    assert_eq!(std::fs::read(&file).unwrap(), kept);
    assert_eq!(machines.authority().trusted().number, 2);
    // A later one comes after what is on the disk, not after what counted at the start.
    machines.bundle(
        &old,
        [Some(Phase::Retiring), Some(Phase::Active)],
        &[Digest([7; 32])],
    );
    let newest = machines.bundles.split_off(2);
    assert_eq!(authority.take_back(&newest).unwrap().unwrap().number, 3);
    assert_eq!(bundles(&machines.ca()).unwrap().len(), 3);
}
