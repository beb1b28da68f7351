//! What a check asks of the kernel: the change from what it is known to hold, and everything where that is not known.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use penstock_agent::enforce::nft::run::Nft;
use penstock_agent::enforce::{ApplyMethod, DriftState, EnforceError, EnforceSettings, NftError};
use penstock_lab as lab;
use penstock_policy::ids::Revision;
use penstock_policy::plan::Plan;
use penstock_policy::terms::{GatewayMode, OnDrift, PortRange, Transport};

use super::plans::{SIDES, rule, tcp, two_flows, udp};
use super::world::{Agent, World, settings};

/// An `nft` that notes what it is asked.
struct Noting<'a> {
    folder: &'a Path,
}

impl Noting<'_> {
    fn install(&self) -> EnforceSettings {
        let (program, asked) = (self.folder.join("nft"), self.folder.join("asked"));
        let text = format!(
            "#!/bin/sh\ncat >{asked}.script\n{{ echo \"$*\"; cat {asked}.script; }} >>{asked}\nexec nft \"$@\" <{asked}.script\n",
            asked = asked.display()
        );
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        EnforceSettings {
            nft: program,
            ..settings()
        }
    }

    /// What was asked since the last look; empty if nothing was.
    fn asked(&self) -> String {
        let asked = self.folder.join("asked");
        let text = std::fs::read_to_string(&asked).unwrap_or_default();
        let _ = std::fs::remove_file(&asked);
        text
    }
}

#[test]
fn a_check_asks_for_the_change_and_for_everything_where_the_kernel_is_not_as_loaded() {
    lab::sandbox::test(
        "check::a_check_asks_for_the_change_and_for_everything_where_the_kernel_is_not_as_loaded",
        |lab| {
            let world = World::new(lab, GatewayMode::Routed, &SIDES);
            let noting = Noting {
                folder: lab.directory(),
            };
            world.at_gateway(async || {
                let agent = Agent::start_with(noting.install());
                let check = async |plan: &Plan| {
                    let plan = Arc::new(plan.clone());
                    agent.enforcer.check(Arc::clone(&plan)).await.map(|()| plan)
                };
                let apply = async |plan| agent.enforcer.apply(plan, Revision(1)).await.unwrap().change;
                let mut plan = two_flows(GatewayMode::Routed);
                plan.on_drift = OnDrift::Report;
                let whole = "delete table inet penstock";

                let first = check(&plan).await.unwrap();
                let asked = noting.asked();
                assert!(asked.starts_with("--check") && asked.contains(whole), "{asked}");
                assert_eq!(apply(first).await, ApplyMethod::Whole);
                noting.asked();

                // Elements alone: the kernel is known to hold the rest, and takes them or not.
                let mut fewer = plan.clone();
                fewer.rules.remove(0);
                let second = check(&fewer).await.unwrap();
                assert_eq!(noting.asked(), "");
                assert_eq!(apply(second).await, ApplyMethod::Differences);
                noting.asked();

                // Rules: what writes them anew.
                let mut wider = fewer.clone();
                wider.interfaces[0].networks.push("10.9.0.0/24".parse().unwrap());
                let third = check(&wider).await.unwrap();
                let asked = noting.asked();
                assert!(
                    asked.starts_with("--check") && asked.contains("flush chain") && !asked.contains(whole),
                    "{asked}"
                );
                assert_eq!(apply(third).await, ApplyMethod::Restructured);
                noting.asked();

                // Many elements: those that change.
                let mut many = wider.clone();
                let ports = (1000..1600).map(PortRange::single).collect();
                many.rules
                    .push(rule(30, &["10.1.0.5"], &["10.2.0.9"], Transport::Tcp(ports)));
                let more = check(&many).await.unwrap();
                let asked = noting.asked();
                assert!(
                    asked.starts_with("--check") && !asked.contains("flush chain") && !asked.contains(whole),
                    "{asked}"
                );
                assert_eq!(apply(more).await, ApplyMethod::Differences);
                assert_eq!(agent.enforcer.verify().await.unwrap(), DriftState::None);
                noting.asked();

                // Somebody else's change: what is wanted whole.
                let foreign = "delete table inet penstock\n";
                Nft::new("nft".into()).load(foreign).await.unwrap();
                let fourth = check(&plan).await.unwrap();
                assert!(noting.asked().contains(whole));
                assert_eq!(apply(fourth).await, ApplyMethod::Whole);
            });
        },
    )
    .unwrap();
}

#[test]
fn what_the_kernel_refuses_is_refused_by_the_check() {
    lab::sandbox::test("check::what_the_kernel_refuses_is_refused_by_the_check", |lab| {
        let world = World::new(lab, GatewayMode::Routed, &SIDES);
        let noting = Noting {
            folder: lab.directory(),
        };
        world.at_gateway(async || {
            let agent = Agent::start_with(noting.install());
            let plan = two_flows(GatewayMode::Routed);
            agent.apply(&plan, 1).await;
            std::fs::write(
                noting.folder.join("nft"),
                "#!/bin/sh\ncat >/dev/null; echo 'Error: out of memory' >&2; exit 1\n",
            )
            .unwrap();
            let mut wider = plan.clone();
            wider.interfaces[0].networks.push("10.9.0.0/24".parse().unwrap());
            let error = agent.enforcer.check(Arc::new(wider)).await.unwrap_err();
            assert!(
                matches!(error, EnforceError::Kernel(NftError::Refused { .. })),
                "{error:?}"
            );
        });
    })
    .unwrap();
}

#[test]
fn a_few_elements_of_every_map_change_without_the_program_and_as_the_kernel_tells_them() {
    lab::sandbox::test(
        "check::a_few_elements_of_every_map_change_without_the_program_and_as_the_kernel_tells_them",
        |lab| {
            let world = World::new(lab, GatewayMode::Routed, &SIDES);
            let noting = Noting {
                folder: lab.directory(),
            };
            world.at_gateway(async || {
                let agent = Agent::start_with(noting.install());
                let (client, controller) = (["10.1.0.5", "fd00:1::5"], ["10.2.0.9", "fd00:2::9"]);
                let network = ["10.1.0.0/24", "fd00:1::/64"];
                let before = two_flows(GatewayMode::Routed);
                let mut after = before.clone();
                // Every map gains an element; `exact` and `ranges` lose one, and others take the freed places.
                after.rules = vec![
                    rule(21, &client, &controller, tcp(502)),
                    rule(22, &network, &controller, udp(4000, 4050)),
                    rule(23, &network, &controller, udp(4051, 4200)),
                    rule(24, &client, &controller, Transport::IcmpEcho),
                    rule(25, &network, &controller, Transport::IcmpEcho),
                ];
                agent.apply(&before, 1).await;
                for (plan, revision) in [(&after, 2), (&before, 3), (&after, 4)] {
                    noting.asked();
                    assert_eq!(agent.apply(plan, revision).await.change, ApplyMethod::Differences);
                    assert_eq!(noting.asked(), "");
                    assert_eq!(agent.enforcer.verify().await.unwrap(), DriftState::None);
                }
            });
        },
    )
    .unwrap();
}
