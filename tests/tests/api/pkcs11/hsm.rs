//! Tokens of SoftHSM, each a test's own, in a private folder of this process; and what `pkcs11-tool` says of them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

pub const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const SO_PIN: &str = "87654321";
pub const PIN: &str = "1234-5678";

/// Where this process keeps its tokens, and whoever makes one.
static STORE: OnceLock<(tempfile::TempDir, Mutex<()>)> = OnceLock::new();

fn store() -> &'static (tempfile::TempDir, Mutex<()>) {
    STORE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let tokens = folder.path().join("tokens");
        std::fs::create_dir(&tokens).unwrap();
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        std::fs::write(folder.path().join("softhsm2.conf"), text).unwrap();
        // The module, in this process, reads where its tokens are from the environment when it is first loaded.
        #[allow(unsafe_code, clippy::disallowed_methods)]
        // SAFETY: once in this process, before the module is loaded; nothing else here reads the environment meanwhile.
        unsafe {
            std::env::set_var("SOFTHSM2_CONF", folder.path().join("softhsm2.conf"));
        }
        (folder, Mutex::new(()))
    })
}

/// A token.
pub struct Hsm {
    pub label: String,
    /// Where it is while it is plugged in.
    plugged: PathBuf,
    away: PathBuf,
    /// Private to the test.
    pub folder: tempfile::TempDir,
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    said
}

fn folders(of: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(of)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

impl Hsm {
    pub fn new(label: &str) -> Self {
        let (home, making) = store();
        let tokens = home.path().join("tokens");
        let _making = making.lock().unwrap_or_else(PoisonError::into_inner);
        let before = folders(&tokens);
        run(
            "softhsm2-util",
            &[
                "--init-token",
                "--free",
                "--label",
                label,
                "--so-pin",
                SO_PIN,
                "--pin",
                PIN,
            ],
        );
        let plugged = folders(&tokens)
            .into_iter()
            .find(|one| !before.contains(one))
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let made = Self {
            label: label.to_owned(),
            away: home.path().join(plugged.file_name().unwrap()),
            plugged,
            folder,
        };
        made.write_pin(PIN);
        made
    }

    /// The file that holds the PIN.
    pub fn pin_file(&self) -> PathBuf {
        self.folder.path().join("pin")
    }

    pub fn write_pin(&self, pin: &str) {
        std::fs::write(self.pin_file(), format!("{pin}\n")).unwrap();
        std::fs::set_permissions(self.pin_file(), std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Where a key of this name is.
    pub fn uri(&self, object: &str) -> String {
        self.uri_by(object, Path::new(MODULE))
    }

    pub fn uri_by(&self, object: &str, module: &Path) -> String {
        let (label, pin) = (&self.label, self.pin_file());
        format!(
            "pkcs11:token={label};object={object}?module-path={}&pin-source=file:{}",
            module.display(),
            pin.display()
        )
    }

    /// What somebody else's tool does at the token.
    pub fn tool(&self, arguments: &[&str]) -> String {
        let common = [
            "--module",
            MODULE,
            "--token-label",
            &self.label,
            "--login",
            "--pin",
            PIN,
        ];
        run("pkcs11-tool", &[&common, arguments].concat())
    }

    pub fn unplug(&self) {
        std::fs::rename(&self.plugged, &self.away).unwrap();
    }

    pub fn plug_in(&self) {
        std::fs::rename(&self.away, &self.plugged).unwrap();
    }
}

/// A module that passes everything on to SoftHSM, but hangs in signatures while the file `hangs` is in `folder`, takes its time while `slow` is, and writes each login into `logins`.
pub fn watched_module(folder: &Path) -> PathBuf {
    let (source, made) = (folder.join("watched.c"), folder.join("watched.so"));
    std::fs::write(&source, include_str!("watched.c")).unwrap();
    run(
        "cc",
        &[
            "-shared",
            "-fPIC",
            &format!("-DFOLDER=\"{}\"", folder.display()),
            &format!("-DMODULE=\"{MODULE}\""),
            "-o",
            made.to_str().unwrap(),
            source.to_str().unwrap(),
            "-ldl",
        ],
    );
    made
}
