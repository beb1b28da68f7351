//! A full disk on the gateway: the process goes on, the policy stays, and what the trail lacks is said.

use std::path::Path;
use std::process::Command;

use penstock_lab::{Daemon, wait_until};

use super::world::{PATIENCE, SOMETIMES, World, test};

fn fill(folder: &Path) {
    // Until nothing more goes in; the agent's own files stay where they are.
    let mut file = std::fs::File::create(folder.join("ballast")).unwrap();
    while std::io::Write::write_all(&mut file, &[0; 65536]).is_ok() {}
    let mut byte = 0;
    while byte < 65536 && std::io::Write::write_all(&mut file, &[0]).is_ok() {
        byte += 1;
    }
}

#[test]
fn a_full_disk_hurts_neither_enforcement_nor_the_last_policy_and_the_loss_is_told() {
    test(
        "disk::a_full_disk_hurts_neither_enforcement_nor_the_last_policy_and_the_loss_is_told",
        |lab| {
            let disk = lab.directory().join("disk");
            std::fs::create_dir(&disk).unwrap();
            let mount = Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=24m", "small"])
                .arg(&disk)
                .status();
            assert!(mount.unwrap().success());
            let (world, _coordinator) = World::new(lab, &disk.join("state"));
            let mut agent = world.start_agent();
            world.wait_for_effective(world.release(true));
            assert!(world.passes(SOMETIMES, true));

            fill(&disk);
            world.assert_enforced("on a full disk");
            // What cannot be kept is not put in force: it would be gone after a restart.
            let refused = world.release(false);
            wait_until("the fault in the gateway's report", PATIENCE, || {
                let seen = world.seen();
                !seen["faults"].as_array().is_none_or(Vec::is_empty) || !seen["refused"].is_null()
            })
            .unwrap();
            assert!(agent.ended().is_none(), "the agent goes on");
            world.assert_enforced("with a release that could not be stored");

            agent.kill();
            // The log goes on where it was.
            let times = |agent: &Daemon| agent.log().matches("policy in force").count();
            let before = times(&agent);
            agent = world.start_agent();
            wait_until("the last policy, read from a full disk", PATIENCE, || {
                times(&agent) > before
            })
            .unwrap();
            world.assert_enforced("after a restart on a full disk");
            assert!(agent.ended().is_none(), "the agent goes on");

            std::fs::remove_file(disk.join("ballast")).unwrap();
            world.wait_for_effective(refused);
            assert!(
                !world.passes(SOMETIMES, false),
                "with room again the release takes effect"
            );
            wait_until("the loss in the trail", PATIENCE, || {
                world.trail().iter().any(|record| record["kind"] == "loss")
            })
            .unwrap_or_else(|error| {
                panic!("{error}: {:#?}\n{}\n{}", world.trail(), world.seen(), agent.log())
            });
        },
    );
}
