//! Overrides: by two people or a sealed code, kept through releases, restarts and a disk that fails, and ended.

use std::sync::atomic::Ordering;

use penstock_policy::overrides::{BreakGlass, Code, Effect, Signed};
use penstock_policy::plan::{Observing, PlanInterface};

mod refusals;

use super::machine::{Alive, Stays};
use super::trials::{asked, confirm, given, on_trial};
use super::*;
use crate::policy_store::overrides::OverridesRecord;
use crate::reconcile::overrides::{NotOverridden, OverrideAsk};

/// The record that this is about.
const RECORD: &str = "overrides";

pub(super) fn person(seed: u8) -> ApproverKey {
    ApproverKey::from_seed(&[seed; 32])
}

pub(super) fn code() -> Code {
    Code::from_random([7; 26])
}

/// What the two ends of the one flow are observed by, instead of refused.
pub(super) fn observe() -> Effect {
    Effect::Observe {
        one: "10.0.1.2/32".parse().unwrap(),
        other: "10.0.2.9/32".parse().unwrap(),
    }
}

/// A side of a gateway, all of whose zones enforce.
pub(crate) fn side(name: &str, zone: &str, network: &str) -> PlanInterface {
    PlanInterface {
        name: name.to_owned(),
        zone: zone.parse().unwrap(),
        behind: Vec::new(),
        networks: vec![network.parse().unwrap()],
        observing: Observing::Nothing,
        routers: Vec::new(),
        hardware: Vec::new(),
    }
}

/// A plan of which Bert and Dora, or a code, may override something for four hours.
pub(super) fn overridable() -> Plan {
    let plan = granted(1, 2);
    let people = [("bert", 11), ("dora", 12), ("emil", 13)];
    let mut requires = plan.requires.clone();
    requires.insert(Capability::of(Capability::OVERRIDES));
    Plan {
        requires,
        interfaces: vec![
            side("lan1", "office", "10.0.1.0/24"),
            side("lan2", "pumps", "10.0.2.0/24"),
        ],
        break_glass: Some(BreakGlass {
            longest_s: 4 * 3600,
            people: people
                .map(|(name, seed)| (ApproverId::new(name).unwrap(), person(seed).public()))
                .into(),
            codes: BTreeSet::from([code().digest(&plan.plant, &plan.gateway)]),
        }),
        ..plan
    }
}

/// The same once a release says what the override does.
fn ratified() -> Plan {
    let mut plan = overridable();
    plan.interfaces[0].observing = Observing::Only(vec!["10.0.1.2/32".parse().unwrap()]);
    plan.interfaces[1].observing = Observing::Only(vec!["10.0.2.9/32".parse().unwrap()]);
    plan
}

pub(super) fn is_overridden(plan: &Plan) -> bool {
    plan.interfaces
        .iter()
        .any(|side| side.observing != Observing::Nothing)
}

pub(super) fn request(number: u8, seconds: u32) -> OverrideAsk {
    OverrideAsk::Request {
        number: Digest([number; 32]),
        effects: vec![observe()],
        seconds,
        reason: "the panel was replaced".to_owned(),
        ticket: Some("T-9".to_owned()),
    }
}

/// The form with the signatures of these.
pub(super) fn signed(form: &str, people: &[(&str, u8)]) -> Signed {
    let mut signed = Signed::from_json(form).unwrap();
    for (name, seed) in people {
        signed
            .sign(ApproverId::new(*name).unwrap(), &person(*seed))
            .unwrap();
    }
    signed
}

pub(super) fn begin(signed: Signed, code: Option<Code>) -> OverrideAsk {
    OverrideAsk::Begin {
        signed,
        code,
        by: "root (said to be carla) at the gateway".to_owned(),
    }
}

impl Stays {
    /// The overrides on the disk.
    pub(super) fn overrides(&self) -> OverridesRecord {
        let records = self.records.lock().unwrap();
        self.stored_overrides.lock().unwrap().of(&records, "overrides")
    }
}

impl Alive {
    /// A step for what people ask, and its answer; `None`: it dies, or says nothing.
    pub(super) fn ask(&mut self, ask: OverrideAsk) -> Option<Result<String, NotOverridden>> {
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        let lives = self.step(Occasion::Override(ask, Some(reply)));
        answer.try_recv().ok().filter(|_| lives)
    }
}

const BOTH: [(&str, u8); 2] = [("bert", 11), ("dora", 12)];

impl Gateway {
    fn ask(&mut self, ask: OverrideAsk) -> Result<String, NotOverridden> {
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        self.step(Occasion::Override(ask, Some(reply)));
        answer.try_recv().unwrap()
    }

    fn form(&mut self, number: u8, seconds: u32) -> String {
        self.ask(request(number, seconds)).unwrap()
    }

    /// By the two people.
    fn overridden(&mut self, number: u8, seconds: u32) -> Result<String, NotOverridden> {
        let form = self.form(number, seconds);
        self.ask(begin(signed(&form, &BOTH), None))
    }

    fn by_code(&mut self, number: u8) -> Result<String, NotOverridden> {
        let form = self.form(number, 3600);
        self.ask(begin(signed(&form, &[]), Some(code())))
    }

    /// The kernel holds an overridden plan.
    fn is_overridden(&self) -> bool {
        is_overridden(self.kernel.holds.lock().unwrap().as_ref().unwrap())
    }

    fn set_boot(&self, seconds: u64) {
        self.time.lock().unwrap().boot = Duration::from_secs(seconds);
    }

    fn unwritable(&self, is_so: bool) {
        self.records.lock().unwrap().unwritable = is_so.then_some(RECORD);
    }

    fn unsynchronised(self) -> Self {
        self.time.lock().unwrap().synchronised = false;
        self
    }
}

/// A gateway with this release in force.
fn with(plan: &Plan) -> (Gateway, Digest) {
    let mut gateway = Gateway::new();
    let (first, one) = offer(plan, 1, None);
    gateway.step(Occasion::Offer(first, Order::default()));
    assert_eq!(given(&gateway), [1]);
    (gateway, one)
}

fn refusal(done: Result<String, NotOverridden>) -> &'static str {
    done.unwrap_err().code()
}

#[test]
fn two_people_override_what_is_enforced_and_it_ends_by_itself_in_the_kernel_and_in_the_trail() {
    let (mut gateway, _) = with(&overridable());
    let form = gateway.form(1, 3600);
    let alone = begin(signed(&form, &BOTH[..1]), None);
    assert_eq!(refusal(gateway.ask(alone)), "too-few");
    assert!(!gateway.is_overridden() && gateway.recorded("override-refused") == 1);
    let words = gateway.ask(begin(signed(&form, &BOTH), None)).unwrap();
    assert!(
        words.contains("is in force for 60 min: nothing is refused between"),
        "{words}"
    );
    assert!(gateway.is_overridden() && gateway.shows("overridden"));
    assert_eq!(given(&gateway), [1, 1]);
    gateway.pass(Duration::from_secs(3599));
    assert!(gateway.is_overridden() && gateway.recorded("override-ended") == 0);
    gateway.pass(Duration::from_secs(2));
    assert!(!gateway.is_overridden() && !gateway.shows("overridden"));
    assert_eq!(
        (
            gateway.recorded("override-began"),
            gateway.recorded("override-ended")
        ),
        (1, 1)
    );
    gateway.step(Occasion::Tick);
    assert_eq!(gateway.reconciler.due(), None);
    let gateway = gateway.restarted();
    assert!(!gateway.is_overridden());
}

#[test]
fn a_request_is_refused_where_nobody_could_permit_it_and_its_number_is_good_once_and_with_this_agent_only() {
    let (mut gateway, _) = with(&granted(1, 2));
    assert_eq!(refusal(gateway.ask(request(1, 60))), "not-permitted");
    let (mut gateway, _) = with(&overridable());
    assert_eq!(refusal(gateway.ask(request(1, 5 * 3600))), "too-long");
    assert_eq!(refusal(gateway.ask(request(1, 5))), "unreadable");
    let form = gateway.form(2, 60);
    let both = || begin(signed(&form, &BOTH), None);
    gateway.ask(both()).unwrap();
    assert_eq!(refusal(gateway.ask(both())), "unknown-number");
    let form = gateway.form(3, 60);
    let mut gateway = gateway.restarted();
    assert_eq!(
        refusal(gateway.ask(begin(signed(&form, &BOTH), None))),
        "unknown-number"
    );
}

#[test]
fn a_code_is_good_once_also_for_the_next_agent_and_wrong_ones_are_slowed() {
    let (mut gateway, _) = with(&overridable());
    let form = gateway.form(1, 3600);
    let wrong = || begin(signed(&form, &[]), Some(Code::from_random([8; 26])));
    assert_eq!(refusal(gateway.ask(wrong())), "wrong-code");
    assert_eq!(refusal(gateway.ask(wrong())), "pausing");
    assert_eq!(gateway.recorded("override-refused"), 1);
    for _ in 0..10 {
        gateway.pass(Duration::from_secs(8));
        assert_eq!(refusal(gateway.ask(wrong())), "wrong-code");
    }
    gateway.pass(Duration::from_secs(8));
    gateway.by_code(2).unwrap();
    assert!(gateway.is_overridden());
    assert_eq!(refusal(gateway.by_code(3)), "spent-code");
    let all = OverrideAsk::End {
        number: None,
        by: "carla".to_owned(),
    };
    gateway.ask(all).unwrap();
    assert!(!gateway.is_overridden());
    let mut gateway = gateway.restarted();
    assert_eq!(refusal(gateway.by_code(4)), "spent-code");
    assert!(!gateway.is_overridden());
}

#[test]
fn where_the_disk_or_the_kernel_takes_nothing_nothing_is_overridden_and_no_code_is_used() {
    let (mut gateway, _) = with(&overridable());
    gateway.unwritable(true);
    assert_eq!(refusal(gateway.by_code(1)), "not-stored");
    assert!(!gateway.is_overridden() && !gateway.records.lock().unwrap().records.contains_key(RECORD));
    gateway.unwritable(false);
    gateway.pass(Duration::from_secs(8));
    *gateway.kernel.fails_late.lock().unwrap() = true;
    assert_eq!(refusal(gateway.by_code(2)), "not-taken");
    *gateway.kernel.fails_late.lock().unwrap() = false;
    gateway.step(Occasion::Tick);
    assert!(!gateway.is_overridden() && !gateway.shows("override-failed"));
    let mut gateway = gateway.restarted();
    assert!(!gateway.is_overridden());
    gateway.by_code(3).unwrap();
    assert!(gateway.is_overridden());
}

#[test]
fn an_override_outlives_the_agent_and_the_machine_and_lasts_no_longer_for_it() {
    let (mut gateway, _) = with(&overridable());
    let mut gateway = {
        gateway.overridden(1, 3600).unwrap();
        gateway.pass(Duration::from_secs(1000));
        gateway.restarted().unsynchronised()
    };
    // With the policy, not after it: one change.
    assert_eq!(given(&gateway), [1]);
    assert!(gateway.is_overridden());
    gateway.pass(Duration::from_secs(1000));
    *gateway.site.boot.lock().unwrap() = "1".to_owned();
    gateway.set_boot(20);
    let mut gateway = gateway.restarted();
    assert!(gateway.is_overridden());
    gateway.pass(Duration::from_secs(1400));
    assert!(gateway.is_overridden());
    gateway.pass(Duration::from_secs(200));
    assert!(!gateway.is_overridden(), "3600 s are over");
    // It was over while nobody looked.
    gateway.overridden(2, 3600).unwrap();
    gateway.set_boot(20_000);
    let gateway = gateway.restarted();
    assert!(!gateway.is_overridden());
    assert_eq!(given(&gateway), [1], "it is not put in force to be ended");
}

#[test]
fn a_release_on_trial_has_what_is_overridden_and_so_has_the_one_that_it_goes_back_to() {
    let (mut gateway, one) = with(&overridable());
    gateway.overridden(1, 3600).unwrap();
    let (second, two) = offer(&overridable(), 2, Some(one));
    gateway.step(Occasion::Offer(second, on_trial()));
    assert_eq!(given(&gateway), [1, 1, 2]);
    assert!(
        gateway.is_overridden(),
        "r2 on trial does not cut the new panel off"
    );
    gateway.pass(Duration::from_secs(61));
    assert_eq!(given(&gateway), [1, 1, 2, 1]);
    assert!(gateway.is_overridden());
    assert_eq!(gateway.recorded("override-ended"), 0);
    let cleared = Command::Clear {
        statement: two,
        by: "anna".to_owned(),
    };
    assert_eq!(asked(&mut gateway, cleared), Ok(()));
}

#[test]
fn a_release_that_says_the_same_ratifies_it_once_it_is_in_force_for_good_and_changes_nothing_in_the_kernel_then()
 {
    let (mut gateway, one) = with(&overridable());
    gateway.overridden(1, 3600).unwrap();
    let (second, two) = offer(&ratified(), 2, Some(one));
    gateway.step(Occasion::Offer(second, on_trial()));
    assert!(gateway.is_overridden() && gateway.shows("overridden"));
    assert_eq!(gateway.recorded("override-ended"), 0, "a trial may go back");
    assert_eq!(asked(&mut gateway, confirm(two)), Ok(()));
    assert!(!gateway.shows("overridden") && gateway.recorded("override-ended") == 1);
    assert_eq!(given(&gateway), [1, 1, 2]);
    assert!(gateway.is_overridden(), "the plan says so itself");
}

#[test]
fn a_release_that_leaves_nothing_to_override_ends_it() {
    let (mut gateway, one) = with(&overridable());
    gateway.overridden(1, 3600).unwrap();
    let moved = Plan {
        interfaces: overridable().interfaces[..1].to_vec(),
        ..overridable()
    };
    let (second, _) = offer(&moved, 2, Some(one));
    gateway.step(Occasion::Offer(second, Order::default()));
    assert!(!gateway.shows("overridden") && gateway.recorded("override-ended") == 1);
}

#[test]
fn a_disk_that_takes_nothing_keeps_no_override_from_its_end() {
    let (mut gateway, _) = with(&overridable());
    gateway.overridden(1, 60).unwrap();
    gateway.unwritable(true);
    gateway.pass(Duration::from_secs(61));
    assert!(!gateway.is_overridden() && gateway.recorded("override-ended") == 1);
    // The next agent finds it on the disk, and it is over.
    let gateway = gateway.restarted();
    assert!(!gateway.is_overridden());
}

#[test]
fn a_kernel_that_does_not_take_the_end_is_asked_again_until_it_does_and_the_fault_says_so() {
    let (mut gateway, _) = with(&overridable());
    gateway.overridden(1, 60).unwrap();
    *gateway.kernel.fails_late.lock().unwrap() = true;
    gateway.pass(Duration::from_secs(61));
    gateway.step(Occasion::Tick);
    assert!(gateway.is_overridden() && gateway.shows("override-failed"));
    assert_eq!(
        (
            gateway.recorded("override-failed"),
            gateway.recorded("override-ended")
        ),
        (1, 0)
    );
    *gateway.kernel.fails_late.lock().unwrap() = false;
    gateway.step(Occasion::Tick);
    assert!(!gateway.is_overridden() && !gateway.shows("override-failed"));
    assert_eq!(gateway.recorded("override-ended"), 1);
}

#[test]
fn a_record_that_cannot_be_read_opens_nothing_a_second_time_and_what_it_has_is_in_force_again_when_it_can() {
    let (mut gateway, _) = with(&overridable());
    gateway.by_code(1).unwrap();
    gateway.records.lock().unwrap().unreadable_one = Some(RECORD);
    let mut gateway = gateway.restarted();
    assert!(!gateway.is_overridden() && gateway.shows("stored-policy-unusable"));
    assert_eq!(refusal(gateway.ask(request(2, 60))), "record-unread");
    gateway.step(Occasion::Tick);
    gateway.records.lock().unwrap().unreadable_one = None;
    gateway.step(Occasion::Tick);
    assert!(gateway.is_overridden() && !gateway.shows("stored-policy-unusable"));
    assert_eq!(refusal(gateway.by_code(3)), "spent-code");
}

#[test]
fn after_a_record_was_lost_no_code_of_the_release_in_force_is_good_any_more_and_two_people_are() {
    let (mut gateway, _) = with(&overridable());
    gateway.by_code(1).unwrap();
    let lost = b"{\"lasting\":".to_vec();
    gateway.records.lock().unwrap().records.insert(RECORD, lost);
    let mut gateway = gateway.restarted();
    assert!(!gateway.is_overridden());
    gateway.step(Occasion::Tick);
    assert_eq!(refusal(gateway.by_code(2)), "spent-code");
    let mut gateway = gateway.restarted();
    assert_eq!(refusal(gateway.by_code(3)), "spent-code");
    gateway.overridden(4, 60).unwrap();
    assert!(gateway.is_overridden());
}

#[test]
fn the_process_is_not_asked_before_a_change_while_people_say_so() {
    let mut plan = overridable();
    plan.requires.insert(Capability::of(Capability::CHANGE_CONTROL));
    plan.interlock = Some(crate::interlock::tests::coil(502, 3));
    let (mut gateway, one) = with(&plan);
    let (second, _) = offer(&plan, 2, Some(one));
    gateway.site.is_running.store(true, Ordering::Relaxed);
    gateway.step(Occasion::Offer(second, on_trial()));
    assert!(gateway.site.is_asked.load(Ordering::Relaxed));
    let unasked = OverrideAsk::Request {
        number: Digest([1; 32]),
        effects: vec![Effect::Unasked],
        seconds: 3600,
        reason: "the PLC that would answer is gone".to_owned(),
        ticket: None,
    };
    let form = gateway.ask(unasked).unwrap();
    gateway.ask(begin(signed(&form, &BOTH), None)).unwrap();
    gateway.step(Occasion::Tick);
    assert!(
        !gateway.site.is_asked.load(Ordering::Relaxed),
        "judged by the overridden plan"
    );
}

#[test]
fn four_overrides_last_at_a_time_at_most_and_one_of_them_is_ended_by_its_number() {
    let (mut gateway, _) = with(&overridable());
    for number in 1..=4 {
        gateway.overridden(number, 3600).unwrap();
    }
    assert_eq!(refusal(gateway.overridden(5, 3600)), "too-many");
    let end = |number: Option<u8>| OverrideAsk::End {
        number: number.map(|number| Digest([number; 32])),
        by: "carla".to_owned(),
    };
    gateway.ask(end(Some(2))).unwrap();
    assert!(gateway.is_overridden(), "three others say the same");
    assert_eq!(refusal(gateway.ask(end(Some(2)))), "nothing-there");
    gateway.overridden(6, 3600).unwrap();
    gateway.ask(end(None)).unwrap();
    assert!(!gateway.is_overridden());
    assert_eq!(gateway.recorded("override-ended"), 5);
}
