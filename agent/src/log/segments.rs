//! The segments of one log: found at opening, appended to, and removed.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use super::disk::{Disk, DiskFile};
use super::frame::{self, HEADER_BYTES, LogId};
use super::scan::{Scan, Step};
use crate::durable::FileError;

/// A file of the log.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Where.
    pub path: PathBuf,
    /// Its place among the segments.
    pub number: u64,
    /// Its length.
    pub bytes: u64,
}

impl Segment {
    /// The error that it cannot be read now.
    pub fn unread(&self, error: io::Error) -> FileError {
        failed("read", &self.path)(error)
    }
}

/// What there was at opening and is no segment of this log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Segments of another log in the same folder; they were removed.
    pub foreign: usize,
    /// Files without a whole beginning in which something stood; they were removed, unless a record in them is whole.
    pub headless: usize,
}

/// The segments. Dropping them loses nothing that [`Self::append`] returned for.
#[derive(Debug)]
pub struct Segments<D: Disk> {
    disk: D,
    folder: PathBuf,
    identity: LogId,
    list: VecDeque<Segment>,
    /// The newest, while it takes records.
    active: Option<D::File>,
    bytes: u64,
    last_number: u64,
}

/// An error of the disk with what was tried.
fn failed<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |source| FileError {
        verb,
        path: path.to_owned(),
        source,
    }
}

/// The files of a folder that are named as segments, in order of their numbers.
///
/// # Errors
/// The folder cannot be read.
pub fn numbered<D: Disk>(disk: &D, folder: &Path) -> Result<BTreeMap<u64, PathBuf>, FileError> {
    let names = disk.list(folder).map_err(failed("list", folder))?;
    let number = |path: &Path| {
        let number = u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok()?;
        (path.extension()?.to_str()? == "seg").then_some(number)
    };
    Ok(names
        .into_iter()
        .filter_map(|path| Some((number(&path)?, path)))
        .collect())
}

impl<D: Disk> Segments<D> {
    /// Finds the log's segments in `folder`, which belongs to it alone and is made where it is missing. Reads the beginning of
    /// each, and nothing more.
    ///
    /// # Errors
    /// The disk cannot be read or written; nothing that may be whole was removed.
    pub fn open(disk: D, folder: &Path, identity: LogId) -> Result<(Self, Found), FileError> {
        disk.create_folder(folder).map_err(failed("create", folder))?;
        let mut segments = Self {
            disk,
            folder: folder.to_owned(),
            identity,
            list: VecDeque::new(),
            active: None,
            bytes: 0,
            last_number: 0,
        };
        let mut found = Found::default();
        for (number, path) in numbered(&segments.disk, folder)? {
            segments.last_number = segments.last_number.max(number);
            segments.take_up(number, path, &mut found)?;
        }
        Ok((segments, found))
    }

    fn take_up(&mut self, number: u64, path: PathBuf, found: &mut Found) -> Result<(), FileError> {
        let file = self.disk.open(&path).map_err(failed("open", &path))?;
        let bytes = file.length().map_err(failed("look at", &path))?;
        // An error here is the disk's, not the file's: what it holds may be whole, and is not removed.
        let header = read_header(&file).map_err(failed("read", &path))?;
        let is_whole = header == Some((self.identity, number));
        if is_whole || self.has_record(&file, number).map_err(failed("read", &path))? {
            found.headless += usize::from(!is_whole);
            self.bytes = self.bytes.saturating_add(bytes);
            self.list.push_back(Segment { path, number, bytes });
            return Ok(());
        }
        match header {
            Some((identity, _)) if identity != self.identity => found.foreign += 1,
            // Made and not yet written, or damaged throughout.
            _ => found.headless += usize::from(bytes > 0),
        }
        self.disk.remove(&path).map_err(failed("remove", &path))
    }

    /// Whether a file has a record of this log's segment of that number, whatever its beginning says.
    fn has_record(&self, file: &D::File, number: u64) -> io::Result<bool> {
        let mut scan = Scan::new(number, self.identity);
        loop {
            match scan.step(file)? {
                Step::Record(_) => return Ok(true),
                Step::Damaged => {}
                Step::End { .. } => return Ok(false),
            }
        }
    }

    /// The segments, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Segment> {
        self.list.iter()
    }

    /// A segment's file, for reading.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn reading(&self, segment: &Segment) -> Result<D::File, FileError> {
        self.disk
            .open(&segment.path)
            .map_err(failed("open", &segment.path))
    }

    /// The bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is free on the disk.
    ///
    /// # Errors
    /// The disk does not say.
    pub fn free_bytes(&self) -> Result<u64, FileError> {
        let asked = self.disk.free_bytes(&self.folder);
        asked.map_err(failed("ask for the free space of", &self.folder))
    }

    /// Whether the newest segment takes records and has less than `bytes`.
    pub fn takes_records_below(&self, bytes: u64) -> bool {
        self.active.is_some() && self.list.back().is_some_and(|segment| segment.bytes < bytes)
    }

    /// Begins a segment with these records; durable when this returns.
    ///
    /// # Errors
    /// There is no new segment, and none takes records.
    pub fn begin(&mut self, records: &[Vec<u8>]) -> Result<u64, FileError> {
        self.active = None;
        let number = self.last_number.saturating_add(1);
        let path = self.folder.join(format!("{number:016x}.seg"));
        let file = self.disk.create(&path).map_err(failed("create", &path))?;
        // Never given twice: one that cannot be written may be there again after a crash.
        self.last_number = number;
        let mut out = frame::header(&self.identity, number);
        for record in records {
            frame::put(&mut out, &self.identity, number, 0, record);
        }
        let begun = file
            .write_at(&out, 0)
            .and_then(|()| file.sync())
            .and_then(|()| self.disk.sync_folder(&self.folder));
        if let Err(error) = begun {
            let _ = self.disk.remove(&path);
            return Err(failed("write", &path)(error));
        }
        let bytes = out.len() as u64;
        self.bytes = self.bytes.saturating_add(bytes);
        self.list.push_back(Segment { path, number, bytes });
        self.active = Some(file);
        Ok(number)
    }

    /// Appends records to the newest segment, durable when this returns.
    ///
    /// # Errors
    /// None of them counts, and the segment takes no more: half a record, or one that the disk may or may not keep, is cut off
    /// again, and the next segment's first record says that it does not count, should even that fail.
    pub fn append(&mut self, bodies: &[Vec<u8>]) -> Result<(), FileError> {
        let (Some(file), Some(segment)) = (&self.active, self.list.back_mut()) else {
            return Err(failed("write", &self.folder)(io::Error::other(
                "no segment takes records",
            )));
        };
        let base = segment.bytes;
        let mut out = Vec::new();
        for body in bodies {
            frame::put(&mut out, &self.identity, segment.number, base, body);
        }
        if let Err(error) = file.write_at(&out, base).and_then(|()| file.sync()) {
            let _ = file.cut(base);
            self.active = None;
            return Err(failed("write", &segment.path)(error));
        }
        let added = out.len() as u64;
        segment.bytes = segment.bytes.saturating_add(added);
        self.bytes = self.bytes.saturating_add(added);
        Ok(())
    }

    /// The newest takes no more records.
    pub fn seal(&mut self) {
        self.active = None;
    }

    /// Removes a segment, whose records nobody needs any more; after a crash it may be there again.
    ///
    /// # Errors
    /// It could not be removed, and is there still.
    pub fn remove(&mut self, number: u64) -> Result<(), FileError> {
        let Some((at, segment)) = self
            .list
            .iter()
            .enumerate()
            .find(|(_, segment)| segment.number == number)
        else {
            return Ok(());
        };
        match self.disk.remove(&segment.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &segment.path)(error));
            }
            _ => {}
        }
        self.bytes = self.bytes.saturating_sub(segment.bytes);
        if at.saturating_add(1) == self.list.len() {
            self.active = None;
        }
        self.list.remove(at);
        Ok(())
    }
}

/// Whose segment a file is and its number; `None`: it has no whole beginning.
///
/// # Errors
/// It cannot be read now.
pub fn read_header<F: DiskFile>(file: &F) -> io::Result<Option<(LogId, u64)>> {
    let mut head = [0; HEADER_BYTES];
    let mut got = 0;
    while let Some(rest) = head.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, got as u64) {
            Ok(0) => return Ok(None),
            Ok(count) => got += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(frame::read_header(&head))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::super::disk::RealDisk;
    use super::*;

    const ID: LogId = [5; 16];

    /// The records that can be read, over all segments.
    fn read(folder: &Path) -> (Vec<Vec<u8>>, Found) {
        let (segments, found) = Segments::open(RealDisk, folder, ID).unwrap();
        let mut records = Vec::new();
        for segment in segments.iter() {
            let file = segments.reading(segment).unwrap();
            let mut scan = Scan::new(segment.number, ID);
            loop {
                match scan.step(&file).unwrap() {
                    Step::Record(body) => records.push(body),
                    Step::Damaged => {}
                    Step::End { .. } => break,
                }
            }
        }
        (records, found)
    }

    #[test]
    fn a_damaged_length_or_beginning_hides_no_record_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let bodies: Vec<_> = (0..5).map(|number| vec![number; 20]).collect();
        let (mut segments, _) = Segments::open(RealDisk, folder.path(), ID).unwrap();
        segments.begin(&bodies).unwrap();
        let path = segments.iter().next().unwrap().path.clone();
        let whole = std::fs::read(&path).unwrap();
        for place in 0..whole.len() {
            for flip in [1, 0x80] {
                let mut bytes = whole.clone();
                bytes[place] ^= flip;
                std::fs::write(&path, &bytes).unwrap();
                let (records, found) = read(folder.path());
                let missing = place.checked_sub(HEADER_BYTES).map(|behind| behind / 36);
                let expected = (0..5)
                    .filter(|number| missing != Some(*number))
                    .map(|number| bodies[number].clone());
                assert_eq!(records, expected.collect::<Vec<_>>(), "byte {place}");
                assert_eq!(
                    found.headless + found.foreign,
                    usize::from(missing.is_none()),
                    "byte {place}"
                );
            }
        }
        // What is not of this log goes, as what was never written does.
        std::fs::write(&path, frame::header(&[6; 16], 1)).unwrap();
        assert_eq!(read(folder.path()).1.foreign, 1);
        std::fs::write(&path, b"PS").unwrap();
        assert_eq!(read(folder.path()).1.headless, 1);
        assert!(!path.exists());
    }
}
