//! `compile` and `expand`: what a plant becomes for a gateway, and written out. `key`: what approvers sign with.

use std::path::Path;

use penstock_policy::ids::GatewayId;
use schemars::JsonSchema;
use serde::Serialize;

use crate::args;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::files::{self, Mode};
use crate::keys::{self, passphrase};
use crate::loading::{self, LoadedPlant};
use crate::output::{Output, Page, Report, Tone};

/// How many stations are named to who asks for one that there is not.
const STATIONS_NAMED: usize = 12;

/// A file that was written.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Written {
    /// What it is: `picture`, `plan`, `document`, `proposal`, `rollout-plan` or `rollout-record`.
    pub what: String,
    /// The file.
    pub file: String,
    /// SHA-256 of its bytes.
    pub digest: String,
    /// How many bytes it has.
    pub bytes: usize,
    /// What a picture shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shows: Option<String>,
    /// What a picture leaves out, in sentences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<Vec<String>>,
}

impl Report for Written {
    const SCHEMA: &'static str = "penstock.written/1";
    fn page(&self, page: &mut Page) {
        let (done, file) = (page.paint(Tone::Good, "✓"), page.paint(Tone::Name, &self.file));
        page.line(format!(
            "{done} {} written to {file} ({} bytes)",
            self.what, self.bytes
        ));
        if let Some(shows) = &self.shows {
            page.paragraph(2, Tone::Plain, shows);
        }
        for left_out in self.left_out.iter().flatten() {
            page.paragraph(2, Tone::Dim, left_out);
        }
    }
}

impl Written {
    /// What is to be said of these bytes, once they are in the file.
    pub(super) fn of(what: &str, file: &Path, bytes: &[u8]) -> Self {
        Self {
            what: what.to_owned(),
            file: file.display().to_string(),
            digest: penstock_policy::ids::Digest::of(bytes).to_string(),
            bytes: bytes.len(),
            shows: None,
            left_out: None,
        }
    }
}

/// Writes into the file, or to standard output as it is.
pub(crate) fn deliver(out: &Output, what: &str, file: Option<&Path>, bytes: &[u8]) -> Result<(), Failure> {
    let Some(file) = file else {
        return out.text(&String::from_utf8_lossy(bytes));
    };
    files::replace(file, bytes, Mode::Shared)?;
    out.show(&Written::of(what, file, bytes))
}

/// Refuses to write over a file of the document itself.
pub(crate) fn not_over(loaded: &LoadedPlant, file: Option<&Path>) -> Result<(), Failure> {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let Some(target) = file.and_then(real) else {
        return Ok(());
    };
    let mut files = loaded.documents.files.iter();
    match files.find(|own| real(Path::new(&own.shown)).as_ref() == Some(&target)) {
        None => Ok(()),
        Some(own) => Err(Failure::usage(format!(
            "{} is a file of the plant document and is not overwritten",
            own.shown
        ))
        .help("name another file")),
    }
}

/// `penstock expand`.
pub(crate) fn expand(out: &Output, args: &args::Expand) -> Result<Exit, Failure> {
    let loaded = loading::load(&args.path, out)?;
    not_over(&loaded, args.out.as_deref())?;
    let expanded = loading::expanded(&loaded)?;
    let text = match &args.station {
        None => expanded.text(),
        Some(name) => expanded.station(name).ok_or_else(|| {
            let names: Vec<&str> = expanded.stations().take(STATIONS_NAMED).collect();
            let failure = Failure::usage(format!("the document makes no station `{name}` from a template"));
            match names.as_slice() {
                [] => failure.help("it has no `stations`"),
                names => failure.help(format!("its first stations are: {}", names.join(", "))),
            }
        })?,
    };
    let head = "# Written out by `penstock expand`, without comments. The plans are those of the document with its templates.\n";
    deliver(
        out,
        "document",
        args.out.as_deref(),
        format!("{head}{text}").as_bytes(),
    )?;
    Ok(Exit::Done)
}

/// `penstock compile`.
pub(crate) fn compile(out: &Output, args: &args::Compile) -> Result<Exit, Failure> {
    let loaded = loading::load(&args.path, out)?;
    not_over(&loaded, args.out.as_deref())?;
    let known = || {
        loaded
            .plant
            .gateways
            .keys()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let gateway: GatewayId = args
        .gateway
        .parse()
        .ok()
        .filter(|id| loaded.plant.gateways.contains_key(id))
        .ok_or_else(|| {
            Failure::usage(format!("the document knows no gateway `{}`", args.gateway))
                .help(format!("it knows: {}", known()))
        })?;
    let plan = penstock_policy::compile::compile(&loaded.plant, &gateway).map_err(|error| {
        Failure::new(
            Exit::BadDocument,
            "not-compiled",
            format!("no plan can be made for {gateway}"),
        )
        .caused_by(&error)
    })?;
    // Without a line end: these are the exact bytes that a release's digest covers.
    deliver(out, "plan", args.out.as_deref(), &plan.to_bytes())?;
    Ok(Exit::Done)
}

/// The public half of a key.
#[derive(Debug, Serialize, JsonSchema)]
pub struct KeyShown {
    /// The file of the secret half.
    pub file: String,
    /// The public half, as the plant document wants it.
    pub public: String,
    /// Whether it was made just now.
    pub made: bool,
    /// Whether a passphrase locks the file; absent where only the public half was asked for.
    pub locked: Option<bool>,
}

impl Report for KeyShown {
    const SCHEMA: &'static str = "penstock.key/1";
    fn page(&self, page: &mut Page) {
        let (done, file) = (page.paint(Tone::Good, "✓"), page.paint(Tone::Name, &self.file));
        if self.made {
            page.line(format!(
                "{done} the secret half is in {file}; it is yours alone, keep a copy in a safe place"
            ));
        }
        match self.locked {
            Some(true) => page.line(format!("{done} a passphrase locks {file}")),
            Some(false) => {
                let warn = page.paint(Tone::Warn, "▲");
                page.line(format!(
                    "{warn} no passphrase locks {file}: whoever reads it can sign (penstock key passphrase FILE)"
                ));
            }
            None => {}
        }
        if self.made {
            page.line("  the public half, for `approvers` or `break_glass` in the plant document:");
        }
        let key = page.paint(Tone::Strong, &self.public);
        page.line(key);
    }
}

/// `penstock key …`.
pub(crate) fn key(out: &Output, args: &args::Key) -> Result<Exit, Failure> {
    let (file, key, made, locked) = match args {
        args::Key::New {
            file,
            unlock,
            no_passphrase,
        } => {
            // Before a person types a passphrase for nothing.
            files::free(file)?;
            let passphrase = match no_passphrase {
                true => None,
                false => passphrase::fresh(out, unlock.passphrase_file.as_deref())?,
            };
            let key = keys::make(file, passphrase.as_ref())?;
            (file, key, true, Some(passphrase.is_some()))
        }
        args::Key::Show { file, unlock } => {
            let ask = || passphrase::existing(out, file, unlock.passphrase_file.as_deref());
            (file, keys::read(file, ask)?, false, None)
        }
        args::Key::Passphrase {
            file,
            unlock,
            new_passphrase_file,
            no_passphrase,
        } => {
            let ask = || passphrase::existing(out, file, unlock.passphrase_file.as_deref());
            let mut locked = false;
            let new = || {
                let new = match no_passphrase {
                    true => None,
                    false => passphrase::another(out, new_passphrase_file.as_deref())?,
                };
                locked = new.is_some();
                Ok(new)
            };
            let key = keys::relock(file, ask, new)?;
            (file, key, false, Some(locked))
        }
    };
    out.show(&KeyShown {
        file: file.display().to_string(),
        public: keys::public_words(&key),
        made,
        locked,
    })?;
    Ok(Exit::Done)
}
