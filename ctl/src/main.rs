//! `penstock`: the operator's program.

use std::process::ExitCode;

use penstock::{app, args};

fn main() -> ExitCode {
    match args::parse() {
        Ok(cli) => app::run(&cli),
        Err((error, early)) => app::misunderstood(&error, early),
    }
    .into()
}
