//! What the log begins from, where a store that had stood alone became a replicated one: a copy of it, in a stream beside the log.
//!
//! The copy travels in messages. What is whole and right stands in one more message, the index: its length, its SHA-256, and where
//! its messages begin. A coordinator without a copy takes that one and follows the log from there.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;

use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::consumer::{Consumer, DeliverPolicy};
use async_nats::jetstream::context::Context;
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
struct Index {
    /// The first of its messages.
    first: u64,
    /// How many there are.
    parts: u64,
    /// How long it is.
    bytes: u64,
    /// Of the whole copy.
    sha256: Digest,
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

/// Puts the file there; answers with its digest.
pub(super) async fn put(
    settings: &NatsSettings,
    context: &Context,
    file: &Path,
) -> Result<Digest, StoreError> {
    base_stream(settings, context).await?;
    let mut file = File::open(file).map_err(|error| unusable(error.to_string()))?;
    let (mut hash, mut index) = (sha2::Sha256::new(), None);
    loop {
        let mut part = Vec::with_capacity(PART_BYTES);
        let read = std::io::Read::by_ref(&mut file)
            .take(PART_BYTES as u64)
            .read_to_end(&mut part);
        if read.map_err(|error| unusable(error.to_string()))? == 0 {
            break;
        }
        hash.update(&part);
        let bytes = part.len() as u64;
        let number = publish(context, parts_subject(&settings.stream), part).await?;
        let known = index.get_or_insert(Index {
            first: number,
            parts: 0,
            bytes: 0,
            sha256: Digest([0; 32]),
        });
        known.parts += 1;
        known.bytes += bytes;
    }
    let sha256 = Digest(hash.finalize().into());
    let index = index.map(|index| Index { sha256, ..index });
    let index = serde_json::to_vec(&index).map_err(|error| unusable(error.to_string()))?;
    publish(context, index_subject(&settings.stream), index).await?;
    Ok(sha256)
}

async fn publish(context: &Context, subject: String, payload: Vec<u8>) -> Result<u64, StoreError> {
    let sent = context.publish(subject, payload.into()).await;
    let answer = match sent {
        Ok(sent) => sent.await,
        Err(error) => Err(error),
    };
    answer
        .map(|answer| answer.sequence)
        .map_err(|error| unreachable(crate::chain(&error)))
}

/// Writes what stands there to the new file `to`; its digest, or `None`: nothing stands there.
pub(super) async fn fetch(
    settings: &NatsSettings,
    context: &Context,
    to: &Path,
) -> Result<Option<Digest>, StoreError> {
    let stream = base_stream(settings, context).await?;
    let index = match stream
        .get_last_raw_message_by_subject(&index_subject(&settings.stream))
        .await
    {
        Ok(message) => message.payload,
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(None),
        Err(error) => return Err(unreachable(crate::chain(&error))),
    };
    let index: Index = serde_json::from_slice(&index)
        .map_err(|error| unusable(format!("the index of the base cannot be read: {error}")))?;
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
    let mut file = File::create_new(to).map_err(|error| unusable(error.to_string()))?;
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
        file.write_all(&message.message.payload)
            .map_err(|error| unusable(error.to_string()))?;
    }
    file.sync_all().map_err(|error| unusable(error.to_string()))?;
    let sha256 = Digest(hash.finalize().into());
    if (sha256, bytes) != (index.sha256, index.bytes) {
        return Err(unusable(
            "the base is not what its index says; copy the store from a backup of another coordinator instead"
                .to_owned(),
        ));
    }
    Ok(Some(sha256))
}
