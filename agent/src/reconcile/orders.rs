//! Orders: how far a release goes on this gateway. One comes with each offer, and alone about a release that the gateway has.
//!
//! An order moves a release that has not begun: further, or back. What is on trial ends by being confirmed or reverted, and what is in
//! force for good stays. The last order is stored beside the release, so that the next agent goes on as it was ordered; a trial begins by
//! it only where the site is islanded, and else by one of the session that stands.

use penstock_policy::ids::Digest;
use penstock_policy::text::sentence;
use penstock_proto::v1::PolicyOffer;

use super::{Reconciler, Workplace};
use crate::kernel::Kernel;
use crate::policy_store;
use crate::policy_store::journal::Order;
use crate::store::Records;

impl<K: Kernel, W: Workplace> Reconciler<K, W> {
    /// Obeys an order that comes alone. About a release that this gateway does not have, nothing happens: it has to be offered.
    pub(super) async fn ordered(&mut self, (statement, order): (Digest, Order)) {
        self.ordered = (order.number, Some(statement));
        self.reorder_waiting(Some(statement), &order);
        if self
            .desired
            .as_ref()
            .is_some_and(|desired| desired.statement == statement)
        {
            self.reorder(order).await;
            self.bring_about("").await;
        }
    }

    /// An offer that waits goes as far as the last order about its release says.
    pub(super) fn reorder_waiting(&mut self, statement: Option<Digest>, order: &Order) {
        let of = |offered: &PolicyOffer| Some(Digest::of(&offered.release.as_ref()?.statement));
        if let Some((offered, waiting)) = &mut self.waiting
            && statement.is_some()
            && of(offered) == statement
        {
            waiting.clone_from(order);
        }
    }

    /// The desired release goes as far as `order` says, from now on.
    pub(super) async fn reorder(&mut self, order: Order) {
        let begun = |statement| {
            let is_named = self.journal.names() == Some(statement);
            is_named || self.is_noted(statement) || self.is_on_trial(statement)
        };
        let Some(desired) = self.desired.as_ref().filter(|desired| !begun(desired.statement)) else {
            return;
        };
        if desired.order.asks_the_same_as(&order) {
            self.note_order().await;
            return;
        }
        tracing::info!(revision = %desired.mark.revision, upto = ?order.upto, "another order: {}", order.why);
        if let Some(desired) = &mut self.desired {
            desired.order = order;
        }
        // What holds it now is said again.
        self.held = None;
        self.order_is_due = true;
        self.note_order().await;
    }

    /// Stores the order that is obeyed; one that the disk does not take is tried again at each look.
    pub(super) async fn note_order(&mut self) {
        let Some(desired) = self.desired.as_ref().filter(|_| self.order_is_due) else {
            return;
        };
        let (statement, order) = (desired.statement, desired.order.clone());
        let store = move |store: &mut dyn Records| policy_store::reorder(store, statement, &order);
        match self.workplace.on_records(store).await {
            Some(Ok(())) => self.order_is_due = false,
            Some(Err(error)) => tracing::warn!(error = %sentence(&error), "the order is not stored yet"),
            None => {}
        }
    }
}
