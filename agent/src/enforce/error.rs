//! Why a plan is not in force: what each room of the data plane says, in one.

use penstock_policy::plan::Plan;

use super::{BaseError, LowerError, NftError, RoutingError, StructureError};
use crate::inspector;

/// Why a plan is not in force.
#[derive(Debug, thiserror::Error)]
pub enum EnforceError {
    /// It cannot be put into the kernel's maps.
    #[error("the plan cannot be enforced")]
    Lower(#[from] LowerError),
    /// Its operations cannot be inspected.
    #[error("the plan's operations cannot be enforced")]
    Operations(#[from] inspector::OperationsError),
    /// Its interfaces cannot be guarded.
    #[error("the plan's interfaces cannot be guarded")]
    Structure(#[from] StructureError),
    /// `nft` or the kernel refused.
    #[error("the plan was not loaded")]
    Kernel(#[from] NftError),
    /// The kernel lacks what leads connections to the inspector.
    #[error(
        "the plan was not loaded: this machine cannot inspect connections, which flows that name operations need ({flows})"
    )]
    NoInterception {
        /// The flows.
        flows: String,
        /// What it lacks.
        #[source]
        source: NftError,
    },
    /// The kernel cannot show bridged packets to the rules.
    #[error(
        "this kernel does not show bridged packets to the rules (no /proc/sys/net/bridge): load the module \
         br_netfilter (modprobe br_netfilter; echo br_netfilter > /etc/modules-load.d/penstock.conf); until then the \
         bridge forwards nothing between guarded ports"
    )]
    NoBridgeFilter,
    /// A kernel parameter could not be read or set.
    #[error(
        "cannot switch on net.bridge.bridge-nf-call-iptables and -ip6tables, which show bridged packets to the rules"
    )]
    BridgeParameter(#[source] std::io::Error),
    /// What is inspected would not reach the inspector.
    #[error("inspected packets cannot be routed to the inspector")]
    Routing(#[from] RoutingError),
    /// What the base rules of the next boot guard.
    #[error("the base rules of the next boot are not as they were")]
    Base(#[from] BaseError),
    /// What stood before the first policy.
    #[error("what stood before the first policy is not known")]
    Ground(#[source] serde_json::Error),
    /// The kernel could not be asked.
    #[error("cannot read the kernel's rules back")]
    ReadBack(#[source] std::io::Error),
    /// The plan's entries could not be computed.
    #[error("the computation of the kernel's entries was cut short")]
    Interrupted(#[source] tokio::task::JoinError),
    /// A netlink socket could not be opened.
    #[error("cannot open a netlink socket to the kernel's packet filter: is this root, or CAP_NET_ADMIN?")]
    Socket(#[source] std::io::Error),
}

impl EnforceError {
    /// How many flows are named.
    const FLOWS_MAX: usize = 5;

    /// Whether the kernel may still take what it was asked for.
    pub(in super::super) fn is_open_ended(&self) -> bool {
        matches!(
            self,
            Self::Kernel(NftError::TimedOut { .. }) | Self::Interrupted(_)
        )
    }

    /// Says which flows of `plan` it is about, where the kernel lacks what only they need.
    pub(super) fn concerning(self, plan: &Plan) -> Self {
        let Self::Kernel(source @ NftError::Lacks { .. }) = self else {
            return self;
        };
        let inspected = plan.rules.iter().filter(|rule| rule.is_carried());
        let mut names: Vec<String> = inspected
            .map(|rule| format!("{}/{}", rule.conduit, rule.flow))
            .collect();
        if names.is_empty() || !source.concerns_inspection() {
            return Self::Kernel(source);
        }
        let more = names.len().saturating_sub(Self::FLOWS_MAX);
        names.truncate(Self::FLOWS_MAX);
        if more > 0 {
            names.push(format!("and {more} more"));
        }
        Self::NoInterception {
            flows: names.join(", "),
            source,
        }
    }
}
