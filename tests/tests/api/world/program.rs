//! The real program in place of the coordinator in this process, for whoever kills it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::World;

/// A `penstock-coordinator` that runs.
pub struct Program(Child);

/// `penstock-coordinator` beside this test in the target folder.
fn coordinator() -> Command {
    let mut folder = std::env::current_exe().unwrap();
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let program = folder.join("penstock-coordinator");
    assert!(
        program.exists(),
        "{} is missing; run `cargo build -p penstock-coordinator` first",
        program.display()
    );
    let mut command = Command::new(program);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

impl Program {
    /// Stops the coordinator in this process, and writes a configuration for the program on its data. It listens on `host`,
    /// which must be the test's own, so that nobody else takes its port between two runs of the program.
    pub async fn takes_over(world: &mut World, host: &str) -> PathBuf {
        world.running.take().unwrap().stop().await;
        let port = {
            let listener = std::net::TcpListener::bind((host, 0)).unwrap();
            listener.local_addr().unwrap().port()
        };
        let file = world.dir.path().join("c.toml");
        let text = format!(
            "plant = \"riverside\"\nname = \"c1\"\ndata = {:?}\n[listen]\ngrpc = [\"{host}:{port}\"]\nmetrics = \"\"\n[rollouts]\nafter_approval = {:?}\n",
            world.config.data.display().to_string(),
            world.config.after_approval.as_str()
        );
        let nats = world.config.nats.iter().map(|nats| {
            let (servers, stream) = (&nats.servers, &nats.stream);
            format!("[storage.nats]\nservers = {servers:?}\nstream = {stream:?}\n")
        });
        std::fs::write(&file, text + &nats.collect::<String>()).unwrap();
        world.address = format!("{host}:{port}").parse().unwrap();
        file
    }

    pub fn start(config: &Path) -> Self {
        Self(
            coordinator()
                .args(["serve", "--config"])
                .arg(config)
                .spawn()
                .unwrap(),
        )
    }

    /// Any other command of it.
    pub fn run(arguments: &[&str]) -> Self {
        Self(coordinator().args(arguments).spawn().unwrap())
    }

    /// Waits until it takes connections.
    pub async fn serves(&self, world: &World) {
        for _ in 0..3000 {
            if world.channel(world.roots(), None).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until it has done what it was asked for.
    pub fn ends(mut self) {
        assert!(self.0.wait().unwrap().success());
    }

    /// As kill -9 does.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A test that failed must leave nothing running; a program that was killed already cannot be killed again.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
