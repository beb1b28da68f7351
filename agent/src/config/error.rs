//! Why a configuration is not used: what is wrong, where it stands, and what to write instead.

use std::path::PathBuf;

use crate::durable::FileError;

/// Why a configuration is not used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no such file.
    #[error("there is no configuration {}: `penstock-agent config --default` prints one to begin with", .0.display())]
    Missing(PathBuf),
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not text.
    #[error("{} is not UTF-8 text", .0.display())]
    Text(PathBuf),
    /// It is not TOML of our shape; the source shows where.
    #[error("{} is not a valid configuration", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Line, column and what is wrong.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value does not hold.
    #[error("{}: `{key}` {problem}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Section and key.
        key: &'static str,
        /// What is wrong and what to write instead.
        problem: String,
    },
}
