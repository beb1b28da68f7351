#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;

#[test]
fn a_folder_is_its_yaml_files_by_name_wherever_it_lies() {
    let one = tempfile::tempdir().unwrap();
    let two = tempfile::tempdir().unwrap();
    for folder in [one.path(), two.path()] {
        std::fs::create_dir_all(folder.join("zones")).unwrap();
        std::fs::write(folder.join("zones/b.yml"), "b").unwrap();
        std::fs::write(folder.join("a.yaml"), "a").unwrap();
        std::fs::write(folder.join("a.key"), "secret").unwrap();
        std::fs::write(folder.join(".hidden.yaml"), "h").unwrap();
    }
    let read = Documents::read(one.path()).unwrap();
    let names: Vec<_> = read.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["a.yaml", "zones/b.yml"]);
    assert_eq!(read.digest(), Documents::read(two.path()).unwrap().digest());
}

#[test]
fn a_folder_without_documents_says_so() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(
        Documents::read(folder.path()),
        Err(DocumentsError::Empty(_))
    ));
    assert!(matches!(
        Documents::read(&folder.path().join("no")),
        Err(DocumentsError::Read { .. })
    ));
}

/// Runs git in `folder`, as nobody in particular.
fn git(folder: &Path, arguments: &[&str]) {
    let output = std::process::Command::new("git")
        .args(["-c", "user.name=n", "-c", "user.email=n@example.org"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// A repository with a folder `plant` that holds `make`'s files, committed.
fn repository(make: impl Fn(&Path)) -> tempfile::TempDir {
    let top = tempfile::tempdir().unwrap();
    let plant = top.path().join("plant");
    std::fs::create_dir(&plant).unwrap();
    make(&plant);
    git(top.path(), &["init", "--quiet", "."]);
    git(top.path(), &["add", "--all", "--force"]);
    git(top.path(), &["commit", "--quiet", "-m", "one"]);
    top
}

fn link(target: &str, at: PathBuf) {
    std::os::unix::fs::symlink(target, at).unwrap();
}

#[test]
fn a_revision_holds_the_same_files_as_the_folder_that_was_committed() {
    let top = repository(|plant| {
        let write = |name: &str| {
            let file = plant.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, name).unwrap();
        };
        for name in [
            "a.yaml",
            "B.YAML",
            "c.Yml",
            "zones/d.yml",
            "zones/deeper/e.yaml",
            "naïve name.yaml",
            "-dash.yaml",
            "f.yaml/g.yaml",
            ".hidden.yaml",
            ".cache/h.yaml",
            "zones/.i.yaml",
            "j.key",
            "k.yaml~",
            "yaml",
            "../shared/l.yaml",
            "../shared/.m.yaml",
        ] {
            write(name);
        }
        link("a.yaml", plant.join("linked.yaml"));
        link("../shared/l.yaml", plant.join("from-above.yaml"));
        link("../shared", plant.join("linked-folder"));
        link("linked-folder/l.yaml", plant.join("twice.yaml"));
        link("j.key", plant.join("linked.key"));
        link("/etc/hostname", plant.join("linked.txt"));
        link("nowhere", plant.join("gone.txt"));
        link("nowhere", plant.join(".#a.yaml"));
    });
    let plant = top.path().join("plant");
    let found = |documents: Documents| -> Vec<(String, Vec<u8>)> {
        let files = documents.files.into_iter();
        files.map(|file| (file.name, file.content)).collect()
    };
    let on_disk = found(Documents::read(&plant).unwrap());
    let names: Vec<&str> = on_disk.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "-dash.yaml",
            "B.YAML",
            "a.yaml",
            "c.Yml",
            "f.yaml/g.yaml",
            "from-above.yaml",
            "linked-folder/l.yaml",
            "linked.yaml",
            "naïve name.yaml",
            "twice.yaml",
            "zones/d.yml",
            "zones/deeper/e.yaml",
        ]
    );
    assert_eq!(on_disk, found(Documents::read_git(&plant, "HEAD").unwrap()));
    for file in [
        "plant/linked.yaml",
        "plant/-dash.yaml",
        "plant/j.key",
        "plant/.hidden.yaml",
    ] {
        let file = top.path().join(file);
        let at_revision = Documents::read_git(&file, "HEAD").unwrap();
        assert_eq!(
            found(Documents::read(&file).unwrap()),
            found(at_revision),
            "{file:?}"
        );
    }
    assert_eq!(
        found(Documents::read(top.path()).unwrap()),
        found(Documents::read_git(top.path(), "HEAD").unwrap())
    );
}

#[test]
fn what_has_the_name_of_a_documents_file_and_is_none_is_refused_wherever_it_lies() {
    let refused = |target: &str, why: &str, why_at_revision: &str| {
        let top = repository(|plant| {
            std::fs::write(plant.join("a.yaml"), "a").unwrap();
            link(target, plant.join("b.yaml"));
        });
        let plant = top.path().join("plant");
        let at_revision = Documents::read_git(&plant, "HEAD").unwrap_err().to_string();
        assert!(at_revision.contains(why_at_revision), "{at_revision}");
        if !why.is_empty() {
            let on_disk = Documents::read(&plant).unwrap_err().to_string();
            assert!(on_disk.contains(why), "{on_disk}");
        }
    };
    refused("nowhere.yaml", "does not exist", "not in that revision");
    refused("b.yaml", "leads back to itself", "leads back to itself");
    refused("/etc/hostname", "", "outside of the repository");
    refused("/etc", "", "outside of the repository");
}

#[test]
fn a_named_pipe_in_a_folder_is_refused_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.yaml"), "a").unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    for name in ["pipe", "pipe.yaml"] {
        let read = Documents::read(folder.path());
        assert!(read.is_ok(), "{read:?}");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            folder.path().join(name),
            rustix::fs::FileType::Fifo,
            mode,
            0,
        )
        .unwrap();
    }
    let refused = Documents::read(folder.path()).unwrap_err().to_string();
    assert!(
        refused.contains("pipe.yaml is a named pipe, not a file"),
        "{refused}"
    );
}

#[test]
fn a_path_or_revision_that_is_not_there_is_said_by_name() {
    let top = repository(|plant| std::fs::write(plant.join("a.yaml"), "a").unwrap());
    let plant = top.path().join("plant");
    std::fs::create_dir(top.path().join("new")).unwrap();
    let refused = |path: &Path, revision: &str| Documents::read_git(path, revision).unwrap_err().to_string();
    assert!(refused(&plant, "no-such").contains("knows no such revision"));
    assert!(refused(&plant, "--help").contains("knows no such revision"));
    assert!(refused(&top.path().join("new"), "HEAD").contains("new is not in that revision"));
    assert!(refused(&plant.join("b.yaml"), "HEAD").contains("b.yaml is not in that revision"));
    let elsewhere = tempfile::tempdir().unwrap();
    assert!(refused(elsewhere.path(), "HEAD").contains("not a git repository"));
}
