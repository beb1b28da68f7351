//! How much may be under way in a tunnel: always the same.
//!
//! What a tunnel carries has its own ways to be slow: TCP its window, a poll of a controller its rhythm. A second window around them would take each lost
//! packet of a poor line for a reason to hold all of them back, must-flows too, and would make what it holds back late. So there is none, as in
//! other tunnels (IPsec, WireGuard): a lost datagram is lost, and the next one goes.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory};

/// Bytes that may be under way unacknowledged: a gigabit per second over 30 ms.
const WINDOW: u64 = 4 * 1024 * 1024;

/// The same window, whatever happens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steady;

impl Controller for Steady {
    fn on_congestion_event(&mut self, _now: Instant, _sent: Instant, _persistent: bool, _lost_bytes: u64) {}

    fn on_mtu_update(&mut self, _new_mtu: u16) {}

    fn window(&self) -> u64 {
        WINDOW
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(*self)
    }

    fn initial_window(&self) -> u64 {
        WINDOW
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl ControllerFactory for Steady {
    fn build(self: Arc<Self>, _now: Instant, _current_mtu: u16) -> Box<dyn Controller> {
        Box::new(*self)
    }
}
