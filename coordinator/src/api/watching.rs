//! What goes out to those who watch health: each state once, the same bytes to all, and beats to whoever asked for them.

use std::sync::Arc;
use std::time::Duration;

use penstock_proto::v1;
use tokio::sync::watch;
use tokio_stream::wrappers::{IntervalStream, WatchStream};
use tokio_stream::{Stream, StreamExt as _};

use super::answers::Frames;
use crate::clock;
use crate::frame::{Framed, frame};
use crate::health_watch::PublishedHealth;

/// How often who asked for it hears that nothing changed.
const BEAT: Duration = Duration::from_secs(5);

/// Health now, and unless it is asked for once, whenever it changes.
pub(super) fn frames(
    health: &watch::Receiver<Arc<PublishedHealth>>,
    asked: &v1::WatchHealthRequest,
) -> Frames {
    let states = WatchStream::new(health.clone()).map(|health| Ok(health.frame()));
    match (asked.once, asked.beats) {
        (true, _) => Frames::new(states.take(1)),
        (false, false) => Frames::new(states),
        (false, true) => Frames::new(with_beats(states)),
    }
}

/// Health, and an answer every few seconds although nothing changed, until there is none any more.
fn with_beats(
    states: impl Stream<Item = Framed> + Send + 'static,
) -> impl Stream<Item = Framed> + Send + 'static {
    let mut timer = tokio::time::interval_at(tokio::time::Instant::now() + BEAT, BEAT);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let unchanged = || v1::PlantHealth {
        time_ms: clock::now_ms(),
        unchanged: true,
        ..v1::PlantHealth::default()
    };
    let beats = IntervalStream::new(timer).map(move |_| Some(Ok(frame(&unchanged()))));
    let states = states.map(Some).chain(tokio_stream::once(None));
    states
        .merge(beats)
        .take_while(Option::is_some)
        .filter_map(|answer| answer)
}
