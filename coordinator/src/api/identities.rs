//! Who counts, as operators see it, and what admins decide of it.

use std::net::IpAddr;

use penstock_proto::peer::Certified;
use penstock_proto::refusal::{Reason, Refusal};
use penstock_proto::tls::names::ServerNames;
use penstock_proto::v1;
use penstock_proto::withdrawn::Withdrawn;
use tonic::{Request, Response, Status};

use super::answers::carried;
use super::control::ControlService;
use super::enrol::to_wire;
use super::gate::{self, Action, Caller};
use super::views;
use crate::ca::{IssuedCertificate, ProvenKey};
use crate::clock;
use crate::enrolment;
use crate::identities::{AskedChange, asked_change};
use crate::operators::{self, OperatorRecord};
use crate::subjects::StandingChange;

fn action(change: StandingChange) -> Action {
    match change {
        StandingChange::Suspend => Action::SuspendIdentity,
        StandingChange::Resume => Action::ResumeIdentity,
        StandingChange::Revoke | StandingChange::RevokeEarlier => Action::RevokeIdentity,
        StandingChange::Retire => Action::RetireIdentity,
    }
}

impl ControlService {
    pub(super) async fn change(
        &self,
        request: Request<v1::ChangeStandingRequest>,
    ) -> Result<Response<v1::SubjectState>, Status> {
        // Which action it is the request says; what makes no sense is held to the role of the one that weighs most.
        let named = asked_change(request.get_ref().change);
        let needed = named.map_or(Action::RevokeIdentity, action);
        let caller = self.gate.operator(request.extensions(), needed).await?;
        let message = request.into_inner();
        let target = message.subject.clone();
        let outcome = match AskedChange::try_from(message) {
            Ok(asked) => {
                let deed = self.gate.deed(&caller);
                let changed = self
                    .identities
                    .change(&caller.operator, &asked, deed, clock::now_ms());
                changed.await.map(|record| (asked.subject, record))
            }
            Err(refusal) => Err(refusal),
        };
        let (subject, record) = self.gate.judged(&caller, &target, outcome).await?;
        Ok(Response::new(views::subject(&subject, &record)))
    }

    /// A login's next certificate: for whoever is let in, and for the key that let them in.
    pub(super) async fn renew_login(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::EnrolResponse>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::RenewOperator)
            .await?;
        let (certified, address) = gate::certified(request.extensions())?;
        let certified = certified.clone();
        let asked = &request.get_ref().certificate_request;
        let outcome = self.renewed_login(&caller, &certified, address, asked).await;
        let target = certified.identity.subject.to_string();
        let issued = self.gate.judged(&caller, &target, outcome).await?;
        Ok(Response::new(to_wire(issued, &self.authority)))
    }

    async fn renewed_login(
        &self,
        caller: &Caller,
        certified: &Certified,
        address: IpAddr,
        certificate_request: &[u8],
    ) -> Result<IssuedCertificate, Refusal> {
        let (operator, now_ms) = (&caller.operator, clock::now_ms());
        let asked = ProvenKey::of_request(certificate_request).map_err(enrolment::bad_request)?;
        if asked.digest() != caller.key {
            let words = format!(
                "the login of {operator} is renewed for its own key only; for another key ask an admin for a token: `penstock login --token FILE`"
            );
            return Err(Refusal::new(Reason::OtherKey, words));
        }
        if let Err(after) = self.renewals.take(operator.as_str(), 1, now_ms) {
            let words = format!(
                "the login of {operator} was renewed too often in a short time; it goes on with the certificate that it has"
            );
            return Err(Refusal::new(Reason::TooManyAttempts, words).retry_after(after));
        }
        let at_most = self.oidc.renewal(operator, caller.key, now_ms).await?;
        let subject = &certified.identity.subject;
        let event = self.gate.identity_event("renewed", subject, address);
        let names = ServerNames::default();
        let issues = (&self.subjects, &*self.authority);
        enrolment::renew(
            &self.store,
            issues,
            certified,
            (&names, at_most),
            certificate_request,
            now_ms,
            event,
        )
        .await
    }

    pub(super) async fn operators(
        &self,
        request: Request<v1::ListOperatorsRequest>,
    ) -> Result<Response<v1::ListOperatorsResponse>, Status> {
        self.gate
            .operator(request.extensions(), Action::ListOperators)
            .await?;
        let records = self.store.list_json::<OperatorRecord>(operators::PREFIX).await?;
        let waiting = enrolment::waiting(&self.store, operators::PREFIX)
            .await
            .map_err(Refusal::from)?;
        Ok(Response::new(v1::ListOperatorsResponse {
            operators: views::operators(records, waiting, &self.subjects),
        }))
    }

    pub(super) async fn devices(
        &self,
        request: Request<v1::ListDevicesRequest>,
    ) -> Result<Response<v1::ListDevicesResponse>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::ListDevices)
            .await?;
        let answer = self.answers.begin(&caller.operator, request.extensions())?;
        let mut devices = self.subjects.of_kind("device");
        devices.sort_by(|(one, _), (other, _)| one.cmp(other));
        let devices: Vec<_> = devices
            .iter()
            .map(|(subject, record)| views::subject(subject, record))
            .collect();
        Ok(carried(v1::ListDevicesResponse { devices }, answer))
    }

    pub(super) async fn withdrawn(
        &self,
        request: Request<v1::GetWithdrawnRequest>,
    ) -> Result<Response<v1::WithdrawnList>, Status> {
        let caller = self
            .gate
            .operator(request.extensions(), Action::GetWithdrawn)
            .await?;
        let answer = self.answers.begin(&caller.operator, request.extensions())?;
        let all = self.subjects.lacking(Withdrawn::default().held()).await;
        let list = match all {
            Some(all) => v1::WithdrawnList::from(&*all),
            // By it, whoever proposes a release knows that it may name a list.
            None => v1::WithdrawnList {
                held: self
                    .subjects
                    .signed_held()
                    .await
                    .map_or_else(Vec::new, |held| held.payload)
                    .into(),
                ..v1::WithdrawnList::default()
            },
        };
        Ok(carried(list, answer))
    }
}
