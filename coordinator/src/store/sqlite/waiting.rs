//! What waits for the writer, and what of it goes first: what people and rollouts wait for goes before blocks of gateways' trails, which may be
//! so many that they take seconds; and no transaction has more of these than is written in a moment.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::command::Command;

/// Commands that may wait for the writer.
pub(super) const QUEUE_MAX: usize = 1024;
/// Most commands in one transaction, and about how much of trails.
const GROUP_MAX: usize = 256;
const GROUP_TRAIL_BYTES: u64 = 4 * 1024 * 1024;

/// What waits, in the order in which it came: before all others what is no gateway's trail.
#[derive(Default)]
pub(super) struct Waiting {
    first: VecDeque<Command>,
    trails: VecDeque<Command>,
}

impl Waiting {
    /// Whether nothing does.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty() && self.trails.is_empty()
    }

    /// The commands of the next transaction, after this one came and with all that came by now.
    pub(super) fn next(
        &mut self,
        came: Option<Command>,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Vec<Command> {
        came.into_iter().for_each(|command| self.put(command));
        while self.first.len() + self.trails.len() < QUEUE_MAX
            && let Ok(next) = commands.try_recv()
        {
            self.put(next);
        }
        self.group()
    }

    fn put(&mut self, command: Command) {
        match command {
            Command::Append { .. } => self.trails.push_back(command),
            _ => self.first.push_back(command),
        }
    }

    /// As many as one transaction has. However much goes first, some of the trails goes with it.
    fn group(&mut self) -> Vec<Command> {
        let first = self.first.len().min(GROUP_MAX / 2);
        let mut group: Vec<Command> = self.first.drain(..first).collect();
        let mut bytes = 0;
        while group.len() < GROUP_MAX
            && bytes < GROUP_TRAIL_BYTES
            && let Some(next) = self.trails.pop_front()
        {
            bytes += next.bytes();
            group.push(next);
        }
        group
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::sync::oneshot;

    use super::*;
    use crate::store::state::Change;
    use crate::store::trail::NewBlock;

    fn change() -> Command {
        Command::Change {
            change: Change::silent(crate::store::Silent::Prepared),
            reply: oneshot::channel().0,
        }
    }

    fn blocks(bytes: usize) -> Command {
        let block = penstock_proto::v1::AuditBlock {
            body: vec![0; bytes].into(),
            ..Default::default()
        };
        let new = NewBlock {
            summary: Default::default(),
            block,
            received_ms: 0,
        };
        Command::Append {
            source: "gw-a".to_owned(),
            blocks: vec![new],
            note: None,
            reply: oneshot::channel().0,
        }
    }

    /// How many of a group are no trails, and how many are.
    fn counted(group: &[Command]) -> (usize, usize) {
        let trails = group
            .iter()
            .filter(|command| matches!(command, Command::Append { .. }));
        let trails = trails.count();
        (group.len() - trails, trails)
    }

    #[test]
    fn what_people_wait_for_goes_before_the_trails_that_wait_and_does_not_hold_them_up_for_ever() {
        let (sender, mut commands) = mpsc::channel(4096);
        let put = |command| assert!(sender.try_send(command).is_ok());
        (0..600).for_each(|_| put(blocks(64 * 1024)));
        put(change());
        let mut waiting = Waiting::default();
        let mut next = || counted(&waiting.next(None, &mut commands));
        let of_trails = usize::try_from(GROUP_TRAIL_BYTES).unwrap() / (64 * 1024);
        let (first, trails) = next();
        assert_eq!(first, 1, "600 blocks stood before it");
        assert!((of_trails - 1..=of_trails).contains(&trails), "{trails}");
        (0..500).for_each(|_| put(change()));
        let mut left = (500, 600 - trails);
        while left != (0, 0) {
            let (first, trails) = next();
            assert!(first + trails <= GROUP_MAX);
            assert!(trails > 0 || left.1 == 0, "trails go on");
            left = (left.0 - first, left.1 - trails);
        }
        assert!(waiting.is_empty());
    }
}
