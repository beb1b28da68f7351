//! A disk that is set back, noticed by the TPM's counter: what the gateway and its coordinator say of it, and who accepts it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use penstock_agent::identity::IdentityFolder;
use penstock_agent::link::enrol::{KeyChoice, enrol_into};
use penstock_proto::v1;

use super::machine::{Machine, run};
use super::{connected, copy, types};
use crate::dark::gateway::within;
use crate::dark::token;
use crate::person::program;
use crate::world::World;

/// The gateway's configuration as a file, for what is typed there.
fn configured(machine: &Machine, folder: &Path, state: &Path) {
    let text = format!(
        "[agent]\nstate_folder = {state:?}\n[identity]\nkey = \"tpm\"\ntpm = {:?}\n[audit]\nfree_bytes_min = 0\n",
        machine.address().to_string()
    );
    std::fs::write(folder.join("agent.toml"), text).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_from_before_the_key_was_in_the_tpm_is_named_and_nothing_is_accepted_where_no_tpm_has_a_say()
{
    let (world, machine) = (World::start().await, Machine::new());
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let in_file = IdentityFolder::new(&state);
    enrol_into(&in_file, &state, &token(&world).await, KeyChoice::Held)
        .await
        .unwrap();
    let accepts = |config: &str, reason: &str| {
        let path = home.path().join("agent.toml");
        std::fs::write(&path, format!("[agent]\nstate_folder = {state:?}\n{config}")).unwrap();
        let agent = program().with_file_name("penstock-agent");
        let asked = Command::new(agent)
            .args(["accept-disk", "--reason", reason, "--config"])
            .arg(&path)
            .output()
            .unwrap();
        (
            asked.status.success(),
            String::from_utf8_lossy(&asked.stderr).into_owned(),
        )
    };
    let tpm = format!(
        "[identity]\nkey = \"tpm\"\ntpm = {:?}\n",
        machine.address().to_string()
    );
    for (config, reason, says) in [
        ("", "restored", "this gateway's key is in a file"),
        (tpm.as_str(), "a\nb", "a reason is one line"),
        (tpm.as_str(), &"x".repeat(501), "a reason is one line"),
    ] {
        let (is_done, said) = accepts(config, reason);
        assert!(!is_done && said.contains(says), "{said}");
    }
    assert!(!state.join("rollback.json").exists());
    // Somebody's counter of this machine goes on, and the disk is of the time before it.
    machine.folder(&state).tpm().begin_counter().unwrap();
    let agent = machine.agent(&state).await;
    let words = shown(&world, "disk-set-back", true).await;
    assert!(words.contains("the disk has no record of it"), "{words}");
    let (is_done, said) = accepts(&tpm, "the key moves next");
    assert!(is_done, "{said}");
    shown(&world, "disk-set-back", false).await;
    agent.stop().await;
}

/// The number in the record, which was written long ago from now on: steps are apart.
fn aged(state: &Path) -> u64 {
    let record = state.join("rollback.json");
    run(Command::new("touch").args(["-d", "2 hours ago"]).arg(&record));
    noted(state)
}

fn noted(state: &Path) -> u64 {
    let text = std::fs::read_to_string(state.join("rollback.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&text).unwrap();
    record["counter"].as_u64().unwrap()
}

/// The counter, as somebody else's program reads it.
fn counter(machine: &Machine) -> u64 {
    machine.tool(
        "tpm2_nvread",
        &["-C", "0x01817073", "-s", "8", "-o", "counter", "0x01817073"],
    );
    let bytes = std::fs::read(machine.folder.path().join("counter")).unwrap();
    u64::from_be_bytes(bytes.try_into().unwrap())
}

/// Waits until the coordinator shows this gateway with such a fault, or without one.
async fn shown(world: &World, code: &str, has: bool) -> String {
    let found = async {
        loop {
            let gateways = world
                .admin()
                .list_gateways(v1::ListGatewaysRequest::default())
                .await;
            let gateways = gateways.unwrap().into_inner().gateways;
            let own = gateways
                .into_iter()
                .find(|gateway| gateway.name == "gw-1")
                .unwrap();
            let fault = own.faults.into_iter().find(|fault| fault.code == code);
            if own.connected && fault.is_some() == has {
                return fault.map(|fault| fault.message).unwrap_or_default();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    within(found).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_was_set_back_is_named_at_the_coordinator_until_a_person_accepts_it_and_so_is_a_counter_that_is_gone()
 {
    let (world, machine) = (World::start().await, Machine::new());
    let home = tempfile::tempdir().unwrap();
    let [state, image] = ["state", "image"].map(|name| home.path().join(name));
    std::fs::create_dir(&state).unwrap();
    machine.enrolled(&world, &state).await;
    configured(&machine, home.path(), &state);
    let began = aged(&state);
    assert_eq!(counter(&machine), began);
    copy(&state, &image);
    // The agent's start is a step.
    let agent = machine.agent(&state).await;
    connected(&agent).await;
    within(async {
        while counter(&machine) == began {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    agent.stop().await;
    assert_eq!((counter(&machine), noted(&state)), (began + 1, began + 1));
    // Somebody puts the image back. It goes on, with a session, and says so.
    std::fs::remove_dir_all(&state).unwrap();
    copy(&image, &state);
    let agent = machine.agent(&state).await;
    let words = shown(&world, "disk-set-back", true).await;
    assert!(
        words.contains("the disk is of the time when it showed") && words.contains("accept-disk"),
        "{words}"
    );
    assert_eq!(
        (counter(&machine), noted(&state)),
        (began + 1, began),
        "nothing is counted over it"
    );
    let said = types(
        "# penstock-agent accept-disk --config /etc/penstock/agent.toml --reason 'restored by ada (INC-9)'",
        home.path(),
    );
    assert!(said.contains("counts as the newest now"), "{said}");
    shown(&world, "disk-set-back", false).await;
    agent.stop().await;
    // The step after the acceptance is a whole one.
    assert_eq!(counter(&machine), aged(&state));
    machine.tool("tpm2_nvundefine", &["-Q", "-C", "o", "0x01817073"]);
    let agent = machine.agent(&state).await;
    let words = shown(&world, "disk-unguarded", true).await;
    assert!(words.contains("has no counter for it any more"), "{words}");
    let trail = async || {
        let trail = world.trail("gw-1").await;
        let events = trail.into_iter().filter_map(|record| match record.event?.kind? {
            v1::audit_event::Kind::Agent(event) => Some((event.step, event.message)),
            _ => None,
        });
        events
            .filter(|(step, _)| step.starts_with("disk-"))
            .collect::<Vec<_>>()
    };
    let all = within(async {
        loop {
            let all = trail().await;
            if all.len() >= 4 {
                return all;
            }
        }
    })
    .await;
    let steps: Vec<_> = all.iter().map(|(step, _)| step.as_str()).collect();
    assert_eq!(
        steps,
        [
            "disk-accepted",
            "disk-set-back",
            "disk-accepted",
            "disk-unguarded"
        ]
    );
    assert_eq!(
        (all[0].1.as_str(), all[2].1.as_str()),
        ("enrolled", "restored by ada (INC-9)")
    );
    agent.stop().await;
}
