//! The shell of the reconciler: waits for offers, orders, commands, drift, time and a person's nudge, and does on blocking threads
//! what may wait for the disk. It decides nothing.
//!
//! What comes in is bounded: of offers and of orders the newest waits, of commands a few, and who asks for more waits.

use std::sync::Arc;
use std::time::Duration;

use penstock_policy::ids::Digest;
use penstock_proto::v1::PolicyOffer;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::overrides::{NotOverridden, OverrideAsk, OverrideReply};
use super::{Command, CommandRefused, Occasion, Reconciler, Reply, Workplace};
use crate::kernel::Kernel;
use crate::policy_store::journal::Order;

/// How often desired and effective are compared when nothing happens.
pub const TICK: Duration = Duration::from_secs(10);

/// Commands that wait at most.
const COMMANDS_MAX: usize = 4;

/// The newest offer, with how far it goes; an older one that was not yet looked at is overtaken.
type OfferSlot = watch::Sender<Option<(Arc<PolicyOffer>, Order)>>;

/// What somebody asks for, and where the answer goes.
pub type Asked = (Command, Option<Reply>);

/// What somebody asks of overrides, and where the answer goes.
pub(crate) type OverrideAsked = (OverrideAsk, Option<OverrideReply>);

/// Where offers, orders and commands go in.
#[derive(Debug, Clone)]
pub struct Inlet {
    offers: OfferSlot,
    orders: watch::Sender<Option<(Digest, Order)>>,
    commands: mpsc::Sender<Asked>,
    overrides: mpsc::Sender<OverrideAsked>,
}

/// Where they come out.
#[derive(Debug)]
pub struct Inbox {
    slot: OfferSlot,
    offers: watch::Receiver<Option<(Arc<PolicyOffer>, Order)>>,
    orders: watch::Receiver<Option<(Digest, Order)>>,
    commands: mpsc::Receiver<Asked>,
    overrides: mpsc::Receiver<OverrideAsked>,
}

/// What a reconciler waits for, and the way in.
pub fn inbox() -> (Inlet, Inbox) {
    let (slot, offers) = watch::channel(None);
    let (orders, ordered) = watch::channel(None);
    let (commands, asked) = mpsc::channel(COMMANDS_MAX);
    let (overrides, overridden) = mpsc::channel(COMMANDS_MAX);
    let inlet = Inlet {
        offers: slot.clone(),
        orders,
        commands,
        overrides,
    };
    let inbox = Inbox {
        slot,
        offers,
        orders: ordered,
        commands: asked,
        overrides: overridden,
    };
    (inlet, inbox)
}

#[cfg(test)]
impl Inbox {
    /// The next command.
    pub(crate) async fn asked(&mut self) -> Option<Asked> {
        self.commands.recv().await
    }

    /// The next thing that is asked of overrides.
    pub(crate) async fn override_asked(&mut self) -> Option<OverrideAsked> {
        self.overrides.recv().await
    }

    /// Nothing was asked.
    pub(crate) fn has_no_commands(&self) -> bool {
        self.commands.is_empty()
    }
}

impl Inlet {
    /// Hands in a release, which is to go so far.
    pub fn offer(&self, offered: Arc<PolicyOffer>, order: Order) {
        self.offers.send_replace(Some((offered, order)));
    }

    /// Hands in a new order about the release of this statement.
    pub fn order(&self, statement: Digest, order: Order) {
        self.orders.send_replace(Some((statement, order)));
    }

    /// Where commands go in.
    pub fn commands(&self) -> mpsc::Sender<Asked> {
        self.commands.clone()
    }

    /// Asks for something, and gives what came of it.
    ///
    /// # Errors
    /// Nothing was done, and why; [`CommandRefused::Stopping`] where the agent ends.
    pub async fn ask(&self, command: Command) -> Result<(), CommandRefused> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send((command, Some(reply))).await;
        sent.map_err(|_| CommandRefused::Stopping)?;
        answer.await.unwrap_or(Err(CommandRefused::Stopping))
    }

    /// Asks for an override, or for its end; a form to be signed, or what is so then, in a sentence.
    ///
    /// # Errors
    /// Nothing was changed, and why; [`NotOverridden::Stopping`] where the agent ends.
    pub async fn ask_override(&self, ask: OverrideAsk) -> Result<String, NotOverridden> {
        let (reply, answer) = oneshot::channel();
        let sent = self.overrides.send((ask, Some(reply))).await;
        sent.map_err(|_| NotOverridden::Stopping)?;
        answer.await.unwrap_or(Err(NotOverridden::Stopping))
    }
}

impl<K: Kernel, W: Workplace> Reconciler<K, W> {
    /// Runs until `stop` is cancelled; `nudge` asks for a look now. The kernel keeps what it has.
    pub async fn run(mut self, inbox: Inbox, nudge: Arc<Notify>, stop: CancellationToken) {
        let Inbox {
            slot,
            mut offers,
            mut orders,
            mut commands,
            mut overrides,
        } = inbox;
        let mut tick = tokio::time::interval_at(Instant::now() + TICK, TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut drift = self.kernel.drift();
        // Also what happened since the policy took effect at the start.
        drift.mark_changed();
        let mut drift_open = true;
        loop {
            let due = self.due();
            let occasion = tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => Occasion::Due,
                Some((command, reply)) = commands.recv() => Occasion::Command(command, reply),
                Some((ask, reply)) = overrides.recv() => Occasion::Override(ask, reply),
                changed = offers.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let Some((offered, order)) = offers.borrow_and_update().clone() else { continue };
                    Occasion::Offer(offered, order)
                }
                Ok(()) = orders.changed(), if !offers.has_changed().unwrap_or_default() => {
                    // An order may be about the release that is offered just now.
                    if offers.has_changed().unwrap_or_default() {
                        orders.mark_changed();
                        continue;
                    }
                    let Some((statement, order)) = orders.borrow_and_update().clone() else { continue };
                    Occasion::Order(statement, order)
                }
                changed = drift.changed(), if drift_open => {
                    drift_open = changed.is_ok();
                    let Some(step) = *drift.borrow_and_update() else { continue };
                    Occasion::Drift(step)
                }
                () = nudge.notified() => Occasion::Nudge,
                _ = tick.tick() => Occasion::Tick,
            };
            let offered = match &occasion {
                Occasion::Offer(offered, _) => Some(Arc::clone(offered)),
                _ => None,
            };
            self.step(occasion).await;
            if let Some(offered) = offered {
                // It is as large as its plan, and was read; a newer one may have come meanwhile.
                slot.send_if_modified(|held| {
                    drop(held.take_if(|(held, _)| Arc::ptr_eq(held, &offered)));
                    false
                });
                drop(offered);
                let _ = self.workplace.compute(crate::allocator::give_back).await;
            }
        }
    }
}
