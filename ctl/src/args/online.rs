//! Commands that need a coordinator, and those beside them that only sign or verify.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `penstock context`.
#[derive(Debug, Subcommand)]
pub enum Context {
    /// Logins on this machine
    List,
    /// Choose the login to use when none is named
    Use {
        /// Its name.
        name: String,
    },
}

/// `penstock gateways`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  penstock gateways\n  penstock gateways token gw-works-a plant/ -o gw-works-a.token\n  \
                  penstock gateways revoke gw-works-a --reason \"stolen from cabinet 4\" --ticket INC-7"
)]
pub struct Gateways {
    /// Without one: list them.
    #[command(subcommand)]
    pub command: Option<GatewaysCommand>,
}

/// `penstock gateways batch`.
#[derive(Debug, Subcommand)]
pub enum BatchCommand {
    /// Make a batch of the gateways in a list: one a line, with its key behind a comma if it is known
    #[command(after_help = "Example:\n  penstock gateways batch new plant/ --from list.csv -o north.batch")]
    New {
        /// The plant document that names them.
        path: PathBuf,
        /// The list: `NAME` or `NAME,sha256:…` (what `penstock-agent key` shows).
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// For how many days it is good, and its tokens are.
        #[arg(long, default_value_t = 14, value_parser = clap::value_parser!(u32).range(1..=30))]
        days: u32,
        /// Where the batch goes; never overwritten.
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Show a batch and who says to have signed it
    Show {
        /// The batch.
        file: PathBuf,
    },
    /// Sign a batch, as one of the two approvers that it takes
    #[command(
        after_help = "Example:\n  penstock gateways batch sign north.batch --key k.lang.key --as k.lang"
    )]
    Sign {
        /// The batch; the signature goes into it.
        file: PathBuf,
        /// Your key.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The key's passphrase.
        #[command(flatten)]
        unlock: super::Unlock,
        /// Your name among the approvers.
        #[arg(long = "as", value_name = "NAME")]
        person: String,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
    /// Have the coordinator make a token for each gateway of a batch, all of them or none
    ///
    /// A batch is used once. The same one again, since the answer was lost, makes new tokens for those that have not enrolled yet.
    #[command(after_help = "Example:\n  penstock gateways batch submit north.batch plant/ --out-dir tokens/")]
    Submit {
        /// The batch.
        file: PathBuf,
        /// The plant document whose approvers the gateways shall believe.
        path: PathBuf,
        /// The folder for the tokens, which must not be there yet.
        #[arg(long, value_name = "FOLDER")]
        out_dir: PathBuf,
    },
}

/// `penstock gateways …`.
#[derive(Debug, Subcommand)]
pub enum GatewaysCommand {
    /// Gateways and what each enforces
    List,
    /// Make a single-use token that enrols a gateway
    ///
    /// The approvers in it come from the plant document on this machine, never from the coordinator: a gateway must
    /// not learn from the coordinator whose signatures to believe. As soon as there is another admin or approver, one of them
    /// confirms it first; then the same command, typed again, writes the token.
    Token {
        /// The gateway.
        gateway: String,
        /// The plant document whose approvers the gateway shall believe.
        path: PathBuf,
        /// Where the token goes (readable only by you); never overwritten.
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
        /// The only key that may enrol with it: what `penstock-agent key` shows on the gateway (`sha256:…`); without it, any.
        #[arg(long, value_name = "DIGEST")]
        key: Option<String>,
        /// How many hours it may be used.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=720))]
        hours: u32,
        /// Where the gateway finds coordinators; default: those of this login.
        #[arg(long, value_name = "HOST:PORT")]
        coordinator: Vec<String>,
        /// Wait until a second person has confirmed it, where one has to (penstock requests).
        #[arg(long)]
        wait: bool,
    },
    /// Enrol many gateways at once, by a list that two approvers sign
    Batch {
        /// What to do.
        #[command(subcommand)]
        command: BatchCommand,
    },
    /// Keep a gateway out until it is resumed
    ///
    /// Its connections end at once. It goes on enforcing the policy that it has: nothing in the plant stops.
    Suspend {
        /// The gateway.
        gateway: String,
        /// Why.
        #[command(flatten)]
        because: Grounds,
    },
    /// Let a suspended gateway in again, or say that one whose key seemed to have two users has one
    ///
    /// Two users are noticed where a gateway was set back to an earlier copy of itself, and where somebody else has a copy of it. Resume it
    /// only if you know who restored it: a key that was copied by others is revoked.
    Resume {
        /// The gateway.
        gateway: String,
        /// Why.
        #[command(flatten)]
        because: Grounds,
    },
    /// Withdraw a gateway's key: it was stolen, or may have been copied
    ///
    /// Its connections end at once, and its key never counts again, here and at every gateway that gets the list. Where it stands, it goes
    /// on enforcing the policy that it has. A token for the same name brings it, or its replacement, back with a new key.
    Revoke {
        /// The gateway.
        gateway: String,
        /// Why.
        #[command(flatten)]
        because: Grounds,
    },
    /// Write the signed list of withdrawn keys into a file, for a gateway without a link
    ///
    /// Gateways that connect get it by themselves. It is all of the list; whoever carries it cannot change it.
    #[command(
        after_help = "Example:\n  penstock gateways withdrawn -o list.json\n\nThere: penstock-agent withdrawn take list.json"
    )]
    Withdrawn {
        /// Where it goes; an older one is replaced.
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Withdraw the key of a gateway that is there no longer
    Retire {
        /// The gateway.
        gateway: String,
        /// Why.
        #[command(flatten)]
        because: Grounds,
    },
}

/// Why something is decided about who counts.
#[derive(Debug, Args)]
pub struct Grounds {
    /// Why, for the trail.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Where it is tracked.
    #[arg(long, value_name = "TICKET")]
    pub ticket: Option<String>,
}

/// `penstock operators`.
#[derive(Debug, Subcommand)]
pub enum Operators {
    /// Operators and their roles
    List,
    /// Add an operator: make the single-use token with which they log in
    ///
    /// Everybody may look. Roles exclude each other otherwise: an engineer proposes releases, an approver signs those of others,
    /// an admin hands out access and neither proposes nor signs. A token for an admin or an approver is confirmed by a second person,
    /// as soon as there is one; then the same command, typed again, writes it.
    #[command(after_help = "Example:\n  penstock operators add a.silva --role approver -o a.silva.token")]
    Add {
        /// The operator's name. An approver's must be the one in the plant document.
        name: String,
        /// What they may do, besides looking.
        #[arg(long, value_enum)]
        role: RoleArg,
        /// Where the token goes (readable only by you); never overwritten.
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
        /// How many hours it may be used.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=720))]
        hours: u32,
        /// Where they find coordinators; default: those of this login.
        #[arg(long, value_name = "HOST:PORT")]
        coordinator: Vec<String>,
        /// Wait until a second person has confirmed it, where one has to (penstock requests).
        #[arg(long)]
        wait: bool,
    },
    /// Accounts of the identity provider that signed in: those that wait to be linked, and whose the others are
    Accounts,
    /// Link an account of the identity provider with an operator, so that they sign in by it
    ///
    /// Ask them whether they signed in, and compare SUBJECT with what the provider's own list says: what it calls them proves nothing. Role and
    /// name are given here and never come from the provider. An account of an admin or an approver is confirmed by a second person, as soon as there
    /// is one; then the same command, typed again, links it.
    #[command(after_help = "Example:\n  penstock operators link 3f9a1c2d5e6b7a80 a.silva --role engineer")]
    Link {
        /// The account, by its name in `penstock operators accounts`.
        account: String,
        /// The operator. An approver's must be the one in the plant document.
        name: String,
        /// What they may do, besides looking; of an operator who is known, the role that they have.
        #[arg(long, value_enum)]
        role: RoleArg,
        /// Wait until a second person has confirmed it, where one has to (penstock requests).
        #[arg(long)]
        wait: bool,
    },
    /// End the link of an account, or turn one away that waits
    ///
    /// It gets no certificate any more, and what it got is not renewed. To end that at once: penstock operators revoke.
    #[command(
        after_help = "Example:\n  penstock operators unlink 3f9a1c2d5e6b7a80 --reason \"another person than we thought\""
    )]
    Unlink {
        /// The account, by its name in `penstock operators accounts`.
        account: String,
        /// Why, for the trail.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Keep an operator out until they are resumed
    Suspend {
        /// The operator.
        name: String,
        /// Why.
        #[command(flatten)]
        because: Grounds,
    },
    /// Let a suspended operator in again
    Resume {
        /// The operator.
        name: String,
        /// Why.
        #[command(flatten)]
        because: Grounds,
    },
    /// Withdraw the key of an operator's login: their laptop was lost, or may have been copied
    ///
    /// Their connections end at once. A new token brings them back, with the role that it says, on a new machine.
    #[command(
        after_help = "Example:\n  penstock operators revoke k.ito --reason \"laptop lost on the train\" --ticket INC-8"
    )]
    Revoke {
        /// The operator.
        name: String,
        /// Why.
        #[command(flatten)]
        because: Grounds,
    },
    /// Remove an operator who left
    ///
    /// An approver's signatures count by the plant document: take their key out of it, too.
    #[command(
        after_help = "Example:\n  penstock operators remove k.ito --reason \"left the company\" --ticket HR-12"
    )]
    Remove {
        /// The operator.
        name: String,
        /// Why.
        #[command(flatten)]
        because: Grounds,
    },
}

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Looks, and nothing else.
    Viewer,
    /// Proposes releases, and withdraws their own.
    Engineer,
    /// Signs or rejects releases that others proposed; confirms what an admin alone may not do.
    Approver,
    /// Adds gateways, operators and devices, and confirms what another admin asked for; neither proposes nor signs.
    Admin,
}

/// `penstock health`.
#[derive(Debug, Args)]
pub struct Health {
    /// Keep watching; redrawn in place on a terminal, a line for each change elsewhere.
    #[arg(long, short)]
    pub watch: bool,
    /// Only this zone; may be given several times.
    #[arg(long, value_name = "ZONE")]
    pub zone: Vec<String>,
    /// Only zones that depend on this gateway; may be given several times.
    #[arg(long, value_name = "GATEWAY")]
    pub gateway: Vec<String>,
    /// Only zones in this state or a worse one.
    #[arg(long, value_enum, value_name = "STATE")]
    pub severity: Option<StateArg>,
}

/// States of a zone, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum StateArg {
    Enforcing,
    Observing,
    Degraded,
    Stale,
    Unknown,
    Unprotected,
}

impl StateArg {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Enforcing => "enforcing",
            Self::Observing => "observing",
            Self::Degraded => "degraded",
            Self::Stale => "stale",
            Self::Unknown => "unknown",
            Self::Unprotected => "unprotected",
        }
    }
}

/// `penstock adopt`.
#[derive(Debug, Args)]
pub struct Adopt {
    /// The zone, which observes.
    pub zone: String,
    /// Since when: RFC 3339 with its offset, a day, or a span back from now.
    #[arg(long, value_name = "TIME", default_value = "30d")]
    pub since: String,
    /// For how many days nothing undeclared may have been seen: at least one whole production cycle.
    #[arg(long, value_name = "DAYS", default_value_t = 14, value_parser = clap::value_parser!(u32).range(1..=366))]
    pub quiet_days: u32,
    /// At most this many things of each list.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
}

/// `penstock why`.
#[derive(Debug, Args)]
pub struct Why {
    /// An asset by its name, or an address.
    pub subject: String,
    /// Since when: RFC 3339 with its offset, a day, or a span back from now.
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub since: String,
    /// At most this many different refusals.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub limit: u32,
}
