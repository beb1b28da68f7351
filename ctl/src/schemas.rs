//! `schema`: JSON Schemas of the plant document and of what each command prints with `--output json`.

use schemars::{JsonSchema, Schema, schema_for};

use crate::args;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::offline::{
    check, event_proof, evidence, explain, fmt, init, overrides, plans, reach, records, replay,
    rollout as rollout_plans, signing,
};
use crate::online::{
    accounts, adopt, alarms, audit, batch, devices, fleet, health, identities, login, oidc, releases,
    requests, rollout, why,
};
use crate::output::{Output, Report};

/// Every report with its schema; `schema` among the properties names it.
fn all() -> Vec<(&'static str, Schema)> {
    fn of<R: Report + JsonSchema>(command: &'static str) -> (&'static str, Schema) {
        let mut schema = schema_for!(R);
        if let Some(properties) = schema
            .pointer_mut("/properties")
            .and_then(|found| found.as_object_mut())
        {
            properties.insert("schema".to_owned(), serde_json::json!({ "const": R::SCHEMA }));
        }
        (command, schema)
    }
    vec![
        of::<check::Checked>("check"),
        of::<releases::ChangesAndRecorded>("diff"),
        of::<explain::Explanation>("explain"),
        of::<explain::CodeMeaning>("explain-code"),
        of::<reach::Reaches>("reach"),
        of::<plans::Written>("graph"),
        of::<plans::Written>("compile"),
        of::<plans::Written>("learn"),
        of::<replay::Replayed>("replay"),
        of::<plans::KeyShown>("key"),
        of::<init::Started>("init"),
        of::<signing::Signed>("release-sign"),
        of::<signing::Verified>("release-verify"),
        of::<releases::ReleaseShown>("release"),
        of::<releases::ReleaseList>("release-list"),
        of::<releases::KnownShown>("release-known"),
        of::<plans::Written>("rollout-plan"),
        of::<rollout_plans::PlanJudged>("rollout-check"),
        of::<rollout::RolloutView>("rollout"),
        of::<rollout::RolloutList>("rollout-list"),
        of::<rollout::Freeze>("rollout-freeze"),
        of::<rollout::RecordWritten>("rollout-record"),
        of::<records::RecordVerified>("rollout-verify"),
        of::<overrides::Sealed>("override-seal"),
        of::<overrides::OverrideShown>("override-show"),
        of::<overrides::OverrideSigned>("override-sign"),
        of::<login::LoggedIn>("login"),
        of::<oidc::AccountWaits>("login-waits"),
        of::<login::Whoami>("whoami"),
        of::<login::ContextList>("context"),
        of::<fleet::GatewayList>("gateways"),
        of::<fleet::OperatorList>("operators"),
        of::<accounts::AccountList>("operators-accounts"),
        of::<accounts::AccountChanged>("operators-link"),
        of::<fleet::TokenMade>("token"),
        of::<batch::BatchShown>("batch"),
        of::<batch::BatchSubmitted>("batch-submit"),
        of::<requests::RequestShown>("request"),
        of::<requests::RequestList>("requests"),
        of::<devices::DeviceIssued>("devices-issue"),
        of::<devices::DeviceTokenMade>("devices-token"),
        of::<identities::DeviceList>("devices"),
        of::<identities::StandingChanged>("identity"),
        of::<identities::WithdrawnWritten>("gateways-withdrawn"),
        of::<health::Health>("health"),
        of::<why::Why>("why"),
        of::<adopt::Adoption>("adopt"),
        of::<audit::Found>("audit-search"),
        of::<audit::Record>("audit-tail"),
        of::<audit::Counts>("audit-counts"),
        of::<audit::DenialList>("audit-denials"),
        of::<evidence::EvidenceProved>("audit-verify"),
        of::<event_proof::EventProved>("audit-prove"),
        of::<health::Change>("health-watch"),
        of::<health::FaultChange>("health-watch-fault"),
        of::<health::NoteChange>("health-watch-note"),
        of::<alarms::AlarmList>("alarms"),
        of::<alarms::AlarmChanged>("alarm"),
        of::<plans::Written>("expand"),
        of::<fmt::Formatted>("fmt"),
        of::<explain::FieldMeaning>("explain-field"),
    ]
}

/// `penstock schema`.
pub(crate) fn schema(out: &Output, args: &args::Schema) -> Result<Exit, Failure> {
    let text = match &args.command {
        None => {
            let mut schema = penstock_policy::schema::json_schema();
            if let Some(object) = schema.as_object_mut().filter(|_| args.part) {
                object.remove("required");
            }
            serde_json::to_string_pretty(&schema).unwrap_or_default()
        }
        Some(command) => {
            let wanted = command.replace(' ', "-");
            let mut known = all();
            let Some(at) = known.iter().position(|(name, _)| *name == wanted) else {
                let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                return Err(
                    Failure::usage(format!("no command `{command}` has a schema of its own"))
                        .help(format!("there are: {}", names.join(", "))),
                );
            };
            let (_, schema) = known.swap_remove(at);
            serde_json::to_string_pretty(&schema).unwrap_or_default()
        }
    };
    out.text(&format!("{}\n", text.trim_end()))?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::all;

    /// Each command, the title of its schema, and the names of what it defines.
    const NAMES: &str = "\
check: Checked AcceptedLine FindingLine Summary\n\
diff: Changes AcceptedLine ChangeLine FindingLine FindingsCompared GatewayTouch MustFlowLine Recorded RecordedEnd RecordedRefusal RecordedSum RecordedUnjudged WayLine ZonePair ZonePairs\n\
explain: Explanation BridgeLine End GatewayVerdict Line OperationVerdict Permitted RuleLine\n\
explain-code: CodeMeaning\n\
reach: Reaches ReachLine StepLine WayLine\n\
graph: Written\n\
compile: Written\n\
learn: Written\n\
replay: Replayed Connection Counts Datagrams Deviation Noted Operation Unread\n\
key: KeyShown\n\
init: Started StartedKey\n\
release-sign: Signed Stated TrailsStated\n\
release-verify: Verified Stated TrailsStated\n\
release: ReleaseShown AcceptedLine Assurance Base ChangeLine Changes FindingLine FindingsCompared GatewayTouch MustFlowLine Recorded RecordedEnd RecordedRefusal RecordedSum RecordedUnjudged ReleaseLine Stated TrailsStated WayLine ZonePair ZonePairs\n\
release-list: ReleaseList ReleaseLine\n\
release-known: KnownShown Stated TrailsStated\n\
rollout-plan: Written\n\
rollout-check: PlanJudged WaveLine\n\
rollout: RolloutView EventLine FreezeLine GatewayState ShadowLine StandingLine WaitLine\n\
rollout-list: RolloutList EventLine FreezeLine GatewayState RolloutView ShadowLine StandingLine WaitLine\n\
rollout-freeze: Freeze FreezeLine\n\
rollout-record: RecordWritten\n\
rollout-verify: RecordVerified ClaimLine\n\
override-seal: Sealed\n\
override-show: OverrideShown EffectShown SignatureShown\n\
override-sign: OverrideSigned EffectShown OverrideShown SignatureShown\n\
login: LoggedIn\n\
login-waits: AccountWaits\n\
whoami: Whoami\n\
context: ContextList ContextLine\n\
gateways: GatewayList GatewayLine IdentityLine ShadowLine StandingLine TunnelLine\n\
operators: OperatorList IdentityLine OperatorLine\n\
operators-accounts: AccountList AccountLine\n\
operators-link: AccountChanged\n\
token: TokenMade\n\
batch: BatchShown\n\
batch-submit: BatchSubmitted BatchShown\n\
request: RequestShown AccountAsked ApproverLine ApproversShown\n\
requests: RequestList AccountAsked ApproverLine ApproversShown RequestLine\n\
devices-issue: DeviceIssued\n\
devices-token: DeviceTokenMade\n\
devices: DeviceList DeviceLine IdentityLine\n\
identity: StandingChanged IdentityLine\n\
gateways-withdrawn: WithdrawnWritten\n\
health: Health AssuranceLine CoordinatorFault GatewayBrief ShadowLine StandingLine ZoneLine\n\
why: Why Ask Party Permitted Refused SmallestFlow\n\
adopt: Adoption Ask Party Permitted Refused SmallestFlow ZoneWatch\n\
audit-search: Found Explained Named Record\n\
audit-tail: Record Explained Named\n\
audit-counts: Counts CountLine\n\
audit-denials: DenialList DenialLine Named\n\
audit-verify: EvidenceProved AnchoredBy BeginsAgain CosignedBy TrailProved\n\
audit-prove: EventProved\n\
health-watch: Change AssuranceLine\n\
health-watch-fault: FaultChange\n\
health-watch-note: NoteChange\n\
alarms: AlarmList AlarmLine\n\
alarm: AlarmChanged\n\
expand: Written\n\
fmt: Formatted\n\
explain-field: FieldMeaning FieldPlace";

    #[test]
    fn no_name_in_a_printed_schema_changes_with_a_type_of_ours() {
        let names = |(command, schema): (&str, schemars::Schema)| {
            let title = schema
                .get("title")
                .and_then(|title| title.as_str())
                .map(str::to_owned);
            let defined = schema.get("$defs").and_then(|defined| defined.as_object());
            let mut defined: Vec<String> = defined.into_iter().flat_map(|all| all.keys().cloned()).collect();
            defined.sort();
            let words = title.into_iter().chain(defined);
            format!("{command}: {}", words.collect::<Vec<_>>().join(" "))
        };
        let printed: Vec<String> = all().into_iter().map(names).collect();
        for (printed, kept) in printed.iter().zip(NAMES.lines()) {
            assert_eq!(
                printed, kept,
                "others read these names: a renamed type keeps its own with #[schemars(rename = \"…\")]"
            );
        }
        assert_eq!(printed.len(), NAMES.lines().count());
    }
}
