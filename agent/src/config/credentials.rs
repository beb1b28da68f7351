//! How bridges log in at brokers, as it was typed and as it was checked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use penstock_policy::ids::AssetId;
use serde::Deserialize;

use crate::bridge::side::Login;

/// One section of the file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TypedCredentials {
    broker: String,
    user: String,
    password_file: PathBuf,
}

/// Each broker's login, or what is wrong with one.
pub(super) fn logins(
    typed: Vec<TypedCredentials>,
) -> Result<BTreeMap<String, Login>, (&'static str, String)> {
    let refuse = |problem: String| Err(("bridge.credentials", problem));
    let mut logins = BTreeMap::new();
    for TypedCredentials {
        broker,
        user,
        password_file,
    } in typed
    {
        if let Err(error) = AssetId::new(broker.as_str()) {
            return refuse(format!(
                "names the broker `{broker}`, which no asset can be called: {error}"
            ));
        }
        if user.is_empty() || user.len() > usize::from(u16::MAX) {
            return refuse(format!(
                "for {broker}: the user is empty or longer than MQTT allows"
            ));
        }
        if !password_file.is_absolute() {
            return refuse(format!("for {broker}: `password_file` must be an absolute path"));
        }
        let login = Login { user, password_file };
        if logins.insert(broker.clone(), login).is_some() {
            return refuse(format!("names the broker `{broker}` twice"));
        }
    }
    Ok(logins)
}
