//! Which panels read the register map, and where, as it was typed and as it was checked.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use penstock_policy::ids::ZoneId;
use serde::Deserialize;

use super::services::is_own_place;
use crate::panel::registers::ZONES_MAX;
use crate::panel::{CLIENTS_MAX, PanelSettings};

/// The section of the file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TypedPanel {
    listen: String,
    clients: Vec<IpAddr>,
    zones: Vec<String>,
}

impl TypedPanel {
    /// The settings, or what is wrong with them. `taken`: where the gateway serves something else.
    pub(super) fn check(self, taken: &[SocketAddr]) -> Result<Option<PanelSettings>, (&'static str, String)> {
        if self.listen.is_empty() {
            if self.clients.is_empty() && self.zones.is_empty() {
                return Ok(None);
            }
            return Err((
                "panel.listen",
                "is empty, and the rest of `[panel]` is not: name one of the gateway's own addresses and a port, or nothing"
                    .to_owned(),
            ));
        }
        let listen: Option<SocketAddr> = self.listen.parse().ok().filter(is_own_place);
        let Some(listen) = listen else {
            let words = format!(
                "is `{}`: name one of the gateway's own addresses, and a port, such as 10.20.4.1:502",
                self.listen
            );
            return Err(("panel.listen", words));
        };
        if taken.contains(&listen) {
            let words = format!("is {listen}, where devices enrol (`est.listen`): choose another port");
            return Err(("panel.listen", words));
        }
        let clients: BTreeSet<IpAddr> = self.clients.into_iter().collect();
        if !(1..=CLIENTS_MAX).contains(&clients.len()) {
            return Err((
                "panel.clients",
                format!("must name 1 to {CLIENTS_MAX} addresses of panels; nobody else reads there"),
            ));
        }
        let usable = |client: &&IpAddr| {
            !client.is_unspecified() && !client.is_multicast() && client.is_ipv4() == listen.is_ipv4()
        };
        if let Some(client) = clients.iter().find(|client| !usable(client)) {
            let words =
                format!("holds {client}: name addresses of panels, of the same family as `panel.listen`");
            return Err(("panel.clients", words));
        }
        Ok(Some(PanelSettings {
            listen,
            clients,
            zones: ordered(self.zones).map_err(|problem| ("panel.zones", problem))?,
        }))
    }
}

/// The zones in their order, each once.
fn ordered(typed: Vec<String>) -> Result<Vec<ZoneId>, String> {
    if typed.len() > usize::from(ZONES_MAX) {
        return Err(format!(
            "holds more than {ZONES_MAX} zones, and the map has no more places"
        ));
    }
    let mut zones = Vec::new();
    for name in typed {
        let zone = ZoneId::new(name.as_str())
            .map_err(|error| format!("holds `{name}`, which no zone can be called: {error}"))?;
        if zones.contains(&zone) {
            return Err(format!("holds `{name}` twice"));
        }
        zones.push(zone);
    }
    Ok(zones)
}
