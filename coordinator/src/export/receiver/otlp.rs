//! OTLP/HTTP: protobuf by POST. An answer with status 200 acknowledges the whole request, but for what it says was rejected for good
//! (`partial_success`). A request that is too large is halved; any other status means that the same is sent again later.

use penstock_proto::export::{ExportRecord, otlp};
use penstock_proto::https::{Address, Asking};
use prost::Message as _;

use super::{ReceiverError, Rejected};
use crate::export::settings::TlsFiles;

/// Payload Too Large.
const TOO_LARGE: u16 = 413;

/// A receiver.
#[derive(Debug)]
pub(crate) struct OtlpReceiver {
    address: Address,
    asking: Asking,
}

impl OtlpReceiver {
    pub(super) async fn new(address: &Address, files: &TlsFiles) -> Result<Self, ReceiverError> {
        let files = files.clone();
        let config = tokio::task::spawn_blocking(move || files.config()).await;
        let config = config.map_err(|error| ReceiverError::Connection {
            verb: "connect to",
            host: address.host(),
            source: std::io::Error::other(error),
        })??;
        Ok(Self {
            address: address.clone(),
            asking: Asking::with(config),
        })
    }

    pub(super) async fn send(&mut self, records: &[ExportRecord]) -> Result<Option<Rejected>, ReceiverError> {
        let mut parts = vec![records];
        let mut rejected: Option<Rejected> = None;
        while let Some(part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let answer = self
                .asking
                .send(&self.address, otlp::CONTENT_TYPE, otlp::request(part))
                .await?;
            let status = answer.status.as_u16();
            let refused = match status {
                200 => partly(&answer.body),
                TOO_LARGE if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                    None
                }
                TOO_LARGE => Some(Rejected {
                    records: 1,
                    why: format!("{} takes no record as large", self.address.host()),
                }),
                status => {
                    return Err(ReceiverError::Status {
                        host: self.address.host(),
                        status,
                    });
                }
            };
            if let Some(refused) = refused {
                let before = rejected.map_or(0, |rejected| rejected.records);
                rejected = Some(Rejected {
                    records: before.saturating_add(refused.records),
                    ..refused
                });
            }
        }
        Ok(rejected)
    }
}

/// What an answer says was rejected for good. One that cannot be read says nothing: its status is what counts.
fn partly(body: &[u8]) -> Option<Rejected> {
    let answer = otlp::ExportLogsServiceResponse::decode(body).ok()?;
    let partial = answer.partial_success?;
    let records = u64::try_from(partial.rejected_log_records).ok()?;
    (records > 0).then_some(Rejected {
        records,
        why: penstock_policy::text::shortened(&partial.error_message, 200).into_owned(),
    })
}
