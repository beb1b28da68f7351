//! `penstock`: the operator's program.

use std::process::ExitCode;

use clap::Parser as _;
use penstock::{app, args};

fn main() -> ExitCode {
    match args::Cli::try_parse() {
        Ok(cli) => app::run(&cli),
        Err(error) => app::misunderstood(&error),
    }
    .into()
}
