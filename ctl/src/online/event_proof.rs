//! `audit prove`: one event with what proves it, verified before it becomes a file.

use std::path::Path;

use penstock_proto::audit::event_proof::to_file;
use penstock_proto::export::Position;
use penstock_proto::v1::ProveEventRequest;

use super::{Online, refused};
use crate::ask;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, Mode};
use crate::offline::event_proof::{EventProved, altered};
use crate::output::Output;

/// `penstock audit prove`.
pub(super) async fn prove(
    out: &Output,
    context: Option<&str>,
    position: &Position,
    file: &Path,
) -> Result<Exit, Failure> {
    files::free(file)?;
    let mut online = Online::connect(context).await?;
    let (name, plant) = (online.login.name.clone(), online.login.context.plant.clone());
    let roots = online.contexts.roots(&name)?;
    let request = ProveEventRequest {
        source: position.source.clone(),
        epoch: position.epoch,
        sequence: position.sequence,
        index: position.index,
    };
    let waiting = ask::waiting(out, "proving the event");
    let answer = online.client.prove_event(request).await;
    let bytes = to_file(&answer.map_err(|status| refused(&status))?.into_inner());
    let what = "what the coordinator sent";
    let proved = EventProved::of(&bytes, &plant, &roots).map_err(|error| altered(what, &error))?;
    if proved.position != position.to_string() {
        return Err(Failure::altered(
            "evidence-altered",
            format!("{what} proves {}, and {position} was asked for", proved.position),
        ));
    }
    files::create(file, &bytes, Mode::Shared)?;
    drop(waiting);
    out.show(&proved)?;
    Ok(Exit::Done)
}
