//! How far the list of withdrawn keys goes on both sides of a session, and so what is to be sent of it.

use penstock_proto::v1::WithdrawnHeld;
use penstock_proto::v1::gateway_message::Message;
use penstock_proto::withdrawn::{Held, Withdrawn};

use super::Machine;

/// How far the list of withdrawn keys goes here and there.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// Ours; `None`: not known yet.
    ours: Option<Held>,
    /// The gateway's by its hello; `None`: it keeps none. What it makes of what it is sent is not known: it may hold more than we do.
    gateway: Option<Held>,
    /// How far ours went when it was sent last.
    sent: Option<Held>,
    /// The gateway cannot prove what it holds, and is sent all of it once.
    unproven: bool,
    /// It gave its own list, and its trust bundles.
    gave: (bool, bool),
    /// What is to be sent is being signed.
    awaited: bool,
}

impl Machine {
    /// The list that is to be sent is signed first: nothing waits for the gateway until [`Self::list_made`].
    pub fn list_awaited(&mut self) {
        self.lists.awaited = true;
        self.taken_by = None;
    }

    /// The list was signed, and is sent; or it cannot be now, and is sent when it is heard of again.
    pub fn list_made(&mut self, is_signed: bool) {
        self.lists.awaited = false;
        if !is_signed {
            self.lists.unsigned();
        }
    }
}

impl Lists {
    /// What the gateway gives of what it holds; `None`: it did that before.
    pub(super) fn given(&mut self, message: Message) -> Option<Message> {
        let gave = match &message {
            Message::Withdrawn(_) => &mut self.gave.0,
            _ => &mut self.gave.1,
        };
        (!std::mem::replace(gave, true)).then_some(message)
    }

    /// The gateway said hello.
    pub(super) fn greeted(&mut self, held: Option<&WithdrawnHeld>) {
        self.gateway = held.map(Into::into);
        self.unproven = held.is_some_and(|held| held.unproven);
    }

    /// Ours goes so far.
    pub(super) fn go(&mut self, ours: Held) {
        self.ours = Some(ours);
    }

    /// What the gateway lacks of it is on its way.
    pub(super) fn sent(&mut self) {
        self.sent = self.ours;
    }

    /// What the gateway held at its hello, if there is more to be said.
    pub(super) fn lacking(&self) -> Option<Held> {
        let (ours, held) = (self.ours?, self.gateway?);
        if self.unproven && self.sent.is_none() {
            return Some(Withdrawn::default().held());
        }
        (self.sent.unwrap_or(held) != ours).then_some(held)
    }

    /// Whether a signature is waited for.
    pub(super) fn are_awaited(&self) -> bool {
        self.awaited
    }

    /// What was to be sent cannot be signed now: what there is to send is not known until it is heard of again.
    fn unsigned(&mut self) {
        (self.ours, self.sent) = (None, None);
    }
}
