//! The coordinator's gRPC services, thin: who calls and whether they may ([`gate`]), wire to domain, one call into
//! the module that does it, and back. What operators change, or were refused, is in the trail before the
//! answer goes out, and is also where nobody waits for it any more ([`calls`]).

mod alarms;
pub mod answers;
mod batches;
mod bodies;
pub mod calls;
mod control;
mod endings;
mod enrol;
pub mod gate;
mod identities;
mod link;
mod oidc;
mod requests;
mod rollouts;
mod sign_ins;
mod trails;
mod until;
mod views;
mod watching;

pub use self::answers::{ANSWERS_MAX, SESSIONS_EACH_MAX, WATCHES_MAX};
pub use self::control::ControlService;
pub use self::enrol::EnrolmentService;
pub use self::link::{CARRIED, LinkService, RENEWALS};
