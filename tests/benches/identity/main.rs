//! What identities cost the coordinator's processor: handshakes by certificates of both sides, enrolments and renewals, each at a real
//! coordinator on loopback, whose root issues itself, which issues below a root, and whose issuing key is on a token (SoftHSM). The three
//! are asked in interleaved rounds; what is printed is per second of the coordinator's processor time, which is per core, and the median
//! of the rounds' ratios to the first. Then signatures alone: the key in a file against the one on the token.
//!
//! Run by `make bench`, or `cargo bench -p penstock-tests --bench identity` after `cargo bench --no-run -p penstock-coordinator`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod coordinator;
mod hsm;

use std::time::{Duration, Instant};

use coordinator::{Coordinator, Kind};
use penstock_coordinator::pkcs11::TokenKey;
use penstock_proto::keys::{FileKey, Key, KeyKind};

const ROUNDS: usize = 5;
/// Of each in a round.
const TIMES: usize = 150;
const SIGNATURES: u32 = 300;

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("this is a bench: cargo bench -p penstock-tests --bench identity");
        return;
    }
    let hsm = hsm::Token::new();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure(&hsm));
    signatures(&hsm);
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn measure(hsm: &hsm::Token) {
    let kinds = [
        ("the root issues", Kind::Root),
        ("below a root", Kind::BelowRoot),
        ("below a root, on a token", Kind::OnToken(hsm.uri("issuing"))),
    ];
    let mut coordinators = Vec::new();
    for (number, (_, kind)) in kinds.iter().enumerate() {
        coordinators.push(Coordinator::start(&format!("127.0.97.{}", number + 1), kind).await);
    }
    // By what, by whom, round for round.
    let mut rates = vec![vec![Vec::new(); kinds.len()]; 3];
    for _ in 0..ROUNDS {
        for (whose, coordinator) in coordinators.iter_mut().enumerate() {
            coordinator.invites(TIMES).await;
            let rate = |spent: Duration| TIMES as f64 / spent.as_secs_f64();
            rates[0][whose].push(rate(coordinator.spends(Coordinator::enrols).await));
            coordinator.connects().await;
            rates[1][whose].push(rate(coordinator.spends(Coordinator::renews).await));
            rates[2][whose].push(rate(coordinator.spends(Coordinator::shakes_hands).await));
        }
    }
    for (what, rates) in [
        "enrolments, each in a connection",
        "renewals in connections that stand",
        "handshakes of both sides",
    ]
    .iter()
    .zip(rates)
    {
        println!("{what}, per second and core");
        for ((name, _), own) in kinds.iter().zip(&rates) {
            let ratios = own
                .iter()
                .zip(&rates[0])
                .map(|(own, first)| own / first)
                .collect();
            println!("  {name}: {:.0}/s, {:.2} ×", median(own.clone()), median(ratios));
        }
    }
}

/// A key in a file against one on a token, by the clock.
fn signatures(hsm: &hsm::Token) {
    let (on_token, _) = TokenKey::open_or_make(&hsm.uri("signs").parse().unwrap()).unwrap();
    let keys = [
        (
            "in a file",
            Key::new(FileKey::generate(KeyKind::EcdsaP384).unwrap()),
        ),
        ("on the token", Key::new(on_token)),
    ];
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for ((_, key), rates) in keys.iter().zip(&mut rates) {
            let began = Instant::now();
            for number in 0..SIGNATURES {
                key.sign(&number.to_be_bytes()).unwrap();
            }
            rates.push(f64::from(SIGNATURES) / began.elapsed().as_secs_f64());
        }
    }
    println!("signatures, ECDSA P-384");
    for ((name, _), own) in keys.iter().zip(&rates) {
        let ratios = own
            .iter()
            .zip(&rates[0])
            .map(|(own, first)| own / first)
            .collect();
        println!("  {name}: {:.0}/s, {:.2} ×", median(own.clone()), median(ratios));
    }
}
