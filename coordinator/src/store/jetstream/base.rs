//! What the log begins from: a copy of the store, in a stream beside the log, as it was when a store that had stood alone became a replicated one, or
//! since the log was last made shorter (`compaction`).
//!
//! The copy travels in messages, which have a subject of their own. What is whole and right stands in one more message, the index: that subject, its length,
//! its SHA-256, and where in the log the copy stands. It is put once the copy was read back. A coordinator without a copy takes that one and
//! follows the log from there. Each message is put directly behind the one before it, so that of two coordinators that put a copy at the same time only one
//! gets to its index.

use std::fs::File;
use std::io::{Read as _, Write};
use std::path::Path;

use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::consumer::{Consumer, DeliverPolicy};
use async_nats::jetstream::context::{Context, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{
    Config as StreamConfig, DiscardPolicy, LastRawMessageErrorKind, RetentionPolicy, Stream,
};
use penstock_policy::ids::Digest;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use tokio_stream::StreamExt as _;

use super::{ANSWER_TIME, NatsSettings, unreachable, unusable};
use crate::store::StoreError;

/// What one message holds, bytes.
const PART_BYTES: usize = 512 << 10;

/// The index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Index {
    /// Which of all that were put there: the last token of its messages' subject.
    copy: String,
    /// How many messages there are.
    parts: u64,
    /// How long it is.
    pub(super) bytes: u64,
    /// Of the whole copy.
    pub(super) sha256: Digest,
    /// The last message of the log that is in the copy.
    pub(super) number: u64,
    /// The last message of the log that was in the copy before it: what stands up to there in the log is not needed.
    pub(super) before: u64,
    /// When the log was made, nanoseconds since 1970: of one that was made again under its name nothing is taken out for the sake of this copy.
    pub(super) log: i128,
}

/// Where in the log a copy stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// As in [`Index`].
    pub(super) number: u64,
    pub(super) before: u64,
    pub(super) log: i128,
}

/// The messages of one copy; `*`: of all.
fn parts_subject(stream: &str, copy: &str) -> String {
    format!("{stream}.base.part.{copy}")
}

fn index_subject(stream: &str) -> String {
    format!("{stream}.base.index")
}

async fn base_stream(settings: &NatsSettings, context: &Context) -> Result<Stream, StoreError> {
    let wanted = StreamConfig {
        name: format!("{}-base", settings.stream),
        description: Some("Penstock: what the log of a replicated store begins from.".to_owned()),
        subjects: vec![
            parts_subject(&settings.stream, "*"),
            index_subject(&settings.stream),
        ],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        num_replicas: settings.replicas,
        deny_delete: true,
        ..StreamConfig::default()
    };
    let stream = context.get_or_create_stream(wanted).await;
    let stream = stream.map_err(|error| unreachable(crate::chain(&error)))?;
    settings.check(&stream.cached_info().config)?;
    Ok(stream)
}

/// Puts the file there, a copy that stands at this place, reads it back, and lets the log begin from it.
pub(super) async fn put(
    settings: &NatsSettings,
    context: &Context,
    file: &Path,
    standing: Standing,
) -> Result<Index, StoreError> {
    let mut copy = [0; 8];
    getrandom::fill(&mut copy).map_err(|error| unusable(format!("no random numbers: {error}")))?;
    let copy = format!("{}-{:016x}", standing.number, u64::from_be_bytes(copy));
    let put = put_as(settings, context, file, standing, &copy).await;
    if put.is_err() {
        // What is left when this fails as well goes before the next one is put.
        let _ = drop_copy(settings, context, &copy).await;
    }
    put
}

async fn put_as(
    settings: &NatsSettings,
    context: &Context,
    file: &Path,
    standing: Standing,
    copy: &str,
) -> Result<Index, StoreError> {
    let stream = base_stream(settings, context).await?;
    let mut last = stream.cached_info().state.last_sequence;
    let mut file = File::open(file).map_err(|error| unusable(error.to_string()))?;
    let mut hash = sha2::Sha256::new();
    let (mut parts, mut bytes) = (0, 0);
    loop {
        let mut part = Vec::with_capacity(PART_BYTES);
        let read = std::io::Read::by_ref(&mut file)
            .take(PART_BYTES as u64)
            .read_to_end(&mut part);
        if read.map_err(|error| unusable(error.to_string()))? == 0 {
            break;
        }
        hash.update(&part);
        parts += 1;
        bytes += part.len() as u64;
        last = publish(context, parts_subject(&settings.stream, copy), part, last).await?;
    }
    let index = Index {
        copy: copy.to_owned(),
        parts,
        bytes,
        sha256: Digest(hash.finalize().into()),
        number: standing.number,
        before: standing.before,
        log: standing.log,
    };
    read(settings, context, &index, &mut std::io::sink()).await?;
    let json = serde_json::to_vec(&index).map_err(|error| unusable(error.to_string()))?;
    publish(context, index_subject(&settings.stream), json, last).await?;
    Ok(index)
}

/// Puts a message behind that of number `last`; its number.
async fn publish(context: &Context, subject: String, payload: Vec<u8>, last: u64) -> Result<u64, StoreError> {
    let message = PublishMessage::build()
        .payload(payload.into())
        .expected_last_sequence(last);
    let sent = context.send_publish(subject, message).await;
    let answer = match sent {
        Ok(sent) => sent.await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(answer) => Ok(answer.sequence),
        Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Err(unreachable(
            "somebody else puts a copy beside the log at the same time".to_owned(),
        )),
        Err(error) => Err(unreachable(crate::chain(&error))),
    }
}

async fn drop_copy(settings: &NatsSettings, context: &Context, copy: &str) -> Result<(), StoreError> {
    let stream = base_stream(settings, context).await?;
    let purged = stream.purge().filter(parts_subject(&settings.stream, copy)).await;
    purged
        .map(|_| ())
        .map_err(|error| unreachable(crate::chain(&error)))
}

/// Takes away the copies before the one that the newest index names, and what is left of those that did not become whole. One of a place further on
/// in the log may be on its way.
pub(super) async fn drop_others(
    settings: &NatsSettings,
    context: &Context,
    newest: &Index,
) -> Result<(), StoreError> {
    let stream = base_stream(settings, context).await?;
    let all = parts_subject(&settings.stream, "*");
    let subjects = stream.info_with_subjects(&all).await;
    let mut subjects = subjects.map_err(|error| unreachable(crate::chain(&error)))?;
    while let Some(subject) = subjects.next().await {
        let (subject, _) = subject.map_err(|error| unreachable(crate::chain(&error)))?;
        let Some(copy) = subject.strip_prefix(all.trim_end_matches('*')) else {
            continue;
        };
        let number = copy.split('-').next().and_then(|number| number.parse().ok());
        if copy != newest.copy && number.is_none_or(|number: u64| number <= newest.number) {
            drop_copy(settings, context, copy).await?;
        }
    }
    Ok(())
}

/// The index of what stands there, if anything does.
pub(super) async fn index(settings: &NatsSettings, context: &Context) -> Result<Option<Index>, StoreError> {
    let stream = base_stream(settings, context).await?;
    let index = match stream
        .get_last_raw_message_by_subject(&index_subject(&settings.stream))
        .await
    {
        Ok(message) => message.payload,
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(None),
        Err(error) => return Err(unreachable(crate::chain(&error))),
    };
    serde_json::from_slice(&index)
        .map(Some)
        .map_err(|error| unusable(format!("the index of the base cannot be read: {error}")))
}

/// Writes the copy that an index names to the new file `to`, where the disk has the room.
pub(super) async fn fetch(
    settings: &NatsSettings,
    context: &Context,
    index: &Index,
    to: &Path,
) -> Result<(), StoreError> {
    let mut file = File::create_new(to).map_err(|error| unusable(error.to_string()))?;
    let room = rustix::fs::fallocate(
        &file,
        rustix::fs::FallocateFlags::KEEP_SIZE,
        0,
        index.bytes.max(1),
    );
    let fetched = match room {
        Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => Err(unusable(format!(
            "the disk has no room for the copy of the store, {} bytes",
            index.bytes
        ))),
        // Some file systems cannot be asked.
        _ => read(settings, context, index, &mut file).await,
    };
    let fetched = fetched.and_then(|()| file.sync_all().map_err(|error| unusable(error.to_string())));
    if fetched.is_err() {
        let _ = std::fs::remove_file(to);
    }
    fetched
}

/// Writes the copy that an index names to `to`, and holds it against the index.
pub(super) async fn read(
    settings: &NatsSettings,
    context: &Context,
    index: &Index,
    to: &mut (impl Write + Send),
) -> Result<(), StoreError> {
    let stream = base_stream(settings, context).await?;
    let from = OrderedConfig {
        deliver_policy: DeliverPolicy::All,
        filter_subject: parts_subject(&settings.stream, &index.copy),
        ..OrderedConfig::default()
    };
    let consumer: Consumer<OrderedConfig> = stream
        .create_consumer(from)
        .await
        .map_err(|error| unreachable(crate::chain(&error)))?;
    let mut messages = consumer
        .messages()
        .await
        .map_err(|error| unreachable(crate::chain(&error)))?;
    let (mut hash, mut bytes) = (sha2::Sha256::new(), 0_u64);
    for _ in 0..index.parts {
        let next = tokio::time::timeout(ANSWER_TIME, messages.next()).await;
        let message = match next {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(error))) => return Err(unreachable(crate::chain(&error))),
            Ok(None) | Err(_) => return Err(unreachable("the base does not come whole".to_owned())),
        };
        hash.update(&message.message.payload);
        bytes += message.message.payload.len() as u64;
        to.write_all(&message.message.payload)
            .map_err(|error| unusable(error.to_string()))?;
    }
    let sha256 = Digest(hash.finalize().into());
    if (sha256, bytes) != (index.sha256, index.bytes) {
        return Err(unusable(
            "the base is not what its index says; copy the store from a backup of another coordinator instead"
                .to_owned(),
        ));
    }
    Ok(())
}
