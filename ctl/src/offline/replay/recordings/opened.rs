//! A recording that is named, as a stream of its bytes: plain, or compressed by gzip or Zstandard.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;

/// The name that stands for standard input.
const STANDARD_INPUT: &str = "-";

/// Where a recording comes from.
#[derive(Debug)]
pub(super) enum Input {
    /// A file.
    File(PathBuf),
    /// Standard input.
    Standard,
}

/// Its bytes, decompressed, and how many there are, if that is known.
pub(super) struct Opened {
    pub(super) bytes: Box<dyn Read>,
    pub(super) length: Option<u64>,
}

impl Input {
    /// The one of that name.
    pub(super) fn of(path: PathBuf) -> Self {
        match path.as_os_str() == STANDARD_INPUT {
            true => Self::Standard,
            false => Self::File(path),
        }
    }

    /// As people call it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Standard => "standard input".to_owned(),
        }
    }

    /// A pipe brings its bytes once.
    pub(super) fn can_be_read_again(&self) -> bool {
        match self {
            Self::File(path) => std::fs::metadata(path).map_or(true, |found| found.is_file()),
            Self::Standard => false,
        }
    }

    /// Opens it.
    pub(super) fn open(&self) -> io::Result<Opened> {
        let (bytes, length): (Box<dyn Read>, _) = match self {
            Self::File(path) => {
                let file = File::open(path)?;
                let found = file.metadata()?;
                let length = found.is_file().then_some(found.len());
                (Box::new(file), length)
            }
            Self::Standard => (Box::new(io::stdin()), None),
        };
        let mut bytes = BufReader::with_capacity(1 << 16, bytes);
        // A pipe may bring fewer bytes at a time: one is enough to know that it is none of these.
        let begin = bytes.fill_buf()?;
        if begin.starts_with(&[0x1f, 0x8b]) {
            return Ok(Opened {
                bytes: Box::new(MultiGzDecoder::new(bytes)),
                length: None,
            });
        }
        if begin.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            return Ok(Opened {
                bytes: Box::new(Zstandard::Between(Some(bytes))),
                length: None,
            });
        }
        Ok(Opened {
            bytes: Box::new(bytes),
            length,
        })
    }
}

/// Frames of Zstandard, one behind another.
enum Zstandard<R: BufRead> {
    /// Before a frame, or at the end.
    Between(Option<R>),
    Within(Box<StreamingDecoder<R, ruzstd::decoding::FrameDecoder>>),
}

impl<R: BufRead> Read for Zstandard<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            match self {
                Self::Between(source) => {
                    let Some(mut rest) = source.take() else {
                        return Ok(0);
                    };
                    if rest.fill_buf()?.is_empty() {
                        return Ok(0);
                    }
                    let decoder = StreamingDecoder::new(rest).map_err(io::Error::other)?;
                    *self = Self::Within(Box::new(decoder));
                }
                Self::Within(decoder) => {
                    let count = decoder.read(out)?;
                    if count > 0 || out.is_empty() {
                        return Ok(count);
                    }
                    let Self::Within(decoder) = std::mem::replace(self, Self::Between(None)) else {
                        return Ok(0);
                    };
                    *self = Self::Between(Some(decoder.into_inner()));
                }
            }
        }
    }
}
