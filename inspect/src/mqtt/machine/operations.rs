//! What becomes of the packets that do something.

use super::{Fate, Mqtt, forwards, overflow, split};
use crate::connection::machine::FeedEnd;
use crate::connection::{Mode, Output, Sender, Sink, pass};
use crate::judge::{OnRefusal, Refusal, Verdict};
use crate::mqtt::deviation::MqttDeviation;
use crate::mqtt::judge::MqttRules;
use crate::mqtt::objection;
use crate::mqtt::operation::Operation;
use crate::mqtt::packet::{Packet, Version, kind};
use crate::mqtt::refusal::{self, IDENTIFIER_NOT_FOUND, NOT_AUTHORISED};
use crate::mqtt::subscribe::{Filters, RequestedFilter};
use crate::mqtt::{Connect, MqttError, Publish};

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

pub(super) fn judged(operation: Operation<'_>, verdict: Verdict, forwarded: bool, out: &mut Sink<'_>) {
    out(Output::Judged {
        operation: &operation.into(),
        verdict,
        forwarded,
    });
}

impl Mqtt {
    /// Judges a packet that is held whole. `begun`: its beginning has gone on.
    pub(super) fn packet(
        &mut self,
        rules: &MqttRules,
        packet: &Packet<'_>,
        (from, begun): (Sender, bool),
        out: &mut Sink<'_>,
    ) -> Fate {
        if from == Sender::Server {
            self.unconfirmed.answered(packet, out);
        }
        match packet {
            Packet::Connect(connect) => self.connect(rules, connect, out),
            Packet::Subscribe(filters) => self.subscribe(rules, *filters, begun, out),
            Packet::Subscribed {
                kind: kind::SUBACK,
                identifier,
                head,
                codes,
            } => match self.splits.take(*identifier) {
                Some(refused) => Fate::Instead(split::answered(self.version, head, codes, &refused)),
                None => Fate::Forward,
            },
            Packet::Unsubscribe(filters) => {
                for wanted in filters.iter() {
                    self.subscriptions.remove(wanted.filter);
                    let operation = Operation::Unsubscribe {
                        filter: wanted.filter.into(),
                    };
                    judged(operation, Verdict::Upkeep, true, out);
                    self.unconfirmed.passed(1);
                }
                Fate::Forward
            }
            Packet::Acknowledge {
                kind: kind::PUBREL,
                identifier,
                ..
            } => self.release_refused(rules, *identifier, from, out),
            Packet::Acknowledge {
                kind: kind @ (kind::PUBREC | kind::PUBCOMP),
                identifier,
                reason,
            } => {
                // The broker keeps nothing of it: it refused it, or has published it.
                if from == Sender::Server && (*kind == kind::PUBCOMP || *reason >= 0x80) {
                    self.unfinished.lock().remove(*identifier);
                }
                Fate::Forward
            }
            _ => Fate::Forward,
        }
    }

    fn connect(&mut self, rules: &MqttRules, connect: &Connect<'_>, out: &mut Sink<'_>) -> Fate {
        let admission = rules.admit(connect.client_id, connect.user);
        let refuses = |operation: &Operation<'_>| !rules.judge_for(&admission, operation).allows();
        let refused = of_connect(connect).any(|operation| refuses(&operation));
        let forwarded = !refused || self.terms.mode == Mode::Observe;
        self.unconfirmed.asked(None, 1 + u64::from(connect.will.is_some()));
        for operation in of_connect(connect) {
            let mut verdict = rules.judge_for(&admission, &operation);
            if refused {
                verdict = verdict.with_packet_refused();
            }
            judged(operation, verdict, forwarded, out);
        }
        if forwarded {
            self.keep_identity(connect);
            self.judge_again(rules);
            // Only observed: that it would not have been connected was just told.
            self.is_revocation_told = refused;
            return Fate::Forward;
        }
        // Nothing was connected yet, so there is nothing to be kept up: every way of refusing ends here.
        match self.terms.on_refusal {
            OnRefusal::Reset | OnRefusal::Drop => Fate::End(FeedEnd::Close { reset: true }),
            OnRefusal::Answer | OnRefusal::Acknowledge | OnRefusal::Disconnect => {
                let answer = self.tell(Sender::Server, &refusal::connack(self.version), out);
                Fate::End(answer.err().unwrap_or(FeedEnd::Close { reset: false }))
            }
        }
    }

    /// Each filter has an answer of its own: the refused ones are taken out, and the others go on. `begun`: too late for that.
    fn subscribe(
        &mut self,
        rules: &MqttRules,
        filters: Filters<'_>,
        begun: bool,
        out: &mut Sink<'_>,
    ) -> Fate {
        let judge = |wanted: RequestedFilter<'_>| rules.judge_for(&self.admission, &subscription(&wanted));
        let verdicts: Vec<Verdict> = filters.iter().map(judge).collect();
        let refused: Vec<bool> = verdicts.iter().map(|verdict| !verdict.allows()).collect();
        let (any, all) = (refused.contains(&true), !refused.contains(&false));
        let (observe, style) = (self.terms.mode == Mode::Observe, self.terms.on_refusal);
        let fits = self
            .splits
            .fits(refused.len(), self.terms.limits.pending_filters_max);
        let ends = matches!(style, OnRefusal::Disconnect | OnRefusal::Reset);
        let whole = any && (ends || !observe && (begun || !fits));
        let count = u64::try_from(refused.len()).unwrap_or(u64::MAX);
        self.unconfirmed.asked(Some(filters.identifier), count);
        for (wanted, mut verdict) in filters.iter().zip(verdicts) {
            if whole {
                verdict = verdict.with_packet_refused();
            }
            let forwarded = forwards(verdict, &self.terms);
            judged(subscription(&wanted), verdict, forwarded, out);
            if forwarded {
                self.subscriptions.add(wanted.filter, wanted.qos);
            }
        }
        if !any || observe {
            // Only observed: that it was not permitted was just told.
            self.is_revocation_told |= any;
            if self.splits.awaits(filters.identifier) && fits {
                self.splits.add(filters.identifier, &vec![false; refused.len()]);
            }
            return Fate::Forward;
        }
        match style {
            OnRefusal::Disconnect => Fate::End(self.disconnect(out)),
            OnRefusal::Reset => Fate::End(FeedEnd::Close { reset: true }),
            // What was asked together is answered together: there is no silence about a part of it.
            _ if !all && fits => {
                self.splits.add(filters.identifier, &refused);
                Fate::Instead(split::without(filters, &refused))
            }
            _ if !all => {
                out(overflow(true));
                Fate::End(FeedEnd::Close { reset: false })
            }
            OnRefusal::Drop => Fate::Withhold,
            // A subscription that is acknowledged and brings nothing would be a lie without end.
            OnRefusal::Answer | OnRefusal::Acknowledge => {
                let answer = refusal::suback(self.version, filters.identifier, refused.len());
                match self.tell(Sender::Server, &answer, out) {
                    Ok(()) => Fate::Withhold,
                    Err(ending) => Fate::End(ending),
                }
            }
        }
    }

    /// Judges a publication by its head, from either side; what becomes of it, and whether it was refused. `more`: not all of
    /// it is there.
    pub(super) fn publish(
        &mut self,
        rules: &MqttRules,
        from: Sender,
        publish: &Publish<'_>,
        more: bool,
        out: &mut Sink<'_>,
    ) -> (Fate, bool) {
        let lost = |error: MqttError| {
            (
                Fate::End(FeedEnd::Lost(MqttDeviation::Packet(error).into())),
                false,
            )
        };
        let terms = self.terms;
        // Of a client at QoS 2: the broker has it before it is released.
        let kept = publish
            .identifier
            .filter(|_| (from, publish.qos) == (Sender::Client, 2));
        let hidden = kept.and_then(|identifier| self.hides(rules, identifier));
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
        let verdict = if let Some(verdict) = hidden {
            verdict
        } else if known {
            rules.judge_for(&self.admission, &operation)
        } else {
            Verdict::Refuse(Refusal {
                why: objection::ALIAS,
                nearest: None,
            })
        };
        let forwarded = forwards(verdict, &terms);
        if let Some(identifier) = kept.filter(|_| forwarded) {
            let limit = terms.limits.refused_publications_max;
            let fits = self
                .unfinished
                .lock()
                .add(identifier, topic, publish.retain, limit);
            let enforces = terms.mode == Mode::Enforce;
            if !fits {
                out(overflow(enforces));
                if enforces {
                    return (Fate::End(FeedEnd::Close { reset: false }), false);
                }
                // What is released may be one that is not known.
                self.is_resumed = true;
            }
        }
        match publish.identifier.filter(|_| from == Sender::Client) {
            Some(identifier) => self.unconfirmed.asked(Some(identifier), 1),
            None => self.unconfirmed.passed(1),
        }
        // One that is refused and passes was told.
        half.passing = (verdict.allows() && more).then(|| Box::new(operation.clone().into_owned()));
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
            // Nobody received it, so nobody acknowledges it: the broker keeps it, for whoever it is meant for.
            _ if from == Sender::Server => Fate::Withhold,
            OnRefusal::Disconnect => Fate::End(self.disconnect(out)),
            OnRefusal::Reset => Fate::End(FeedEnd::Close { reset: true }),
            OnRefusal::Drop => Fate::Withhold,
            style => self.answer_publication(publish, style, out),
        };
        (fate, true)
    }

    /// Acknowledges a client's publication that goes nowhere, so that it does not send it for ever.
    fn answer_publication(&mut self, publish: &Publish<'_>, style: OnRefusal, out: &mut Sink<'_>) -> Fate {
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
            let unreleased = &mut self.client.unreleased;
            if !unreleased.contains(&identifier) {
                if unreleased.len() >= limit {
                    out(overflow(true));
                    return Fate::End(FeedEnd::Close { reset: false });
                }
                unreleased.push(identifier);
            }
        }
        let packet = refusal::acknowledgement(self.version, which, identifier, reason);
        // What is told to the sender of a packet travels in the other side's stream.
        match self.tell(Sender::Server, &packet, out) {
            Ok(()) => Fate::Withhold,
            Err(ending) => Fate::End(ending),
        }
    }

    /// PUBREL for a publication that went nowhere is answered here: the broker knows nothing of it. For one that the rules
    /// no longer permit, too: the broker knows it, and would publish it now.
    fn release_refused(
        &mut self,
        rules: &MqttRules,
        identifier: u16,
        from: Sender,
        out: &mut Sink<'_>,
    ) -> Fate {
        let unreleased = &mut self.half(from).unreleased;
        let Some(at) = unreleased.iter().position(|kept| *kept == identifier) else {
            return match from {
                Sender::Client => self.release(rules, identifier, out).unwrap_or(Fate::Forward),
                Sender::Server => Fate::Forward,
            };
        };
        unreleased.swap_remove(at);
        let packet = refusal::acknowledgement(self.version, kind::PUBCOMP, identifier, 0);
        match self.tell(from.other(), &packet, out) {
            Ok(()) => Fate::Withhold,
            Err(ending) => Fate::End(ending),
        }
    }

    /// Answers a PUBREL that is not forwarded.
    pub(super) fn answer_release(&mut self, identifier: u16, out: &mut Sink<'_>) -> Fate {
        let reason = match (self.version, self.terms.on_refusal) {
            (_, OnRefusal::Disconnect) => return Fate::End(self.disconnect(out)),
            (_, OnRefusal::Reset) => return Fate::End(FeedEnd::Close { reset: true }),
            (_, OnRefusal::Drop) => return Fate::Withhold,
            (Version::V5, OnRefusal::Answer) => IDENTIFIER_NOT_FOUND,
            _ => 0,
        };
        let packet = refusal::acknowledgement(self.version, kind::PUBCOMP, identifier, reason);
        match self.tell(Sender::Server, &packet, out) {
            Ok(()) => Fate::Withhold,
            Err(ending) => Fate::End(ending),
        }
    }

    /// Ends the connection, telling an MQTT 5 client why unless a packet to it is under way.
    pub(super) fn disconnect(&mut self, out: &mut Sink<'_>) -> FeedEnd {
        if self.stage > super::Stage::Connect && !self.server.is_begun() {
            let packet = refusal::disconnect(self.version, NOT_AUTHORISED);
            pass(Sender::Server, &packet, out);
        }
        FeedEnd::Close { reset: false }
    }
}

fn subscription<'a>(wanted: &RequestedFilter<'a>) -> Operation<'a> {
    Operation::Subscribe {
        filter: wanted.filter.into(),
        qos: wanted.qos,
    }
}

fn operation_of<'a>(from: Sender, topic: &'a str, publish: &Publish<'_>) -> Operation<'a> {
    let (topic, qos, retain) = (topic.into(), publish.qos, publish.retain);
    match from {
        Sender::Client => Operation::Publish { topic, qos, retain },
        Sender::Server => Operation::Deliver { topic, qos, retain },
    }
}
