//! What coordinators on one store hear of each other without writing anything: that one of them acts and is alive.

use std::time::Duration;

use async_nats::jetstream::context::Context;
use async_nats::{Client, Subscriber};
use tokio_stream::StreamExt as _;

use super::{NatsSettings, unreachable};
use crate::store::StoreError;

/// How much is taken in at once of what others said.
const SO_FAR_MAX: usize = 1000;

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

    /// Of the servers that replicate the log, if most of them can be reached and reach each other, so that it can be written.
    pub(crate) async fn reach(&self) -> Result<Servers, StoreError> {
        let stream = self.context.get_stream(&self.stream).await;
        let stream = stream.map_err(|error| unreachable(crate::chain(&error)))?;
        let others = stream.cached_info().cluster.as_ref();
        let others = others.map_or(&[][..], |cluster| cluster.replicas.as_slice());
        let away = others.iter().filter(|server| server.offline || !server.current);
        Ok(Servers {
            count: others.len() + 1,
            away: away.map(|server| server.name.clone()).collect(),
        })
    }
}

/// The servers that replicate the log.
#[derive(Debug)]
pub(crate) struct Servers {
    /// How many there are.
    pub(crate) count: usize,
    /// Those that do not have all of it.
    pub(crate) away: Vec<String>,
}

impl PulsesHeard {
    /// What was said since one last listened.
    pub(crate) async fn so_far(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        while said.len() < SO_FAR_MAX
            && let Ok(Some(message)) = tokio::time::timeout(Duration::ZERO, self.heard.next()).await
        {
            said.push(String::from_utf8_lossy(&message.payload).into_owned());
        }
        said
    }

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
