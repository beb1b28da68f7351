//! Overrides in these histories: what people ask for, and what is judged of it.

use std::collections::VecDeque;

use super::*;
use crate::reconcile::overrides::OverrideAsk;
use crate::reconcile::tests::overrides::{begin, code, request, signed};

impl History {
    /// People ask for an override now and then, or for its end.
    pub(super) fn people(&mut self) -> Judged {
        match self.overriding.below(12) {
            0 | 1 => self.ask(self.begun.len() as u8 + 1),
            2 => {
                let end = OverrideAsk::End {
                    number: None,
                    by: "carla".to_owned(),
                };
                self.step(Occasion::Override(end, None))
            }
            _ => Ok(()),
        }
    }

    /// The disk does not take the record of overrides.
    pub(super) fn trouble_overrides(&mut self) {
        if self.overriding.once_in(24) {
            self.stays.records.lock().unwrap().unwritable = Some("overrides");
            self.is_unheard = true;
        }
    }

    /// Takes in what was recorded of their beginnings and ends.
    pub(super) fn hear_of_overrides(&mut self, recorded: &VecDeque<String>) {
        for (step, numbers) in ["override-began ", "override-ended "].iter().zip(&mut self.trail) {
            let words = recorded.iter().filter_map(|words| words.strip_prefix(step));
            numbers.extend(words.filter_map(|words| Some(words.split(' ').next()?.to_owned())));
        }
    }

    fn ask(&mut self, number: u8) -> Judged {
        let seconds = self.overriding.of(&[60, 300, 3600]);
        let (reply, mut made) = tokio::sync::oneshot::channel();
        self.step(Occasion::Override(request(number, seconds), Some(reply)))?;
        let Ok(Ok(form)) = made.try_recv() else {
            return Ok(());
        };
        let code = self.overriding.once_in(3).then(code);
        let by_code = code.is_some();
        let people: &[_] = if by_code {
            &[]
        } else {
            &[("bert", 11), ("emil", 13)]
        };
        let was_spent = self.tally.by_code > 0;
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        let asked = begin(signed(&form, people), code);
        self.step(Occasion::Override(asked, Some(reply)))?;
        if let Ok(Ok(words)) = answer.try_recv() {
            self.tally.overridden += 1;
            self.tally.by_code += u64::from(by_code);
            if by_code && was_spent {
                return Err(format!("spent: the code was used before, and {words}"));
            }
        }
        Ok(())
    }

    /// After each step.
    pub(super) fn judge_overrides(&mut self, is_alive: bool) -> Judged {
        let boot = self.stays.now().boot;
        let (ran, looked) = self.ran;
        self.ran = (ran + boot.checked_sub(looked).unwrap_or(boot), boot);
        let (ran, _) = self.ran;
        let stored = self.stays.overrides();
        for one in &stored.lasting {
            let lasts = Duration::from_secs(one.asked.seconds.into());
            self.begun.entry(one.asked.number).or_insert((ran, lasts));
        }
        if !is_alive {
            return Ok(());
        }
        let shown = self.agent.view.borrow().overrides.clone();
        for one in &shown {
            let number = one.asked.number;
            let Some((since, lasts)) = self.begun.get(&number) else {
                return Err(format!("overridden: by {number}, which the disk never had"));
            };
            if ran > *since + *lasts {
                return Err(format!(
                    "longer: {number} may last {lasts:?}, and does for {:?}",
                    ran - *since
                ));
            }
        }
        let table = self.stays.table.lock().unwrap();
        let is_settled = table.mood == Mood::Works
            && self
                .agent
                .view
                .borrow()
                .faults
                .iter()
                .all(|fault| fault.code == "overridden");
        if is_settled && table.holds.is_some() && table.overridden == shown.is_empty() {
            return Err(format!(
                "overridden: the kernel: {}, and what lasts: {shown:?}",
                table.overridden
            ));
        }
        Ok(())
    }

    /// The machine is about to lose power: what the disk has is no more than what is left, but where it took nothing.
    pub(super) fn before_reboot(&mut self) -> Judged {
        let (ran, _) = self.ran;
        for one in self.stays.overrides().lasting {
            let Some((since, lasts)) = self.begun.get(&one.asked.number).copied() else {
                continue;
            };
            let left = (since + lasts).saturating_sub(ran);
            if one.ended.is_none() && Duration::from_millis(one.left_ms) > left {
                if !self.is_unheard {
                    return Err(format!("longer: {left:?} are left, and the disk has {one:?}"));
                }
                self.begun
                    .insert(one.asked.number, (ran, Duration::from_millis(one.left_ms)));
            }
        }
        Ok(())
    }

    /// In the end nothing is overridden, and the trail has it all.
    pub(super) fn is_over(&mut self) -> Judged {
        let left = self.stays.overrides().lasting;
        if !left.is_empty() || self.stays.table.lock().unwrap().overridden {
            return Err(format!("over: {left:?}"));
        }
        let [began, ended] = &self.trail;
        if began != ended {
            return Err(format!("trail: {began:?} began, and {ended:?} ended"));
        }
        Ok(())
    }
}
