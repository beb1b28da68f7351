//! What IPv4 and IPv6 call things in the text of a rule.

/// What one family calls things.
pub(super) struct Family {
    pub(super) number: char,
    pub(super) address: &'static str,
    pub(super) header: &'static str,
    pub(super) icmp: &'static str,
    pub(super) nfproto: &'static str,
    /// Ends the judgement of packets that carry headers in which a rule cannot see.
    pub(super) plain: &'static str,
}

pub(super) const FAMILIES: [Family; 2] = [
    Family {
        number: '4',
        address: "ipv4_addr",
        header: "ip",
        icmp: "icmp",
        nfproto: "ipv4",
        plain: "",
    },
    Family {
        number: '6',
        address: "ipv6_addr",
        header: "ip6",
        icmp: "icmpv6",
        nfproto: "ipv6",
        // Fragments are whole again here; any other extension header is not in any rule.
        plain: "ip6 nexthdr != { tcp, udp, icmpv6 } goto miss\n",
    },
];
