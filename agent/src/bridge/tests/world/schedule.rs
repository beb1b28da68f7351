//! What a schedule of the random world consists of: who does something next, and what goes wrong.

/// Who does something next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bridge::tests) enum Actor {
    SourceSends,
    SourceHears,
    IntakeReads,
    IntakeHandsOver,
    IntakeHearsOfDisk,
    Keeper,
    DeliveryHearsOfQueue,
    DeliveryReads,
    DeliveryHearsOfDepth,
    ReceiverHears,
    SourceConnects,
    ReceiverConnects,
}

pub(in crate::bridge::tests) const ACTORS: [Actor; 12] = [
    Actor::SourceConnects,
    Actor::ReceiverConnects,
    Actor::SourceSends,
    Actor::SourceHears,
    Actor::IntakeReads,
    Actor::IntakeHandsOver,
    Actor::Keeper,
    Actor::IntakeHearsOfDisk,
    Actor::DeliveryHearsOfDepth,
    Actor::DeliveryHearsOfQueue,
    Actor::DeliveryReads,
    Actor::ReceiverHears,
];

/// Which of the two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bridge::tests) enum Side {
    From,
    To,
}

/// What happens next.
#[derive(Debug, Clone)]
pub(in crate::bridge::tests) enum Step {
    Publish {
        qos: u8,
        bytes: usize,
        permitted: bool,
    },
    Do(Actor, u8),
    /// Everybody does what there is to do, so often.
    Rounds(u8),
    /// A connection breaks; the broker still heard so many packets.
    Break(Side, u8),
    /// The attempt at a connection fails.
    Refuse(Side),
    /// The receiving broker says again what it said last.
    Repeat,
    /// The agent is killed, and begins again from its disk.
    Crash,
    /// Another policy comes into force, which permits nothing of this, or all again.
    Permit(bool),
    /// A broker loses the bridge's session.
    Forget(Side),
    Seconds(u8),
    /// From now on the disk takes nothing, no messages, or all.
    Disk(DiskHealth),
    /// From now on the receiving broker takes no publication, or takes them again.
    Later(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bridge::tests) enum DiskHealth {
    Fails,
    IsFull,
    Works,
}
