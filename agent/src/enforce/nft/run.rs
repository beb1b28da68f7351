//! Runs the `nft` program: one script, one transaction.
//!
//! The program gets the script on its standard input, a fixed environment, a limited time, and only the beginning of
//! what it says is kept. The kernel takes a script whole or not at all.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// How long one transaction may take. Loading 100,000 elements takes about a second.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How much of the program's complaint is kept.
const COMPLAINT_BYTES: u64 = 4096;
/// Where programs are searched.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a kernel may lack that inspection alone needs: how it begins in a rule, and the module that brings it.
const MODULES_OF_INSPECTION: [(&str, &str); 3] = [
    ("tproxy", "nft_tproxy"),
    ("socket", "nft_socket"),
    ("dnat", "nft_nat"),
];
/// The same of what every table needs.
const MODULES: [(&str, &str); 5] = [
    ("fib", "nft_fib_inet"),
    ("reject", "nft_reject_inet"),
    ("limit", "nft_limit"),
    ("log", "nft_log"),
    ("ct", "nft_ct"),
];

/// Why a script was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// There is no such program.
    #[error("`{program}` was not found: install nftables (Debian: apt-get install nftables)")]
    Missing {
        /// What was searched.
        program: String,
    },
    /// The program could not be started or spoken to.
    #[error("`{program}` could not be run")]
    Run {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The script was refused. The kernel is as it was before.
    #[error("the kernel rejected the new rules: {complaint}")]
    Refused {
        /// The beginning of what the program said.
        complaint: String,
        /// Whether the refusal was that something to be created was there already.
        exists: bool,
    },
    /// The kernel does not know an expression of the rules. It is as it was before.
    #[error(
        "this kernel lacks `{expression}` for the new rules: load its module (modprobe {module}; echo {module} >> \
         /etc/modules-load.d/penstock.conf), or use a kernel that is built with it"
    )]
    Lacks {
        /// How the expression begins.
        expression: &'static str,
        /// The module that brings it.
        module: &'static str,
    },
    /// The program did not end in time and was killed; the kernel may be as before or as wanted.
    #[error("`{program}` did not end within {} s and was killed", TIMEOUT.as_secs())]
    TimedOut {
        /// The program.
        program: String,
    },
}

impl NftError {
    /// Whether the kernel lacks what inspection alone needs.
    pub(in crate::enforce) fn concerns_inspection(&self) -> bool {
        matches!(self, Self::Lacks { expression, module } if MODULES_OF_INSPECTION.contains(&(*expression, *module)))
    }
}

/// The `nft` program.
#[derive(Debug, Clone)]
pub struct Nft {
    program: PathBuf,
}

impl Nft {
    /// The program of this name or path.
    pub fn new(program: PathBuf) -> Self {
        Self { program }
    }

    /// Loads one script after another; `false` if the kernel refuses the first, and then is as before.
    pub(in crate::enforce) async fn load_in_turn(&self, steps: &[String]) -> Result<bool, NftError> {
        for (number, step) in steps.iter().enumerate() {
            match self.load(step).await {
                Err(NftError::Refused { .. }) if number == 0 => return Ok(false),
                loaded => loaded?,
            }
        }
        Ok(true)
    }

    /// Loads `script` as one transaction.
    ///
    /// # Errors
    /// `nft` is missing, cannot be run, or was killed after its time, or the kernel rejected the script. Except after
    /// [`NftError::TimedOut`], the kernel is as it was before.
    pub async fn load(&self, script: &str) -> Result<(), NftError> {
        self.run(&["-f", "-"], script).await
    }

    /// Asks the kernel whether it would take `script`, and changes nothing.
    ///
    /// # Errors
    /// `nft` is missing, cannot be run, or was killed after its time, or the kernel would reject the script.
    pub async fn check(&self, script: &str) -> Result<(), NftError> {
        self.run(&["--check", "-f", "-"], script).await
    }

    async fn run(&self, arguments: &[&str], script: &str) -> Result<(), NftError> {
        let program = || self.program.display().to_string();
        let mut child = Command::new(&self.program)
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| match source.kind() {
                std::io::ErrorKind::NotFound => NftError::Missing { program: program() },
                _ => NftError::Run {
                    program: program(),
                    source,
                },
            })?;
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let write = async {
            if let Some(mut pipe) = stdin {
                // A program that gives up early closes the pipe; its exit status says why.
                let _ = pipe.write_all(script.as_bytes()).await;
            }
        };
        let read = async {
            let mut complaint = Vec::new();
            if let Some(pipe) = stderr {
                let mut head = pipe.take(COMPLAINT_BYTES);
                let _ = head.read_to_end(&mut complaint).await;
                // The rest is drained, so that the program does not wait for a reader.
                let _ = tokio::io::copy(&mut head.into_inner(), &mut tokio::io::sink()).await;
            }
            String::from_utf8_lossy(&complaint).into_owned()
        };
        let whole = async { tokio::join!(write, read, child.wait()) };
        let Ok(((), complaint, status)) = tokio::time::timeout(TIMEOUT, whole).await else {
            return Err(NftError::TimedOut { program: program() });
        };
        let status = status.map_err(|source| NftError::Run {
            program: program(),
            source,
        })?;
        if status.success() {
            return Ok(());
        }
        if let Some((expression, module)) = lacking(&complaint) {
            return Err(NftError::Lacks { expression, module });
        }
        let exists = complaint.contains("File exists");
        let complaint = first_lines(&complaint, status);
        Err(NftError::Refused { complaint, exists })
    }
}

/// What the kernel lacks, if that is the complaint: `nft` says no more than that something is not there, quotes the line, and
/// marks the place below it.
fn lacking(complaint: &str) -> Option<(&'static str, &'static str)> {
    let mut lines = complaint.lines();
    lines.find(|line| {
        line.contains("Could not process rule")
            && (line.contains("No such file or directory") || line.contains("Operation not supported"))
    })?;
    let (quoted, marks) = (lines.next()?, lines.next()?);
    let marked = quoted.get(marks.find('^')?..)?;
    MODULES_OF_INSPECTION
        .into_iter()
        .chain(MODULES)
        .find(|(expression, _)| marked.split_whitespace().next() == Some(*expression))
}

/// The complaint in one line: its first lines, without the quoted script, or how the program ended.
fn first_lines(complaint: &str, status: std::process::ExitStatus) -> String {
    let said: Vec<&str> = complaint
        .lines()
        .filter(|line| line.contains("rror"))
        .take(3)
        .collect();
    if said.is_empty() {
        let head: String = complaint.chars().take(300).collect();
        return format!("{} ({status})", head.trim());
    }
    said.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_lacks_is_known_by_the_place_that_nft_marks() {
        let complaint = |why: &str, marked: &str| {
            let rule = "meta l4proto tcp tproxy ip to 192.0.0.8:8686 meta mark set 0x30000000 counter name intercepted accept";
            let place = " ".repeat(rule.find(marked).unwrap_or(0));
            let marks = "^".repeat(marked.len());
            format!("/dev/stdin:97:2-9: Error: Could not process rule: {why}\n{rule}\n{place}{marks}\n")
        };
        let missing = "No such file or directory";
        let tproxy = Some(("tproxy", "nft_tproxy"));
        assert_eq!(
            lacking(&complaint(missing, "tproxy ip to 192.0.0.8:8686")),
            tproxy
        );
        assert_eq!(
            lacking(&complaint("Operation not supported", "tproxy ip")),
            tproxy
        );
        // A counter or a chain that is not there is another fault, and so is what is there already.
        assert_eq!(lacking(&complaint(missing, "counter name intercepted")), None);
        assert_eq!(lacking(&complaint("File exists", "tproxy ip")), None);
        assert_eq!(lacking("Error: No such file or directory"), None);
    }

    #[test]
    fn every_module_that_a_rule_may_lack_is_loaded_at_boot_where_the_package_says_which() {
        let listed = include_str!("../../../../deploy/systemd/penstock-gateway.modules");
        for (expression, module) in MODULES_OF_INSPECTION.into_iter().chain(MODULES) {
            assert!(
                listed.lines().any(|line| line == module),
                "{module}, for {expression}"
            );
        }
    }
}
