//! What a document asks for and this version does not do (DESIGN, promise 11): each use is reported by name, so that nobody
//! relies on it.
//!
//! A key leaves this file with the change that makes something obey it. `document/tests/effects.rs` walks the whole grammar and
//! holds each key to what it changes, or to the report here.

use crate::diagnostics::codes::Code;
use crate::diagnostics::faults::{Fault, Faults};
use crate::document::grammar::Document;
use crate::document::read::{At, Field};

/// Reports each use of a key that nothing obeys.
pub(super) fn say(document: &Document, faults: &mut Faults) {
    for (name, _, conduit) in document
        .conduits
        .value()
        .into_iter()
        .flat_map(|table| table.readable())
    {
        // `tunnel: no` asks for nothing.
        if conduit.tunnel.value() == Some(&true) {
            say_one(
                &conduit.tunnel,
                &format!("`tunnel` of the conduit `{name}`"),
                "its flows cross between the gateways as they are: use a service with TLS, or a VPN of your own",
                faults,
            );
        }
    }
}

fn say_one<T>(field: &Field<T>, what: &str, instead: &str, faults: &mut Faults) {
    let Some(At { place, .. }) = field.get() else {
        return;
    };
    faults.add(
        Fault::new(
            Code::NotEnforced,
            *place,
            format!("{what} is recorded, not enforced in this version"),
        )
        .label("nothing acts on it")
        .help(format!("{instead}; or remove the key")),
    );
}
