//! How an entry comes to stand in the log, or another one in its place.

use prost::Message as _;
use tokio::time::{Instant, timeout_at};

use super::Replica;
use crate::store::StoreError;
use crate::store::log::entry::Part;
use crate::store::log::{Message, NotPut};

/// What became of an entry.
pub(super) enum Put {
    /// It stands where it should.
    There,
    /// Another one stands there, and is next.
    Behind,
}

impl Replica {
    /// Puts an entry behind the last message, piece by piece. What stands there is taken, whosever it is; so at any moment the copy
    /// knows of the log what everybody else knows.
    pub(super) async fn put(&mut self, bytes: Vec<u8>, deadline: Instant) -> Result<Put, StoreError> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| StoreError::Unreachable {
            words: format!("no random numbers: {error}"),
        })?;
        // A large entry takes as long as it takes; each of its messages has the time that one may take.
        let mut deadline = deadline;
        for part in Part::all_of(id, bytes, self.log.message_bytes_max()) {
            let payload = bytes::Bytes::from(part.encode_to_vec());
            // Whether an earlier attempt may have come, or may come yet.
            let mut is_doubtful = false;
            loop {
                let last = self.seen;
                let put = timeout_at(deadline, self.log.put(last, payload.clone())).await;
                let not = match put {
                    Ok(Ok(number)) => {
                        self.take(Message {
                            number,
                            payload: payload.clone(),
                        })?;
                        break;
                    }
                    Ok(Err(not)) => not,
                    Err(_) => NotPut::Unknown(format!("no answer within {} s", self.patience.put.as_secs())),
                };
                // Whatever was answered: the log says what stands there, as soon as something does.
                if let NotPut::Full(words) = not {
                    return Err(match is_doubtful {
                        true => StoreError::Unsettled { words },
                        false => StoreError::LogFull { words },
                    });
                }
                is_doubtful |= matches!(not, NotPut::Unknown(_));
                if self.look_for(&payload, deadline).await? {
                    break;
                }
                if self.seen > last {
                    return Ok(Put::Behind);
                }
                if Instant::now() >= deadline {
                    self.check_not_set_back().await?;
                    let words = match not {
                        NotPut::Unknown(words) => words,
                        NotPut::Behind | NotPut::Full(_) => {
                            "another coordinator writes, and what it wrote does not come".to_owned()
                        }
                    };
                    return Err(StoreError::Unsettled { words });
                }
            }
            deadline = deadline.max(Instant::now() + self.patience.put / 2);
        }
        Ok(Put::There)
    }

    /// Takes the next message, if one comes; whether it is this one.
    async fn look_for(&mut self, payload: &bytes::Bytes, deadline: Instant) -> Result<bool, StoreError> {
        let until = deadline.min(Instant::now() + self.patience.look);
        loop {
            let message = match timeout_at(until, self.log.next()).await {
                Ok(Ok(message)) => message,
                Ok(Err(error)) => return Err(self.lost_by(error)),
                Err(_) => return Ok(false),
            };
            let (new, same) = (message.number > self.seen, message.payload == *payload);
            self.take(message)?;
            if new {
                return Ok(same);
            }
        }
    }
}
