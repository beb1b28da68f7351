//! Where a key is, as a PKCS #11 URI (RFC 7512): which token, which object on it, by which module, and where the PIN stands.
//!
//! Strict: an attribute that would select nothing here is refused, rather than ignored; a key that others can be taken for is worse than
//! none. The PIN itself never stands in a URI, which is written into configurations, shown and logged.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Longest URI, bytes.
const BYTES_MAX: usize = 4096;
const SCHEME: &str = "pkcs11:";
/// What stands as it is in a value (RFC 7512, 2.3), besides letters and digits.
const PLAIN: &[u8] = b"-._~:[]@!$'()*+,=/";

/// Where a key is. What it shows of itself holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyUri {
    /// The token's label.
    pub token: Option<String>,
    /// The token's serial number.
    pub serial: Option<String>,
    /// Who made the token.
    pub manufacturer: Option<String>,
    /// The token's model.
    pub model: Option<String>,
    /// The slot's number.
    pub slot: Option<u64>,
    /// The key's label.
    pub object: Option<String>,
    /// The key's identifier.
    pub id: Option<Vec<u8>>,
    /// The module, a shared library.
    pub module: PathBuf,
    /// The file whose first line is the PIN; `None`: the token asks for none.
    pub pin: Option<PathBuf>,
}

/// Why a URI does not say where a key is.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UriError {
    /// It is another kind of text.
    #[error("does not begin with `pkcs11:`")]
    Scheme,
    /// It is longer than one is.
    #[error("is longer than {BYTES_MAX} bytes")]
    Length,
    /// A part is not `name=value`.
    #[error("has a part that is not name=value (part {0})")]
    Part(usize),
    /// Percent-encoding, UTF-8 or a number is broken.
    #[error("has a value of `{0}` that {1}")]
    Value(String, &'static str),
    /// Said twice.
    #[error("says `{0}` twice")]
    Twice(String),
    /// Nothing here goes by it.
    #[error(
        "has the attribute `{0}`, by which nothing is chosen here; token, serial, manufacturer, model, slot-id, object, id and type=private are known, and after the question mark module-path and pin-source"
    )]
    Unknown(String),
    /// The PIN stands in it.
    #[error(
        "holds the PIN itself (pin-value): configurations are read, copied and logged. Put the PIN into a file that only the service may read, and name that: pin-source=file:/PATH. The PIN that stood here may be known by now; consider changing it"
    )]
    PinValue,
    /// Something is lacking.
    #[error("{0}")]
    Lacks(&'static str),
}

impl FromStr for KeyUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        if text.len() > BYTES_MAX {
            return Err(UriError::Length);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(UriError::Scheme)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        // First of all, so that no other error shows a part of it.
        let names_pin = |part: &str| {
            part.split('=')
                .next()
                .is_some_and(|name| name.trim() == "pin-value")
        };
        if path.split(';').chain(query.split('&')).any(names_pin) {
            return Err(UriError::PinValue);
        }
        let mut chosen = attributes(path, ';', 0)?;
        let mut asked = attributes(query, '&', chosen.len())?;
        let mut text_of = |name: &str| take(&mut chosen, name).map(|value| utf8(name, value)).transpose();
        let (token, serial) = (text_of("token")?, text_of("serial")?);
        let (manufacturer, model) = (text_of("manufacturer")?, text_of("model")?);
        let slot = text_of("slot-id")?
            .map(|text| {
                text.parse()
                    .map_err(|_| UriError::Value("slot-id".to_owned(), "is not a number"))
            })
            .transpose()?;
        let object = text_of("object")?;
        if text_of("type")?.is_some_and(|kind| kind != "private") {
            return Err(UriError::Value(
                "type".to_owned(),
                "is not `private`: only a private key signs",
            ));
        }
        let id = take(&mut chosen, "id");
        let module = take(&mut asked, "module-path")
            .map(|value| utf8("module-path", value))
            .transpose()?;
        let pin = take(&mut asked, "pin-source")
            .map(|value| utf8("pin-source", value))
            .transpose()?;
        if let Some((name, _)) = chosen.into_iter().chain(asked).next() {
            return Err(UriError::Unknown(name));
        }
        if token.is_none() && serial.is_none() {
            return Err(UriError::Lacks(
                "names no token: say token=LABEL or serial=NUMBER, so that no other one is taken for it",
            ));
        }
        if object.is_none() && id.is_none() {
            return Err(UriError::Lacks(
                "names no key on the token: say object=LABEL or id=%01…",
            ));
        }
        let module = module.map(PathBuf::from).filter(|path| path.is_absolute());
        let module = module.ok_or(UriError::Lacks(
            "names no module: say ?module-path=/PATH/OF/THE/TOKEN'S/LIBRARY.so, an absolute path",
        ))?;
        Ok(Self {
            token,
            serial,
            manufacturer,
            model,
            slot,
            object,
            id,
            module,
            pin: pin.map(|text| pin_file(&text)).transpose()?,
        })
    }
}

/// The names and decoded values of one half.
fn attributes(half: &str, between: char, before: usize) -> Result<Vec<(String, Vec<u8>)>, UriError> {
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    if half.is_empty() {
        return Ok(all);
    }
    for (number, part) in half.split(between).enumerate() {
        let (name, value) = part
            .split_once('=')
            .filter(|(name, _)| {
                !name.is_empty()
                    && name
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            })
            .ok_or(UriError::Part(before + number + 1))?;
        if all.iter().any(|(known, _)| known == name) {
            return Err(UriError::Twice(name.to_owned()));
        }
        all.push((name.to_owned(), decoded(name, value)?));
    }
    Ok(all)
}

fn take(all: &mut Vec<(String, Vec<u8>)>, name: &str) -> Option<Vec<u8>> {
    let at = all.iter().position(|(known, _)| known == name)?;
    Some(all.remove(at).1)
}

fn decoded(name: &str, text: &str) -> Result<Vec<u8>, UriError> {
    let broken = |why| UriError::Value(name.to_owned(), why);
    let mut bytes = text.bytes();
    let mut value = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digit = |byte: Option<u8>| {
                    char::from(byte?)
                        .to_digit(16)
                        .and_then(|digit| u8::try_from(digit).ok())
                };
                let (high, low) = (digit(bytes.next()), digit(bytes.next()));
                let (Some(high), Some(low)) = (high, low) else {
                    return Err(broken("has a % without two hexadecimal digits"));
                };
                value.push(high << 4 | low);
            }
            plain if plain.is_ascii_alphanumeric() || PLAIN.contains(&plain) => value.push(plain),
            _ => {
                return Err(broken(
                    "has a character that has to be written as % and two hexadecimal digits",
                ));
            }
        }
    }
    if value.is_empty() {
        return Err(broken("is empty"));
    }
    Ok(value)
}

fn utf8(name: &str, value: Vec<u8>) -> Result<String, UriError> {
    String::from_utf8(value).map_err(|_| UriError::Value(name.to_owned(), "is not UTF-8 text"))
}

/// A file URI (RFC 8089) of this machine, or a path.
fn pin_file(text: &str) -> Result<PathBuf, UriError> {
    let path = match text.strip_prefix("file:") {
        Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
        None => text,
    };
    match Path::new(path) {
        path if path.is_absolute() => Ok(path.to_owned()),
        _ => Err(UriError::Value(
            "pin-source".to_owned(),
            "is not a file of this machine: say file:/PATH",
        )),
    }
}

impl KeyUri {
    /// The token, for people.
    pub fn token_in_words(&self) -> String {
        let slot = self
            .slot
            .map_or_else(String::new, |slot| format!(" in slot {slot}"));
        match (&self.token, &self.serial) {
            (Some(label), _) => format!("token '{label}'{slot}"),
            (None, Some(serial)) => format!("token with serial number {serial}{slot}"),
            (None, None) => format!("token{slot}"),
        }
    }

    /// The key on it, for people.
    pub fn key_in_words(&self) -> String {
        match (&self.object, &self.id) {
            (Some(label), _) => format!("key '{label}'"),
            (None, id) => format!(
                "key with identifier {}",
                hex::encode(id.as_deref().unwrap_or_default())
            ),
        }
    }
}

impl fmt::Display for KeyUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encoded = |value: &[u8]| -> String {
            value
                .iter()
                .map(|byte| match byte {
                    plain if plain.is_ascii_alphanumeric() || PLAIN.contains(plain) => {
                        char::from(*plain).to_string()
                    }
                    other => format!("%{other:02X}"),
                })
                .collect()
        };
        let slot = self.slot.map(|slot| slot.to_string());
        let path = [
            ("token", self.token.as_deref().map(str::as_bytes)),
            ("serial", self.serial.as_deref().map(str::as_bytes)),
            ("manufacturer", self.manufacturer.as_deref().map(str::as_bytes)),
            ("model", self.model.as_deref().map(str::as_bytes)),
            ("slot-id", slot.as_deref().map(str::as_bytes)),
            ("object", self.object.as_deref().map(str::as_bytes)),
            ("id", self.id.as_deref()),
        ];
        let path: Vec<String> = path
            .iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", encoded((*value)?))))
            .collect();
        let module = encoded(self.module.as_os_str().as_encoded_bytes());
        write!(f, "{SCHEME}{}?module-path={module}", path.join(";"))?;
        match &self.pin {
            Some(pin) => write!(
                f,
                "&pin-source=file:{}",
                encoded(pin.as_os_str().as_encoded_bytes())
            ),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const GOOD: &str =
        "pkcs11:token=penstock;object=issuing?module-path=/usr/lib/m.so&pin-source=file:/etc/pin";

    #[test]
    fn a_uri_is_read_as_the_standard_says_and_whatever_chooses_nothing_here_is_refused() {
        let read: KeyUri = GOOD.parse().unwrap();
        assert_eq!(read.pin.as_deref(), Some(Path::new("/etc/pin")));
        let full: KeyUri = "pkcs11:id=%00%fF;token=My%20HSM;slot-id=3;type=private;serial=1?pin-source=file:///p&module-path=/m.so"
            .parse()
            .unwrap();
        assert_eq!(
            (full.id.unwrap(), full.token.unwrap()),
            (vec![0, 255], "My HSM".to_owned())
        );
        assert_eq!((full.slot, full.pin.as_deref()), (Some(3), Some(Path::new("/p"))));
        for (text, words) in [
            ("file:/x", "does not begin"),
            ("pkcs11:object=a?module-path=/m", "names no token"),
            ("pkcs11:token=a?module-path=/m", "names no key"),
            ("pkcs11:token=a;object=b", "names no module"),
            ("pkcs11:token=a;object=b?module-path=m.so", "names no module"),
            (
                "pkcs11:token=a;object=b;type=cert?module-path=/m",
                "only a private key signs",
            ),
            ("pkcs11:token=a;token=b;object=b?module-path=/m", "`token` twice"),
            ("pkcs11:token=a;object=b;colour=red?module-path=/m", "`colour`"),
            (
                "pkcs11:token=a;object=b?module-path=/m&module-name=m",
                "`module-name`",
            ),
            (
                "pkcs11:token=a;object=b;library-version=3?module-path=/m",
                "`library-version`",
            ),
            ("pkcs11:token=a;object?module-path=/m", "not name=value (part 2)"),
            (
                "pkcs11:token=%zz;object=b?module-path=/m",
                "without two hexadecimal",
            ),
            (
                "pkcs11:token=a b;object=b?module-path=/m",
                "has to be written as %",
            ),
            ("pkcs11:token=%ff;object=b?module-path=/m", "not UTF-8"),
            ("pkcs11:token=;object=b?module-path=/m", "is empty"),
            ("pkcs11:token=a;slot-id=x;object=b?module-path=/m", "not a number"),
            (
                "pkcs11:token=a;object=b?module-path=/m&pin-source=|/bin/pin",
                "has to be written as %",
            ),
            (
                "pkcs11:token=a;object=b?module-path=/m&pin-source=https:%2F%2Fx",
                "not a file of this machine",
            ),
        ] {
            let refused = text.parse::<KeyUri>().unwrap_err().to_string();
            assert!(refused.contains(words), "{text}: {refused}");
        }
    }

    #[test]
    fn a_pin_in_a_uri_is_refused_wherever_it_stands_and_nothing_of_it_is_shown() {
        for text in [
            "pkcs11:token=a;object=b?module-path=/m&pin-value=s3cr3t",
            "pkcs11:token=a;pin-value=s3cr3t;object=b?module-path=/m",
            "pkcs11:colour=s3cr3t%;object=b?pin-value=s3cr3t",
        ] {
            let refused = text.parse::<KeyUri>().unwrap_err();
            assert_eq!(refused, UriError::PinValue);
            assert!(!refused.to_string().contains("s3cr3t"));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(
            token in ".{1,20}", object in proptest::option::of(".{1,20}"), id in proptest::collection::vec(any::<u8>(), 1..20),
            slot in proptest::option::of(any::<u64>()), pin in proptest::option::of("[^\0]{1,20}"),
        ) {
            let uri = KeyUri {
                token: Some(token), serial: None, manufacturer: None, model: None, slot, object, id: Some(id),
                module: "/usr/lib/a b%.so".into(), pin: pin.map(|pin| Path::new("/").join(pin.trim_start_matches('/'))),
            };
            prop_assert_eq!(uri.to_string().parse::<KeyUri>(), Ok(uri));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(pkcs11:)?[a-z=;?&%/-]{0,60}") {
            let _ = text.parse::<KeyUri>();
        }
    }
}
