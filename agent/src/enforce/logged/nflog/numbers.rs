//! How many messages of the kernel's log were lost: they are numbered.

use super::PACKET;
use crate::enforce::nft::netlink::{attributes, be32, messages};

/// Finds out by their numbers how many of one socket's messages were lost.
#[derive(Debug, Default)]
pub struct Numbers {
    next: u32,
    /// Losses that were reported before a number showed them.
    ahead: u64,
}

impl Numbers {
    /// How many messages were lost ahead of this datagram or within it, beyond those reported already.
    pub fn lost(&mut self, datagram: &[u8]) -> u64 {
        let mut lost = 0;
        for message in messages(datagram).filter(|message| message.kind == PACKET) {
            let number = attributes(message.payload).find(|(attribute, _)| *attribute == 12);
            if let Some(number) = number.and_then(|(_, value)| be32(value)) {
                lost += u64::from(number.wrapping_sub(self.next));
                self.next = number.wrapping_add(1);
            }
        }
        let known = lost.min(self.ahead);
        self.ahead -= known;
        lost - known
    }

    /// One message at least was lost, and none has come since: it is reported now.
    pub fn report_ahead(&mut self) -> u64 {
        self.ahead += 1;
        1
    }
}
