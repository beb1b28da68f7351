//! `init`: a small commented plant document to start from, and a first approver's key.

use penstock_policy::ids::{ApproverId, PlantId};
use schemars::JsonSchema;
use serde::Serialize;

use crate::args;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, FileError, Mode};
use crate::keys;
use crate::output::{Output, Page, Report, Tone};

/// The document; `{plant}`, `{approver}` and `{key}` are filled in.
const STARTER: &str = include_str!("starter.yaml");

/// What was written.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Started {
    /// The plant's name.
    pub plant: String,
    /// The document.
    pub document: String,
    /// The approver's secret key.
    pub key_file: String,
    /// Its public half, as it stands in the document.
    pub public: String,
}

impl Report for Started {
    const SCHEMA: &'static str = "penstock.init/1";
    fn page(&self, page: &mut Page) {
        let done = page.paint(Tone::Good, "✓");
        let (document, key) = (
            page.paint(Tone::Name, &self.document),
            page.paint(Tone::Name, &self.key_file),
        );
        page.line(format!(
            "{done} {document}: a plant to start from, with two zones and one conduit"
        ));
        page.line(format!(
            "{done} {key}: the first approver's secret key; keep it out of version control"
        ));
        page.gap();
        page.line("next:");
        for command in [
            "check",
            "graph -o plant.svg",
            "explain --from hmi-1 --to plc-1 --service modbus-tcp",
        ] {
            let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
            let line = format!("  penstock {verb} {} {rest}", self.document);
            let line = page.paint(Tone::Plain, line.trim_end());
            page.line(line);
        }
    }
}

/// `penstock init`.
pub fn init(out: &Output, args: &args::Init) -> Result<Exit, Failure> {
    let plant = match &args.plant {
        Some(name) => PlantId::new(name.as_str())
            .map_err(|error| Failure::usage(format!("this cannot be the plant's name: {error}")))?,
        None => by_folder(&args.dir),
    };
    let approver = ApproverId::new(args.approver.as_str())
        .map_err(|error| Failure::usage(format!("this cannot be the approver's name: {error}")))?;
    std::fs::create_dir_all(&args.dir).map_err(|source| FileError::Write {
        path: args.dir.clone(),
        source,
    })?;
    let document = args.dir.join("plant.yaml");
    let key_file = args.dir.join(format!("{approver}.key"));
    for path in [&document, &key_file] {
        if path.exists() {
            return Err(FileError::Exists { path: path.clone() }.into());
        }
    }
    let key = keys::public_words(&keys::make(&key_file)?);
    let text = STARTER
        .replace("{plant}", plant.as_str())
        .replace("{approver}", approver.as_str())
        .replace("{key}", &key);
    files::create(&document, text.as_bytes(), Mode::Shared)?;
    out.show(&Started {
        plant: plant.to_string(),
        document: document.display().to_string(),
        key_file: key_file.display().to_string(),
        public: key,
    })?;
    Ok(Exit::Done)
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
    use super::*;

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
