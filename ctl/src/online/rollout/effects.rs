//! What a command does to a rollout, in true sentences, before it is sent. Pure: from what the coordinator said last.

use penstock_proto::v1::steer_rollout_request::Command;

use super::view::RolloutView;
use crate::words;

/// What follows from a command, the effect first.
pub(super) fn of(command: &Command, rollout: &RolloutView) -> Vec<String> {
    let release = format!("r{}", rollout.revision);
    let trials = rollout.in_states(&["trial"]);
    let confirmed = rollout.confirmed();
    let gateways = |count: u32| words::count(count as usize, "gateway");
    let stay = match confirmed {
        0 => String::new(),
        count => format!("{} that {} confirmed keep it.", gateways(count), is_are(count)),
    };
    let said = match command {
        Command::Pause(_) => vec![
            format!("No further gateway activates {release} until somebody resumes it."),
            on_trial(
                trials,
                "still confirmed, or go back by themselves",
                "still confirmed, or goes back by itself",
            ),
        ],
        Command::Halt(_) => vec![
            format!(
                "No further gateway activates {release}, and none is confirmed, until somebody resumes it."
            ),
            on_trial(
                trials,
                "go back by themselves when their time is over",
                "goes back by itself when its time is over",
            ),
            stay,
        ],
        Command::Resume(_) => resume(rollout, &release),
        Command::Revert(_) => vec![
            match trials {
                0 => format!("No gateway has {release} on trial; nothing more of it is opened."),
                1 => format!(
                    "1 gateway that has {release} on trial goes back now; nothing more of it is opened."
                ),
                count => format!(
                    "{count} gateways that have {release} on trial go back now; nothing more of it is opened."
                ),
            },
            match confirmed {
                0 => String::new(),
                _ => format!(
                    "{stay} Only a signed release brings those back: penstock release revert REVISION --reason REASON"
                ),
            },
            "The rollout cannot go on after that.".to_owned(),
        ],
        Command::Cancel(_) => vec![format!(
            "{release} is carried no further, and no gateway activates it. What is enforced stays as it is."
        )],
        Command::Pass(_) => {
            let left = rollout.in_states(&["waiting", "opened"]);
            vec![
                format!(
                    "The rollout goes on without those of wave {} that have not activated ({} wait in all waves).",
                    rollout.wave,
                    gateways(left)
                ),
                "They come after the waves, one after the other.".to_owned(),
            ]
        }
        Command::Skip(gateway) => vec![
            format!("The wave goes on without {gateway}, which may no longer activate {release}."),
            "It comes after the waves.".to_owned(),
        ],
        Command::Complete(_) => vec![
            format!(
                "The rollout of {release} ends without the {} that {} absent.",
                gateways(rollout.in_states(&["absent"])),
                is_are(rollout.in_states(&["absent"]))
            ),
            format!("Whoever of them comes back still gets {release}."),
        ],
    };
    said.into_iter().filter(|sentence| !sentence.is_empty()).collect()
}

fn is_are(count: u32) -> &'static str {
    match count {
        1 => "is",
        _ => "are",
    }
}

fn on_trial(count: u32, many: &str, one: &str) -> String {
    match count {
        0 => String::new(),
        1 => format!(
            "1 that is on trial {}{one}.",
            if one.starts_with("still") { "is " } else { "" }
        ),
        count => format!(
            "{count} that are on trial {}{many}.",
            if many.starts_with("still") { "are " } else { "" }
        ),
    }
}

fn resume(rollout: &RolloutView, release: &str) -> Vec<String> {
    let mut said = Vec::new();
    if rollout.halted.is_empty() {
        said.push(format!(
            "{release} goes on where it was paused: gateways activate it again."
        ));
    } else {
        said.push(format!(
            "{release} goes on although it was halted: {}. What was seen so far is accepted; the next failure halts it again.",
            rollout.halted
        ));
        if rollout.in_states(&["trial"]) > 0 {
            said.push("Gateways on trial whose flows are well are confirmed at once.".to_owned());
        }
    }
    if rollout.frozen.is_some() {
        said.push("The plant stays frozen: nothing activates before somebody thaws it.".to_owned());
    }
    said
}

/// What a freeze does.
pub(super) fn freeze() -> Vec<String> {
    vec![
        "No gateway of the plant activates any release, in any rollout, until somebody thaws it.".to_owned(),
        "What is enforced stays enforced; what is on trial is still confirmed, or goes back by itself."
            .to_owned(),
    ]
}

/// What goes on when a freeze is lifted.
pub(super) fn thaw(newest: Option<&RolloutView>) -> Vec<String> {
    let running = newest.filter(|rollout| !rollout.is_over());
    let held = running.is_some_and(|rollout| !rollout.paused.is_empty() || !rollout.halted.is_empty());
    match running {
        None => vec!["Rollouts may activate releases again; none is under way.".to_owned()],
        Some(rollout) if held => vec![format!(
            "Rollouts may activate releases again; that of r{} stays stopped until somebody resumes it.",
            rollout.revision
        )],
        Some(rollout) => vec![format!(
            "The rollout of r{} goes on at once: {}.",
            rollout.revision,
            rollout.stage_words()
        )],
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::rollout;
    use super::*;

    fn said(command: &Command, change: impl FnOnce(&mut RolloutView)) -> String {
        let mut view = rollout();
        change(&mut view);
        of(command, &view).join(" ")
    }

    #[test]
    fn what_a_command_does_is_said_with_whom_it_concerns() {
        assert_eq!(
            said(&Command::Halt(true), |_| ()),
            "No further gateway activates r5, and none is confirmed, until somebody resumes it. 2 that are on trial go back by \
             themselves when their time is over. 5 gateways that are confirmed keep it."
        );
        assert_eq!(
            said(&Command::Pause(true), |view| {
                view.counts.insert("trial".to_owned(), 1);
            }),
            "No further gateway activates r5 until somebody resumes it. 1 that is on trial is still confirmed, or goes back by itself."
        );
        let nobody = said(&Command::Revert(true), |view| view.counts.clear());
        assert_eq!(
            nobody,
            "No gateway has r5 on trial; nothing more of it is opened. The rollout cannot go on after that."
        );
        let some = said(&Command::Revert(true), |_| ());
        assert!(
            some.contains("2 gateways that have r5 on trial go back now"),
            "{some}"
        );
        assert!(
            some.contains("5 gateways that are confirmed keep it. Only a signed release"),
            "{some}"
        );
    }

    #[test]
    fn to_resume_after_a_halt_is_said_to_accept_what_halted_it() {
        let paused = said(&Command::Resume(true), |view| view.paused = "lunch".to_owned());
        assert_eq!(
            paused,
            "r5 goes on where it was paused: gateways activate it again."
        );
        let halted = said(&Command::Resume(true), |view| {
            view.halted = "gateway gw-3 crashed".to_owned();
        });
        assert!(
            halted.contains("although it was halted: gateway gw-3 crashed"),
            "{halted}"
        );
        assert!(halted.contains("confirmed at once"), "{halted}");
    }

    #[test]
    fn a_thaw_says_what_begins_to_move() {
        let mut view = rollout();
        assert!(
            thaw(Some(&view))
                .join("")
                .contains("goes on at once: opening, wave 2 of 3 (one-percent)")
        );
        view.halted = "x".to_owned();
        assert!(thaw(Some(&view)).join("").contains("stays stopped"));
        view.stage = "completed".to_owned();
        assert!(thaw(Some(&view)).join("").contains("none is under way"));
        assert!(thaw(None).join("").contains("none is under way"));
    }
}
