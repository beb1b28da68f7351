//! What becomes of the packets that do something.

use super::{Deviation, Ending, Fate, Mode, Mqtt, Output, Sender, Sink, Version, forwards, overflow};
use crate::judge::mqtt::MqttRules;
use crate::judge::refusal::{self, NOT_AUTHORISED, OnRefusal};
use crate::judge::{Refusal, Verdict, Why};
use crate::mqtt::operation::Operation;
use crate::mqtt::packet::{Packet, kind};
use crate::mqtt::subscribe::Filters;
use crate::mqtt::{Connect, MqttError, Publish};
use crate::operation::Operation as AnyOperation;

/// The operations in a CONNECT: itself, and its will.
pub(super) fn of_connect<'a>(connect: &Connect<'a>) -> impl Iterator<Item = Operation<'a>> {
    let itself = Operation::Connect {
        client_id: connect.client_id.into(),
        user: connect.user.map(Into::into),
    };
    let will = connect.will.map(|will| Operation::Will {
        topic: will.topic.into(),
        qos: will.qos,
        retain: will.retain,
    });
    std::iter::once(itself).chain(will)
}

fn judged(operation: Operation<'_>, verdict: Verdict, forwarded: bool, out: &mut Sink<'_>) {
    out(Output::Judged {
        operation: AnyOperation::Mqtt(operation),
        verdict,
        forwarded,
    });
}

impl Mqtt {
    /// Judges a packet that is held whole.
    pub(super) fn packet(
        &mut self,
        rules: &MqttRules,
        packet: &Packet<'_>,
        from: Sender,
        out: &mut Sink<'_>,
    ) -> Fate {
        match packet {
            Packet::Connect(connect) => self.connect(rules, connect, out),
            Packet::Subscribe(filters) => self.subscribe(rules, *filters, out),
            Packet::Unsubscribe(filters) => {
                for wanted in filters.iter() {
                    let operation = Operation::Unsubscribe {
                        filter: wanted.filter.into(),
                    };
                    judged(operation, Verdict::Upkeep, true, out);
                }
                Fate::Forward
            }
            Packet::Acknowledge {
                kind: kind::PUBREL,
                identifier,
                ..
            } => self.release_refused(*identifier, from, out),
            _ => Fate::Forward,
        }
    }

    fn connect(&mut self, rules: &MqttRules, connect: &Connect<'_>, out: &mut Sink<'_>) -> Fate {
        let mut refused = false;
        let admission = rules.admit(connect.client_id, connect.user);
        let verdicts: Vec<(Operation<'_>, Verdict)> = of_connect(connect)
            .map(|operation| {
                let verdict = rules.judge_for(&admission, &operation);
                (operation, verdict)
            })
            .collect();
        let all = verdicts
            .iter()
            .all(|(_, verdict)| forwards(*verdict, &self.terms));
        for (operation, verdict) in verdicts {
            refused |= !verdict.allows();
            judged(operation, verdict, all, out);
        }
        if !refused || self.terms.mode == Mode::Observe {
            self.keep_identity(connect);
            self.admission = admission;
            // Only observed: that it would not have been connected was just told.
            (self.revoked, self.is_revocation_told) = (refused, refused);
            return Fate::Forward;
        }
        // Nothing was connected yet, so there is nothing to be kept up: every way of refusing ends here.
        match self.terms.on_refusal {
            OnRefusal::Reset | OnRefusal::Drop => Fate::End(Ending::Close { reset: true }),
            OnRefusal::Answer | OnRefusal::Acknowledge | OnRefusal::Disconnect => {
                let answer = self.tell(Sender::Server, &refusal::connack(self.version), out);
                Fate::End(answer.err().unwrap_or(Ending::Close { reset: false }))
            }
        }
    }

    fn subscribe(&mut self, rules: &MqttRules, filters: Filters<'_>, out: &mut Sink<'_>) -> Fate {
        let client = &self.admission;
        let verdict_of = |filter: &str, qos: u8| {
            let operation = Operation::Subscribe {
                filter: filter.into(),
                qos,
            };
            rules.judge_for(client, &operation)
        };
        let refused: Vec<bool> = filters
            .iter()
            .map(|wanted| !verdict_of(wanted.filter, wanted.qos).allows())
            .collect();
        let any = refused.contains(&true);
        let forwarded = !any || self.terms.mode == Mode::Observe;
        for wanted in filters.iter() {
            let operation = Operation::Subscribe {
                filter: wanted.filter.into(),
                qos: wanted.qos,
            };
            judged(operation, verdict_of(wanted.filter, wanted.qos), forwarded, out);
        }
        if forwarded {
            return Fate::Forward;
        }
        match self.terms.on_refusal {
            // A subscription that is acknowledged and brings nothing would be a lie without end.
            OnRefusal::Answer | OnRefusal::Acknowledge => {
                let answer = refusal::suback(self.version, filters.identifier, &refused);
                match self.tell(Sender::Server, &answer, out) {
                    Ok(()) => Fate::Withhold,
                    Err(ending) => Fate::End(ending),
                }
            }
            OnRefusal::Disconnect => Fate::End(self.disconnect(out)),
            OnRefusal::Reset => Fate::End(Ending::Close { reset: true }),
            OnRefusal::Drop => Fate::Withhold,
        }
    }

    /// Judges a publication by its head, from either side; what becomes of it, and whether it was refused.
    pub(super) fn publish(
        &mut self,
        rules: &MqttRules,
        from: Sender,
        publish: &Publish<'_>,
        out: &mut Sink<'_>,
    ) -> (Fate, bool) {
        let lost = |error: MqttError| (Fate::End(Ending::Lost(Deviation::Packet(error))), false);
        let terms = self.terms;
        let half = match from {
            Sender::Client => &mut self.client,
            Sender::Server => &mut self.server,
        };
        let (topic, known) = match publish.alias {
            Some(alias) if publish.topic.is_empty() => match half.aliases.resolve(alias) {
                Ok(resolved) => (resolved.topic, resolved.forwarded),
                Err(error) => return lost(error),
            },
            _ => (publish.topic, true),
        };
        let operation = operation_of(from, topic, publish);
        let verdict = if known {
            rules.judge_for(&self.admission, &operation)
        } else {
            Verdict::Refuse(Refusal {
                why: Why::Alias,
                nearest: None,
            })
        };
        let forwarded = forwards(verdict, &terms);
        judged(operation, verdict, forwarded, out);
        if let Some(alias) = publish.alias
            && !publish.topic.is_empty()
            && let Err(error) = half.aliases.set(alias, publish.topic, forwarded)
        {
            return lost(error);
        }
        if forwarded {
            if let Some(identifier) = publish.identifier {
                half.unreleased.retain(|kept| *kept != identifier);
            }
            return (Fate::Forward, !verdict.allows());
        }
        let fate = match terms.on_refusal {
            OnRefusal::Disconnect if from == Sender::Client => Fate::End(self.disconnect(out)),
            OnRefusal::Reset if from == Sender::Client => Fate::End(Ending::Close { reset: true }),
            OnRefusal::Drop if from == Sender::Client => Fate::Withhold,
            style => self.answer_publication(from, publish, style, out),
        };
        (fate, true)
    }

    /// Acknowledges a publication that goes nowhere, so that its sender does not send it for ever.
    fn answer_publication(
        &mut self,
        from: Sender,
        publish: &Publish<'_>,
        style: OnRefusal,
        out: &mut Sink<'_>,
    ) -> Fate {
        let Some(identifier) = publish.identifier else {
            return Fate::Withhold;
        };
        let reason = match (self.version, style) {
            (Version::V5, OnRefusal::Acknowledge) | (Version::V311, _) => 0,
            (Version::V5, _) => NOT_AUTHORISED,
        };
        let which = if publish.qos == 1 {
            kind::PUBACK
        } else {
            kind::PUBREC
        };
        if publish.qos == 2 && reason == 0 {
            let limit = self.terms.limits.refused_publications_max;
            let unreleased = &mut self.half(from).unreleased;
            if !unreleased.contains(&identifier) {
                if unreleased.len() >= limit {
                    out(overflow());
                    return Fate::End(Ending::Close { reset: false });
                }
                unreleased.push(identifier);
            }
        }
        let packet = refusal::acknowledgement(self.version, which, identifier, reason);
        // What is told to the sender of a packet travels in the other side's stream.
        match self.tell(from.other(), &packet, out) {
            Ok(()) => Fate::Withhold,
            Err(ending) => Fate::End(ending),
        }
    }

    /// PUBREL for a publication that went nowhere is answered here: the other side knows nothing of it.
    fn release_refused(&mut self, identifier: u16, from: Sender, out: &mut Sink<'_>) -> Fate {
        let unreleased = &mut self.half(from).unreleased;
        let Some(at) = unreleased.iter().position(|kept| *kept == identifier) else {
            return Fate::Forward;
        };
        unreleased.swap_remove(at);
        let packet = refusal::acknowledgement(self.version, kind::PUBCOMP, identifier, 0);
        match self.tell(from.other(), &packet, out) {
            Ok(()) => Fate::Withhold,
            Err(ending) => Fate::End(ending),
        }
    }

    /// Ends the connection, telling an MQTT 5 client why unless a packet to it is under way.
    pub(super) fn disconnect(&mut self, out: &mut Sink<'_>) -> Ending {
        if self.stage > super::Stage::Connect && self.server.payload.is_none() {
            let packet = refusal::disconnect(self.version, NOT_AUTHORISED);
            super::pass(Sender::Server, &packet, out);
        }
        Ending::Close { reset: false }
    }
}

fn operation_of<'a>(from: Sender, topic: &'a str, publish: &Publish<'_>) -> Operation<'a> {
    let (topic, qos, retain) = (topic.into(), publish.qos, publish.retain);
    match from {
        Sender::Client => Operation::Publish { topic, qos, retain },
        Sender::Server => Operation::Deliver { topic, qos, retain },
    }
}
