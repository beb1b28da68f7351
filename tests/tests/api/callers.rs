//! Who gets in, and what each may do.

use std::time::Duration;

use penstock_coordinator::api::gate::Action;
use penstock_coordinator::ca::Authority;
use penstock_proto::peer::Epoch;
use penstock_proto::refusal::{Reason, explain};
use penstock_proto::tls::names::ServerNames;
use penstock_proto::v1::{self, audit_event::Kind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::{Code, Status};

use crate::bounds::until;
use crate::world::{Control, PATIENCE, World, confirmation, now_ms, refused};

/// Calls the method of an action with an empty request; what matters is whether the gate lets it through.
async fn call(control: &mut Control, action: Action) -> Result<(), Status> {
    match action {
        Action::WhoAmI => control.who_am_i(v1::WhoAmIRequest {}).await.map(drop),
        Action::ListReleases => control
            .list_releases(v1::ListReleasesRequest::default())
            .await
            .map(drop),
        Action::GetRelease => control
            .get_release(v1::GetReleaseRequest {
                revision: 77,
                ..Default::default()
            })
            .await
            .map(drop),
        Action::ListGateways => control.list_gateways(v1::ListGatewaysRequest {}).await.map(drop),
        Action::WatchHealth => control
            .watch_health(v1::WatchHealthRequest {
                once: true,
                beats: false,
            })
            .await
            .map(drop),
        Action::SearchAudit => control
            .search_audit(v1::SearchAuditRequest::default())
            .await
            .map(drop),
        Action::GetEvidence => control
            .get_evidence(v1::GetEvidenceRequest::default())
            .await
            .map(drop),
        Action::ProveTrails => control
            .prove_trails(v1::ProveTrailsRequest::default())
            .await
            .map(drop),
        Action::ProveEvent => control
            .prove_event(v1::ProveEventRequest::default())
            .await
            .map(drop),
        Action::TailAudit => control
            .tail_audit(v1::TailAuditRequest::default())
            .await
            .map(drop),
        Action::CountAudit => control
            .count_audit(v1::CountAuditRequest::default())
            .await
            .map(drop),
        Action::ListDenials => control
            .list_denials(v1::ListDenialsRequest::default())
            .await
            .map(drop),
        Action::ProposeRelease => control
            .propose_release(v1::ProposeReleaseRequest::default())
            .await
            .map(drop),
        Action::ApproveRelease => control
            .approve_release(v1::ApproveReleaseRequest::default())
            .await
            .map(drop),
        Action::RejectRelease => control
            .reject_release(v1::EndReleaseRequest::default())
            .await
            .map(drop),
        Action::WithdrawRelease => control
            .withdraw_release(v1::EndReleaseRequest::default())
            .await
            .map(drop),
        Action::CreateToken => control
            .create_token(v1::CreateTokenRequest::default())
            .await
            .map(drop),
        Action::SubmitBatch => control
            .submit_batch(v1::SubmitBatchRequest::default())
            .await
            .map(drop),
        Action::IssueDevice => control
            .issue_device(v1::IssueDeviceRequest::default())
            .await
            .map(drop),
        Action::GetTrust => control.get_trust(v1::TrustHeld::default()).await.map(drop),
        Action::ListRequests => control.list_requests(v1::ListRequestsRequest {}).await.map(drop),
        Action::ConfirmRequest => control.decide_request(confirmation("x")).await.map(drop),
        Action::RenewOperator => control
            .renew_operator(v1::RenewRequest::default())
            .await
            .map(drop),
        Action::ListAccounts => control.list_accounts(v1::ListAccountsRequest {}).await.map(drop),
        Action::LinkAccount => control
            .link_account(v1::LinkAccountRequest::default())
            .await
            .map(drop),
        Action::UnlinkAccount => control
            .unlink_account(v1::UnlinkAccountRequest::default())
            .await
            .map(drop),
        Action::RejectRequest => control
            .decide_request(v1::DecideRequestRequest::default())
            .await
            .map(drop),
        Action::ListOperators => control
            .list_operators(v1::ListOperatorsRequest {})
            .await
            .map(drop),
        Action::ListDevices => control.list_devices(v1::ListDevicesRequest {}).await.map(drop),
        Action::GetWithdrawn => control.get_withdrawn(v1::GetWithdrawnRequest {}).await.map(drop),
        Action::SuspendIdentity => change(control, v1::StandingChange::Suspend).await,
        Action::ResumeIdentity => change(control, v1::StandingChange::Resume).await,
        Action::RevokeIdentity => change(control, v1::StandingChange::Revoke).await,
        Action::RetireIdentity => change(control, v1::StandingChange::Retire).await,
        Action::StartRollout => control
            .start_rollout(v1::StartRolloutRequest::default())
            .await
            .map(drop),
        Action::StopRollout => control
            .steer_rollout(v1::SteerRolloutRequest {
                command: Some(v1::steer_rollout_request::Command::Halt(true)),
                ..Default::default()
            })
            .await
            .map(drop),
        Action::ResumeRollout => control
            .steer_rollout(v1::SteerRolloutRequest::default())
            .await
            .map(drop),
        Action::FreezeRollouts => control
            .freeze_rollouts(v1::FreezeRolloutsRequest {
                frozen: true,
                because: None,
            })
            .await
            .map(drop),
        Action::ThawRollouts => control
            .freeze_rollouts(v1::FreezeRolloutsRequest::default())
            .await
            .map(drop),
        Action::WatchRollout => control
            .watch_rollout(v1::WatchRolloutRequest {
                once: true,
                ..Default::default()
            })
            .await
            .map(drop),
        Action::ListRollouts => control
            .list_rollouts(v1::ListRolloutsRequest::default())
            .await
            .map(drop),
        Action::WatchAlarms => control
            .watch_alarms(v1::WatchAlarmsRequest { once: true })
            .await
            .map(drop),
        Action::AcknowledgeAlarm => alarm(control, v1::change_alarm_request::Change::Acknowledge(true)).await,
        Action::ShelveAlarm => alarm(control, v1::change_alarm_request::Change::Unshelve(true)).await,
    }
}

async fn alarm(control: &mut Control, change: v1::change_alarm_request::Change) -> Result<(), Status> {
    let request = v1::ChangeAlarmRequest {
        change: Some(change),
        ..v1::ChangeAlarmRequest::default()
    };
    control.change_alarm(request).await.map(drop)
}

async fn change(control: &mut Control, change: v1::StandingChange) -> Result<(), Status> {
    let request = v1::ChangeStandingRequest {
        change: change.into(),
        ..v1::ChangeStandingRequest::default()
    };
    control.change_standing(request).await.map(drop)
}

#[tokio::test]
async fn each_role_may_do_exactly_what_the_table_says_and_refusals_are_in_the_trail() {
    let world = World::start().await;
    for (name, wire, role) in [
        (
            "vic",
            v1::Role::Viewer,
            penstock_coordinator::operators::Role::Viewer,
        ),
        (
            "anna",
            v1::Role::Engineer,
            penstock_coordinator::operators::Role::Engineer,
        ),
        (
            "bob",
            v1::Role::Approver,
            penstock_coordinator::operators::Role::Approver,
        ),
        (
            "root",
            v1::Role::Admin,
            penstock_coordinator::operators::Role::Admin,
        ),
    ] {
        let mut control = world.operator(name, wire).await;
        let mut denied = 0;
        for action in Action::ALL {
            let outcome = call(&mut control, action).await;
            let stopped = outcome
                .as_ref()
                .err()
                .is_some_and(|status| explain(status).is(Reason::WrongRole));
            assert_eq!(stopped, !action.is_for(role), "{name} {action:?}: {outcome:?}");
            denied += usize::from(stopped);
        }
        let written = world
            .trail("coordinator/c1")
            .await
            .into_iter()
            .filter(|record| {
                matches!(&record.event.as_ref().unwrap().kind,
                    Some(Kind::Operator(event)) if event.operator == name && !event.allowed && event.message.contains("needs the role"))
            })
            .count();
        assert_eq!(written, denied, "{name}");
    }
}

#[tokio::test]
async fn no_method_is_open_to_callers_without_certificate_to_gateways_or_to_unknown_operators() {
    let world = World::start().await;
    for (credentials, reason) in [
        (None, Reason::NoCertificate),
        (Some(world.certificate("gateway/gw-a")), Reason::WrongKindOfPeer),
        (Some(world.certificate("device/plc")), Reason::WrongKindOfPeer),
        (Some(world.certificate("coordinator/c2")), Reason::WrongKindOfPeer),
        (
            Some(world.certificate("operator/stranger")),
            Reason::UnknownOperator,
        ),
    ] {
        for action in Action::ALL {
            let mut control = world.control(credentials.clone()).await.unwrap();
            refused(call(&mut control, action).await, reason);
        }
    }
    // And operators are no gateways.
    use penstock_proto::v1::gateway_link_client::GatewayLinkClient;
    let channel = world
        .channel(world.roots(), Some(world.certificate("operator/admin")))
        .await
        .unwrap();
    let outcome = GatewayLinkClient::new(channel)
        .session(tokio_stream::empty())
        .await;
    refused(outcome, Reason::WrongKindOfPeer);
}

#[tokio::test]
async fn certificates_of_another_authority_or_past_their_time_do_not_pass_the_handshake() {
    let world = World::start().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Authority::create(
        elsewhere.path(),
        world.config.plant.clone(),
        world.config.lifetimes,
        now_ms(),
    )
    .unwrap();
    let forged = other
        .issue_own(
            (&"operator/admin".parse().unwrap(), Epoch::default()),
            &ServerNames::default(),
            penstock_proto::keys::FileKey::generate(penstock_proto::keys::KeyKind::EcdsaP256)
                .unwrap()
                .into(),
            now_ms(),
        )
        .unwrap();
    let told = world.control(Some(forged)).await.unwrap_err();
    assert!(told.contains("does not accept our certificate"), "{told}");

    let year_ms = 365 * 86_400_000;
    let expired = world.certificate_at("operator/admin", now_ms() - year_ms);
    let told = world.control(Some(expired)).await.unwrap_err();
    assert!(
        told.contains("our certificate as not valid at this time: it has expired (valid until 20"),
        "{told}"
    );
}

#[tokio::test]
async fn messages_that_are_too_large_or_garbage_are_refused_and_the_connection_serves_on() {
    let world = World::start().await;
    let mut control = world.operator("anna", v1::Role::Engineer).await;
    let huge = v1::ProposeReleaseRequest {
        statement: vec![7; 17 << 20].into(),
        documents: Vec::new(),
    };
    let status = control.propose_release(huge).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    let garbage = v1::ProposeReleaseRequest {
        statement: vec![0xff; 1000].into(),
        documents: Vec::new(),
    };
    refused(control.propose_release(garbage).await, Reason::BadRequest);
    control.who_am_i(v1::WhoAmIRequest {}).await.unwrap();

    // Bytes that are no gRPC message at all, on the path of a method, over a good connection.
    let channel = world
        .channel(world.roots(), Some(world.certificate("operator/admin")))
        .await
        .unwrap();
    let mut raw = tonic::client::Grpc::new(channel);
    raw.ready().await.unwrap();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/penstock.v1.Control/WhoAmI");
    // A WhoAmI that is really a health report: unknown fields of a well-formed message are ignored by protobuf.
    let codec = tonic_prost::ProstCodec::<v1::RevisionDigest, v1::WhoAmIResponse>::default();
    let odd = v1::RevisionDigest {
        revision: u64::MAX,
        plan_digest: vec![1; 100].into(),
        statement_digest: Vec::new().into(),
    };
    raw.unary(tonic::Request::new(odd), path, codec).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_speaks_no_tls_gets_nothing_and_harms_nobody() {
    let world = World::start().await;
    for opening in [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        vec![0x16, 3, 1, 0xff, 0xff],
        vec![0; 100_000],
    ] {
        let mut stream = TcpStream::connect(world.address.to_string()).await.unwrap();
        // The server may close while we still write.
        let _ = stream.write_all(&opening).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .expect("the server ends it");
        assert!(
            answer.is_empty() || answer[0] == 21,
            "only a TLS alert: {answer:?}"
        );
    }
    world.admin().who_am_i(v1::WhoAmIRequest {}).await.unwrap();
}

#[tokio::test]
async fn reflection_and_the_standard_health_service_answer() {
    let world = World::start().await;
    let channel = world
        .channel(world.roots(), Some(world.certificate("operator/admin")))
        .await
        .unwrap();
    use tonic_health::pb::health_client::HealthClient;
    for service in [
        "",
        "penstock.v1.Control",
        "penstock.v1.GatewayLink",
        "penstock.v1.Enrolment",
    ] {
        let answer = HealthClient::new(channel.clone())
            .check(tonic_health::pb::HealthCheckRequest {
                service: service.to_owned(),
            })
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.status, 1, "{service}");
    }
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let request = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let stranger = world.channel(world.roots(), None).await.unwrap();
    let refusal = ServerReflectionClient::new(stranger)
        .server_reflection_info(tokio_stream::once(request.clone()))
        .await;
    refused(refusal, Reason::NoCertificate);
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let Some(MessageResponse::ListServicesResponse(listed)) =
        answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("a list");
    };
    let names: Vec<_> = listed.service.into_iter().map(|s| s.name).collect();
    for service in ["Control", "GatewayLink", "Enrolment"] {
        assert!(names.contains(&format!("penstock.v1.{service}")), "{names:?}");
    }
}

#[tokio::test]
async fn metrics_and_liveness_are_served_on_loopback_to_who_asks_for_this_machine() {
    let world = World::start().await;
    let address = world.running.as_ref().unwrap().metrics.unwrap();
    assert!(address.ip().is_loopback());
    let ask = async |path: &str, host: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    for (path, expected) in [("/metrics", "penstock_"), ("/healthz", "ok")] {
        let answer = ask(path, &address.to_string()).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains(expected),
            "{answer}"
        );
        // A page whose own name was made to resolve to this address.
        let answer = ask(path, "page.example:9643").await;
        assert!(
            answer.starts_with("HTTP/1.1 421") && !answer.contains(expected),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn an_operator_who_hangs_up_amid_a_call_leaves_nothing_done_that_the_trail_does_not_say() {
    const CALLS: u64 = 60;
    let world = World::start().await;
    for n in 0..CALLS {
        let request = v1::CreateTokenRequest {
            role: 0,
            valid_seconds: 600,
            subject: Some(v1::create_token_request::Subject::Gateway(format!("gw-{n}"))),
            ..v1::CreateTokenRequest::default()
        };
        let mut admin = world.admin();
        let patience = Duration::from_micros(200 * n);
        // Hung up on sooner or later.
        let _ = tokio::time::timeout(patience, admin.create_token(request)).await;
    }
    let store = world.running.as_ref().unwrap().store().clone();
    until(async || {
        let made = store.list("token/gateway/gw-").await.unwrap().len();
        let said = world.trail("coordinator/c1").await;
        let said = said.iter().filter(|record| {
            matches!(&record.event.as_ref().unwrap().kind,
                Some(Kind::Operator(event)) if event.action == "create-token" && event.target.starts_with("gateway/gw-"))
        });
        (said.count() == made).then_some(())
    })
    .await;
}

#[tokio::test]
async fn whoever_signs_in_or_fails_to_stands_in_the_trail_and_their_further_calls_do_not() {
    let world = World::start().await;
    let mut anna = world.operator("anna", v1::Role::Engineer).await;
    for _ in 0..30 {
        anna.who_am_i(v1::WhoAmIRequest {}).await.unwrap();
        let again = world.certificate("operator/anna");
        anna = world.control(Some(again)).await.unwrap();
    }
    let mut stranger = world.control(None).await.unwrap();
    refused(
        stranger.who_am_i(v1::WhoAmIRequest {}).await,
        Reason::NoCertificate,
    );
    let trail = world.trail("coordinator/c1").await;
    let said = |step: &str, subject: &str, words: &str| {
        let of = trail.iter().filter(|record| {
            matches!(&record.event.as_ref().unwrap().kind, Some(Kind::Identity(event)) if event.step == step
                && event.subject == subject && event.address == "127.0.0.1" && event.message.contains(words))
        });
        of.count()
    };
    assert_eq!(
        said("signed-in", "operator/anna", "as engineer, life 1, key sha256:"),
        1
    );
    assert_eq!(said("signed-in", "operator/admin", "as admin, "), 1);
    assert_eq!(
        said("refused", "", "who-am-i: this needs a client certificate"),
        1
    );
}
