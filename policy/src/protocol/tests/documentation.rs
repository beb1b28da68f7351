//! The tables of `docs/plant-document.md` that say what operations there are and what limits them.
//!
//! They are written from the vocabularies, between marks: `PENSTOCK_UPDATE_GOLDENS=1 cargo nextest run -p penstock-policy documentation`.

use std::fmt::Write as _;

use super::Protocol;
use crate::document::services::services;
use crate::protocol::Carrier;
use crate::protocol::vocabulary::{Shape, Vocabulary};

const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/plant-document.md");

/// A row for each operation, for those without a name, and for each group.
fn operations(protocol: &Vocabulary) -> String {
    let mut table = "| operation | can | limits | |\n|---|---|---|---|\n".to_owned();
    let mut row = |name: String, shape: Shape| {
        let effect = shape.effect.map_or("anything", |effect| effect.word());
        let limits: Vec<String> = shape
            .limits
            .iter()
            .map(|takes| match takes.required {
                Some(_) => format!("**`{}`**", takes.limit.name),
                None => format!("`{}`", takes.limit.name),
            })
            .collect();
        let _ = writeln!(
            table,
            "| {name} | {effect} | {} | {} |",
            limits.join(" "),
            shape.help
        );
    };
    let shape = |name: &str| protocol.shape(name).expect("a name has a shape");
    for operation in protocol.operations {
        row(format!("`{}`", operation.name), shape(operation.name));
    }
    if let Some(numbered) = &protocol.numbered {
        let shape = Shape {
            limits: numbered.limits,
            effect: None,
            help: numbered.help,
        };
        row(format!("`{}<n>`", numbered.prefix), shape);
    }
    for group in protocol.groups {
        row(format!("group `{}`", group.name), shape(group.name));
    }
    table
}

/// A row for each limit.
fn limits(protocol: &Vocabulary) -> String {
    let mut table = "| limit | |\n|---|---|\n".to_owned();
    for limit in protocol.limits {
        let _ = writeln!(table, "| `{}` | {} |", limit.name, limit.help);
    }
    table
}

/// The services whose operations can be told apart.
fn services_with_operations() -> String {
    let mut table = "| service | | |\n|---|---|---|\n".to_owned();
    for service in services().filter(|service| service.protocol.is_some()) {
        let carrier = match service.carrier {
            Carrier::Tcp => "tcp",
            Carrier::Udp => "udp",
            Carrier::IcmpEcho => "icmp",
        };
        let _ = writeln!(
            table,
            "| `{}` | {carrier} {} | {} |",
            service.name, service.port, service.title
        );
    }
    table
}

/// What stands between the marks of that name, and where.
fn between<'a>(guide: &'a str, name: &str) -> (usize, &'a str) {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->\n"));
    let from = guide.find(&begin).unwrap_or_else(|| panic!("no mark `{begin}`")) + begin.len();
    let length = guide[from..]
        .find(&end)
        .unwrap_or_else(|| panic!("no mark `{end}`"));
    (from, &guide[from..from + length])
}

#[test]
fn the_documentation_has_every_operation_and_limit_as_the_vocabularies_have_them() {
    let mut guide = std::fs::read_to_string(GUIDE).unwrap();
    let mut tables = vec![("services with operations".to_owned(), services_with_operations())];
    for protocol in Protocol::all() {
        tables.push((format!("operations of {}", protocol.word), operations(&protocol)));
        tables.push((format!("limits of {}", protocol.word), limits(&protocol)));
    }
    let update = std::env::var_os("PENSTOCK_UPDATE_GOLDENS").is_some();
    for (name, table) in tables {
        let (from, stands) = between(&guide, &name);
        if update {
            let to = from + stands.len();
            guide.replace_range(from..to, &table);
        } else {
            assert_eq!(stands, table, "{name} in docs/plant-document.md");
        }
    }
    if update {
        std::fs::write(GUIDE, guide).unwrap();
    }
}
