//! What the coordinator orders in one session, and asks of a trial, as the reconciler understands it.
//!
//! Bounded: one thing that was asked is in hand at a time, and what cannot be understood is recorded once each, and not without end. Nothing
//! here judges whether it may be done.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use penstock_policy::text;
use penstock_proto::event::AgentStep;
use penstock_proto::v1::{Order, PolicyOffer};
use prost::bytes::Bytes;
use tokio::task::JoinHandle;

use super::machine::Asked;
use crate::audit::{Audit, record};
use crate::offer::{self, OrderFault, claimed_revision};
use crate::reconcile::trial::Confirmer;
use crate::reconcile::{Command, CommandRefused, Inlet};

/// Orders of one session that cannot be understood and are recorded at most.
const FAULTS_MAX: usize = 8;

/// What is asked of a trial, while it is being done.
type Obeying = Pin<Box<dyn Future<Output = Result<(), CommandRefused>> + Send>>;

/// What was done of what a session has done beside it.
pub(super) enum Done {
    /// What came of what was asked of a trial.
    Obeyed(Result<(), CommandRefused>),
    /// The ticket is on the disk.
    Kept(Bytes),
}

/// One session, beside its machine.
pub(super) struct Talk {
    /// When it was opened, on the boot's clock.
    pub(super) opened: Duration,
    /// From when until when the certificate is valid that the coordinator accepted, milliseconds since 1970.
    pub(super) certificate: (u64, u64),
    obeying: Option<Obeying>,
    /// The ticket of this session, on its way to the disk.
    ticket: Option<JoinHandle<Option<Bytes>>>,
    /// What could not be understood.
    faults: Vec<String>,
    audit: Audit,
}

impl Talk {
    /// A session that is opened then.
    pub(super) fn open(opened: Duration, audit: Audit) -> Self {
        Self {
            opened,
            certificate: (0, 0),
            obeying: None,
            ticket: None,
            faults: Vec::new(),
            audit,
        }
    }

    /// Hands on an offer.
    pub(super) fn offered(&mut self, mut offered: PolicyOffer, inlet: &Inlet) {
        let (order, fault) = offer::order_with(&mut offered, self.opened);
        if let Some(fault) = fault {
            let revision = claimed_revision(&offered);
            self.record(&format!("an order that came with r{revision}: {fault}"));
        }
        inlet.offer(Arc::new(offered), order);
    }

    /// Hands on an order that came alone.
    pub(super) fn ordered(&mut self, wire: &Order, inlet: &Inlet) {
        let (order, fault) = offer::read_order(wire, self.opened);
        let named = offer::release_named(&wire.statement_digest);
        if let Some(fault) = named.err().or(fault) {
            self.record(&format!("an order: {fault}"));
        }
        if let Ok(statement) = named {
            inlet.order(statement, order);
        }
    }

    /// Passes on what is asked of a trial, if it can be understood; [`Self::done`] gives what came of it.
    pub(super) fn asked(&mut self, asked: &Asked, inlet: &Inlet) -> bool {
        match command(asked, self.opened) {
            Ok(command) => {
                let inlet = inlet.clone();
                self.obeying = Some(Box::pin(async move { inlet.ask(command).await }));
                true
            }
            Err((what, fault)) => {
                self.record(&format!("{what}: {fault}"));
                false
            }
        }
    }

    /// What comes next of what is being done; never, if nothing is.
    pub(super) async fn done(&mut self) -> Done {
        tokio::select! {
            done = obeyed(&mut self.obeying) => Done::Obeyed(done),
            ticket = kept(&mut self.ticket) => Done::Kept(ticket),
        }
    }

    /// The ticket of this session is being kept.
    pub(super) fn keeps(&mut self, ticket: JoinHandle<Option<Bytes>>) {
        self.ticket = Some(ticket);
    }

    fn record(&mut self, words: &str) {
        if self.faults.len() >= FAULTS_MAX || self.faults.iter().any(|known| known == words) {
            return;
        }
        self.faults.push(words.to_owned());
        tracing::warn!("the coordinator sent what cannot be understood: {words}");
        self.audit.note(record::agent(AgentStep::OrderRefused, words));
    }
}

/// What came of what was asked; never, if nothing was.
async fn obeyed(obeying: &mut Option<Obeying>) -> Result<(), CommandRefused> {
    let Some(future) = obeying else {
        return std::future::pending().await;
    };
    let done = future.await;
    *obeying = None;
    done
}

/// The ticket, once it is on the disk; never, if there is none, or where it is not taken.
async fn kept(ticket: &mut Option<JoinHandle<Option<Bytes>>>) -> Bytes {
    let Some(writing) = ticket else {
        return std::future::pending().await;
    };
    let kept = writing.await;
    *ticket = None;
    match kept {
        Ok(Some(kept)) => kept,
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

/// What is asked of a trial, for the reconciler; `opened` is when the session was opened in which it is asked.
fn command(asked: &Asked, opened: Duration) -> Result<Command, (&'static str, OrderFault)> {
    match asked {
        Asked::Confirm(confirm) => Ok(Command::Confirm {
            statement: offer::release_named(&confirm.statement_digest)
                .map_err(|fault| ("a confirmation", fault))?,
            by: Confirmer::Remote {
                session_opened: opened,
            },
        }),
        Asked::Revert(revert) => Ok(Command::Revert {
            statement: offer::release_named(&revert.statement_digest)
                .map_err(|fault| ("a revert of a trial", fault))?,
            by: match text::printable(&revert.reason).trim() {
                "" => "the coordinator".to_owned(),
                reason => format!("the coordinator ({})", record::bounded(reason)),
            },
            ordered: true,
        }),
    }
}
