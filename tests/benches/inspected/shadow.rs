//! What a release in its shadow costs a read: the inspector judges by the next plan too, beside what it does.

use super::gateway::{self, Inspecting};
use super::modbus::{self, PORT, RULES};
use super::{Plant, SERVER, median, process, ratio};

const ROUNDS: usize = 21;
/// Reads of one round.
const READS: usize = 6000;

/// Prints how long a read takes with and without a shadow that permits it, and with one that would refuse each read.
pub(super) fn beside(plant: &Plant) {
    let program = modbus::compile();
    let _server = modbus::serve(plant, &program);
    let in_force = gateway::plan(PORT, Some(modbus::rules(RULES)));
    // One rule less, and not the one that permits the reads.
    let permits = gateway::plan(PORT, Some(modbus::rules(RULES - 1)));
    // None of the rules is the one that permits them.
    let refuses = gateway::plan(PORT, Some(modbus::others(RULES)));
    let ways = [
        ("inspected, 100 rules", None),
        ("the same, shadow of 99 rules", Some(&permits)),
        ("the same, shadow that refuses it", Some(&refuses)),
    ];
    // p50, p99, processor time of the agent.
    let mut figures = ways.map(|_| [const { Vec::new() }; 3]);
    for round in 0..ROUNDS {
        for turn in 0..ways.len() {
            let place = (round + turn) % ways.len();
            let (_, next) = ways[place];
            gateway::clear(plant);
            let agent = match next {
                None => Inspecting::start(plant, &in_force),
                Some(next) => Inspecting::start_shadowing(plant, &in_force, next),
            };
            let before = process::processor_seconds(agent.id());
            let [p50, p99] = modbus::read_us(plant, &program, (SERVER, PORT), &READS.to_string());
            let used = process::processor_seconds(agent.id()) - before;
            if round + 1 == ROUNDS && place == 2 {
                // What was measured is what is claimed.
                agent.wait_for_refused(plant, READS as u64);
            }
            let processor_us = used * 1e6 / (modbus::WARM_UP + READS) as f64;
            for (figures, figure) in figures[place].iter_mut().zip([p50, p99, processor_us]) {
                figures.push(figure);
            }
        }
    }
    println!(
        "Modbus read of 10 registers with a release in its shadow, {READS} reads a round; median of {ROUNDS} interleaved rounds, and of their \
         ratios to none:"
    );
    for ((name, next), [p50, p99, processor_us]) in ways.iter().zip(&figures) {
        let to_none = next.map_or_else(String::new, |_| {
            let [to_p50, to_p99, to_processor] =
                [(p50, 0), (p99, 1), (processor_us, 2)].map(|(figure, at)| ratio(figure, &figures[0][at]));
            format!(
                "  p50 {to_p50:.3} x (budget 1.10), p99 {to_p99:.3} x, processor time {to_processor:.3} x"
            )
        });
        let [p50, p99, processor_us] = [p50, p99, processor_us].map(|figures| median(figures.clone()));
        println!(
            "  {name:34} p50 {p50:6.1} us   p99 {p99:6.1} us   {processor_us:5.1} us of its processor time{to_none}"
        );
    }
}
