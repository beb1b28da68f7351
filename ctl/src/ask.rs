//! Questions to the person at the terminal, and waiting that can be seen.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::Failure;
use crate::output::{Output, clean, terminal_obeys};

/// Goes on only after a "yes"; where nobody can be asked, only with `--yes`.
pub(crate) fn confirm(out: &Output, yes: bool, question: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() || !out.for_people() {
        return Err(Failure::usage("nobody can be asked here")
            .help("look at what would happen, then repeat with --yes"));
    }
    let mut stderr = std::io::stderr().lock();
    let _ = write!(stderr, "{} [y/N] ", clean(question));
    let _ = stderr.flush();
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| Failure::local("no-answer", "no answer could be read").caused_by(&error))?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        Err(Failure::usage("you said no; nothing was changed"))
    }
}

/// A sign that something goes on, on a terminal only; it goes away by itself.
#[derive(Debug)]
pub struct Spinner(ProgressBar);

/// Says what is waited for.
pub fn waiting(out: &Output, what: &str) -> Spinner {
    if !out.for_people() || !terminal_obeys() {
        return Spinner(ProgressBar::hidden());
    }
    let bar = ProgressBar::new_spinner().with_message(clean(what).into_owned());
    let template = if out.error.color {
        "{spinner:.cyan} {msg} {elapsed:.dim}"
    } else {
        "{spinner} {msg} {elapsed}"
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    Spinner(bar)
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
