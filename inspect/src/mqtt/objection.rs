//! What stands against a packet that only MQTT knows.

use crate::judge::{Objection, Reason};

/// No filter covers the topic.
pub(crate) const TOPIC: Objection = own("no rule covers the topic");
/// The topic is permitted at another quality of service.
pub(crate) const QOS: Objection = own("the quality of service is not permitted");
/// The topic is permitted, retained messages are not.
pub(crate) const RETAIN: Objection = own("retained messages are not permitted");
/// The client identifier or user is not one that may connect.
pub(crate) const IDENTITY: Objection = own("the client identifier or the user is not permitted");
/// The broker still holds a publication of the same packet identifier that is not permitted.
pub(crate) const UNFINISHED: Objection =
    own("the broker still holds a publication of that packet identifier that is no longer permitted");
/// The alias was last set by a refused publication.
pub(crate) const ALIAS: Objection = own("its topic alias was set by a refused publication");

/// What answers a refusal depends on the packet, not on the reason.
const fn own(text: &'static str) -> Objection {
    Objection::Own(Reason::new(text, 0))
}
