//! `learn`: the smallest conduits that would have let seen traffic pass. Here from captures; [`propose`] writes it down
//! wherever it was seen.
//!
//! A file that is there is never written over: people edit proposals, and one that lies in the plant's folder is part of the
//! plant, so that a second run finds what it proposes permitted. Then nothing is left to propose, and the file stays as it is;
//! what is new belongs in one more file.

mod held_out;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use penstock_inspect::learn::{LearnLimits, Learned, Learner, document};
use penstock_policy::diagnostics::SourceFile;
use penstock_policy::text::is_hidden;

use self::held_out::Trial;
use crate::args;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files;
use crate::loading::{self, LoadedPlant};
use crate::offline::plans::deliver;
use crate::offline::replay::unread::share;
use crate::offline::replay::{Pass, clock, plans, read};
use crate::output::Output;
use crate::words;

/// A proposal is not compared with a file that is larger.
const COMPARED_BYTES_MAX: u64 = 64 << 20;
/// Faults of a proposal that are shown.
const FAULTS_MAX: usize = 3;
/// Names that are tried for one more file.
const NAMES_TRIED_MAX: u32 = 1000;

/// `penstock learn --pcap`.
pub(crate) fn learn(out: &Output, args: &args::Learn) -> Result<Exit, Failure> {
    let loaded = args
        .plant
        .as_ref()
        .map(|path| loading::load(path, out))
        .transpose()?;
    let plans = loaded.as_ref().map(plans).transpose()?;
    let learner = |limits| match Learner::within(limits, plans.as_ref()) {
        learner if args.ignore_tags => learner.ignoring_tags(),
        learner => learner,
    };
    let recordings = [args.pcap.as_slice(), &args.recordings].concat();
    let made = OnceCell::new();
    let mut trial = Trial::new(loaded.as_ref(), learner(held_out::limits()), &made);
    let mut learner = learner(LearnLimits::default());
    let cut = read(&recordings, |pass, frame| match pass {
        Pass::Survey => {
            learner.survey(frame);
            trial.survey(frame);
        }
        Pass::Take => {
            learner.frame(frame);
            trial.take(frame);
        }
    })?;
    let mut learned = learner.finish();
    // Its first sentence is followed by what would have been refused.
    let tried = trial.finish(&learned);
    if let [head, refused @ ..] = tried.as_slice()
        && !refused.is_empty()
    {
        out.remark(&format!("▲ {head}"));
        refused.iter().for_each(|words| out.remark(words));
    }
    learned.remarks.extend(tried);
    let exit = propose(out, args, loaded.as_ref(), &learned, &cut)?;
    for beyond in document::beyond_flows(&learned) {
        out.remark(&format!("▲ no flow can permit {beyond}"));
    }
    let unread = learned.unread_packets();
    if unread > 0 {
        out.remark(&format!(
            "▲ {} could not be read; the proposal says why, and knows nothing of them",
            share(unread, learned.packets, "packets")
        ));
    }
    if learned.talks.is_empty() && learned.permitted_already == 0 && (unread > 0 || learned.packets == 0) {
        out.remark("✗ nothing was learned: no connection or datagram could be read");
        return Ok(Exit::Findings);
    }
    Ok(exit)
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
        // A file may have any name; the proposal is read by people and by YAML.
        let cut = cut.replace(|c: char| c.is_control() || is_hidden(c), " ");
        let cut = format!("not read to its end: {cut}");
        text.insert_str(0, &format!("# {cut}\n"));
        out.remark(&format!("▲ {cut}"));
    }
    if plant.is_some() || approver.is_some() {
        for fault in faults(&text, loaded) {
            out.remark(&format!("▲ `penstock check` will refuse the proposal: {fault}"));
        }
    }
    match args.out.as_deref().filter(|file| is_kept(file)) {
        None => deliver(out, "proposal", args.out.as_deref(), text.as_bytes())?,
        Some(file) => keep(out, file, &text, plant.is_some())?,
    }
    if plant.is_none() && approver.is_none() {
        out.remark(
            "▲ the proposal names no approver, so `penstock check` will refuse it: add `--approver KEY` for a whole \
             document, or `--plant PLANT` for one more file of a plant",
        );
    }
    Ok(Exit::Done)
}

/// A proposal read next to its plant, where there is one.
fn beside(text: &str, loaded: Option<&LoadedPlant>) -> penstock_policy::document::LoadedDocument {
    let own = SourceFile::new("the proposal", text);
    let files = loaded.iter().flat_map(|loaded| &loaded.documents.files);
    let beside =
        files.filter_map(|file| SourceFile::from_bytes(file.shown.clone(), file.content.clone()).ok());
    let sources: Vec<SourceFile> = beside.chain([own]).collect();
    penstock_policy::load(&sources, words::today())
}

/// Faults of a proposal, next to its plant where there is one; the first of them, as the others mostly follow.
fn faults(text: &str, loaded: Option<&LoadedPlant>) -> Vec<String> {
    let judged = beside(text, loaded);
    let errors = judged.diagnostics.errors().take(FAULTS_MAX);
    errors
        .map(|fault| format!("{}: {}", fault.code, fault.message))
        .collect()
}

/// Whether there is a file with something in it, which is not written over. A device or a pipe is written to as it is.
fn is_kept(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.len() > 0)
}

/// Leaves a file as it is, if the proposal adds nothing to it and to the plant.
fn keep(out: &Output, file: &Path, text: &str, beside_plant: bool) -> Result<(), Failure> {
    let proposes = text
        .lines()
        .any(|line| !line.is_empty() && !line.starts_with('#'));
    let same = files::read(file, COMPARED_BYTES_MAX).is_ok_and(|found| found == text.as_bytes());
    let shown = file.display();
    if same || (beside_plant && !proposes) {
        out.remark(&format!(
            "✓ {shown} stays as it is: there is nothing more to propose"
        ));
        return Ok(());
    }
    let mut failure = Failure::local(
        "file-exists",
        match beside_plant {
            true => format!(
                "{shown} exists already and is not overwritten; what would be added needs a file of its own"
            ),
            false => format!("{shown} exists already and is not overwritten"),
        },
    )
    .because("it may hold what somebody has edited".to_owned());
    if let Some(free) = free_beside(file) {
        failure = failure.help(format!("write to another file: `-o {}`", free.display()));
    }
    Err(failure)
}

/// `learned-2.yaml` beside `learned.yaml`: the first of these names that nothing has.
fn free_beside(file: &Path) -> Option<PathBuf> {
    let stem = file.file_stem()?.to_str()?;
    let ending = file
        .extension()
        .map_or(String::new(), |ending| format!(".{}", ending.to_string_lossy()));
    (2..NAMES_TRIED_MAX)
        .map(|number| file.with_file_name(format!("{stem}-{number}{ending}")))
        .find(|free| free.symlink_metadata().is_err())
}
