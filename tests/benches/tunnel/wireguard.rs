//! WireGuard between the two gateways: in the kernel where that has it, else as a program, `wireguard-go` as Debian has it.

use penstock_lab::{Daemon, Namespace};

use super::world::{PATIENCE, World};

const PORT: &str = "51820";
/// Name of the gateway, of its interface, and what of the other shore lies beyond it.
const ENDS: [(&str, &str, &str); 2] = [
    ("gw-north", "wg-north", "10.2.0.0/24"),
    ("gw-south", "wg-south", "10.1.0.0/24"),
];

/// Whether the kernel of these gateways has it.
fn is_in_kernel(gateway: &Namespace) -> bool {
    let made = gateway
        .ip(&["link", "add", "wg-look", "type", "wireguard"])
        .is_ok();
    if made {
        gateway.ip(&["link", "del", "wg-look"]).unwrap();
    }
    made
}

/// What is measured, in words.
pub(super) fn kind(world: &World) -> String {
    let gateway = world.namespace("gw-north");
    if is_in_kernel(gateway) {
        return "in the kernel".to_owned();
    }
    let said = gateway.run("wireguard-go", &["--version"]).unwrap();
    format!(
        "a program: {}",
        said.lines().next().unwrap_or("wireguard-go").trim()
    )
}

/// One that stands until it is dropped.
pub(super) struct WireGuard<'a> {
    world: &'a World,
    programs: Vec<Daemon>,
}

impl<'a> WireGuard<'a> {
    pub(super) fn start(world: &'a World) -> Self {
        let mut programs = Vec::new();
        let key = |arguments: &[&str], input: &str| {
            let gateway = world.namespace("gw-north");
            let key = gateway.run_with_input("wg", arguments, input).unwrap();
            key.trim().to_owned()
        };
        let own = ENDS.map(|_| key(&["genkey"], ""));
        let public = own.each_ref().map(|own| key(&["pubkey"], own));
        for (place, (name, interface, beyond)) in ENDS.into_iter().enumerate() {
            let gateway = world.namespace(name);
            if is_in_kernel(gateway) {
                gateway
                    .ip(&["link", "add", interface, "type", "wireguard"])
                    .unwrap();
            } else {
                let mut command = gateway.command("wireguard-go");
                command.args(["-f", interface]).env("WG_PROCESS_FOREGROUND", "1");
                programs.push(gateway.spawn_command(interface, command).unwrap());
                let began = std::time::Instant::now();
                while gateway.run("wg", &["show", interface]).is_err() {
                    assert!(began.elapsed() < PATIENCE, "{}", programs[place].log());
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
            }
            let file = world.file(&format!("{interface}.key"));
            std::fs::write(&file, &own[place]).unwrap();
            let other = 1 - place;
            let at = format!("203.0.113.{}:{PORT}", other + 1);
            let arguments = [
                "set",
                interface,
                "listen-port",
                PORT,
                "private-key",
                file.to_str().unwrap(),
                "peer",
                &public[other],
                "allowed-ips",
                beyond,
                "endpoint",
                &at,
            ];
            gateway.run("wg", &arguments).unwrap();
            // As the tunnel's device, so that both carry segments of the same size.
            gateway
                .ip(&["link", "set", interface, "mtu", "1400", "up"])
                .unwrap();
            gateway
                .ip(&["route", "replace", beyond, "dev", interface, "metric", "0"])
                .unwrap();
        }
        Self { world, programs }
    }

    /// Its processes, if it has some.
    pub(super) fn ids(&self) -> Vec<u32> {
        self.programs.iter().map(Daemon::id).collect()
    }
}

impl Drop for WireGuard<'_> {
    fn drop(&mut self) {
        self.programs.clear();
        for (place, (name, interface, beyond)) in ENDS.into_iter().enumerate() {
            let gateway = self.world.namespace(name);
            // Those of programs went with them.
            let _ = gateway.ip(&["link", "del", interface]);
            let over = format!("203.0.113.{}", 2 - place);
            let _ = gateway.ip(&["route", "replace", beyond, "via", &over]);
        }
    }
}
