//! `init`: a small commented plant document to start from, with the keys of its first approvers, which git is told to ignore, and the schema
//! by which editors complete and check it.

use std::path::{Path, PathBuf};

use penstock_policy::ids::{ApproverId, PlantId};
use schemars::JsonSchema;
use serde::Serialize;

use crate::args;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, FileError, Mode, quoted};
use crate::keys;
use crate::output::{Output, Page, Report, Tone};

/// The document; `{plant}`, `{threshold}` and `{people}` are filled in.
const STARTER: &str = include_str!("starter.yaml");
/// Signatures that a release needs where there are people enough: one alone cannot change what gateways enforce.
const THRESHOLD: usize = 2;
/// What is secret, and lies about where people work.
const IGNORED: [&str; 2] = ["*.key", "*.token"];
/// The schema beside the document, which names it in its first line.
const SCHEMA_FILE: &str = "plant.schema.json";
/// Largest `.gitignore` that is added to, bytes.
const IGNORE_BYTES_MAX: u64 = 1 << 20;

/// What was written.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Started {
    /// The plant's name.
    pub plant: String,
    /// The document.
    pub document: String,
    /// Who signs releases.
    pub approvers: Vec<StartedKey>,
    /// How many of them have to sign one.
    pub threshold: usize,
    /// The file that keeps keys and tokens out of version control.
    pub ignore_file: String,
    /// The schema by which editors complete and check the document.
    pub schema_file: String,
}

/// An approver's key that was made.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StartedKey {
    /// The approver.
    pub approver: String,
    /// The file of the secret half.
    pub key_file: String,
    /// The public half, as it stands in the document.
    pub public: String,
}

impl Report for Started {
    const SCHEMA: &'static str = "penstock.init/2";
    fn page(&self, page: &mut Page) {
        let done = page.paint(Tone::Good, "✓");
        let document = page.paint(Tone::Name, &self.document);
        page.line(format!(
            "{done} {document}: a plant to start from, with two zones and one conduit"
        ));
        for key in &self.approvers {
            let (file, approver) = (
                page.paint(Tone::Name, &key.key_file),
                page.paint(Tone::Strong, &key.approver),
            );
            page.line(format!(
                "{done} {file}: the secret key of {approver}, for trying out"
            ));
        }
        let ignore = page.paint(Tone::Name, &self.ignore_file);
        page.line(format!(
            "{done} {ignore}: keeps keys and tokens out of version control ({})",
            IGNORED.join(", ")
        ));
        let schema = page.paint(Tone::Name, &self.schema_file);
        page.line(format!(
            "{done} {schema}: by which an editor with the YAML language server completes and checks the document"
        ));
        if self.threshold < THRESHOLD {
            let warn = page.paint(Tone::Warn, "▲");
            let only: Vec<_> = self.approvers.iter().map(|key| key.approver.as_str()).collect();
            let only = page.paint(Tone::Strong, &only.join(", "));
            page.line(format!(
                "{warn} threshold 1: the key of {only} alone decides what gateways enforce; name a second approver"
            ));
        }
        page.gap();
        page.line("next:");
        let document = quoted(Path::new(&self.document));
        for command in [
            format!("check {document}"),
            format!("graph {document} -o plant.svg"),
            format!("explain {document} --from hmi-1 --to plc-1 --service modbus-tcp"),
        ] {
            let line = page.paint(Tone::Plain, &format!("  penstock {command}"));
            page.line(line);
        }
        page.gap();
        page.line(
            "Before you release anything: each approver makes a key on their own machine (penstock key new FILE), and its \
             public half takes the place of the one in the document.",
        );
    }
}

/// `penstock init`.
pub(crate) fn init(out: &Output, args: &args::Init) -> Result<Exit, Failure> {
    let plant = match &args.plant {
        Some(name) => PlantId::new(name.as_str())
            .map_err(|error| Failure::usage(format!("this cannot be the plant's name: {error}")))?,
        None => by_folder(&args.dir),
    };
    let mut approvers: Vec<(ApproverId, PathBuf)> = Vec::new();
    for name in &args.approver {
        let approver = ApproverId::new(name.as_str())
            .map_err(|error| Failure::usage(format!("this cannot be an approver's name: {error}")))?;
        if approvers.iter().any(|(other, _)| *other == approver) {
            return Err(Failure::usage(format!("approver {approver} is named twice")));
        }
        let key_file = args.dir.join(format!("{approver}.key"));
        approvers.push((approver, key_file));
    }
    std::fs::create_dir_all(&args.dir).map_err(|source| FileError::Write {
        path: args.dir.clone(),
        source,
    })?;
    let document = args.dir.join("plant.yaml");
    let schema_file = args.dir.join(SCHEMA_FILE);
    for file in [&document, &schema_file] {
        files::free(file)?;
    }
    approvers
        .iter()
        .try_for_each(|(_, key_file)| files::free(key_file))?;
    // Before there is a key to be ignored.
    let ignore_file = args.dir.join(".gitignore");
    ignore_secrets(&ignore_file)?;
    let mut made = Vec::new();
    for (approver, key_file) in &approvers {
        made.push(StartedKey {
            approver: approver.to_string(),
            public: keys::public_words(&keys::make(key_file, None)?),
            key_file: key_file.display().to_string(),
        });
    }
    let people: Vec<String> = made
        .iter()
        .map(|key| format!("    {}: {{ key: \"{}\" }}", key.approver, key.public))
        .collect();
    let threshold = THRESHOLD.min(made.len());
    let text = STARTER
        .replace("{plant}", plant.as_str())
        .replace("{threshold}", &threshold.to_string())
        .replace("{people}", &people.join("\n"));
    files::create(&document, text.as_bytes(), Mode::Shared)?;
    files::create(&schema_file, schema().as_bytes(), Mode::Shared)?;
    out.show(&Started {
        plant: plant.to_string(),
        document: document.display().to_string(),
        approvers: made,
        threshold,
        ignore_file: ignore_file.display().to_string(),
        schema_file: schema_file.display().to_string(),
    })?;
    Ok(Exit::Done)
}

/// That of one file of a plant, which need not have all sections: so it has no false errors when the document becomes a folder.
fn schema() -> String {
    let mut schema = penstock_policy::schema::json_schema();
    if let Some(object) = schema.as_object_mut() {
        object.remove("required");
    }
    format!("{}\n", serde_json::to_string_pretty(&schema).unwrap_or_default())
}

/// Makes `.gitignore`, or adds to the one that is there what it does not say yet.
fn ignore_secrets(path: &Path) -> Result<(), FileError> {
    let before = match files::read(path, IGNORE_BYTES_MAX) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(FileError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let missing: Vec<&str> = IGNORED
        .into_iter()
        .filter(|pattern| !before.lines().any(|line| line.trim() == *pattern))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let gap = if before.is_empty() || before.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    let text = format!("{before}{gap}# Secrets of Penstock.\n{}\n", missing.join("\n"));
    files::replace(path, text.as_bytes(), Mode::Shared)
}

/// The folder's name where it can be a plant's, with what cannot stand in a name made into `-`.
fn by_folder(dir: &std::path::Path) -> PlantId {
    let full = std::path::absolute(dir).unwrap_or_default();
    let name = full
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    PlantId::new(name.trim_matches('-')).unwrap_or_else(|_| fallback())
}

fn fallback() -> PlantId {
    #[allow(clippy::expect_used)] // A literal that a test of this module makes.
    PlantId::new("my-plant").expect("a literal name")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_git_ignores_already_stays_and_is_not_said_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".gitignore");
        std::fs::write(&path, "target\n*.key").unwrap();
        for _ in 0..2 {
            ignore_secrets(&path).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text, "target\n*.key\n# Secrets of Penstock.\n*.token\n");
        }
    }

    #[test]
    fn a_folder_gives_its_plant_a_name_that_is_one() {
        assert_eq!(
            by_folder(std::path::Path::new("/srv/Water Works_2")).as_str(),
            "water-works-2"
        );
        assert_eq!(by_folder(std::path::Path::new("/")).as_str(), "my-plant");
        assert_eq!(by_folder(std::path::Path::new("/äöü")).as_str(), "my-plant");
    }
}
