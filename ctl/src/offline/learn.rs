//! `learn`: the smallest conduits that would have let seen traffic pass. Here from captures; [`propose`] writes it down
//! wherever it was seen.

use penstock_inspect::learn::{Learned, Learner, document};

use crate::args;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::loading::{self, LoadedPlant};
use crate::offline::plans::deliver;
use crate::offline::replay::{clock, plans, read};
use crate::output::Output;

/// `penstock learn --pcap`.
pub fn learn(out: &Output, args: &args::Learn) -> Result<Exit, Failure> {
    let loaded = args
        .plant
        .as_ref()
        .map(|path| loading::load(path, out))
        .transpose()?;
    let plans = loaded.as_ref().map(plans).transpose()?;
    let mut learner = Learner::new(plans.as_ref());
    let cut = read(&args.pcap, |frame| learner.frame(frame))?;
    propose(out, args, loaded.as_ref(), &learner.finish(), &cut)
}

/// Writes the proposal; what was not read to its end is said in it and here.
pub(crate) fn propose(
    out: &Output,
    args: &args::Learn,
    loaded: Option<&LoadedPlant>,
    learned: &Learned,
    cut: &[String],
) -> Result<Exit, Failure> {
    let plant = loaded.map(|loaded| &loaded.plant);
    let approver = args.approver.map(String::from);
    let mut text = document::write(learned, plant, approver.as_deref(), &clock);
    for cut in cut {
        let cut = format!("not read to its end: {}", cut.replace(['\n', '\r'], " "));
        text.insert_str(0, &format!("# {cut}\n"));
        out.remark(&format!("▲ {cut}"));
    }
    deliver(out, "proposal", args.out.as_deref(), text.as_bytes())?;
    if plant.is_none() && approver.is_none() {
        out.remark(
            "▲ the proposal names no approver, so `penstock check` will refuse it: add `--approver KEY` for a whole \
             document, or `--plant PLANT` for one more file of a plant",
        );
    }
    Ok(Exit::Done)
}
