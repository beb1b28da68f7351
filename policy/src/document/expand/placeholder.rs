//! Placeholders: `$(net + 5)` in a template's text, and what becomes of them.
//!
//! | written | of | is |
//! |---|---|---|
//! | `$(name)` | any parameter | its value as given |
//! | `$(name + 5)` | a network | the fifth address in it, which must lie in it |
//! | `$(name + 5)` | an address, a number | five more |
//! | `$(name.length)` | a network | the length of its prefix: `24` |
//! | `$$(` | | the two characters `$(` |
//!
//! That is all: a value is filled in, and nothing is computed that one could not see. None of these characters means anything
//! to YAML, so no quotes are needed around them.

use std::net::IpAddr;

use ipnet::IpNet;

use super::parameter::{Kind, Value};

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// As it stands.
    Text(String),
    /// To be filled in.
    Placeholder { name: String, wanted: Wanted },
}

/// What of a parameter is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Value,
    Plus(u32),
    Length,
}

/// The pieces of a text, or what is wrong with a placeholder in it.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("$(") {
        if let Some(escaped) = before.strip_suffix('$') {
            plain.push_str(escaped);
            plain.push_str("$(");
            rest = after;
            continue;
        }
        plain.push_str(before);
        let Some((inside, behind)) = after.split_once(')') else {
            return Err("a placeholder begins with `$(` and has no `)`".to_owned());
        };
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(placeholder(inside)?);
        rest = behind;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

fn placeholder(inside: &str) -> Result<Piece, String> {
    let wrong = || {
        format!(
            "`$({})` is not a placeholder",
            super::super::node::excerpt(inside)
        )
    };
    let (name, wanted) = if let Some((name, number)) = inside.split_once('+') {
        let number = super::super::scalars::decimal(number.trim()).map_err(|_| wrong())?;
        (name.trim(), Wanted::Plus(number))
    } else if let Some(name) = inside.trim().strip_suffix(".length") {
        (name, Wanted::Length)
    } else {
        (inside.trim(), Wanted::Value)
    };
    if !super::parameter::is_name(name) {
        return Err(wrong());
    }
    Ok(Piece::Placeholder {
        name: name.to_owned(),
        wanted,
    })
}

/// Why this cannot be had of a parameter of that kind, if it cannot.
pub(super) fn unfit(name: &str, kind: Kind, wanted: Wanted) -> Option<String> {
    match (wanted, kind) {
        (Wanted::Value, _) | (Wanted::Plus(_), Kind::Number | Kind::Address | Kind::Network) => None,
        (Wanted::Length, Kind::Network) => None,
        (Wanted::Plus(_), Kind::Text) => Some(format!("nothing can be added to `{name}`, which is text")),
        (Wanted::Length, _) => Some(format!(
            "only a network has a length, and `{name}` is {}",
            kind.with_article()
        )),
    }
}

/// What stands in the place of the placeholder, or why nothing can.
pub(super) fn fill(name: &str, value: &Value, wanted: Wanted) -> Result<String, String> {
    let beyond = |number: u32| format!("`$({name} + {number})` lies outside {value}");
    match (wanted, value) {
        (Wanted::Value, value) => Ok(value.to_string()),
        (Wanted::Length, Value::Network(net)) => Ok(net.prefix_len().to_string()),
        (Wanted::Plus(number), Value::Number(value)) => value
            .checked_add(number)
            .map(|sum| sum.to_string())
            .ok_or_else(|| beyond(number)),
        (Wanted::Plus(number), Value::Address(address)) => plus(*address, number)
            .map(|address| address.to_string())
            .ok_or_else(|| format!("`$({name} + {number})` is beyond the last address")),
        (Wanted::Plus(number), Value::Network(net)) => within(net, number)
            .map(|address| address.to_string())
            .ok_or_else(|| beyond(number)),
        (Wanted::Plus(_) | Wanted::Length, value) => {
            Err(unfit(name, value.kind(), wanted)
                .unwrap_or_else(|| format!("`{name}` cannot be used like this")))
        }
    }
}

fn plus(address: IpAddr, number: u32) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => u32::from(address)
            .checked_add(number)
            .map(|sum| IpAddr::V4(sum.into())),
        IpAddr::V6(address) => u128::from(address)
            .checked_add(number.into())
            .map(|sum| IpAddr::V6(sum.into())),
    }
}

fn within(net: &IpNet, number: u32) -> Option<IpAddr> {
    plus(net.network(), number).filter(|address| net.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str, value: &Value) -> Result<String, String> {
        let pieces = pieces(text)?;
        pieces
            .into_iter()
            .try_fold(String::new(), |all, piece| match piece {
                Piece::Text(text) => Ok(all + &text),
                Piece::Placeholder { name, wanted } => Ok(all + &fill(&name, value, wanted)?),
            })
    }

    #[test]
    fn a_placeholder_becomes_what_the_table_says() {
        let net = Value::Network("10.20.1.0/24".parse().unwrap());
        let six = Value::Network("fd00:20::/64".parse().unwrap());
        let address = Value::Address("10.20.1.9".parse().unwrap());
        for (text, value, wanted) in [
            ("$(net)", &net, "10.20.1.0/24"),
            ("$(net + 5)", &net, "10.20.1.5"),
            ("$(net+5)", &net, "10.20.1.5"),
            ("$(net + 1)/$(net.length)", &net, "10.20.1.1/24"),
            ("a $( net ) b", &net, "a 10.20.1.0/24 b"),
            ("$(net + 255)", &net, "10.20.1.255"),
            ("$(net + 5)", &six, "fd00:20::5"),
            ("$(uplink + 1)", &address, "10.20.1.10"),
            ("$(unit + 100)", &Value::Number(7), "107"),
            ("costs $5, $$(net) and $ (x)", &net, "costs $5, $(net) and $ (x)"),
            ("", &net, ""),
        ] {
            assert_eq!(filled(text, value).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn nothing_is_guessed_and_no_sum_leaves_its_network() {
        let net = Value::Network("10.20.1.0/24".parse().unwrap());
        let last = Value::Address("255.255.255.255".parse().unwrap());
        for (text, value) in [
            ("$(net + 256)", &net),
            ("$(net + 4294967295)", &net),
            ("$(net + 01)", &net),
            ("$(net - 1)", &net),
            ("$(net * 2)", &net),
            ("$(net + net)", &net),
            ("$(net", &net),
            ("$()", &net),
            ("$(Net)", &net),
            ("$(net.size)", &net),
            ("$(a + 1)", &last),
            ("$(n + 1)", &Value::Number(u32::MAX)),
            ("$(n.length)", &Value::Number(1)),
            ("$(t + 1)", &Value::Text("x".to_owned())),
        ] {
            assert!(filled(text, value).is_err(), "{text}: {:?}", filled(text, value));
        }
    }
}
