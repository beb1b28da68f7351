//! What a release carries beside the policy, at its gateway: whose keys no longer count and which roots do, by the word of the approvers
//! (DESIGN §6, §7; IEC 62443-3-3 SR 1.5, SR 1.8).
//!
//! ```text
//! offer ─ verified (approvers' signatures) ─▶ trust bundle ─▶ list of withdrawn keys ─▶ the policy is staged
//!                                              (trust)         (withdrawn)
//! ```
//!
//! Roots come first, since the list ends what they began. A session with a coordinator whose key the list withdraws ends with that.

use std::sync::Arc;

use penstock_policy::release::Statement;
use penstock_proto::v1::PolicyOffer;

use crate::reconcile::learner::{Learner, Learning};
use crate::trails::TrailsKeeper;
use crate::trust::TrustKeeper;
use crate::withdrawn::WithdrawnKeeper;

/// Takes it.
#[derive(Debug)]
pub struct CarriedTaker {
    /// Of the trust bundle.
    pub trust: Arc<TrustKeeper>,
    /// Of the list.
    pub withdrawn: Arc<WithdrawnKeeper>,
    /// Of the coordinator's trails.
    pub trails: Arc<TrailsKeeper>,
}

impl Learner for CarriedTaker {
    fn learn<'a>(&'a self, statement: &'a Statement, offered: &'a PolicyOffer) -> Learning<'a> {
        Box::pin(async move {
            self.trails.learn(statement);
            let how = format!("with {}", statement.revision);
            if let Some(anchor) = statement.trust {
                let brought = offered.trust.clone().unwrap_or_default();
                self.trust.learn(anchor, brought, &how).await;
            }
            if let Some(anchor) = statement.withdrawn {
                self.withdrawn.learn(anchor, &offered.withdrawn, &how).await;
            }
        })
    }
}
