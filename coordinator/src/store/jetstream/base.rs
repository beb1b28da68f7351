//! What the log begins from: a copy of the store, in a stream beside the log, as it was when a store that had stood alone became a replicated one, or
//! since the log was last made shorter (`compaction`).
//!
//! The copy travels in messages. What is whole and right stands in one more message, the index: its length, its SHA-256, where
//! its messages begin, and where in the log the copy stands. A coordinator without a copy takes that one and follows the log from there.
//! Each message is put directly behind the one before it, so that of two coordinators that put a copy at the same time only one gets it whole.

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
    /// The first of its messages.
    first: u64,
    /// How many there are.
    parts: u64,
    /// How long it is.
    bytes: u64,
    /// Of the whole copy.
    pub(super) sha256: Digest,
    /// The last message of the log that is in the copy.
    #[serde(default)]
    pub(super) number: u64,
}

fn parts_subject(stream: &str) -> String {
    format!("{stream}.base.part")
}

fn index_subject(stream: &str) -> String {
    format!("{stream}.base.index")
}

async fn base_stream(settings: &NatsSettings, context: &Context) -> Result<Stream, StoreError> {
    let wanted = StreamConfig {
        name: format!("{}-base", settings.stream),
        description: Some("Penstock: what the log of a replicated store begins from.".to_owned()),
        subjects: vec![parts_subject(&settings.stream), index_subject(&settings.stream)],
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

/// Puts the file there, a copy that holds the log up to message `number`; answers with its digest.
pub(super) async fn put(
    settings: &NatsSettings,
    context: &Context,
    file: &Path,
    number: u64,
) -> Result<Digest, StoreError> {
    let stream = base_stream(settings, context).await?;
    let mut last = stream.cached_info().state.last_sequence;
    let mut file = File::open(file).map_err(|error| unusable(error.to_string()))?;
    let mut hash = sha2::Sha256::new();
    let (first, mut parts, mut bytes) = (last + 1, 0, 0);
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
        last = publish(context, parts_subject(&settings.stream), part, last).await?;
    }
    let index = Index {
        first,
        parts,
        bytes,
        sha256: Digest(hash.finalize().into()),
        number,
    };
    let json = serde_json::to_vec(&index).map_err(|error| unusable(error.to_string()))?;
    publish(context, index_subject(&settings.stream), json, last).await?;
    Ok(index.sha256)
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

/// Takes away what was put there before the copy that the index names, which has to be the newest.
pub(super) async fn drop_earlier(
    settings: &NatsSettings,
    context: &Context,
    index: &Index,
) -> Result<(), StoreError> {
    let stream = base_stream(settings, context).await?;
    let purged = stream.purge().sequence(index.first).await;
    purged
        .map(|_| ())
        .map_err(|error| unreachable(crate::chain(&error)))
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

/// Writes what stands there to the new file `to`; its digest, or `None`: nothing stands there.
pub(super) async fn fetch(
    settings: &NatsSettings,
    context: &Context,
    to: &Path,
) -> Result<Option<Digest>, StoreError> {
    let Some(index) = index(settings, context).await? else {
        return Ok(None);
    };
    let mut file = File::create_new(to).map_err(|error| unusable(error.to_string()))?;
    read(settings, context, &index, &mut file).await?;
    file.sync_all().map_err(|error| unusable(error.to_string()))?;
    Ok(Some(index.sha256))
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
        deliver_policy: DeliverPolicy::ByStartSequence {
            start_sequence: index.first,
        },
        filter_subject: parts_subject(&settings.stream),
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
