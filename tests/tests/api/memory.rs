//! What programs that hold keys leave of them elsewhere: nothing in a core dump (a program that leaves one shows that this machine
//! would), nothing in a backup or a log.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::person::program;

/// Starts a command that may dump as much as it likes, in this folder, and waits until it waits itself.
fn waiting(folder: &Path, command: &[&str]) -> Child {
    let child = Command::new("sh")
        .args(["-c", "ulimit -c unlimited && exec \"$@\"", "sh"])
        .args(command)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let of = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", child.id())).unwrap();
    let name = Path::new(command[0]).file_name().unwrap().to_str().unwrap();
    let began = std::time::Instant::now();
    // No longer the shell, and asleep.
    while !of("cmdline").split('\0').next().unwrap().ends_with(name) || !of("stat").contains(") S ") {
        assert!(
            began.elapsed() < crate::world::PATIENCE,
            "{command:?} does not wait"
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child
}

/// How it ends when it crashes.
fn crashed(mut child: Child) -> ExitStatus {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::ABORT).unwrap();
    let ended = child.wait().unwrap();
    assert_eq!(ended.signal(), Some(6));
    ended
}

#[test]
fn no_program_leaves_its_memory_on_the_disk_when_it_crashes() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let beside = |name: &str| program().with_file_name(name).to_str().unwrap().to_owned();
    let made = |command: &[&str]| {
        let done = Command::new(command[0])
            .args(&command[1..])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(
            done.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    };
    let shown = crashed(waiting(folder.path(), &["sleep", "1000"]));
    assert!(
        shown.core_dumped(),
        "a crash leaves no core dump on this machine, so that this test would show nothing: set kernel.core_pattern to `core`"
    );
    std::fs::write(path("passphrase"), "correct horse\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path("passphrase"), mode).unwrap();
    let (penstock, agent, coordinator) = (
        beside("penstock"),
        beside("penstock-agent"),
        beside("penstock-coordinator"),
    );
    made(&[
        &penstock,
        "key",
        "new",
        &path("key"),
        "--passphrase-file",
        &path("passphrase"),
    ]);
    made(&[
        &coordinator,
        "init",
        "--data",
        &path("data"),
        "--plant",
        "works",
        "--address",
        "127.0.0.1:1",
        "--listen",
        "127.0.0.1:0",
        "--metrics",
        "none",
    ]);
    std::fs::write(
        path("agent.toml"),
        format!("[agent]\nstate_folder = {:?}\n", path("state")),
    )
    .unwrap();
    for command in [
        &[
            penstock.as_str(),
            "key",
            "show",
            &path("key"),
            "--passphrase-file",
            "-",
        ][..],
        &[&agent, "enrol", "--config", &path("agent.toml"), "--token", "-"],
        &[&coordinator, "serve", "--config", &path("data/coordinator.toml")],
    ] {
        let ended = crashed(waiting(folder.path(), command));
        assert!(!ended.core_dumped(), "{command:?} left a core dump");
    }
}

/// Whether `secret` stands in any file of a folder; the file.
fn found(folder: &Path, secret: &[u8]) -> Option<std::path::PathBuf> {
    std::fs::read_dir(folder).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found(&path, secret),
            false => {
                let bytes = std::fs::read(&path).unwrap();
                bytes
                    .windows(secret.len())
                    .any(|part| part == secret)
                    .then_some(path)
            }
        }
    })
}

#[test]
fn a_backup_and_a_log_hold_nothing_of_the_authoritys_key_and_the_passphrase_brings_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let coordinator = program().with_file_name("penstock-coordinator");
    let run = |arguments: &[&str]| {
        let done = Command::new(&coordinator)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = [done.stdout, done.stderr]
            .map(|text| String::from_utf8(text).unwrap())
            .concat();
        (done.status.success(), said)
    };
    let init = [
        "init",
        "--data",
        &path("data"),
        "--plant",
        "works",
        "--address",
        "127.0.0.1:1",
        "--listen",
        "127.0.0.1:0",
    ];
    let (is_done, said) = run(&[&init[..], &["--metrics", "none"]].concat());
    assert!(is_done, "{said}");
    let config = path("data/coordinator.toml");
    let own = std::fs::read_to_string(path("data/ca/root.key")).unwrap();
    let text: String = own.lines().filter(|line| !line.starts_with("-----")).collect();
    use base64::Engine as _;
    let der = base64::engine::general_purpose::STANDARD.decode(&text).unwrap();
    assert_eq!(der[30..35], [0x02, 0x01, 0x01, 0x04, 48], "a P-384 key");
    // The secret itself, out of the middle of PKCS #8, and each line of the file that is not as in any key's.
    let mut secrets = vec![der[35..83].to_vec()];
    secrets.extend(
        own.lines()
            .skip(1)
            .filter(|line| line.len() > 40)
            .map(|line| line.as_bytes().to_vec()),
    );
    assert!(
        secrets
            .iter()
            .all(|secret| found(folder.path(), secret).is_some() || secret == &secrets[0])
    );

    // Neither is left to chance.
    let (is_done, said) = run(&["backup", "--config", &config, "--to", &path("bare")]);
    assert!(!is_done && said.contains("--passphrase-file"), "{said}");
    std::fs::write(path("passphrase"), "correct horse\n").unwrap();
    let backup = [
        "backup",
        "--config",
        &config,
        "--to",
        &path("locked"),
        "--passphrase-file",
        &path("passphrase"),
    ];
    let (is_done, said) = run(&backup);
    assert!(!is_done && said.contains("chmod 600"), "{said}");
    std::fs::set_permissions(
        path("passphrase"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let (is_done, said) = run(&backup);
    assert!(is_done, "{said}");
    let (is_done, said) = run(&[
        "backup",
        "--config",
        &config,
        "--to",
        &path("without"),
        "--without-key",
    ]);
    assert!(is_done && said.contains("is not in it"), "{said}");
    assert!(!folder.path().join("without/ca/root.key").exists());

    // The log at its most talkative, over a start and a crash.
    let log = std::fs::File::create(path("log")).unwrap();
    let noisy = std::fs::read_to_string(&config).unwrap() + "\n[log]\nlevel = \"trace\"\n";
    std::fs::write(&config, noisy).unwrap();
    let mut serves = Command::new(&coordinator)
        .args(["serve", "--config", &config])
        .stderr(log)
        .spawn()
        .unwrap();
    let began = std::time::Instant::now();
    while !std::fs::read_to_string(path("log")).unwrap().contains("serving") {
        assert!(began.elapsed() < crate::world::PATIENCE, "it does not serve");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    serves.kill().unwrap();
    serves.wait().unwrap();
    for secret in &secrets {
        for place in ["locked", "without"] {
            assert_eq!(found(&folder.path().join(place), secret), None);
        }
        let log = std::fs::read(path("log")).unwrap();
        assert!(!log.windows(secret.len()).any(|part| part == secret));
    }

    // Restored, it does not serve before the passphrase is given, and says which command takes it.
    std::fs::rename(path("data"), path("lost")).unwrap();
    std::fs::rename(path("locked"), path("data")).unwrap();
    std::fs::copy(path("lost/coordinator.toml"), &config).unwrap();
    let (is_done, said) = run(&["serve", "--config", &config]);
    assert!(!is_done && said.contains("penstock-coordinator unlock"), "{said}");
    let (is_done, said) = run(&[
        "unlock",
        "--config",
        &config,
        "--passphrase-file",
        &path("passphrase"),
    ]);
    assert!(is_done && said.contains("is unlocked"), "{said}");
    assert_eq!(std::fs::read_to_string(path("data/ca/root.key")).unwrap(), own);
}
