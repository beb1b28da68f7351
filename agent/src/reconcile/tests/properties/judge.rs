//! What is judged of a history after each step, by what stands on the disk and in the kernel.

use super::*;

impl History {
    pub(super) fn judge(&mut self, before: &Journal, is_alive: bool) -> Judged {
        let after = self.stays.journal();
        let names = [before.names(), after.names()];
        self.named.extend(names.into_iter().flatten().map(revision_of));
        self.reverted
            .extend(after.reverted.iter().map(|one| one.revision.0));
        let believed = self.agent.believed();
        let trust = self.trust.of(&self.stays.records.lock().unwrap(), "trust");
        let trust = trust.map(|trust: Trust| trust.floor.0);
        let confirmed = after.confirmed().map(revision_of);
        self.floor = self.floor.max(trust.unwrap_or(0)).max(confirmed.unwrap_or(0));
        if believed < self.floor && is_alive {
            return Err(format!(
                "floor: r{} was believed, and now r{believed}",
                self.believed
            ));
        }
        let is_confirmed = before.trial.is_some() && after.trial.is_none() && believed > self.believed;
        self.tally.confirmed += u64::from(is_confirmed);
        let believed_before = std::mem::replace(&mut self.believed, believed);
        if let Some(statement) = after.names().filter(|named| before.names() != Some(*named)) {
            self.begun(statement, before, &after)?;
        }
        self.judge_overrides(is_alive)?;
        let table = self.stays.table.lock().unwrap();
        for change in &table.changes[self.judged..] {
            let mut lasting = change.overrides.lasting.iter();
            if change.overridden && !lasting.any(|one| one.ended.is_none()) {
                return Err(format!(
                    "overridden: the kernel is, and the disk knows nothing of it: {change:?}"
                ));
            }
            let known = &change.journal;
            self.named.extend(
                [known.names(), change.marked]
                    .into_iter()
                    .flatten()
                    .map(revision_of),
            );
            let is_known = self.named.contains(&change.holds);
            let is_bare = change.holds == 0;
            if !is_known && !is_bare {
                return Err(format!(
                    "named: the kernel holds r{}, and the disk knows nothing of it",
                    change.holds
                ));
            }
            let failed = table.failed.contains(&self.held);
            if change.holds < self.held && !self.reverted.contains(&self.held) && !failed {
                return Err(format!(
                    "back: from r{} to r{} without a revert",
                    self.held, change.holds
                ));
            }
            if is_bare {
                self.tally.withdrawn += 1;
                if believed_before > 0 || known.ground.is_none() && known.trial.is_none() {
                    return Err(format!(
                        "back: to no policy, though r{believed_before} is believed, and {change:?}"
                    ));
                }
            }
            self.held = change.holds;
        }
        self.judged = table.changes.len();
        Ok(())
    }

    /// The journal names another release than before as one that the kernel is about to hold.
    fn begun(&mut self, statement: Digest, before: &Journal, after: &Journal) -> Judged {
        let revision = revision_of(statement);
        let previous = before.trial.as_ref().and_then(|trial| trial.previous.as_ref());
        let was_there = revision <= self.believed || previous.is_some_and(|one| one.statement == statement);
        if was_there {
            return Ok(());
        }
        self.tally.begun += u64::from(after.trial.is_some());
        let says = self.stays.says.lock().unwrap();
        let now = self.stays.now();
        if says.is_running {
            return Err(format!("interlock: r{revision} begins without its word"));
        }
        if after.hold.is_some() {
            return Err(format!("hold: r{revision} begins while a person holds"));
        }
        if after.is_reverted(statement) {
            return Err(format!("reverted: r{revision} begins again"));
        }
        let orders = self.orders.get(&revision).into_iter().flatten();
        let fits = |order: &Order| {
            let needs = length_of(order).unwrap_or_default() + MARGIN;
            let is_open = says.windows.as_ref().is_none_or(|windows| {
                now.synchronised && matches!(windows.at(now.wall_ms, needs), Opening::Open { .. })
            });
            order.upto == Upto::Active && order.trial_ms.is_some() == after.trial.is_some() && is_open
        };
        let is_heard = |order: &Order| Some(order.number.session) == says.session;
        let waits = says.needs_session && !says.islanded && after.trial.is_some();
        if waits && !orders.clone().any(is_heard) {
            return Err(format!(
                "confirmer: r{revision} begins a trial that nobody can confirm: the session is {:?}, of {:?}",
                says.session,
                orders.collect::<Vec<_>>()
            ));
        }
        if !orders.clone().any(fits) {
            return Err(format!(
                "ordered: r{revision} begins at {now:?}, on trial: {}, of {:?}",
                after.trial.is_some(),
                orders.collect::<Vec<_>>()
            ));
        }
        Ok(())
    }
}
