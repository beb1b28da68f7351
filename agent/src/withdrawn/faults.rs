//! What a person should know of the list, in words.

use penstock_proto::event::AgentStep;
use penstock_proto::v1::Fault;

use super::{AGAIN, State, own};
use crate::audit::record;

pub(super) fn faults_of(state: &State) -> Vec<Fault> {
    let fault = |step: AgentStep, message: String| Fault::new(step.word(), record::bounded(&message));
    let unread = state.unread.as_ref().map(|why| {
        let message = format!(
            "withdrawn keys count again here until the list of them comes back: what is on the disk cannot be read ({why}). The whole list is asked for in the next session; without a link, bring it with `penstock-agent withdrawn take FILE`"
        );
        fault(AgentStep::WithdrawnUnkept, message)
    });
    let unkept = state.unkept.as_ref().map(|why| {
        let message = format!(
            "the list of withdrawn keys counts, but is lost if the agent restarts: it cannot be written ({why}); that is tried again every {} s",
            AGAIN.as_secs()
        );
        fault(AgentStep::WithdrawnUnkept, message)
    });
    let refused = state.refused.as_ref().map(|why| {
        let message = format!("the list of withdrawn keys that the coordinator sent is not used: {why}");
        fault(AgentStep::WithdrawnRefused, message)
    });
    let lacks = state
        .lacks
        .as_ref()
        .map(|(_, words)| fault(AgentStep::WithdrawnRefused, words.clone()));
    // What the coordinator says of it is the newer word.
    let own = state.turned_away.clone().or_else(|| {
        let why = state.over.as_ref()?;
        Some(fault(AgentStep::IdentityWithdrawn, own::withdrawn_in_words(why)))
    });
    let roots = state
        .strange_roots
        .as_ref()
        .map(|words| fault(AgentStep::RootRefused, words.clone()));
    let twin = state
        .twin
        .as_ref()
        .map(|words| fault(AgentStep::TwoUsers, words.clone()));
    [unread, unkept, refused, lacks, own, roots, twin]
        .into_iter()
        .flatten()
        .collect()
}
