//! The agent's real program as a gateway of a tunnel, with a policy that it accepted before: no coordinator is needed for it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use penstock_agent::identity::IdentityFolder;
use penstock_agent::policy_store::{self, journal::Order};
use penstock_agent::store::Store;
use penstock_lab::{Daemon, wait_until};
use penstock_policy::ids::{Digest, Revision};
use penstock_policy::model::ApproverSet;
use penstock_policy::release::Trust;
use penstock_proto::v1::{PolicyOffer, SignedRelease};
use penstock_proto::withdrawn::{Withdrawn, WithdrawnView};

use super::world::{PATIENCE, World, plan};

/// How long an agent has to stop.
const STOP: Duration = Duration::from_secs(15);

/// An agent that runs as its service does.
pub struct Program<'a> {
    world: &'a World,
    gateway: &'static str,
    config: PathBuf,
    daemon: Daemon,
}

impl<'a> Program<'a> {
    /// Starts it in its gateway's namespace; comes back when its policy is in force.
    pub fn start(world: &'a World, gateway: &'static str) -> Self {
        let config = prepare(world, gateway);
        let daemon = run(world, gateway, &config);
        Self {
            world,
            gateway,
            config,
            daemon,
        }
    }

    /// Its process.
    #[allow(dead_code)] // For the bench.
    pub fn id(&self) -> u32 {
        self.daemon.id()
    }

    /// Kills it as nothing but a crash does, and starts it again; how long it was until its policy was in force again.
    pub fn crash(&mut self) -> Duration {
        let begun = Instant::now();
        self.daemon.kill();
        self.daemon = run(self.world, self.gateway, &self.config);
        begun.elapsed()
    }

    /// What it and those before it logged.
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// Stops it as its service manager does, and starts it again; how long it was until its policy was in force again.
    pub fn restart(&mut self) -> Duration {
        let begun = Instant::now();
        self.daemon.terminate(STOP).unwrap();
        self.daemon = run(self.world, self.gateway, &self.config);
        begun.elapsed()
    }
}

/// The agent's program as it was built with this test or bench.
pub fn program(name: &str) -> String {
    let own = std::env::current_exe().unwrap();
    let program = own.parent().and_then(Path::parent).unwrap().join(name);
    assert!(
        program.is_file(),
        "{} is not built: cargo build --bins",
        program.display()
    );
    program.to_string_lossy().into_owned()
}

fn run(world: &World, gateway: &str, config: &Path) -> Daemon {
    let namespace = world.namespace(gateway);
    let mut command = namespace.command(&program("penstock-agent"));
    command.args(["run", "--config"]).arg(config);
    let log = config.with_file_name(format!("agent-{gateway}.log"));
    let times = |log: &str| log.matches("policy in force").count();
    let before = std::fs::read_to_string(&log).map_or(0, |log| times(&log));
    let daemon = Daemon::spawn(&format!("agent-{gateway}"), command, log.parent().unwrap()).unwrap();
    wait_until("the policy to be in force", PATIENCE, || {
        times(&daemon.log()) > before
    })
    .unwrap_or_else(|error| panic!("{error}: {}", daemon.log()));
    daemon
}

/// Leaves its identity and its plan as if the plan had been in force when the agent last ran.
fn prepare(world: &World, gateway: &str) -> PathBuf {
    let (_, list) = tokio::sync::watch::channel(std::sync::Arc::<Withdrawn>::default());
    let identity = world.pki.gateway(gateway, WithdrawnView::from(list));
    let plan = plan(gateway);
    let state = world.pki.state_of(gateway);
    let mut store = Store::open(&state);
    IdentityFolder::store_enrolment(&mut store, &identity.enrolment).unwrap();
    let statement = b"accepted before".to_vec();
    let trust = Trust {
        plant: plan.plant.clone(),
        gateway: plan.gateway.clone(),
        approvers: ApproverSet {
            emergency_threshold: None,
            threshold: 1,
            people: std::collections::BTreeMap::new(),
        },
        floor: Revision(1),
        current: Some(Digest::of(&statement)),
    };
    let offer = PolicyOffer {
        release: Some(SignedRelease {
            statement: statement.into(),
            ..SignedRelease::default()
        }),
        plan: plan.to_bytes().into(),
        ..PolicyOffer::default()
    };
    policy_store::stage(&mut store, None, (&trust, &Order::default()), &offer).unwrap();
    policy_store::set_effective(&mut store, trust.current.unwrap(), &trust).unwrap();
    let config = state.join("agent.toml");
    let text = format!(
        "[agent]\nstate_folder = \"{}\"\n[audit]\nspool_bytes_max = 8388608\nfree_bytes_min = 1048576\n",
        state.display()
    );
    std::fs::write(&config, text).unwrap();
    config
}
