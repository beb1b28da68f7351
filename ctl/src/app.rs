//! From the command line to a command: the one place that knows them all. Nothing imports this but `main`.

use clap::CommandFactory as _;

use crate::args::{self, Cli, Command, Format};
use crate::demo;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::offline;
use crate::online;
use crate::output::Output;
use crate::schemas;
use crate::times;

/// Does what the command line says; failures were printed when this returns.
pub fn run(cli: &Cli) -> Exit {
    let out = Output::new(cli.global.output, cli.global.color);
    if let Some(zone) = &cli.global.time_zone {
        times::choose(zone.clone());
    }
    if cli.global.verbose {
        out.tell_more();
    }
    match dispatch(&out, cli) {
        Ok(exit) => exit,
        Err(failure) if &*failure.code == crate::failure::PIPE_CLOSED => Exit::Done,
        Err(failure) => {
            out.fail(&failure);
            failure.exit
        }
    }
}

/// Says why the command line cannot be understood, or what was asked about it (`--help`, `--version`).
pub fn misunderstood(error: &clap::Error, early: args::Early) -> Exit {
    if early.format == Format::Json && error.use_stderr() {
        Output::new(Format::Json, early.color).fail(&misuse(&error.to_string()));
    } else {
        // Nobody is left to be told if this fails.
        let _ = error.print();
    }
    if error.use_stderr() {
        Exit::Usage
    } else {
        Exit::Done
    }
}

/// What clap says, without its drawing: the sentence, with the arguments below it that it is about, and its tips.
fn misuse(said: &str) -> Failure {
    let mut lines = said.lines();
    let first = lines.next().unwrap_or_default();
    let named: Vec<&str> = lines
        .by_ref()
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    let sentence = format!("{} {}", first.trim_start_matches("error: "), named.join(", "));
    let tips = lines.filter_map(|line| line.trim().strip_prefix("tip: "));
    let failure = tips.fold(Failure::usage(sentence.trim()), Failure::help);
    failure.help("see: penstock --help")
}

fn dispatch(out: &Output, cli: &Cli) -> Result<Exit, Failure> {
    let context = cli.global.context.as_deref();
    // The demo holds no key of a plant, and makes namespaces, for which a process has to be open to its own user.
    if !matches!(cli.command, Command::Demo(_)) {
        penstock_proto::dumps::keep_memory_private();
    }
    match &cli.command {
        Command::Init(args) => offline::init::init(out, args),
        Command::Check(args) => offline::check::check(out, args),
        Command::Fmt(args) => offline::fmt::fmt(out, args),
        Command::Expand(args) => offline::plans::expand(out, args),
        Command::Schema(args) => schemas::schema(out, args),
        Command::Explain(args) => offline::explain::explain(out, args),
        Command::Diff(args) if args.against_current => wait(online::releases::diff_current(
            out,
            context,
            &args.old,
            args.recorded.as_deref(),
            args.fail_on_widened,
        )),
        Command::Diff(args) => offline::changes::diff(out, args),
        Command::Reach(args) => offline::reach::reach(out, args),
        Command::Graph(args) => offline::graph::graph(out, args),
        Command::Replay(args) => offline::replay::replay(out, args),
        Command::Learn(args) if args.from_gateways => wait(online::learn::learn(out, context, args)),
        Command::Learn(args) => offline::learn::learn(out, args),
        Command::Compile(args) => offline::plans::compile(out, args),
        Command::Key(args) => offline::plans::key(out, args),
        Command::Release(args) => wait(online::releases::release(out, context, args)),
        Command::Rollout(args::Rollout::Verify {
            file,
            approvers,
            documents,
            maker,
        }) => {
            let asked = offline::records::VerifyRequest {
                file,
                approvers: approvers.as_deref(),
                documents: documents.as_deref(),
                maker: *maker,
            };
            offline::records::verify(out, &asked)
        }
        Command::Rollout(args) => match offline::rollout::offline(out, args) {
            Some(done) => done,
            None => wait(online::rollout::rollout(out, context, args)),
        },
        Command::Override(args) => offline::overrides::overrides(out, args),
        Command::Login(args) if args.sign_in.oidc => wait(online::oidc::sign_in(out, context, &args.sign_in)),
        Command::Login(args) => wait(online::login::login(out, context, args)),
        Command::Whoami => wait(online::login::whoami(out, context)),
        Command::Context(args) => online::login::context(out, args),
        Command::Gateways(args) => wait(online::fleet::gateways(out, context, args)),
        Command::Devices(args) => wait(online::devices::devices(out, context, args)),
        Command::Operators(args) => wait(online::fleet::operators(out, context, args)),
        Command::Requests(args) => wait(online::requests::requests(out, context, args)),
        Command::Health(args) => wait(online::health::health(out, context, args)),
        Command::Alarms(args) => wait(online::alarms::alarms(out, context, args)),
        Command::Adopt(args) => wait(online::adopt::adopt(out, context, args)),
        Command::Why(args) => wait(online::why::why(out, context, args)),
        Command::Audit(args) => wait(online::audit::audit(out, context, args)),
        Command::Demo(args) => demo(out, args),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "penstock", &mut text);
            out.text(&String::from_utf8_lossy(&text))?;
            Ok(Exit::Done)
        }
    }
}

/// Runs what waits for the network. The connection lives on a thread of its own: while a person reads a question, or this
/// machine compiles, the coordinator still gets its answers and does not take the line for dead.
fn wait<F: Future<Output = Result<Exit, Failure>>>(work: F) -> Result<Exit, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::local("no-runtime", "the network cannot be used").caused_by(&error))?
        .block_on(work)
}

/// The demo tells its own story; here it only gets its options.
fn demo(out: &Output, args: &args::Demo) -> Result<Exit, Failure> {
    let failed = |error: demo::DemoError| Failure::local("demo", "the demo cannot run").caused_by(&error);
    if let Some(outer) = args.enter {
        return match demo::enter(outer, &args.command) {
            Ok(never) => match never {},
            Err(error) => Err(failed(error)),
        };
    }
    let options = demo::Options {
        keep: args.keep,
        tone: if out.for_people() {
            demo::Tone::Human
        } else {
            demo::Tone::Json
        },
        coloured: out.style.color,
        peers: args.peers.clone(),
    };
    let ended = demo::run(&options).map_err(failed)?;
    Ok(if ended == std::process::ExitCode::SUCCESS {
        Exit::Done
    } else {
        Exit::Findings
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_a_command_line_names_the_arguments_that_are_missing_for_programs_too() {
        let error = Cli::command()
            .try_get_matches_from(["penstock", "release", "propose"])
            .map(|_| ())
            .map_err(|error| misuse(&error.to_string()));
        let said = error.map_err(|failure| failure.message);
        assert_eq!(
            said,
            Err("the following required arguments were not provided: --reason <REASON>, <PATH>".to_owned())
        );
        let tip =
            misuse("error: unrecognized subcommand 'chek'\n\n  tip: a similar subcommand exists: 'check'\n");
        assert_eq!(tip.message, "unrecognized subcommand 'chek'");
        assert!(
            tip.help.iter().any(|help| help.contains("'check'")),
            "{:?}",
            tip.help
        );
    }

    #[test]
    fn the_connection_goes_on_while_a_person_thinks_about_a_question() {
        let asked = wait(async {
            let (answered, keepalive) = std::sync::mpsc::sync_channel(1);
            tokio::spawn(async move { answered.send(()) });
            // As reading from the terminal does, this holds up the command and must hold up nothing else.
            let kept = keepalive.recv_timeout(std::time::Duration::from_secs(60));
            kept.map(|()| Exit::Done)
                .map_err(|_| Failure::local("held-up", "nothing else went on"))
        });
        assert!(asked.is_ok(), "{asked:?}");
    }
}
