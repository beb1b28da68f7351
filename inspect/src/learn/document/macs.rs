//! What a proposal says of MAC addresses: of a new asset beside its address, where it is beyond doubt; of one that the plant has, as a
//! comment, since a document says everything of an asset in one place.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use penstock_policy::model::Plant;
use penstock_policy::terms::Mac;

use crate::learn::macs::SeenMacs;

/// The end of a new asset's line, and a comment above it.
pub(super) fn of_new(seen: &SeenMacs, address: IpAddr) -> (String, String) {
    match seen.of(&BTreeSet::from([address])) {
        None => (String::new(), String::new()),
        Some(Ok(mac)) => (format!(", mac: \"{mac}\""), String::new()),
        Some(Err(doubt)) => (String::new(), format!("  # No `mac` for {address}: {doubt}.\n")),
    }
}

/// What was seen of the plant's own assets and is not in their `mac`.
pub(super) fn of_known(out: &mut String, seen: &SeenMacs, plant: &Plant) {
    let (mut missing, mut other) = (String::new(), String::new());
    for (id, asset) in &plant.assets {
        let own: BTreeSet<IpAddr> = asset.addresses.iter().copied().collect();
        let declared: Option<Mac> = asset.mac.as_ref().and_then(|mac| mac.parse().ok());
        let _ = match (declared, seen.of(&own)) {
            (None, Some(Ok(mac))) => writeln!(missing, "#   {id}: {{ mac: \"{mac}\" }}"),
            (None, Some(Err(doubt))) => writeln!(missing, "#   {id}: none: {doubt}"),
            (Some(declared), Some(Ok(mac))) if mac != declared => {
                writeln!(other, "#   {id}: declared {declared}, seen {mac}")
            }
            (Some(declared), Some(Err(doubt))) => match &doubt {
                // What is declared may be local, virtual or shared: somebody said so.
                crate::learn::macs::MacDoubt::Several(..) => {
                    writeln!(other, "#   {id}: declared {declared}; {doubt}")
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        };
    }
    if !missing.is_empty() {
        let _ = write!(
            out,
            "# MAC addresses of assets that are declared without one. With `mac`, a gateway can hold the asset to it (`minimum_assurance: D1`); add what \
             you know to be right:\n{missing}"
        );
    }
    if !other.is_empty() {
        let _ = write!(
            out,
            "# Assets that were seen with ANOTHER MAC address than is declared: replaced, or somebody else has the address:\n{other}"
        );
    }
}
