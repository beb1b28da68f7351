//! `schema`: JSON Schemas of the plant document and of what each command prints with `--output json`.

use schemars::{JsonSchema, Schema, schema_for};

use crate::args;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::offline::{changes, check, explain, init, plans, reach, replay, signing};
use crate::online::{audit, devices, fleet, health, login, releases, why};
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
        of::<changes::Changes>("diff"),
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
        of::<login::LoggedIn>("login"),
        of::<login::Whoami>("whoami"),
        of::<login::ContextList>("context"),
        of::<fleet::GatewayList>("gateways"),
        of::<fleet::OperatorList>("operators"),
        of::<fleet::TokenMade>("token"),
        of::<devices::DeviceIssued>("devices-issue"),
        of::<health::Health>("health"),
        of::<why::Why>("why"),
        of::<audit::Found>("audit-search"),
        of::<audit::Record>("audit-tail"),
        of::<health::Change>("health-watch"),
        of::<health::FaultChange>("health-watch-fault"),
    ]
}

/// `penstock schema`.
pub(crate) fn schema(out: &Output, args: &args::Schema) -> Result<Exit, Failure> {
    let text = match &args.command {
        None => serde_json::to_string_pretty(&penstock_policy::schema::json_schema()).unwrap_or_default(),
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
