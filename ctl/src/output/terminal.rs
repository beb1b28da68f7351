//! What a stream of this process can show: colours, how many columns, whether it can be drawn over.
//!
//! Each stream is looked at for itself: standard error may go to a file while standard output is a terminal.

use std::ffi::OsStr;
use std::io::IsTerminal;
use std::os::fd::AsFd;

use super::Style;
use crate::args::Color;

/// Narrowest page that is laid out.
const WIDTH_MIN: usize = 20;
/// Width where there is no terminal to ask.
const WIDTH_PLAIN: usize = 120;

/// What the environment says about terminals.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings {
    /// `NO_COLOR` is set to something (<https://no-color.org>).
    no_color: bool,
    /// `TERM=dumb`: the terminal obeys no escape sequence.
    dumb: bool,
}

impl Surroundings {
    pub(super) fn of_this_process() -> Self {
        let set = |name| std::env::var_os(name);
        Self::of(set("NO_COLOR").as_deref(), set("TERM").as_deref())
    }

    fn of(no_color: Option<&OsStr>, term: Option<&OsStr>) -> Self {
        Self {
            no_color: no_color.is_some_and(|value| !value.is_empty()),
            dumb: term.is_some_and(|term| term == "dumb"),
        }
    }

    pub(super) fn style(self, stream: &(impl IsTerminal + AsFd), color: Color) -> Style {
        let terminal = stream.is_terminal();
        let width = terminal
            .then(|| rustix::termios::tcgetwinsize(stream).ok())
            .flatten()
            .map(|size| usize::from(size.ws_col))
            // A terminal that does not know its own width says 0.
            .filter(|columns| *columns > 0);
        Style {
            color: self.colours(terminal, color),
            width: width.map_or(WIDTH_PLAIN, |columns| columns.max(WIDTH_MIN)),
            wrap: width.is_some(),
        }
    }

    /// Whether a stream shows colours. What was asked for on the command line counts more than what stands in the environment.
    fn colours(self, terminal: bool, color: Color) -> bool {
        match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !self.no_color && !self.dumb,
        }
    }

    pub(super) fn can_be_drawn_over(self, stream: &impl IsTerminal) -> bool {
        stream.is_terminal() && !self.dumb
    }
}

/// How many rows standard output's terminal has now; `None`: it is none, or does not know.
pub fn rows() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_row)).filter(|rows| *rows > 0)
}

/// Whether standard error is a terminal that obeys escape sequences.
pub fn obeys() -> bool {
    Surroundings::of_this_process().can_be_drawn_over(&std::io::stderr())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_obey_them_unless_the_command_line_asks_for_them() {
        let around = |no_color: Option<&str>, term: &str| {
            Surroundings::of(no_color.map(OsStr::new), Some(OsStr::new(term)))
        };
        let plain = around(None, "xterm");
        assert!(plain.colours(true, Color::Auto));
        assert!(!plain.colours(false, Color::Auto), "a file or a pipe");
        assert!(
            around(Some(""), "xterm").colours(true, Color::Auto),
            "an empty NO_COLOR says nothing"
        );
        for quiet in [around(Some("1"), "xterm"), around(None, "dumb")] {
            assert!(!quiet.colours(true, Color::Auto));
            assert!(quiet.colours(false, Color::Always));
        }
        assert!(!plain.colours(true, Color::Never));
    }
}
