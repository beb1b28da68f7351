//! The real program on the example plants: what it says, to people and to programs, and how it ends.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// The examples that ship with Penstock.
fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples")
}

/// What the program said.
struct Said {
    code: i32,
    out: String,
    err: String,
}

/// Runs the program without a terminal, with an empty home of its own.
fn penstock(folder: &Path, arguments: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_penstock"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("XDG_CONFIG_HOME", folder.join("home"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs the program and holds it to an exit code.
fn ends(folder: &Path, code: i32, arguments: &[&str]) -> Said {
    let said = penstock(folder, arguments);
    assert_eq!(said.code, code, "{arguments:?}\n{}\n{}", said.out, said.err);
    said
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in: {text}"))
}

/// A folder with the water works under `plant/` and its approvers' keys made anew.
fn works() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut text = std::fs::read_to_string(examples().join("waterworks/plant.yaml")).unwrap();
    for approver in ["j.meyer", "a.silva", "m.okoye"] {
        let key = json(
            &ends(
                folder.path(),
                0,
                &["key", "new", &format!("{approver}.key"), "--output", "json"],
            )
            .out,
        );
        let start = text.find(&format!("{approver}: {{ key: \"")).unwrap();
        let first = start + text[start..].find("ed25519:").unwrap();
        let last = first + text[first..].find('"').unwrap();
        text.replace_range(first..last, key["public"].as_str().unwrap());
    }
    std::fs::create_dir(folder.path().join("plant")).unwrap();
    std::fs::write(folder.path().join("plant/plant.yaml"), text).unwrap();
    folder
}

/// The documents once more, with a change in their text.
fn altered(folder: &Path, name: &str, from: &str, to: &str) {
    let text = std::fs::read_to_string(folder.join("plant/plant.yaml")).unwrap();
    assert!(text.contains(from));
    std::fs::create_dir(folder.join(name)).unwrap();
    std::fs::write(folder.join(name).join("plant.yaml"), text.replace(from, to)).unwrap();
}

/// The statement of a first release of `plant/`, as an author's `release propose` makes it.
fn statement(folder: &Path, author: &str) -> Vec<u8> {
    use penstock::documents::Documents;
    use penstock_policy::ids::Revision;
    use penstock_policy::release::{Draft, build};
    let documents = Documents::read(&folder.join("plant")).unwrap();
    let (plant, _) = penstock::loading::examine(&documents).unwrap();
    let draft = Draft {
        revision: Revision(1),
        parent: None,
        replaces: Vec::new(),
        document_digest: documents.digest(),
        author: author.parse().unwrap(),
        ticket: Some("CHG-1".into()),
        reason: "the first".into(),
        created_ms: 1_700_000_000_000,
    };
    let bytes = build(&plant.unwrap(), draft).unwrap().statement.to_bytes();
    std::fs::write(folder.join("r1.statement"), &bytes).unwrap();
    bytes
}

fn sign(folder: &Path, code: i32, from: &str, approver: &str, out: &str) -> Said {
    let key = format!("{approver}.key");
    let arguments = [
        "release",
        "sign",
        from,
        "--key",
        &key,
        "--as",
        approver,
        "--documents",
        "plant",
        "-o",
        out,
        "--yes",
    ];
    ends(folder, code, &arguments)
}

#[test]
fn the_water_works_pass_a_strict_check() {
    let folder = works();
    let said = ends(folder.path(), 0, &["check", "--strict", "plant"]);
    assert!(
        said.out
            .contains("✓ riverside-water: 4 zones, 3 conduits, 5 flows, 2 gateways, 5 assets"),
        "{}",
        said.out
    );
    assert!(said.out.contains("nothing to object to"));
    let checked = json(&ends(folder.path(), 0, &["check", "plant", "--output", "json"]).out);
    assert_eq!(checked["schema"], "penstock.check/1");
    assert_eq!(checked["plant"]["flows"], 5);
    assert_eq!(checked["warnings"], 0);
}

#[test]
fn a_wrong_document_tells_every_fault_with_its_place_and_ends_with_3() {
    let folder = works();
    altered(
        folder.path(),
        "bad",
        "kind: control",
        "kind: contrl\n    colour: red",
    );
    let said = ends(folder.path(), 3, &["check", "bad"]);
    assert!(said.out.is_empty());
    assert!(
        said.err.contains("contrl") && said.err.contains("colour"),
        "{}",
        said.err
    );
    assert!(said.err.contains("plant.yaml"));
    assert!(!said.err.contains('\u{1b}'), "no colours where nobody sees them");
    let said = ends(folder.path(), 3, &["check", "bad", "--output", "json"]);
    let error = json(&said.err);
    assert_eq!(error["schema"], "penstock.error/1");
    assert_eq!(error["error"]["code"], "document-errors");
    let diagnostics = error["error"]["diagnostics"].as_array().unwrap();
    assert!(diagnostics.len() >= 2, "all at once");
    assert!(
        diagnostics
            .iter()
            .all(|d| d["location"]["line"].as_u64().unwrap() > 0)
    );
    for command in [["graph", "bad"], ["reach", "bad"]] {
        ends(folder.path(), 3, &command);
    }
}

#[test]
fn what_init_writes_passes_a_strict_check_and_is_never_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let started = json(&ends(folder.path(), 0, &["init", "My Works", "--output", "json"]).out);
    assert_eq!(started["plant"], "my-works");
    ends(folder.path(), 0, &["check", "--strict", "My Works"]);
    let document = std::fs::read_to_string(folder.path().join("My Works/plant.yaml")).unwrap();
    for approver in ["approver-1", "approver-2"] {
        let shown = ends(
            folder.path(),
            0,
            &["key", "show", &format!("My Works/{approver}.key")],
        )
        .out;
        assert!(
            document.contains(shown.trim()),
            "the document has the key's public half"
        );
    }
    ends(folder.path(), 6, &["init", "My Works"]);
    assert_eq!(
        std::fs::read_to_string(folder.path().join("My Works/plant.yaml")).unwrap(),
        document
    );
}

#[test]
fn a_new_plant_needs_two_signatures_and_git_does_not_see_its_keys() {
    let folder = tempfile::tempdir().unwrap();
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    git(&["init", "-q"]);
    let said = ends(folder.path(), 0, &["init", "My Works"]);
    let document = std::fs::read_to_string(folder.path().join("My Works/plant.yaml")).unwrap();
    assert!(document.contains("threshold: 2"), "{document}");
    std::fs::write(folder.path().join("My Works/gw-1.token"), "secret").unwrap();
    let seen = git(&["status", "--porcelain", "--untracked-files=all", "-z"]);
    let seen: Vec<_> = seen.split_terminator('\0').map(|line| &line[3..]).collect();
    assert_eq!(seen, ["My Works/.gitignore", "My Works/plant.yaml"]);
    // What it prints to go on with can be pasted as it is.
    let next: Vec<_> = said
        .out
        .lines()
        .filter(|line| line.starts_with("  penstock "))
        .collect();
    assert_eq!(next.len(), 3, "{}", said.out);
    for line in next {
        let command = line.replace("penstock", env!("CARGO_BIN_EXE_penstock"));
        let ended = Command::new("sh")
            .args(["-c", &command])
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(
            ended.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&ended.stderr)
        );
    }
}

#[test]
fn one_signature_that_is_enough_is_named_when_a_plant_begins_and_whenever_it_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let said = ends(folder.path(), 0, &["init", "works", "--approver", "a.silva"]);
    assert!(
        said.out
            .contains("▲ threshold 1: the key of a.silva alone decides"),
        "{}",
        said.out
    );
    let checked = ends(folder.path(), 1, &["check", "--strict", "works"]);
    assert!(checked.out.contains("PS0710"), "{}", checked.out);
}

#[test]
fn explain_names_the_rule_and_its_line_or_what_came_closest() {
    let folder = works();
    let ask = |code, to: &str, service: &str, more: &[&str]| {
        let mut arguments = vec![
            "explain",
            "plant",
            "--from",
            "hmi-1",
            "--to",
            to,
            "--service",
            service,
        ];
        arguments.extend(more);
        ends(folder.path(), code, &arguments).out
    };
    let allowed = ask(0, "plc-7", "modbus-tcp", &[]);
    let text = std::fs::read_to_string(folder.path().join("plant/plant.yaml")).unwrap();
    let line = 1 + text.lines().position(|line| line.trim() == "polling:").unwrap();
    assert!(allowed.contains("✓ allowed at gw-works"), "{allowed}");
    assert!(
        allowed.contains(&format!(
            "by control-room-to-pumps/polling  flow 07ef476  plant/plant.yaml:{line}"
        )),
        "{allowed}"
    );
    assert!(allowed.contains("read-holding-registers (unit 1, addresses 0-199)"));
    let denied = ask(1, "plc-7", "tcp/503", &[]);
    assert!(
        denied.contains("✗ denied at gw-works") && denied.contains("port 503 is not 502"),
        "{denied}"
    );
    let told = json(&ask(1, "plc-7", "tcp/503", &["--output", "json"]));
    assert_eq!(
        (told["schema"].as_str(), told["decision"].as_str()),
        (Some("penstock.explain/1"), Some("deny"))
    );
    assert!(
        told["sentence"]
            .as_str()
            .unwrap()
            .contains("control-room-to-pumps/polling")
    );
    assert!(ask(2, "plc-8", "tcp/502", &[]).is_empty());
    let unknown = penstock(
        folder.path(),
        &[
            "explain",
            "plant",
            "--from",
            "hmi-1",
            "--to",
            "plc-8",
            "--service",
            "tcp/1",
        ],
    );
    assert!(unknown.err.contains("did you mean plc-7?"), "{}", unknown.err);
}

#[test]
fn explain_judges_one_operation_and_names_the_entry_that_decides() {
    let folder = works();
    let ask = |code, (from, to): (&str, &str), operation: &str, more: &[&str]| {
        let mut arguments = vec![
            "explain",
            "plant",
            "--from",
            from,
            "--to",
            to,
            "--operation",
            operation,
        ];
        arguments.extend(more);
        ends(folder.path(), code, &arguments).out
    };
    let steer = ("hmi-1", "plc-7");
    let permitted = ask(0, steer, "write-single-register 40 unit 1", &[]);
    for words in [
        "✓ write-single-register 40 of unit 1 on plc-7 with value 0 is permitted",
        "by write-single-register, units 1, addresses 40-41, values 0-1500  control-room-to-pumps/setpoints",
        "no value was given: judged with value 0",
    ] {
        assert!(permitted.contains(words), "{permitted}");
    }
    let refused = ask(1, steer, "write-single-register 40 unit 1 value 1501", &[]);
    for words in [
        "✗ write-single-register 40 of unit 1 on plc-7 with value 1501 is refused: the value is not within",
        "closest: write-single-register, units 1",
        "a refusal is answered as the protocol does",
    ] {
        assert!(refused.contains(words), "{refused}");
    }
    // The head says what becomes of the operation, not of the connection that would carry it.
    let place = |text: &str| refused.find(text).unwrap_or_else(|| panic!("{refused}"));
    assert!(place("✗ refused inside the connection at gw-works") < place("the value is not within"));
    assert!(place("the value is not within") < place("the connection itself passes"));
    assert!(!refused.contains("✓ allowed"), "{refused}");
    // Who may do it is named where somebody else may not.
    let other = ask(
        1,
        ("historian", "plc-7"),
        "write-single-register 40 unit 1 value 5",
        &[],
    );
    assert!(
        other.contains("permitted to others: hmi-1 (control-room-to-pumps/setpoints)"),
        "{other}"
    );
    let told = json(&ask(
        1,
        steer,
        "write-multiple-registers 40-41 unit 1",
        &["--output", "json"],
    ));
    assert_eq!(told["decision"], "deny");
    assert_eq!(told["gateways"][0]["decision"], "allow", "the connection stands");
    assert_eq!(told["gateways"][0]["operation"]["decision"], "deny");
    assert!(
        told["sentence"]
            .as_str()
            .unwrap()
            .contains("no rule permits the function")
    );
    assert!(ask(2, steer, "write-single-register 40", &[]).is_empty());

    // A bridge: nothing passes between the two, and the publication arrives all the same.
    let path = folder.path().join("plant/plant.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("service: mqtt\n"));
    // A bridge is its brokers' client by itself.
    let publications: String = text
        .lines()
        .filter(|line| !line.contains("- connect:"))
        .map(|line| format!("{line}\n"))
        .collect();
    let bridged = publications.replace("service: mqtt\n", "service: mqtt-bridge\n");
    std::fs::write(&path, bridged).unwrap();
    let up = ("plc-7", "historian");
    let carried = json(&ask(
        0,
        up,
        "publish works/filters/3/pressure qos 1",
        &["--output", "json"],
    ));
    assert_eq!(carried["decision"], "allow");
    assert_eq!(carried["gateways"][0]["decision"], "deny");
    assert_eq!(carried["bridges"][0]["operation"]["decision"], "allow");
    let kept = ask(1, up, "publish works/filters/3/pressure qos 1 retain", &[]);
    assert!(
        kept.contains("carries messages one way by the bridge control-room-to-pumps/telemetry"),
        "{kept}"
    );
    assert!(
        kept.contains("is refused: retained messages are not permitted"),
        "{kept}"
    );
}

#[test]
fn explain_tells_what_a_code_means_and_knows_which_are_none() {
    let folder = tempfile::tempdir().unwrap();
    assert!(
        ends(folder.path(), 0, &["explain", "ps0204"])
            .out
            .starts_with("PS0204 (error): ")
    );
    assert!(
        ends(folder.path(), 0, &["explain", "PC0120"])
            .out
            .starts_with("PC0120 (warning): ")
    );
    // It has both severities, and says the graver.
    assert!(
        ends(folder.path(), 0, &["explain", "PC0122"])
            .out
            .starts_with("PC0122 (error): ")
    );
    ends(folder.path(), 2, &["explain", "PS9999"]);
    ends(folder.path(), 2, &["explain", "PC9999"]);
}

#[test]
fn diff_says_in_words_what_changes_for_whom() {
    let folder = works();
    altered(folder.path(), "less", "addresses: 0-199", "addresses: 0-99");
    let said = ends(folder.path(), 0, &["diff", "plant", "less"]).out;
    assert!(
        said.contains("▼ narrowed  flow control-room-to-pumps/polling"),
        "{said}"
    );
    assert!(
        said.contains("plans: gw-works (changed); untouched: 1 gateway"),
        "{said}"
    );
    assert!(!said.contains("did not pass before"));
    let back = json(&ends(folder.path(), 0, &["diff", "less", "plant", "--output", "json"]).out);
    assert_eq!(back["may_widen"], true);
    assert_eq!(back["changes"][0]["effect"], "widened");
    assert!(
        ends(folder.path(), 0, &["diff", "plant", "plant"])
            .out
            .contains("nothing changes")
    );
}

#[test]
fn diff_compares_with_a_revision_of_git() {
    let folder = works();
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.current_dir(folder.path())
            .args(["-c", "user.name=a", "-c", "user.email=a@example.org"])
            .args(arguments);
        assert!(git.output().unwrap().status.success(), "{arguments:?}");
    };
    git(&["init", "-q"]);
    git(&["add", "plant"]);
    git(&["commit", "-qm", "first"]);
    let path = folder.path().join("plant/plant.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("addresses: 0-199", "addresses: 0-99")).unwrap();
    for document in ["plant", "plant/plant.yaml"] {
        let said = ends(folder.path(), 0, &["diff", document, "--against", "HEAD"]).out;
        assert!(
            said.contains("▼ narrowed  flow control-room-to-pumps/polling"),
            "{said}"
        );
    }
    let said = ends(folder.path(), 6, &["diff", "plant", "--against", "nowhere"]);
    assert!(
        said.err.contains("git cannot show plant at nowhere"),
        "{}",
        said.err
    );
    ends(folder.path(), 6, &["diff", "plant", "--against=--output=x"]);
}

#[test]
fn a_hook_of_git_compares_the_same_files_as_a_person_does() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = works();
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.current_dir(folder.path())
            .args(["-c", "user.name=a", "-c", "user.email=a@example.org"])
            .args(arguments);
        let output = git.output().unwrap();
        assert!(output.status.success(), "{arguments:?} {output:?}");
    };
    git(&["init", "-q"]);
    git(&["add", "plant"]);
    git(&["commit", "-qm", "first"]);
    let hook = folder.path().join(".git/hooks/pre-commit");
    let penstock = env!("CARGO_BIN_EXE_penstock");
    let script = format!("#!/bin/sh\nexec {penstock} diff plant --against HEAD > said\n");
    std::fs::write(&hook, script).unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("plant/plant.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("addresses: 0-199", "addresses: 0-99")).unwrap();
    // `-a` gives the hook an index of its own, in its environment.
    git(&["commit", "-qam", "second"]);
    let said = std::fs::read_to_string(folder.path().join("said")).unwrap();
    assert!(
        said.contains("▼ narrowed  flow control-room-to-pumps/polling"),
        "{said}"
    );
}

#[test]
fn reach_follows_conduits_and_says_what_can_be_done_at_most() {
    let folder = works();
    let said = ends(
        folder.path(),
        0,
        &["reach", "plant", "--from", "office", "--to", "safety"],
    )
    .out;
    assert!(said.contains("office → operations → safety"), "{said}");
    assert!(said.contains("· read-coils (unit 1, addresses 0-15)"), "{said}");
    let none = json(
        &ends(
            folder.path(),
            0,
            &["reach", "plant", "--from", "safety", "--output", "json"],
        )
        .out,
    );
    assert_eq!(none["reaches"].as_array().unwrap().len(), 0);
    ends(folder.path(), 2, &["reach", "plant", "--from", "nowhere"]);
}

#[test]
fn every_example_can_be_drawn_and_is_drawn_the_same_each_time() {
    let folder = tempfile::tempdir().unwrap();
    for example in std::fs::read_dir(examples()).unwrap() {
        let path = example.unwrap().path();
        let path = path.to_str().unwrap();
        let first = ends(folder.path(), 0, &["graph", path]).out;
        assert!(first.starts_with("<svg ") && first.ends_with("</svg>\n"));
        assert!(first.contains("prefers-color-scheme:dark"));
        assert_eq!(first, ends(folder.path(), 0, &["graph", path]).out);
        ends(folder.path(), 0, &["graph", path, "-o", "plant.svg"]);
        assert_eq!(
            std::fs::read_to_string(folder.path().join("plant.svg")).unwrap(),
            first
        );
    }
}

#[test]
fn compile_gives_the_exact_bytes_of_the_plan() {
    use penstock_policy::plan::Plan;
    let folder = works();
    let bytes = ends(folder.path(), 0, &["compile", "plant", "--gateway", "gw-works"]).out;
    let plan = Plan::from_bytes(bytes.as_bytes()).unwrap();
    assert_eq!(plan.to_bytes(), bytes.as_bytes());
    assert_eq!(plan.gateway.as_str(), "gw-works");
    let said = ends(folder.path(), 2, &["compile", "plant", "--gateway", "gw-none"]);
    assert!(said.err.contains("it knows: gw-office, gw-works"), "{}", said.err);
}

#[test]
fn a_release_is_signed_and_verified_without_a_coordinator() {
    let folder = works();
    statement(folder.path(), "k.ito");
    sign(folder.path(), 0, "r1.statement", "j.meyer", "r1.one");
    let verify = |code, file| {
        ends(
            folder.path(),
            code,
            &[
                "release",
                "verify",
                file,
                "--approvers",
                "plant",
                "--documents",
                "plant",
            ],
        )
    };
    let under = verify(7, "r1.one");
    assert!(
        under.err.contains("error:") && under.out.is_empty(),
        "{}",
        under.err
    );
    sign(folder.path(), 0, "r1.one", "a.silva", "r1.two");
    let whole = verify(0, "r1.two").out;
    assert!(
        whole.contains("✓ signed by a.silva, j.meyer; 2 needed"),
        "{whole}"
    );
    assert!(whole.contains("✓ its documents compile to exactly what it states"));
    // The approvers that count are those that the reader believes, not those in the file.
    altered(folder.path(), "others", "threshold: 2", "threshold: 3");
    ends(
        folder.path(),
        7,
        &["release", "verify", "r1.two", "--approvers", "others"],
    );
}

#[test]
fn nothing_is_signed_whose_documents_say_something_else() {
    let folder = works();
    let bytes = statement(folder.path(), "k.ito");
    let path = folder.path().join("plant/plant.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("addresses: 0-199", "addresses: 0-65535")).unwrap();
    let said = sign(folder.path(), 7, "r1.statement", "j.meyer", "r1.signed");
    assert!(said.err.contains("its document digest differs"), "{}", said.err);
    assert!(!folder.path().join("r1.signed").exists());
    std::fs::write(&path, text).unwrap();
    // Every byte of a statement counts: with any one changed it is refused, or it is not what the documents say.
    for at in (0..bytes.len()).step_by(23) {
        let mut tampered = bytes.clone();
        tampered[at] = if tampered[at] == b'7' { b'8' } else { b'7' };
        if tampered == bytes {
            continue;
        }
        std::fs::write(folder.path().join("tampered"), &tampered).unwrap();
        let arguments = [
            "release",
            "sign",
            "tampered",
            "--key",
            "j.meyer.key",
            "--as",
            "j.meyer",
            "--documents",
            "plant",
            "-o",
            "t.signed",
            "--yes",
        ];
        let said = penstock(folder.path(), &arguments);
        let honest_text = String::from_utf8_lossy(&tampered).into_owned();
        let free = ["\"author\":", "\"ticket\":", "\"reason\":", "\"created_ms\":"];
        // Author, ticket, reason and time are the author's own words: the documents cannot contradict them.
        let in_free = free
            .iter()
            .any(|key| honest_text.find(key).is_some_and(|start| at >= start));
        if !in_free {
            assert_eq!(said.code, 7, "byte {at}: {}{}", said.out, said.err);
            assert!(!folder.path().join("t.signed").exists());
        }
        let _ = std::fs::remove_file(folder.path().join("t.signed"));
    }
}

#[test]
fn a_signed_release_that_was_tampered_with_is_not_believed() {
    let folder = works();
    statement(folder.path(), "k.ito");
    sign(folder.path(), 0, "r1.statement", "j.meyer", "r1.one");
    sign(folder.path(), 0, "r1.one", "a.silva", "r1.two");
    let whole = std::fs::read_to_string(folder.path().join("r1.two")).unwrap();
    let envelope = json(&whole);
    let mut swapped = envelope.clone();
    swapped["signatures"][0]["sig"] = envelope["signatures"][1]["sig"].clone();
    let mut cut = whole.clone();
    cut.truncate(whole.len() - 5);
    for tampered in [
        swapped.to_string(),
        cut,
        whole.replace("release+json", "other+json"),
    ] {
        std::fs::write(folder.path().join("bad"), tampered).unwrap();
        ends(
            folder.path(),
            7,
            &["release", "verify", "bad", "--approvers", "plant"],
        );
    }
}

#[test]
fn the_author_cannot_sign_and_neither_can_a_key_of_somebody_else() {
    let folder = works();
    statement(folder.path(), "j.meyer");
    let said = sign(folder.path(), 4, "r1.statement", "j.meyer", "r1.signed");
    assert!(
        said.err.contains("nobody approves their own release"),
        "{}",
        said.err
    );
    let arguments = [
        "release",
        "sign",
        "r1.statement",
        "--key",
        "a.silva.key",
        "--as",
        "m.okoye",
        "--documents",
        "plant",
        "-o",
        "x",
        "--yes",
    ];
    let said = ends(folder.path(), 6, &arguments);
    assert!(
        said.err
            .contains("not the key that the plant document has for m.okoye"),
        "{}",
        said.err
    );
}

#[test]
fn a_key_that_others_may_read_is_not_used() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = works();
    let key = folder.path().join("j.meyer.key");
    assert_eq!(
        std::fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = ends(folder.path(), 6, &["key", "show", "j.meyer.key"]);
    assert!(said.err.contains("chmod 600"), "{}", said.err);
    ends(folder.path(), 6, &["key", "new", "a.silva.key"]);
}

#[test]
fn without_a_login_online_commands_say_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["health"][..],
        &["gateways"],
        &["whoami"],
        &["release", "list"],
        &["audit", "tail"],
    ] {
        let said = ends(folder.path(), 6, arguments);
        assert!(said.err.contains("penstock login --token FILE"), "{}", said.err);
    }
    std::fs::write(folder.path().join("t"), "penstock-token-1.AAAA").unwrap();
    ends(folder.path(), 6, &["login", "--token", "t"]);
}

#[test]
fn a_command_line_that_cannot_be_understood_ends_with_2_in_json_too() {
    let folder = tempfile::tempdir().unwrap();
    ends(folder.path(), 2, &["chekc"]);
    let said = ends(folder.path(), 2, &["chekc", "--output", "json"]);
    assert_eq!(json(&said.err)["error"]["code"], "usage");
    let help = ends(folder.path(), 0, &["--help"]).out;
    assert!(help.contains("Exit codes:"));
}

#[test]
fn every_answer_has_a_schema_that_its_json_keeps_to() {
    let folder = works();
    let answers: [(&str, &[&str]); 7] = [
        ("check", &["check", "plant"]),
        ("diff", &["diff", "plant", "plant"]),
        (
            "explain",
            &[
                "explain",
                "plant",
                "--from",
                "hmi-1",
                "--to",
                "plc-7",
                "--service",
                "tcp/502",
            ],
        ),
        ("explain-code", &["explain", "PS0204"]),
        ("reach", &["reach", "plant"]),
        ("key", &["key", "show", "j.meyer.key"]),
        ("graph", &["graph", "plant", "-o", "p.svg"]),
    ];
    for (command, arguments) in answers {
        let schema = json(&ends(folder.path(), 0, &["schema", command]).out);
        let mut all = arguments.to_vec();
        all.extend(["--output", "json"]);
        let answer = json(&ends(folder.path(), 0, &all).out);
        assert_eq!(
            answer["schema"], schema["properties"]["schema"]["const"],
            "{command}"
        );
        for required in schema["required"].as_array().unwrap() {
            assert!(
                answer.get(required.as_str().unwrap()).is_some(),
                "{command}: {required} is missing"
            );
        }
        for key in answer.as_object().unwrap().keys() {
            assert!(
                schema["properties"].get(key).is_some(),
                "{command}: {key} is not described"
            );
        }
    }
    let plant = json(&ends(folder.path(), 0, &["schema"]).out);
    assert_eq!(plant["title"], "Penstock plant document");
    ends(folder.path(), 2, &["schema", "nonsense"]);
}

#[test]
fn completions_exist_for_the_usual_shells() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            ends(folder.path(), 0, &["completions", shell])
                .out
                .contains("explain")
        );
    }
}

#[test]
fn a_secret_that_is_named_instead_of_a_document_is_never_shown() {
    let folder = works();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("passphrase"), "correct horse\n").unwrap();
    std::fs::set_permissions(
        path("passphrase"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    ends(
        folder.path(),
        0,
        &["key", "new", "locked.key", "--passphrase-file", "passphrase"],
    );
    let key = std::fs::read_to_string(path("j.meyer.key")).unwrap();
    std::fs::write(
        path("gw-1.token"),
        "penstock-token-1.eyJwbGFudCI6InJpdmVyc2lkZSJ9c2VjcmV0c2VjcmV0\n",
    )
    .unwrap();
    std::fs::write(path("raw.txt"), "yGpVnWzQ0kSf3D1cZqT7uJb5eRmXoH2aLw8vN4iE6Ks=\n").unwrap();
    std::fs::create_dir(path("pasted")).unwrap();
    let document = std::fs::read_to_string(path("plant/plant.yaml")).unwrap();
    let indented: String = key.lines().map(|line| format!("\n  {line}")).collect();
    std::fs::write(
        path("pasted/plant.yaml"),
        format!("{document}\nnote: |{indented}\n"),
    )
    .unwrap();
    for name in ["j.meyer.key", "locked.key", "gw-1.token", "raw.txt", "pasted"] {
        let file = if name == "pasted" {
            "pasted/plant.yaml"
        } else {
            name
        };
        let text = std::fs::read_to_string(path(file)).unwrap();
        // All lines that are long enough to be a part of a key, but none of the document around it.
        let secrets = text.lines().map(str::trim).filter(|line| {
            line.len() >= 24 && !line.starts_with("-----") && !line.contains(' ') && !document.contains(line)
        });
        let secrets: Vec<&str> = secrets.collect();
        assert!(!secrets.is_empty(), "{name}");
        for arguments in [
            &["check", name][..],
            &["check", name, "--output", "json"],
            &["graph", name],
            &["reach", name],
            &["diff", name, "plant"],
            &[
                "explain",
                name,
                "--from",
                "hmi-1",
                "--to",
                "plc-7",
                "--service",
                "tcp/502",
            ],
            &["compile", name, "--gateway", "gw-works"],
        ] {
            let said = ends(folder.path(), 3, arguments);
            for secret in &secrets {
                assert!(
                    !said.err.contains(secret) && !said.out.contains(secret),
                    "{arguments:?} shows {secret}"
                );
            }
            assert!(said.err.contains("PS0112"), "{arguments:?}: {}", said.err);
        }
        for arguments in [
            &["login", "--token", name][..],
            &["release", "verify", name, "--approvers", "plant"],
        ] {
            let said = penstock(folder.path(), arguments);
            assert!(
                secrets.iter().all(|secret| !said.err.contains(secret)),
                "{arguments:?}"
            );
        }
    }
}

#[test]
fn a_locked_key_signs_with_a_passphrase_from_a_file_and_not_without() {
    let folder = works();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("passphrase"), "correct horse\n").unwrap();
    std::fs::set_permissions(
        path("passphrase"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let locked = ends(
        folder.path(),
        0,
        &[
            "key",
            "passphrase",
            "a.silva.key",
            "--new-passphrase-file",
            "passphrase",
            "--output",
            "json",
        ],
    );
    assert_eq!(json(&locked.out)["locked"], true);
    statement(folder.path(), "k.ito");
    let refused = sign(folder.path(), 6, "r1.statement", "a.silva", "r1.signed");
    assert!(refused.err.contains("--passphrase-file"), "{}", refused.err);
    let arguments = [
        "release",
        "sign",
        "r1.statement",
        "--key",
        "a.silva.key",
        "--as",
        "a.silva",
        "--documents",
        "plant",
        "-o",
        "r1.signed",
        "--yes",
        "--passphrase-file",
        "passphrase",
    ];
    ends(folder.path(), 0, &arguments);
    // Where nobody can be asked for another passphrase, the lock stays.
    let kept = [
        "key",
        "passphrase",
        "a.silva.key",
        "--passphrase-file",
        "passphrase",
    ];
    let said = ends(folder.path(), 6, &kept);
    assert!(said.err.contains("--no-passphrase"), "{}", said.err);
    let key = std::fs::read_to_string(folder.path().join("a.silva.key")).unwrap();
    assert!(key.contains("ENCRYPTED"), "{key}");
    ends(
        folder.path(),
        0,
        &[
            "key",
            "passphrase",
            "a.silva.key",
            "--passphrase-file",
            "passphrase",
            "--no-passphrase",
        ],
    );
    sign(folder.path(), 0, "r1.statement", "a.silva", "r1b.signed");
}

#[test]
fn a_passphrase_file_in_the_environment_contradicts_a_key_without_a_passphrase() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_penstock"))
        .args(["key", "new", "a.key", "--no-passphrase"])
        .current_dir(folder.path())
        .env("PENSTOCK_PASSPHRASE_FILE", "passphrase")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(!folder.path().join("a.key").exists());
}

/// Runs a command line of a shell on a terminal of so many columns; what the terminal shows.
fn on_a_terminal(folder: &Path, columns: u32, command: &str) -> String {
    let command = format!(
        "stty cols {columns}; {}",
        command.replace("penstock", env!("CARGO_BIN_EXE_penstock"))
    );
    let output = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("XDG_CONFIG_HOME", folder.join("home"))
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn colours_are_for_the_terminal_and_only_where_they_are_wanted() {
    let folder = works();
    altered(folder.path(), "bad", "kind: control", "kind: contrl");
    let shown = |command: &str| on_a_terminal(folder.path(), 100, command);
    let coloured = |text: &str| text.contains('\u{1b}');
    assert!(coloured(&shown("penstock check bad")) && coloured(&shown("penstock --help")));
    for command in [
        "penstock check bad 2>errors; cat errors",
        "penstock check bad --color never",
        "penstock --color never --help",
        "penstock check --help --color=never",
        "penstock --color never chek",
        "TERM=dumb penstock check bad",
        "TERM=dumb penstock --help",
        "NO_COLOR=1 penstock check bad",
        "NO_COLOR=1 penstock --help",
    ] {
        let text = shown(command);
        assert!(text.len() > 40 && !coloured(&text), "{command}: {text}");
    }
    // The other way round, too: a failure is coloured on the terminal while the answer goes to a file.
    assert!(coloured(&shown("penstock check bad >answer")));
}

#[test]
fn at_the_edge_of_a_terminal_lines_end_between_words() {
    let folder = works();
    let wide = ends(
        folder.path(),
        1,
        &[
            "explain",
            "plant",
            "--from",
            "plc-7",
            "--to",
            "hmi-1",
            "--service",
            "modbus-tcp",
        ],
    );
    let words: Vec<&str> = wide
        .out
        .split_whitespace()
        .filter(|word| word.chars().count() <= 40)
        .collect();
    let narrow = on_a_terminal(
        folder.path(),
        40,
        "penstock explain plant --from plc-7 --to hmi-1 --service modbus-tcp --color never",
    );
    assert!(narrow.lines().any(|line| line.chars().count() > 25), "{narrow}");
    for line in narrow.lines() {
        let line = line.trim_end();
        assert!(
            line.chars().count() <= 40 || line.split_whitespace().count() == 1,
            "{line}"
        );
        for word in line.split_whitespace().filter(|word| word.chars().count() <= 40) {
            assert!(words.contains(&word), "`{word}` is a part of a word in\n{narrow}");
        }
    }
}

#[test]
fn a_variable_of_the_environment_that_is_empty_says_nothing() {
    let folder = works();
    let output = Command::new(env!("CARGO_BIN_EXE_penstock"))
        .args(["key", "show", "j.meyer.key"])
        .current_dir(folder.path())
        .env("PENSTOCK_OUTPUT", "")
        .env("PENSTOCK_CONTEXT", "")
        .env("PENSTOCK_PASSPHRASE_FILE", "")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.starts_with("ed25519:"), "{text}");
}
