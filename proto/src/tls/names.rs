//! The addresses and DNS names by which ordinary TLS clients check a server: which of them a plan needs, and which
//! a certificate is good for.
//!
//! Where a client's TLS ends at the gateway, the client believes that it speaks to the broker, and looks for the
//! broker's address or name in the gateway's certificate. The coordinator puts those into it that the approved plan
//! names, and the agent compares. *Who a peer is* never comes from here, but from its one URI (see [`crate::peer`]).

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use penstock_policy::plan::{Plan, Rule};
use rustls::pki_types::{CertificateDer, ServerName};
use x509_parser::extensions::GeneralName;

use crate::peer::PeerError;

/// Most names in one certificate: it travels in every handshake.
pub const NAMES_MAX: usize = 64;

/// Addresses and DNS names of a server, at most [`NAMES_MAX`] if they came from a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerNames {
    addresses: BTreeSet<IpAddr>,
    /// Lower case, without a dot at the end.
    dns: BTreeSet<String>,
}

/// Why the names of a plan cannot stand in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NamesError {
    /// Not an address and not a DNS name.
    #[error("`{0}` is neither a DNS name nor an address, so no certificate can carry it as a server's name")]
    Form(String),
    /// More than a certificate should carry.
    #[error(
        "TLS would end at gateway {gateway} for {count} addresses and names, and its certificate carries at most \
         {NAMES_MAX}: name the brokers one by one instead of whole networks, or spread them over more gateways"
    )]
    TooMany {
        /// The gateway.
        gateway: String,
        /// How many there are.
        count: usize,
    },
}

impl ServerNames {
    /// The servers whose TLS ends at the gateway by this plan: destinations that are single hosts, and the DNS
    /// names that the rules give. A destination that is a network names no server.
    ///
    /// # Errors
    /// The plan ends TLS for more addresses and names than a certificate carries, or for a name that none can carry.
    pub fn of_plan(plan: &Plan) -> Result<Self, NamesError> {
        let mut names = Self::default();
        for rule in &plan.rules {
            names.add_rule(rule)?;
        }
        if names.len() > NAMES_MAX {
            return Err(NamesError::TooMany {
                gateway: plan.gateway.to_string(),
                count: names.len(),
            });
        }
        Ok(names)
    }

    fn add_rule(&mut self, rule: &Rule) -> Result<(), NamesError> {
        let Some(tls) = &rule.tls else {
            return Ok(());
        };
        let hosts = rule
            .destinations
            .iter()
            .map(|end| end.network)
            .filter(|network| network.prefix_len() == network.max_prefix_len());
        self.addresses.extend(hosts.map(|host| host.addr()));
        tls.server_name.iter().try_for_each(|name| self.add(name))
    }

    /// Adds an address or a DNS name as it is written.
    ///
    /// # Errors
    /// The text is neither a DNS name nor an address.
    pub fn add(&mut self, name: &str) -> Result<(), NamesError> {
        match ServerName::try_from(name) {
            Ok(ServerName::IpAddress(address)) => {
                self.addresses.insert(address.into());
            }
            Ok(ServerName::DnsName(dns)) => {
                let lower = dns.as_ref().to_ascii_lowercase();
                self.dns
                    .insert(lower.strip_suffix('.').unwrap_or(&lower).to_owned());
            }
            _ => return Err(NamesError::Form(name.to_owned())),
        }
        Ok(())
    }

    /// What a certificate is good for as a server's; nothing if it may not serve (extended key usage).
    ///
    /// # Errors
    /// The certificate cannot be read.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, PeerError> {
        let (_, parsed) =
            x509_parser::parse_x509_certificate(certificate).map_err(|_| PeerError::Unreadable)?;
        let usage = parsed.extended_key_usage().map_err(|_| PeerError::Unreadable)?;
        let mut names = Self::default();
        if !usage.is_some_and(|usage| usage.value.server_auth) {
            return Ok(names);
        }
        let written = parsed
            .subject_alternative_name()
            .map_err(|_| PeerError::Unreadable)?
            .map(|extension| extension.value.general_names.as_slice())
            .unwrap_or_default();
        for name in written {
            match name {
                GeneralName::DNSName(dns) => {
                    names.dns.insert(dns.to_ascii_lowercase());
                }
                GeneralName::IPAddress(bytes) => {
                    let address = <[u8; 4]>::try_from(*bytes)
                        .map(IpAddr::from)
                        .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from))
                        .map_err(|_| PeerError::Unreadable)?;
                    names.addresses.insert(address);
                }
                _ => {}
            }
        }
        Ok(names)
    }

    /// Those of these names that are not among `held`.
    #[must_use]
    pub fn missing_from(&self, held: &Self) -> Self {
        Self {
            addresses: self.addresses.difference(&held.addresses).copied().collect(),
            dns: self.dns.difference(&held.dns).cloned().collect(),
        }
    }

    /// The addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().copied()
    }

    /// The DNS names, in lower case.
    pub fn dns(&self) -> impl Iterator<Item = &str> + '_ {
        self.dns.iter().map(String::as_str)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.addresses.len() + self.dns.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Extend<IpAddr> for ServerNames {
    fn extend<T: IntoIterator<Item = IpAddr>>(&mut self, addresses: T) {
        self.addresses.extend(addresses);
    }
}

/// All of them, with commas.
impl fmt::Display for ServerNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = self.addresses.iter().map(ToString::to_string);
        let all: Vec<String> = addresses.chain(self.dns.iter().cloned()).collect();
        f.write_str(&all.join(", "))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use penstock_policy::terms::Tls;

    fn names(written: &[&str]) -> ServerNames {
        let mut names = ServerNames::default();
        for name in written {
            names.add(name).unwrap();
        }
        names
    }

    #[test]
    fn a_name_is_the_same_in_capitals_and_with_a_dot_at_its_end() {
        let one = names(&["Broker.Plant.example.", "10.0.0.5", "fd00::5"]);
        assert_eq!(one, names(&["fd00:0::5", "broker.plant.example", "10.0.0.5"]));
        assert_eq!(one.to_string(), "10.0.0.5, fd00::5, broker.plant.example");
        assert_eq!(one.missing_from(&names(&["10.0.0.5"])).len(), 2);
        assert!(one.missing_from(&one).is_empty());
    }

    #[test]
    fn what_is_no_name_of_one_server_is_refused() {
        for name in ["", "*.plant.example", "10.0.0.0/24", "a b", "é.example", "-"] {
            let refused = ServerNames::default().add(name);
            assert!(matches!(refused, Err(NamesError::Form(_))), "{name}");
        }
    }

    /// A plan with one flow to each list of networks, whose TLS ends at the gateway by default.
    fn plan(flows: &[(&[&str], Option<Tls>)]) -> Plan {
        use penstock_policy::plan::{Endpoint, PLAN_FORMAT};
        use penstock_policy::terms::{GatewayMode, OnAgentLoss, OnDrift, OnRefusal};
        use penstock_policy::terms::{PortRange, Transport};
        let rule = |(n, (networks, tls)): (u32, &(&[&str], Option<Tls>))| Rule {
            id: penstock_policy::ids::FlowId(n),
            conduit: "c".parse().unwrap(),
            flow: "f".parse().unwrap(),
            sources: Vec::new(),
            destinations: networks
                .iter()
                .map(|network| Endpoint {
                    name: "x".into(),
                    network: network.parse().unwrap(),
                })
                .collect(),
            transport: Transport::Tcp(vec![PortRange::single(8883)]),
            must_flow: false,
            on_agent_loss: OnAgentLoss::Block,
            operations: None,
            on_refusal: OnRefusal::Answer,
            roles: None,
            answers: penstock_policy::terms::Answers::Strict,
            tls: tls.clone().map(Into::into),
        };
        Plan {
            format: PLAN_FORMAT.to_owned(),
            plant: "water".parse().unwrap(),
            gateway: "gw-1".parse().unwrap(),
            mode: GatewayMode::Routed,
            requires: BTreeSet::new(),
            on_drift: OnDrift::Repair,
            interfaces: Vec::new(),
            management: None,
            rules: (1..).zip(flows).map(rule).collect(),
            bridges: Vec::new(),
            frames: Vec::new(),
            grants: std::collections::BTreeMap::new(),
            windows: None,
            interlock: None,
            tunnels: None,
            bound: std::collections::BTreeMap::new(),
            unproven: Vec::new(),
            break_glass: None,
            open: std::collections::BTreeSet::new(),
            excepted: std::collections::BTreeMap::new(),
        }
    }

    fn called(name: &str) -> Option<Tls> {
        Some(Tls {
            server_authorities: None,
            server_name: Some(name.to_owned()),
            plain_port: None,
        })
    }

    #[test]
    fn a_plan_needs_the_hosts_and_names_where_tls_ends_and_no_others() {
        let plan = plan(&[
            (&["10.0.0.5/32", "fd00::5/128"], called("Broker.example")),
            (&["10.0.0.6/32", "10.1.0.0/16"], Some(Tls::default())),
            (&["10.0.0.7/32"], None),
        ]);
        assert_eq!(
            ServerNames::of_plan(&plan).unwrap(),
            names(&["10.0.0.5", "fd00::5", "broker.example", "10.0.0.6"])
        );
    }

    #[test]
    fn a_plan_with_a_false_name_or_with_more_than_a_certificate_carries_is_refused_in_words() {
        let false_name = ServerNames::of_plan(&plan(&[(&["10.0.0.5/32"], called("*.example"))]));
        assert!(false_name.unwrap_err().to_string().contains("`*.example`"));
        let hosts: Vec<String> = (0..=NAMES_MAX).map(|n| format!("10.0.1.{n}/32")).collect();
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let most = hosts.split_last().unwrap().1;
        let at_most = ServerNames::of_plan(&plan(&[(most, Some(Tls::default()))])).unwrap();
        assert_eq!(at_most.len(), NAMES_MAX);
        let refused = ServerNames::of_plan(&plan(&[(&hosts, Some(Tls::default()))])).unwrap_err();
        assert!(refused.to_string().contains("gateway gw-1 for 65"), "{refused}");
    }

    #[test]
    fn a_certificate_that_may_not_serve_is_good_for_no_name() {
        let mut params =
            rcgen::CertificateParams::new(vec!["10.0.0.5".to_owned(), "Broker.example".to_owned()]).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let client = params.self_signed(&key).unwrap();
        assert!(ServerNames::of_certificate(client.der()).unwrap().is_empty());
        params
            .extended_key_usages
            .push(rcgen::ExtendedKeyUsagePurpose::ServerAuth);
        let server = params.self_signed(&key).unwrap();
        assert_eq!(
            ServerNames::of_certificate(server.der()).unwrap(),
            names(&["broker.example", "10.0.0.5"])
        );
    }
}
