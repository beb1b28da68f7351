//! The lab itself: what other suites take for granted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use penstock_lab::{self as lab, Lab};

#[test]
fn two_namespaces_reach_each_other_through_a_router_in_both_families() {
    lab::sandbox::test(
        "two_namespaces_reach_each_other_through_a_router_in_both_families",
        |lab: &Lab| {
            let office = lab.namespace("office").unwrap();
            let router = lab.namespace("router").unwrap();
            let control = lab.namespace("control").unwrap();
            lab.link((&office, "eth0"), (&router, "lan0")).unwrap();
            lab.link((&control, "eth0"), (&router, "lan1")).unwrap();
            for (host, port, net) in [(&office, "lan0", 1), (&control, "lan1", 2)] {
                host.address("eth0", &format!("10.0.{net}.10/24")).unwrap();
                host.address("eth0", &format!("fd00:{net}::10/64")).unwrap();
                router.address(port, &format!("10.0.{net}.1/24")).unwrap();
                router.address(port, &format!("fd00:{net}::1/64")).unwrap();
                host.route("default", &format!("10.0.{net}.1")).unwrap();
                host.route("default", &format!("fd00:{net}::1")).unwrap();
            }
            router.forward().unwrap();
            for (bind, host) in [("10.0.2.10:502", "10.0.2.10"), ("[fd00:2::10]:502", "fd00:2::10")] {
                let listener = control
                    .enter(|| std::net::TcpListener::bind(bind).unwrap())
                    .unwrap();
                office.wait_for_tcp(bind, Duration::from_secs(60)).unwrap();
                drop(listener);
                assert!(
                    office.wait_for_tcp(bind, Duration::from_millis(50)).is_err(),
                    "{host} still answers"
                );
            }
        },
    )
    .unwrap();
}

#[test]
fn a_bridge_carries_frames_between_its_ports() {
    lab::sandbox::test("a_bridge_carries_frames_between_its_ports", |lab: &Lab| {
        let left = lab.namespace("left").unwrap();
        let bump = lab.namespace("bump").unwrap();
        let right = lab.namespace("right").unwrap();
        lab.link((&left, "eth0"), (&bump, "p0")).unwrap();
        lab.link((&right, "eth0"), (&bump, "p1")).unwrap();
        bump.bridge("br0", &["p0", "p1"]).unwrap();
        bump.filter_bridged().unwrap();
        left.address("eth0", "10.9.0.1/24").unwrap();
        right.address("eth0", "10.9.0.2/24").unwrap();
        let _listener = right
            .enter(|| std::net::TcpListener::bind("10.9.0.2:80").unwrap())
            .unwrap();
        left.wait_for_tcp("10.9.0.2:80", Duration::from_secs(60)).unwrap();
    })
    .unwrap();
}

#[test]
fn a_daemon_is_gone_when_it_is_dropped_and_its_log_stays() {
    lab::sandbox::test(
        "a_daemon_is_gone_when_it_is_dropped_and_its_log_stays",
        |lab: &Lab| {
            let host = lab.namespace("host").unwrap();
            let mut daemon = host
                .spawn("talker", "sh", &["-c", "echo ready; exec sleep 100"])
                .unwrap();
            daemon.wait_for_log("ready", Duration::from_secs(60)).unwrap();
            assert!(daemon.ended().is_none());
            let process = format!("/proc/{}", daemon.id());
            assert!(std::path::Path::new(&process).exists());
            let log = daemon.log_path().to_owned();
            drop(daemon);
            assert!(!std::path::Path::new(&process).exists());
            assert_eq!(std::fs::read_to_string(log).unwrap(), "ready\n");
        },
    )
    .unwrap();
}

#[test]
fn a_test_that_does_not_exist_is_a_failure_and_not_a_pass() {
    let error = lab::sandbox::test("no_test_has_this_name", |_| panic!("never runs")).unwrap_err();
    assert!(error.to_string().contains("0 passed"), "{error}");
}

#[test]
fn a_lab_vanishes_when_its_program_is_killed() {
    const NAME: &str = "a_lab_vanishes_when_its_program_is_killed";
    const VICTIM: &str = "PENSTOCK_LAB_VICTIM";
    if let Ok(mark) = std::env::var(VICTIM) {
        lab::sandbox::test(NAME, |lab: &Lab| {
            let host = lab.namespace("host").unwrap();
            let _sleeper = host.spawn("sleeper", "sleep", &[&mark]).unwrap();
            std::thread::sleep(Duration::from_secs(600));
        })
        .unwrap();
        return;
    }
    let mark = format!("9{}", std::process::id());
    let running = || {
        std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(Result::ok)
            .any(|entry| {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                line == format!("sleep\0{mark}\0").as_bytes()
            })
    };
    let mut victim = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(VICTIM, &mark)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    lab::wait_until("the sleeper to start", Duration::from_secs(60), running).unwrap();
    victim.kill().unwrap();
    victim.wait().unwrap();
    lab::wait_until("the sleeper to vanish", Duration::from_secs(60), || !running()).unwrap();
}
