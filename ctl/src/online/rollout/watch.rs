//! `rollout watch`: a view that is redrawn in place until the rollout is over; elsewhere a line, or a JSON object, for each change.
//!
//! A coordinator that comes and goes ends nothing: what is shown says how old it is, and it is tried again. One that answers also where
//! nothing changed gives signs of life by it, and its silence is noticed.

use std::time::{Duration, Instant};

use penstock_proto::v1::WatchRolloutRequest;

use super::view::{EventLine, RolloutView, is_failure};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::online::screen::Screen;
use crate::online::{Online, refused, unreachable};
use crate::output::{Output, Page, Tone};
use crate::words;

/// How long to wait before the coordinator is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// How often the age is drawn.
const REDRAW: Duration = Duration::from_secs(1);
/// A coordinator that gives signs of life and is silent for so long is not heard any more.
const SILENT: Duration = Duration::from_secs(16);
/// The newest events that are drawn below the view.
const EVENTS: usize = 5;

/// The last view, and when it came.
struct LastView {
    view: RolloutView,
    at: Instant,
}

impl LastView {
    fn drawn(&self, out: &Output, lost: bool) -> String {
        let mut page = Page::new(out.style);
        let age = words::span(u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX));
        if lost {
            let words =
                format!("◌ the coordinator is not heard; this is its last report, {age} old; trying again");
            page.paragraph(0, Tone::Warn, &words);
        }
        self.view.live(&mut page);
        let older = self.view.events.len().saturating_sub(EVENTS);
        if !self.view.events.is_empty() {
            let heading = page.paint(Tone::Dim, "  happened");
            page.line(heading);
        }
        for event in self.view.events.iter().skip(older) {
            event.page(&mut page);
        }
        if !lost {
            let as_of = page.paint(
                Tone::Dim,
                &format!("{}, as of {age} ago", words::instant(self.view.time_ms)),
            );
            page.line(as_of);
        }
        page.finish()
    }
}

/// What is new since the view before, in lines for a log.
pub(super) fn changes(before: Option<&RolloutView>, now: &RolloutView, page: &mut Page) {
    for event in fresh(before, now) {
        event.page(page);
    }
    let was = |is: fn(&RolloutView) -> String| before.map(is);
    let state =
        |view: &RolloutView| format!("{}{:?}{}", view.stage_words(), view.stops(), view.counts_words());
    if was(state).is_none_or(|was| was != state(now)) {
        let when = page.paint(Tone::Dim, &words::instant(now.time_ms));
        let release = page.paint(Tone::Strong, &format!("r{}", now.revision));
        let rest = page.paint(
            Tone::Plain,
            &format!("{} · {}", now.stage_words(), now.counts_words()),
        );
        page.line(format!("  {when}  {release}  {rest}"));
        for stop in now.stops() {
            if before.is_none_or(|before| !before.stops().contains(&stop)) {
                let stop = page.paint(Tone::Warn, &stop);
                page.line(format!("  {when}  {release}  {stop}"));
            }
        }
    }
    for gateway in now.gateways.iter().filter(|gateway| is_failure(&gateway.state)) {
        let known = before.is_some_and(|before| {
            let mut own = before.gateways.iter();
            own.any(|own| own.name == gateway.name && own.state == gateway.state)
        });
        if !known {
            let when = page.paint(Tone::Dim, &words::instant(now.time_ms));
            let name = page.paint(Tone::Strong, &gateway.name);
            let bad = page.paint(Tone::Bad, &format!("✗ {}", gateway.words(now.time_ms)));
            page.line(format!("  {when}  {name}  {bad}"));
        }
    }
}

/// Events that the view before did not have; the coordinator may have let go of the oldest meanwhile.
fn fresh<'a>(before: Option<&RolloutView>, now: &'a RolloutView) -> &'a [EventLine] {
    let known = before.and_then(|before| before.events.last());
    let from = match known {
        None => 0,
        Some(known) => match now.events.iter().rposition(|event| event == known) {
            Some(at) => at + 1,
            None => now
                .events
                .iter()
                .take_while(|event| event.time_ms < known.time_ms)
                .count(),
        },
    };
    now.events.get(from..).unwrap_or_default()
}

/// Watches until the rollout is over, or until interrupted.
pub(super) async fn watch(
    out: &Output,
    context: Option<&str>,
    revision: Option<u64>,
) -> Result<Exit, Failure> {
    let mut screen = Screen::new(out);
    let mut last: Option<LastView> = None;
    let mut connected_once = false;
    loop {
        let followed = async {
            let mut online = Online::connect(context).await?;
            connected_once = true;
            online.settle_zone().await;
            // The same one, whatever else is started meanwhile.
            let named = last.as_ref().map(|seen| seen.view.revision).or(revision);
            follow(out, &mut online, named, &mut screen, &mut last).await
        };
        let outcome = tokio::select! {
            ended = followed => ended,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
        };
        let failure = match outcome {
            Ok(exit) => return Ok(exit),
            // What cannot mend itself ends the watch: a refusal, or a coordinator that was never there.
            Err(failure) if failure.exit != Exit::Unreachable || !connected_once => return Err(failure),
            Err(failure) => failure,
        };
        match &last {
            Some(seen) if screen.live => screen.draw(out, &seen.drawn(out, true))?,
            _ => out.remark(&format!("{}; trying again", failure.message)),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
        }
    }
}

/// How a rollout that is over ends the command.
fn exit_of(view: &RolloutView) -> Exit {
    match view.stage.as_str() {
        "completed" => Exit::Done,
        _ => Exit::Findings,
    }
}

async fn follow(
    out: &Output,
    online: &mut Online,
    revision: Option<u64>,
    screen: &mut Screen,
    last: &mut Option<LastView>,
) -> Result<Exit, Failure> {
    let request = WatchRolloutRequest {
        revision: revision.unwrap_or(0),
        once: false,
        gateways: false,
    };
    let answer = online.client.watch_rollout(request).await;
    let mut stream = answer.map_err(|status| refused(&status))?.into_inner();
    // Nothing is concluded from the silence of one that says nothing where nothing changes.
    let mut beats = false;
    let mut heard = Instant::now();
    loop {
        let next = match tokio::time::timeout(REDRAW, stream.message()).await {
            Ok(next) => next.map_err(|status| refused(&status))?,
            Err(_) => {
                if let (Some(seen), true) = (&*last, screen.live) {
                    screen.draw(out, &seen.drawn(out, false))?;
                }
                if beats && heard.elapsed() >= SILENT {
                    return Err(unreachable("the coordinator does not respond"));
                }
                continue;
            }
        };
        let Some(next) = next else {
            return Err(unreachable("the coordinator ended the connection"));
        };
        heard = Instant::now();
        let view = RolloutView::of(next)?;
        let before = last.as_ref().map(|seen| &seen.view);
        let is_same = before.is_some_and(|before| before.says_the_same(&view));
        beats |= is_same;
        if !screen.live && out.for_people() {
            let mut page = Page::new(out.style);
            changes(before, &view, &mut page);
            out.text(&page.finish())?;
        } else if !screen.live && !is_same {
            out.show_next(&view)?;
        }
        let seen = last.insert(LastView { view, at: heard });
        if screen.live {
            screen.draw(out, &seen.drawn(out, false))?;
        }
        if seen.view.is_over() {
            return Ok(exit_of(&seen.view));
        }
    }
}

/// Follows one connection to its end.
#[cfg(test)]
pub(super) async fn follow_once(
    out: &Output,
    online: &mut Online,
    revision: Option<u64>,
) -> Result<Exit, Failure> {
    follow(out, online, revision, &mut Screen::new(out), &mut None).await
}

#[cfg(test)]
mod tests {
    use super::super::fixture::rollout;
    use super::*;
    use crate::output::Style;

    fn event(time_ms: u64, what: &str) -> EventLine {
        EventLine {
            time_ms,
            by: String::new(),
            what: what.to_owned(),
            message: what.to_owned(),
            reason: String::new(),
            ticket: String::new(),
        }
    }

    fn lines(before: Option<&RolloutView>, now: &RolloutView) -> Vec<String> {
        let mut page = Page::new(Style {
            color: false,
            width: 100,
            wrap: false,
        });
        changes(before, now, &mut page);
        page.finish().lines().map(str::to_owned).collect()
    }

    #[test]
    fn where_there_is_no_terminal_each_change_is_a_line_and_what_did_not_change_is_none() {
        let mut first = rollout();
        first.gateways.clear();
        first.events = vec![event(1, "started")];
        let begun = lines(None, &first);
        assert_eq!(begun.len(), 2, "{begun:?}");
        assert!(
            begun[0].ends_with("by the plan  started") && begun[1].contains("wave 2 of 3"),
            "{begun:?}"
        );
        assert_eq!(lines(Some(&first), &first), Vec::<String>::new());
        let mut second = first.clone();
        second.time_ms += 5_000;
        second.halted = "gateway gw-3 crashed".to_owned();
        second.events.push(event(2, "halted"));
        second.gateways = rollout().gateways;
        let changed = lines(Some(&first), &second);
        assert_eq!(changed.len(), 4, "{changed:?}");
        assert!(
            changed[0].ends_with("halted") && changed[2].ends_with("✗ halted: gateway gw-3 crashed"),
            "{changed:?}"
        );
        assert!(
            changed[3].contains("gw-3  ✗ went back from r5 (crash)"),
            "{changed:?}"
        );
    }

    #[test]
    fn no_event_is_shown_twice_or_left_out_where_the_oldest_are_let_go() {
        let mut before = rollout();
        before.events = vec![event(1, "a"), event(2, "b"), event(2, "b")];
        let mut now = before.clone();
        now.events = vec![event(2, "b"), event(2, "b"), event(3, "c")];
        let what = |view: &RolloutView, before: Option<&RolloutView>| -> Vec<String> {
            fresh(before, view)
                .iter()
                .map(|event| event.what.clone())
                .collect()
        };
        assert_eq!(what(&now, Some(&before)), ["c"]);
        now.events = vec![event(4, "d"), event(5, "e")];
        assert_eq!(what(&now, Some(&before)), ["d", "e"]);
        assert_eq!(what(&now, None), ["d", "e"]);
        assert!(what(&before, Some(&before)).is_empty());
    }

    #[test]
    fn only_a_completed_rollout_ends_well() {
        for (stage, exit) in [
            ("completed", Exit::Done),
            ("completed-with-exceptions", Exit::Findings),
            ("rolled-back", Exit::Findings),
            ("cancelled", Exit::Findings),
            ("superseded", Exit::Findings),
        ] {
            let mut view = rollout();
            view.stage = stage.to_owned();
            assert!(view.is_over() && exit_of(&view) == exit, "{stage}");
        }
        assert!(!rollout().is_over());
    }
}
