//! What `deploy/` promises: units that cannot open or stop the plant, examples that hold, configurations that are the
//! programs' defaults.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::fs;
use std::path::{Path, PathBuf};

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

/// The settings of a unit, as `key=value` without comments.
fn unit(name: &str) -> Vec<String> {
    let text = fs::read_to_string(deploy("systemd").join(name)).unwrap();
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

fn has(unit: &[String], setting: &str) -> bool {
    unit.iter().any(|line| line == setting)
}

const UNITS: [&str; 3] = [
    "penstock-agent.service",
    "penstock-base.service",
    "penstock-coordinator.service",
];

#[test]
fn no_unit_does_anything_to_the_kernel_when_it_is_stopped() {
    for name in UNITS {
        let unit = unit(name);
        for key in ["ExecStop=", "ExecStopPost="] {
            assert!(!unit.iter().any(|line| line.starts_with(key)), "{name} has {key}");
        }
    }
}

#[test]
fn the_agent_is_started_again_for_as_long_as_the_machine_runs() {
    let unit = unit("penstock-agent.service");
    for setting in ["Restart=always", "StartLimitIntervalSec=0", "Type=notify"] {
        assert!(has(&unit, setting), "{setting}");
    }
    assert!(unit.iter().any(|line| line.starts_with("WatchdogSec=")));
}

#[test]
fn the_unit_has_room_for_everything_that_the_agent_may_hold() {
    let unit = unit("penstock-agent.service");
    let most = unit
        .iter()
        .find_map(|line| line.strip_prefix("MemoryMax="))
        .unwrap();
    let most = most.strip_suffix('M').unwrap().parse::<u64>().unwrap() * 1024 * 1024;
    let config = penstock_agent::config::Config::default();
    let sum = penstock_agent::memory::sum(&config);
    let parts = penstock_agent::memory::bounds(&config);
    assert!(sum <= most, "{sum} bytes of {most}: {parts:#?}");
    // The rest is for what no list has: stacks, the allocator's gaps.
    assert!(
        most - sum >= 32 * 1024 * 1024,
        "{sum} bytes of {most}: {parts:#?}"
    );
}

#[test]
fn the_gateway_is_closed_before_the_network_comes_up() {
    let unit = unit("penstock-base.service");
    let before = unit.iter().find(|line| line.starts_with("Before=")).unwrap();
    assert!(before.contains("network-pre.target"));
    for setting in [
        "Type=oneshot",
        "RemainAfterExit=yes",
        "DefaultDependencies=no",
        "WantedBy=sysinit.target",
    ] {
        assert!(has(&unit, setting), "{setting}");
    }
}

#[test]
fn no_unit_has_a_right_that_it_does_not_need() {
    for name in UNITS {
        let unit = unit(name);
        for setting in [
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
            "ProtectHome=yes",
            "PrivateTmp=yes",
            "ProtectKernelModules=yes",
            "ProtectKernelTunables=yes",
            "MemoryDenyWriteExecute=yes",
            "RestrictNamespaces=yes",
            "SystemCallArchitectures=native",
            "SystemCallFilter=@system-service",
            "SystemCallFilter=~@privileged @resources",
            "UMask=0077",
        ] {
            assert!(has(&unit, setting), "{name} lacks {setting}");
        }
        assert!(
            !unit.iter().any(|line| line.contains("CAP_SYS_")),
            "{name} has more than network rights"
        );
    }
    assert!(has(
        &unit("penstock-agent.service"),
        "CapabilityBoundingSet=CAP_NET_ADMIN"
    ));
    assert!(has(
        &unit("penstock-coordinator.service"),
        "CapabilityBoundingSet="
    ));
}

/// What the C library makes of `adjtimex` is its own affair: glibc asks by `clock_adjtime`.
#[test]
fn the_unit_lets_the_agent_ask_whether_the_clock_is_synchronised_by_whichever_call() {
    let unit = unit("penstock-agent.service");
    let filters: Vec<&String> = unit
        .iter()
        .filter(|line| line.starts_with("SystemCallFilter="))
        .collect();
    // Each line adds to, or takes from, those before it.
    assert_eq!(
        filters,
        [
            "SystemCallFilter=@system-service",
            "SystemCallFilter=~@privileged @resources",
            "SystemCallFilter=adjtimex clock_adjtime clock_adjtime64",
        ]
    );
    assert!(!has(&unit, "ProtectClock=yes"));
}

#[test]
fn learning_adds_one_right_by_a_file_of_its_own_and_nothing_else() {
    let settings = unit("penstock-agent-tap.conf");
    let expected = [
        "[Service]",
        "AmbientCapabilities=CAP_NET_RAW",
        "CapabilityBoundingSet=CAP_NET_RAW",
        "RestrictAddressFamilies=AF_PACKET",
    ];
    assert_eq!(settings, expected);
    let agent = unit("penstock-agent.service");
    assert!(
        !agent
            .iter()
            .any(|line| line.contains("AF_PACKET") || line.contains("CAP_NET_RAW"))
    );
}

#[test]
fn panels_at_a_low_port_add_one_right_by_a_file_of_its_own_and_nothing_else() {
    let settings = unit("penstock-agent-panel.conf");
    let expected = [
        "[Service]",
        "AmbientCapabilities=CAP_NET_BIND_SERVICE",
        "CapabilityBoundingSet=CAP_NET_BIND_SERVICE",
    ];
    assert_eq!(settings, expected);
    let agent = unit("penstock-agent.service");
    assert!(!agent.iter().any(|line| line.contains("CAP_NET_BIND_SERVICE")));
}

#[test]
fn tunnels_open_one_device_and_no_capability() {
    let settings = unit("penstock-agent-tunnel.conf");
    assert_eq!(
        settings,
        ["[Service]", "PrivateDevices=no", "DeviceAllow=/dev/net/tun rw"]
    );
    assert!(has(&unit("penstock-agent.service"), "DevicePolicy=closed"));
}

#[test]
fn a_key_in_a_tpm_opens_one_device_to_its_group_and_no_capability() {
    let settings = unit("penstock-agent-tpm.conf");
    let expected = [
        "[Service]",
        "PrivateDevices=no",
        "DeviceAllow=/dev/tpmrm0 rw",
        "SupplementaryGroups=tss",
    ];
    assert_eq!(settings, expected);
    let default = penstock_agent::config::Config::default().tpm.to_string();
    assert_eq!(settings[2], format!("DeviceAllow={default} rw"));
}

#[test]
fn the_agents_example_configuration_is_its_default() {
    assert_eq!(
        fs::read_to_string(deploy("agent.toml")).unwrap(),
        penstock_agent::config::DEFAULT_TEXT
    );
}

#[test]
fn the_coordinators_example_configuration_is_its_default() {
    assert_eq!(
        fs::read_to_string(deploy("coordinator.toml")).unwrap(),
        penstock_coordinator::config::DEFAULT
    );
}

#[test]
fn every_command_in_a_unit_is_one_that_its_program_has() {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (name, main) in [
        ("penstock-agent.service", "agent/src/main.rs"),
        ("penstock-base.service", "agent/src/main.rs"),
        ("penstock-coordinator.service", "coordinator/src/main.rs"),
    ] {
        let unit = unit(name);
        let start = unit
            .iter()
            .find_map(|line| line.strip_prefix("ExecStart="))
            .unwrap();
        let word = start.split(' ').nth(1).unwrap();
        let variant = format!("    {}{} {{", word[..1].to_uppercase(), &word[1..]);
        let text = fs::read_to_string(programs.join(main)).unwrap();
        assert!(text.contains(&variant), "{name}: {start}");
    }
}
