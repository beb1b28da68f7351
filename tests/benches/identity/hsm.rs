//! A token of SoftHSM's, in a folder of its own.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

pub(super) struct Token {
    folder: tempfile::TempDir,
}

impl Token {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (tokens, conf, pin) = (
            folder.path().join("tokens"),
            folder.path().join("softhsm2.conf"),
            folder.path().join("pin"),
        );
        std::fs::create_dir(&tokens).unwrap();
        std::fs::write(&conf, format!("directories.tokendir = {}\n", tokens.display())).unwrap();
        std::fs::write(&pin, "1234\n").unwrap();
        std::fs::set_permissions(&pin, std::fs::Permissions::from_mode(0o600)).unwrap();
        #[allow(unsafe_code, clippy::disallowed_methods)]
        // SAFETY: there is no other thread yet.
        unsafe {
            std::env::set_var("SOFTHSM2_CONF", &conf);
        }
        let made = Command::new("softhsm2-util")
            .args([
                "--init-token",
                "--free",
                "--label",
                "bench",
                "--so-pin",
                "12345678",
                "--pin",
                "1234",
            ])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        Self { folder }
    }

    /// Where a key of this name is.
    pub(super) fn uri(&self, object: &str) -> String {
        let pin = self.folder.path().join("pin");
        format!(
            "pkcs11:token=bench;object={object}?module-path={MODULE}&pin-source=file:{}",
            pin.display()
        )
    }
}
