//! Who takes what a release names beside the policy, before anything of it is obeyed.

use std::pin::Pin;
use std::sync::Arc;

use penstock_policy::release::Statement;
use penstock_proto::v1::PolicyOffer;

use super::{Reconciler, Workplace};
use crate::kernel::Kernel;

/// While it is being taken.
pub type Learning<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Takes the list of withdrawn keys and the trust bundle.
pub trait Learner: Send + Sync + 'static {
    /// From a release that enough of its approvers signed, and what came with it. It keeps no release from being obeyed: what is not taken is a
    /// fault.
    fn learn<'a>(&'a self, statement: &'a Statement, offered: &'a PolicyOffer) -> Learning<'a>;
}

/// Takes nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unlearned;

impl Learner for Unlearned {
    fn learn<'a>(&'a self, _: &'a Statement, _: &'a PolicyOffer) -> Learning<'a> {
        Box::pin(std::future::ready(()))
    }
}

impl<K: Kernel, W: Workplace> Reconciler<K, W> {
    /// With somebody who takes what releases name beside the policy.
    #[must_use]
    pub fn with_learner(mut self, learner: Arc<dyn Learner>) -> Self {
        self.learner = learner;
        self
    }
}
