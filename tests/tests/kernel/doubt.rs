//! A change of the kernel's tables that stops halfway: the enforcer says that it does not know what judges, and replaces it whole next.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use penstock_agent::enforce::{ApplyMethod, EnforceSettings};
use penstock_lab as lab;
use penstock_policy::ids::Revision;
use penstock_policy::terms::GatewayMode;
use penstock_policy::verdict::Carried;

use super::flows::probe;
use super::plans::{SIDES, plan, rule, tcp, two_flows};
use super::wire::Part;
use super::world::{Agent, World, settings};

/// A program `nft` that loads so many scripts, and refuses what comes then.
struct Refusing<'a>(&'a Path);

impl Refusing<'_> {
    fn install(&self) -> EnforceSettings {
        let (program, left) = (self.0.join("nft"), self.0.join("left"));
        let text = format!(
            "#!/bin/sh
             if [ \"$1\" = -f ]; then
               left=$(cat {left})
               if [ \"$left\" = 0 ]; then
                 echo 'Error: the test refuses it' >&2
                 exit 1
               fi
               echo $((left - 1)) > {left}
             fi
             exec nft \"$@\"
            ",
            left = left.display()
        );
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        EnforceSettings {
            nft: program,
            // Stands for another version of the agent, which replaces the tables.
            log_group: 87,
            ..settings()
        }
    }

    fn allow(&self, loads: u32) {
        std::fs::write(self.0.join("left"), loads.to_string()).unwrap();
    }
}

#[test]
fn a_change_that_stops_halfway_is_in_doubt_and_the_next_one_replaces_whatever_is_there() {
    lab::sandbox::test(
        "doubt::a_change_that_stops_halfway_is_in_doubt_and_the_next_one_replaces_whatever_is_there",
        |lab| {
            let mode = GatewayMode::Routed;
            let world = World::new(lab, mode, &SIDES);
            let refusing = Refusing(lab.directory());
            world.at_gateway(async || {
                let before = two_flows(mode);
                let after = plan(mode, vec![rule(7, &["10.1.0.5"], &["10.2.0.9"], tcp(8080))]);
                let number = std::cell::Cell::new(0);
                let passes = |port, expected| {
                    number.set(number.get() + 1);
                    let probe = probe("10.1.0.5", "10.2.0.9", Carried::Tcp(port), number.get());
                    world.passes("lan1", "lan2", &probe, Part::Opening, expected)
                };
                for loads in 0.. {
                    Agent::start().apply(&before, 1).await;
                    refusing.allow(loads);
                    let agent = Agent::start_with(refusing.install());
                    let applied = agent.enforcer.apply(Arc::new(after.clone()), Revision(2)).await;
                    if applied.is_ok() {
                        assert!(loads > 3 && !agent.enforcer.is_in_doubt().await);
                        assert!(passes(8080, true) && !passes(502, false));
                        return;
                    }
                    // Where nothing was loaded, all is surely as before.
                    assert_eq!(agent.enforcer.is_in_doubt().await, loads > 0, "{loads}");
                    assert!(loads > 0 || (passes(502, true) && !passes(8080, false)));
                    refusing.allow(1000);
                    let back = agent.enforcer.apply(Arc::new(before.clone()), Revision(1)).await;
                    assert_eq!(back.unwrap().change, ApplyMethod::Whole, "{loads}");
                    assert!(!agent.enforcer.is_in_doubt().await);
                    assert!(passes(502, true) && !passes(8080, false), "{loads}");
                }
            });
        },
    )
    .unwrap();
}
