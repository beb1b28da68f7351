//! What coordinators on one store hear of each other without writing anything: that one of them acts and is alive.

use std::time::Duration;

use async_nats::jetstream::context::Context;
use async_nats::{Client, Subscriber};
use tokio_stream::StreamExt as _;

use super::{NatsSettings, unreachable};
use crate::store::StoreError;

/// A connection to the servers of a replicated store, for what is not kept there.
#[derive(Debug, Clone)]
pub struct Pulses {
    client: Client,
    context: Context,
    stream: String,
}

/// What others say.
#[derive(Debug)]
pub struct PulsesHeard {
    heard: Subscriber,
}

impl NatsSettings {
    /// A connection of its own.
    pub(in crate::store) async fn pulses(&self) -> Result<Pulses, StoreError> {
        let (client, context) = self.context().await?;
        Ok(Pulses {
            client,
            context,
            stream: self.stream.clone(),
        })
    }
}

impl Pulses {
    fn subject(&self) -> String {
        format!("{}.pulse", self.stream)
    }

    /// Says who acts.
    pub(crate) async fn send(&self, who: &str) {
        // Nobody has to hear it: who hears nothing takes over by the log, where this would show.
        let _ = self.client.publish(self.subject(), who.to_owned().into()).await;
    }

    /// What is said from now on.
    pub(crate) async fn listen(&self) -> Result<PulsesHeard, StoreError> {
        let heard = self.client.subscribe(self.subject()).await;
        let heard = heard.map_err(|error| unreachable(crate::chain(&error)))?;
        Ok(PulsesHeard { heard })
    }

    /// Whether most of the servers can be reached and reach each other: whether the log can be written.
    pub(crate) async fn reach(&self) -> Result<(), StoreError> {
        let stream = self.context.get_stream(&self.stream).await;
        stream
            .map(|_| ())
            .map_err(|error| unreachable(crate::chain(&error)))
    }
}

impl PulsesHeard {
    /// Whether this one said something within this time.
    pub(crate) async fn hear(&mut self, who: &str, within: Duration) -> bool {
        let said = async {
            while let Some(message) = self.heard.next().await {
                if message.payload == who.as_bytes() {
                    return true;
                }
            }
            std::future::pending().await
        };
        tokio::time::timeout(within, said).await.unwrap_or(false)
    }
}
