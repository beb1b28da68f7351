//! What has to be known of a command line before it is understood: how its refusal, or its help, is to look; and a variable of
//! the environment that is set to nothing, which says nothing.

use std::ffi::{OsStr, OsString};

use clap::{ColorChoice, CommandFactory as _, FromArgMatches as _};

use super::{Cli, Color, Format};

/// How an answer is to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Early {
    /// When to colour.
    pub color: Color,
    /// Who reads it.
    pub format: Format,
}

impl Early {
    /// As far as it can be seen from `arguments` and from `PENSTOCK_OUTPUT`.
    pub fn of<S: AsRef<OsStr>>(arguments: &[S], output: Option<&OsStr>) -> Self {
        let said = |option: &str| {
            let mut found = None;
            let mut value_follows = false;
            for argument in arguments {
                let argument = argument.as_ref().to_str().unwrap_or_default();
                if argument == "--" {
                    break;
                }
                if value_follows {
                    found = Some(argument);
                }
                value_follows = argument == option;
                let value = argument
                    .strip_prefix(option)
                    .and_then(|rest| rest.strip_prefix('='));
                found = value.or(found);
            }
            found
        };
        let color = match said("--color") {
            Some("always") => Color::Always,
            Some("never") => Color::Never,
            _ => Color::Auto,
        };
        let output = said("--output").or_else(|| output?.to_str());
        let format = if output == Some("json") {
            Format::Json
        } else {
            Format::Text
        };
        Self { color, format }
    }
}

/// Understands this process's command line.
///
/// # Errors
/// When it cannot be understood, or asks for help or the version: how that is to look comes with it.
pub fn parse() -> Result<Cli, (clap::Error, Early)> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let early = Early::of(&arguments, std::env::var_os("PENSTOCK_OUTPUT").as_deref());
    let mut command = Cli::command().color(match early.color {
        Color::Auto => ColorChoice::Auto,
        Color::Always => ColorChoice::Always,
        Color::Never => ColorChoice::Never,
    });
    command = without_empty_variables(command);
    command
        .try_get_matches_from(arguments)
        .and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches))
        .map_err(|error| (error, early))
}

/// A variable that is set to nothing says nothing.
fn without_empty_variables(mut command: clap::Command) -> clap::Command {
    let empty: Vec<_> = command
        .get_arguments()
        .filter(|argument| {
            let variable = argument.get_env().and_then(std::env::var_os);
            variable.is_some_and(|value| value.is_empty())
        })
        .map(|argument| argument.get_id().clone())
        .collect();
    for argument in empty {
        // No variable has an empty name, so none is looked up.
        command = command.mut_arg(argument, |argument| argument.env("").hide_env(true));
    }
    command.mut_subcommands(without_empty_variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn early(arguments: &[&str], output: Option<&str>) -> Early {
        Early::of(arguments, output.map(OsStr::new))
    }

    #[test]
    fn how_a_refusal_is_to_look_is_seen_on_a_command_line_that_cannot_be_understood() {
        let plain = early(&["penstock", "chek"], None);
        assert_eq!((plain.color, plain.format), (Color::Auto, Format::Text));
        assert_eq!(
            early(&["penstock", "--color", "never", "--help"], None).color,
            Color::Never
        );
        assert_eq!(
            early(&["penstock", "--help", "--color=always"], None).color,
            Color::Always
        );
        assert_eq!(
            early(&["penstock", "--output=json", "chek"], None).format,
            Format::Json
        );
        assert_eq!(early(&["penstock", "chek"], Some("json")).format, Format::Json);
        assert_eq!(
            early(&["penstock", "--output", "text"], Some("json")).format,
            Format::Text
        );
        assert_eq!(
            early(&["penstock", "demo", "--", "--color", "never"], None).color,
            Color::Auto
        );
    }
}
