//! What is reported of a TPM that does not sign: a fault in health and an event in the trail when it begins, and another event when it is over.

use penstock_proto::event::AgentStep;
use penstock_proto::v1::Fault;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Tpm, TpmError};
use crate::audit::{Audit, record};

/// Reports what becomes of each signature that is asked of a TPM; what it says of its counter is no matter of the key.
pub struct KeyWatch {
    fault: watch::Receiver<Option<TpmError>>,
    audit: Audit,
    faults: watch::Sender<Vec<Fault>>,
}

impl KeyWatch {
    /// One of this TPM, and the faults that it shows.
    pub fn new(tpm: &Tpm, audit: Audit) -> (Self, watch::Receiver<Vec<Fault>>) {
        let (faults, shown) = watch::channel(Vec::new());
        let fault = tpm.fault();
        (Self { fault, audit, faults }, shown)
    }

    /// Until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut was_faulty = false;
        loop {
            let fault = self.fault.borrow_and_update().clone();
            match &fault {
                Some(error) => {
                    let words = format!(
                        "{error}. What is enforced, and the sessions that stand, go on; new ones begin when it signs again"
                    );
                    tracing::error!("{words}");
                    self.audit.note(record::agent(AgentStep::KeyUnavailable, &words));
                    self.faults
                        .send_replace(vec![Fault::new(AgentStep::KeyUnavailable.word(), words)]);
                }
                None if was_faulty => {
                    self.audit
                        .note(record::agent(AgentStep::KeyAvailable, "the TPM signs again"));
                    self.faults.send_replace(Vec::new());
                }
                None => {}
            }
            was_faulty = fault.is_some();
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.fault.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }
}
