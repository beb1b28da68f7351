//! Findings of `check` that people live with.

use serde_json::{Value, json};

use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::document::node::Node;
use crate::document::read::{OneOrMany, Term, record, scalar};
use crate::document::scalars::Text;
use crate::document::times::Day;
use crate::ids::ApproverId;

record! {
    /// A finding of `check` that people live with for a while.
    Accepted "an accepted finding" {
        /// The finding's code, such as `PC0120`.
        required code: FindingCode,
        /// All that the finding names, one or a list: flows (`CONDUIT/FLOW`), conduits, zones, assets, gateways.
        required r#where: OneOrMany<Text>,
        /// Words of its sentence, as `penstock check` prints it: only a finding that says them is accepted.
        optional says: Text,
        /// The approver who accepted it.
        required by: ApproverId,
        /// Why it can be lived with.
        required reason: Text,
        /// The last day on which it counts as accepted, such as `2027-06-30`.
        required expires: Day,
    }
}

/// Two entries for the same finding differ in what they are about, and not here.
impl PartialEq for Accepted {
    fn eq(&self, _: &Self) -> bool {
        false
    }
}

/// The code of a finding. Whether there is such a finding is seen once the plans are looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FindingCode(pub(crate) String);

impl Term for FindingCode {
    fn read(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = scalar(node, "the code of a finding", faults)?;
        let number = text.strip_prefix("PC");
        if number.is_some_and(|number| number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit()))
        {
            return Some(Self(text.to_owned()));
        }
        faults.add(
            Fault::new(
                Code::NotAccepted,
                node.place,
                format!("{} is not the code of a finding", node.describe()),
            )
            .label("expected: such as PC0120")
            .help(
                "write the code as `penstock check` shows it; diagnostics (`PS…`) are mended, not accepted",
            ),
        );
        None
    }

    fn schema() -> Value {
        json!({ "type": "string", "pattern": "^PC[0-9]{4}$" })
    }
}
