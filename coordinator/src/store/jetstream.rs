//! The log on NATS JetStream: one stream, whose messages are those of the log.
//!
//! Where a message belongs is asked for with it (`Nats-Expected-Last-Sequence`), so that of several coordinators exactly one gets the
//! next place. An answer means that most of the stream's servers have it; whether it is on their disks by then is the servers' own
//! `sync_interval`, which has to be `always` where power may fail at all of them at once.
//!
//! Nothing ever leaves the stream by itself: no age, no size after which old messages go. A stream that is set up otherwise is refused. What is in every
//! newer copy that the log can begin from is taken out (`compaction`).
//!
//! Not here: what the messages hold (`log/entry`).

mod base;
mod compaction;
mod pulses;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::{Context, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{
    Config as StreamConfig, DiscardPolicy, RawMessageErrorKind, RetentionPolicy, StorageType, Stream,
};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Client, ConnectOptions};
use bytes::Bytes;
use penstock_proto::tls::foreign;
use prost::Message as _;
use tokio::sync::{Notify, mpsc};
use tokio_stream::StreamExt as _;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::pulses::{Pulses, PulsesHeard};
use super::StoreError;
use super::log::entry::{Entry, Part};
use super::log::{Awaited, Log, LogError, Message, NotPut};

/// How long a server may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// How long a connection that says nothing is believed to stand.
const PING: Duration = Duration::from_secs(5);
/// Before something that failed is tried again.
const AGAIN: Duration = Duration::from_millis(250);
/// After how long one looks for the next message although nothing was heard.
const LOOK: Duration = Duration::from_secs(1);
/// Messages that were fetched and are not taken yet.
const FETCHED_MAX: usize = 16;
/// What one message may hold, bytes, if the servers allow so much; with its headers.
const MESSAGE_BYTES: usize = 1 << 20;
const HEADER_BYTES: usize = 1 << 10;

/// Which servers, and how to reach them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsSettings {
    /// `nats://HOST:PORT` or `tls://HOST:PORT`; more are learnt from these.
    pub servers: Vec<String>,
    /// Roots that vouch for the servers; `None`: nothing leaves the machine.
    pub roots: Option<PathBuf>,
    /// Certificate and key that say who this is.
    pub own: Option<(PathBuf, PathBuf)>,
    /// A file with a user and a password in one line, `USER:PASSWORD`.
    pub user: Option<PathBuf>,
    /// The stream's name.
    pub stream: String,
    /// On how many servers each message is.
    pub replicas: usize,
}

impl NatsSettings {
    /// The log, behind its message of number `after`. The stream is made if it is not there.
    pub(super) async fn open(self, after: u64) -> Result<Box<dyn Log>, StoreError> {
        let (client, context) = self.context().await?;
        let stream = self.stream(&context).await?;
        let info = stream.cached_info();
        let first = info.state.first_sequence.max(1);
        if first > after + 1 {
            if self.begins_behind(&context, first - 1).await? {
                return Err(unreachable("the log was made shorter at this moment".to_owned()));
            }
            return Err(unusable(format!(
                "the stream {} begins with message {first}, this copy needs what follows message {after}, and no copy that has it stands beside the stream: begin with one from a backup of another coordinator",
                self.stream
            )));
        }
        let (fetched, messages) = mpsc::channel(FETCHED_MAX);
        let (stop, woken) = (CancellationToken::new(), Arc::new(Notify::new()));
        let follower = Follower {
            context: context.clone(),
            stream: self.stream.clone(),
            next: after + 1,
            woken: woken.clone(),
            fetched,
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(follower.run()));
        let waking = wake(client.clone(), subject(&self.stream), woken);
        tokio::spawn(stop.clone().run_until_cancelled_owned(waking));
        let allowed = client.server_info().max_payload;
        Ok(Box::new(StreamLog {
            subject: subject(&self.stream),
            stream: self.stream,
            message_bytes_max: allowed.min(MESSAGE_BYTES).saturating_sub(HEADER_BYTES),
            context,
            messages,
            _stop: stop.drop_guard(),
        }))
    }

    async fn context(&self) -> Result<(Client, Context), StoreError> {
        let client = self.connect().await?;
        let mut context = jetstream::new(client.clone());
        context.set_timeout(ANSWER_TIME);
        Ok((client, context))
    }

    /// Puts what the log is to begin from to the servers, whose log has to be empty, and writes what stands there then to `back`.
    pub(super) async fn begin_from(&self, base: &Path, back: &Path) -> Result<(), StoreError> {
        let (_, context) = self.context().await?;
        let standing = base::Standing {
            number: 0,
            before: 0,
            log: self.empty(&context).await?,
        };
        let index = base::put(self, &context, base, standing).await?;
        base::fetch(self, &context, &index, back).await
    }

    /// Puts the first entry, which names what the log begins from.
    pub(super) async fn claim(&self, id: [u8; 32]) -> Result<(), StoreError> {
        let (_, context) = self.context().await?;
        let first = Entry {
            previous: id,
            writer: "migrate".to_owned(),
            effects: Vec::new(),
        };
        let mut entry_id = [0; 16];
        entry_id.copy_from_slice(id.split_at(16).0);
        let parts = Part::all_of(entry_id, first.encode(), MESSAGE_BYTES);
        for (part, last) in parts.iter().zip(0_u64..) {
            let message = PublishMessage::build()
                .payload(part.encode_to_vec().into())
                .expected_last_sequence(last);
            let sent = context.send_publish(subject(&self.stream), message).await;
            let answer = match sent {
                Ok(sent) => sent.await,
                Err(error) => Err(error),
            };
            answer.map_err(|error| unreachable(crate::chain(&error)))?;
        }
        Ok(())
    }

    /// Writes what the log begins from to the new file `path`, if it begins from anything.
    pub(super) async fn fetch_base(&self, path: &Path) -> Result<(), StoreError> {
        let (_, context) = self.context().await?;
        let stream = self.stream(&context).await?;
        if stream.cached_info().state.last_sequence == 0 {
            return Ok(());
        }
        let Some(index) = base::index(self, &context).await? else {
            return Ok(());
        };
        let fetched = path.with_extension("fetched");
        base::fetch(self, &context, &index, &fetched).await?;
        std::fs::rename(&fetched, path).map_err(|error| unusable(error.to_string()))
    }

    /// Makes sure that the log is empty; when it was made, nanoseconds since 1970.
    async fn empty(&self, context: &Context) -> Result<i128, StoreError> {
        let stream = self.stream(context).await?;
        let log = stream.cached_info();
        match log.state.last_sequence {
            0 => Ok(log.created.unix_timestamp_nanos()),
            messages => Err(unusable(format!(
                "the stream {} holds a log of {messages} messages already: another store lives there; name another stream, or give this one up and follow that",
                self.stream
            ))),
        }
    }

    async fn connect(&self) -> Result<Client, StoreError> {
        let mut options = ConnectOptions::new()
            .name("penstock-coordinator")
            .ping_interval(PING)
            .connection_timeout(ANSWER_TIME)
            .request_timeout(Some(ANSWER_TIME));
        if let Some(roots) = &self.roots {
            let own = self.own.as_ref();
            let own = own.map(|(certificate, key)| (certificate.as_path(), key.as_path()));
            let tls = foreign::config(Some(roots), own).map_err(|error| unusable(crate::chain(&error)))?;
            options = options.tls_client_config(tls).require_tls(true);
        }
        if let Some(path) = &self.user {
            let line = std::fs::read_to_string(path)
                .map_err(|error| unusable(format!("{} cannot be read: {error}", path.display())))?;
            let (user, password) = line.trim_end().split_once(':').ok_or_else(|| {
                unusable(format!(
                    "{} is not one line of the form USER:PASSWORD",
                    path.display()
                ))
            })?;
            options = options.user_and_password(user.to_owned(), password.to_owned());
        }
        options
            .connect(&self.servers)
            .await
            .map_err(|error| unreachable(crate::chain(&error)))
    }

    /// The stream, as it has to be.
    async fn stream(&self, context: &Context) -> Result<Stream, StoreError> {
        let wanted = StreamConfig {
            name: self.stream.clone(),
            description: Some(
                "Penstock: the log of a replicated store. What is taken out of it is lost.".to_owned(),
            ),
            subjects: vec![subject(&self.stream)],
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::New,
            num_replicas: self.replicas,
            deny_delete: true,
            ..StreamConfig::default()
        };
        let stream = context
            .get_or_create_stream(wanted)
            .await
            .map_err(|error| unreachable(crate::chain(&error)))?;
        self.check(&stream.cached_info().config)?;
        Ok(stream)
    }

    /// A stream that keeps what is put there.
    fn check(&self, found: &StreamConfig) -> Result<(), StoreError> {
        let name = &found.name;
        let loses = found.retention != RetentionPolicy::Limits
            || found.discard != DiscardPolicy::New
            || !found.max_age.is_zero()
            || found.max_messages_per_subject > 0
            || found.storage != StorageType::File
            || found.no_ack;
        if loses {
            return Err(unusable(format!(
                "the stream {name} would throw messages away by itself, or does not keep them on a disk (its retention is not `limits`, it discards old messages, they have an age, or are in memory); it is not used"
            )));
        }
        if found.num_replicas < self.replicas {
            return Err(unusable(format!(
                "the stream {name} is on {} servers, and {} are configured: set it on more (nats stream edit {name} --replicas {}), or `storage.nats.replicas`",
                found.num_replicas, self.replicas, self.replicas
            )));
        }
        Ok(())
    }
}

/// What the stream takes: one subject.
fn subject(stream: &str) -> String {
    format!("{stream}.log")
}

fn unreachable(words: String) -> StoreError {
    StoreError::Unreachable { words }
}

fn unusable(words: String) -> StoreError {
    StoreError::Unusable { words }
}

/// Fetches messages in order, each by its number: whichever server leads by then is asked, and nothing has to be set up anew when one is lost.
struct Follower {
    context: Context,
    stream: String,
    next: u64,
    /// Something was put to the stream, or may have been.
    woken: Arc<Notify>,
    fetched: mpsc::Sender<Result<Message, LogError>>,
}

impl Follower {
    async fn run(mut self) {
        let stream = loop {
            match self.context.get_stream(&self.stream).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        };
        loop {
            let given = match stream.get_raw_message(self.next).await {
                Ok(message) => Ok(Message {
                    number: self.next,
                    payload: message.payload,
                }),
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {
                    match self.is_gone(&stream).await {
                        Some(true) => Err(LogError::Lost(format!(
                            "of the stream {} message {} is gone, and later ones are there; started again, this coordinator begins from the copy beside the stream",
                            self.stream, self.next
                        ))),
                        _ => {
                            let _ = tokio::time::timeout(LOOK, self.woken.notified()).await;
                            continue;
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(error = %crate::chain(&error), "the next message of the log cannot be fetched yet");
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            };
            let ends = given.is_err();
            self.next += 1;
            if self.fetched.send(given).await.is_err() || ends {
                return;
            }
        }
    }

    /// Whether the next message is not there any more, rather than not there yet.
    async fn is_gone(&self, stream: &Stream) -> Option<bool> {
        let newest = self.context.get_stream(&self.stream).await.ok()?;
        if newest.cached_info().state.last_sequence < self.next {
            return Some(false);
        }
        // It may have come between the two questions.
        match stream.get_raw_message(self.next).await {
            Ok(_) => Some(false),
            Err(error) => Some(error.kind() == RawMessageErrorKind::NoMessageFound),
        }
    }
}

/// Wakes whoever follows when something is put to the stream. What is heard here may not be stored yet, or never be: it says nothing but when to look.
async fn wake(client: Client, subject: String, woken: Arc<Notify>) {
    loop {
        if let Ok(mut heard) = client.subscribe(subject.clone()).await {
            while heard.next().await.is_some() {
                woken.notify_one();
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// The log on one stream.
struct StreamLog {
    context: Context,
    stream: String,
    subject: String,
    message_bytes_max: usize,
    messages: mpsc::Receiver<Result<Message, LogError>>,
    _stop: DropGuard,
}

impl Log for StreamLog {
    fn message_bytes_max(&self) -> usize {
        self.message_bytes_max
    }

    fn next(&mut self) -> Awaited<'_, Message, LogError> {
        Box::pin(async { self.messages.recv().await.unwrap_or(Err(LogError::Closed)) })
    }

    fn put(&mut self, last: u64, payload: Bytes) -> Awaited<'_, u64, NotPut> {
        Box::pin(async move {
            let message = PublishMessage::build()
                .payload(payload)
                .expected_stream(&self.stream)
                .expected_last_sequence(last);
            let sent = self.context.send_publish(self.subject.clone(), message).await;
            let answer = match sent {
                Ok(sent) => sent.await,
                Err(error) => Err(error),
            };
            answer
                .map(|answer| answer.sequence)
                .map_err(|error| not_put(&error))
        })
    }

    fn newest(&mut self) -> Awaited<'_, u64, NotPut> {
        Box::pin(async {
            let stream = self.context.get_stream(&self.stream).await;
            let stream = stream.map_err(|error| NotPut::Unknown(crate::chain(&error)))?;
            Ok(stream.cached_info().state.last_sequence)
        })
    }
}

/// What an answer to a message means. Only what a server refused for want of room is known not to stand there.
fn not_put(error: &PublishError) -> NotPut {
    use std::error::Error as _;
    let words = crate::chain(error);
    match error.kind() {
        PublishErrorKind::WrongLastSequence => NotPut::Behind,
        PublishErrorKind::MaxPayloadExceeded => NotPut::Full(words),
        PublishErrorKind::Other => {
            let refused = error
                .source()
                .and_then(|source| source.downcast_ref::<jetstream::Error>());
            let full = [
                ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
                ErrorCode::INSUFFICIENT_RESOURCES,
                ErrorCode::STORAGE_RESOURCES_EXCEEDED,
                ErrorCode::STREAM_STORE_FAILED,
                ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM,
            ];
            if refused.is_some_and(|refused| full.contains(&refused.error_code())) {
                NotPut::Full(words)
            } else {
                NotPut::Unknown(words)
            }
        }
        _ => NotPut::Unknown(words),
    }
}

#[cfg(test)]
pub(super) mod tests;
