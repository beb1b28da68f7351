//! Recordings from disk or standard input, packet by packet in the order of time, in bounded memory.
//!
//! Files may be named in any order, and may overlap: what each holds next is compared ([`source`]). Only those whose time has come are
//! open. A file that is compressed is decompressed as it is read ([`opened`]). Each is gone over twice but standard input, which cannot be.

mod named;
mod opened;
mod source;

use std::path::PathBuf;
use std::time::Duration;

use penstock_inspect::capture::Frame;

use self::named::expanded;
pub(super) use self::named::parted;
use self::opened::Input;
use self::source::Source;
use crate::failure::Failure;

/// A silence between two recordings in which conversations may have begun or ended that nobody saw.
const UNSEEN: Duration = Duration::from_secs(30);

/// A recording is gone over twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// For what tells of connections that stood before the recording.
    Survey,
    /// For the rest.
    Take,
}

/// Reads recordings, each packet in both passes. What could not be read to its end is reported.
pub(crate) fn read(
    files: &[PathBuf],
    mut take: impl FnMut(Pass, &Frame<'_>),
) -> Result<Vec<String>, Failure> {
    let inputs: Vec<Input> = expanded(files)?.into_iter().map(Input::of).collect();
    let mut cut = Vec::new();
    if inputs.iter().all(Input::can_be_read_again) {
        go_over(&inputs, &mut Vec::new(), |frame| take(Pass::Survey, frame))?;
    }
    go_over(&inputs, &mut cut, |frame| take(Pass::Take, frame))?;
    Ok(cut)
}

/// Goes over all of them once.
fn go_over(inputs: &[Input], cut: &mut Vec<String>, mut take: impl FnMut(&Frame<'_>)) -> Result<(), Failure> {
    let mut waiting = Vec::new();
    for input in inputs {
        // The first packet says when its file begins; until that time has come the file is closed again.
        let mut source = Source::open(input)?;
        match (source.next_at()?, input.can_be_read_again()) {
            (Some(at), true) => waiting.push((at, Waiting::Closed(input))),
            (Some(at), false) => waiting.push((at, Waiting::Open(Box::new(source)))),
            (None, _) => cut.extend(source.cut()),
        }
    }
    // The one that comes next is the last; of equal times, the one that is named first.
    waiting.reverse();
    waiting.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    let (mut open, mut number, mut last): (Vec<Source>, u64, Option<Duration>) = (Vec::new(), 0, None);
    loop {
        let mut earliest: Option<(Duration, usize)> = None;
        for (at, source) in open.iter_mut().enumerate() {
            if let Some(next) = source.next_at()?
                && earliest.is_none_or(|(least, _)| next < least)
            {
                earliest = Some((next, at));
            }
        }
        if let Some((at, _)) = waiting.last()
            && earliest.is_none_or(|(least, _)| *at <= least)
            && let Some((_, next)) = waiting.pop()
        {
            open.push(match next {
                Waiting::Closed(input) => Source::open(input)?,
                Waiting::Open(source) => *source,
            });
            continue;
        }
        let Some((at, index)) = earliest else { break };
        // Of a recording that goes on with another nothing is unseen at its beginning.
        let begins = last.is_none_or(|last| at.saturating_sub(last) > UNSEEN);
        let Some(source) = open.get_mut(index) else { break };
        if begins && source.is_at_its_beginning() {
            number = 0;
        }
        number += 1;
        last = Some(last.map_or(at, |last| last.max(at)));
        source.take(number, &mut take);
        if source.next_at()?.is_none() {
            cut.extend(open.swap_remove(index).cut());
        }
    }
    Ok(())
}

enum Waiting<'i> {
    Closed(&'i Input),
    Open(Box<Source>),
}

#[cfg(test)]
mod tests;
