//! What sessions ask of the store, and what it says; here the machine's questions meet it.

use penstock_policy::ids::GatewayId;
use penstock_policy::text;
use penstock_proto::bundle::SignedBundle;
use penstock_proto::peer::Subject;
use penstock_proto::refusal::Refusal;
use penstock_proto::v1::gateway_message::Message;
use penstock_proto::v1::{TrustBundles, TrustHeld};

use super::machine::{Answer, Question};
use super::session::{GatewayPeer, Sessions};
use crate::clock;
use crate::enrolment::{GATEWAY_PREFIX, GatewayRecord, update_gateway};
use crate::store::{Change, Silent};
use crate::tickets::Holder;

/// Why a trust bundle is not taken back, in words; some of them are the gateway's.
const NOT_TAKEN_BYTES_MAX: usize = 512;

impl GatewayPeer {
    /// Who holds tickets.
    fn holder(&self) -> Holder {
        Holder {
            gateway: self.gateway.clone(),
            key: self.key,
            address: self.address,
        }
    }
}

impl Sessions {
    /// Asks the store for a session.
    pub(super) async fn answer(&self, peer: &GatewayPeer, question: Question) -> Answer {
        let (source, ingest) = (peer.gateway.as_str(), &self.ingest);
        match question {
            Question::Position { epoch, ticket } => {
                let held = match ingest.position(source, epoch).await {
                    Ok(held) => held,
                    Err(error) => return Answer::Position(Err(Refusal::from(error))),
                };
                let greeting = self.tickets.greet(&peer.holder(), ticket.as_ref()).await;
                Answer::Position(Ok((held, Box::new(greeting))))
            }
            Question::Store { blocks, first } => {
                let stored = ingest.store(source, blocks, first, clock::now_ms()).await;
                if let Err(error) = &stored {
                    let gateway = &peer.gateway;
                    tracing::error!(%gateway, error = %crate::chain(error), "cannot store audit");
                }
                Answer::Stored(stored)
            }
            Question::Note(why) => {
                // With a disk that takes nothing at all, health alone says it.
                let _ = ingest.waits(source, &why).await;
                Answer::Noted
            }
            Question::Room => Answer::Room(ingest.would_take(source).await),
        }
    }

    /// Writes down that a gateway holds a ticket, and when it was seen last.
    pub(super) fn holds(&self, peer: &GatewayPeer, ticket: prost::bytes::Bytes) {
        let (tickets, holder) = (self.tickets.clone(), peer.holder());
        tokio::spawn(async move { tickets.held(&holder, &ticket).await });
    }

    /// Takes what a gateway gives of what it holds, if it was asked for its list of withdrawn keys, or for trust bundles: this coordinator was
    /// restored from a backup.
    pub(super) fn take(&self, peer: &GatewayPeer, given: Message, (list, trust): (bool, bool)) {
        match given {
            Message::Withdrawn(proof) if list => {
                let (subjects, gateway) = (self.subjects.clone(), peer.gateway.clone());
                tokio::spawn(async move { subjects.learn(&gateway, &proof).await });
            }
            Message::Trust(bundles) if trust => self.take_trust(peer, bundles),
            _ => {}
        }
    }

    /// Bundles count from the next start on. What is not taken is only noted: whoever stole a gateway's key may claim any number, and send anything.
    fn take_trust(&self, peer: &GatewayPeer, bundles: TrustBundles) {
        let (all, gateway) = (self.clone(), peer.gateway.clone());
        tokio::spawn(async move {
            let authority = all.authority.clone();
            let bundles: Vec<SignedBundle> = bundles.into();
            let taken = tokio::task::spawn_blocking(move || authority.take_back(&bundles)).await;
            let (step, words) = match taken {
                Ok(Ok(Some(trusted))) => {
                    let words = format!(
                        "this coordinator was restored from a backup that is older than trust bundle {}, and has it back from a gateway: it counts when the coordinator is started again",
                        trusted.number
                    );
                    tracing::error!(%gateway, "{words}");
                    all.subjects.note_restored(&words);
                    ("restored", words)
                }
                Ok(Err(error)) => {
                    let words = format!(
                        "the trust bundle that it gave is not taken back: {}; if this coordinator was restored from an older backup, install the bundle by hand",
                        text::shortened(&crate::chain(&error), NOT_TAKEN_BYTES_MAX)
                    );
                    tracing::warn!(%gateway, "{words}");
                    ("refused", words)
                }
                Ok(Ok(None)) | Err(_) => return,
            };
            let subject = Subject::Gateway(gateway.clone());
            if let Err(error) = all.subjects.note(step, &subject, &words).await {
                tracing::warn!(%gateway, error = %crate::chain(&error), "cannot write down what a gateway gave");
            }
        });
    }

    /// Writes down when a gateway was seen last.
    pub(super) async fn remember(&self, peer: &GatewayPeer) {
        let (gateway, now_ms): (&GatewayId, u64) = (&peer.gateway, clock::now_ms());
        let update = |record: &mut GatewayRecord| record.session_ended(peer.certificate_expires_ms, now_ms);
        let change = Change::silent(Silent::Observed);
        let remembered = update_gateway(&self.store, change, gateway.as_str(), update);
        if let Err(error) = remembered.await {
            tracing::warn!(%gateway, error = %crate::chain(&error), "cannot remember when the gateway was seen");
        }
    }

    /// Writes down which trust bundle a gateway holds, if that is another one than before: a coordinator that is stopped knows by it whom a
    /// change of the roots would leave behind.
    pub(super) async fn trusts(&self, gateway: &GatewayId, held: &TrustHeld) {
        let key = format!("{GATEWAY_PREFIX}{gateway}");
        let known = self.store.get_json::<GatewayRecord>(&key).await;
        if known.is_ok_and(|known| known.is_some_and(|(record, _)| record.is_trusting(held))) {
            return;
        }
        let change = Change::silent(Silent::Observed);
        let written = update_gateway(&self.store, change, gateway.as_str(), |record| {
            record.trusts(held)
        });
        if let Err(error) = written.await {
            tracing::warn!(%gateway, error = %crate::chain(&error), "cannot remember which trust bundle the gateway holds");
        }
    }
}
