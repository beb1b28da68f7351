//! Signed files that somebody brings to a site without a link: withdrawn keys, and trust bundles.

use penstock_policy::text::sentence;
use penstock_proto::bundle::from_json;
use penstock_proto::withdrawn::SignedList;

use super::{Answer, RECORDED_WITHIN, Server};

impl Server {
    pub(super) async fn take_withdrawn(&self, list: &str, by: &str) -> Answer {
        let list = match SignedList::from_json(list) {
            Ok(list) => list,
            Err(error) => return Answer::Refused(sentence(&error)),
        };
        let taken = self.withdrawn.take(list, &format!("brought by {by}")).await;
        self.audit.recorded(RECORDED_WITHIN).await;
        match taken {
            Ok(words) => Answer::Done(words),
            Err(why) => Answer::Refused(sentence(&why)),
        }
    }

    pub(super) async fn take_trust(&self, bundles: &str, by: &str) -> Answer {
        let bundles = match from_json(bundles) {
            Ok(bundles) => bundles,
            Err(error) => return Answer::Refused(sentence(&error)),
        };
        let taken = self.trust.take(bundles, &format!("brought by {by}")).await;
        self.audit.recorded(RECORDED_WITHIN).await;
        match taken {
            Ok(words) => Answer::Done(words),
            Err(why) => Answer::Refused(sentence(&why)),
        }
    }
}
