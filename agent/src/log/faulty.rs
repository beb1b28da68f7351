//! A disk for tests, in memory, that keeps what a disk has to keep and nothing more.
//!
//! What was written is durable after its file's sync, a name after its folder's. At one chosen operation it fails: with a full
//! disk, with a sync that fails (and what was written since is lost, whatever later syncs say), or with a power cut. After a cut each
//! sector of what was not synced is the old or the new one, each file as long as before or as written, each name there or not: so
//! writes reach it in any order. One read may fail with an error. And one write may go astray, though the disk says that it is done and
//! synced: it is nowhere, or somewhere else.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::missing_errors_doc)]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use super::disk::{Disk, DiskFile};

const SECTOR_BYTES: usize = 512;

/// What happens at the chosen operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Power goes: this operation is done in part, and none after it.
    Cut,
    /// There is no room, for this one operation.
    Full,
    /// The next sync fails.
    Sync,
}

/// What becomes of a write that the disk says it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stray {
    /// It is nowhere.
    Lost,
    /// It is in another place, or another file, as the seed says, over what was there.
    Misdirected(u64),
}

#[derive(Debug, Clone, Default)]
struct Node {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// A sync failed: what was written since the last good one never reaches the disk.
    forgotten: bool,
}

#[derive(Debug, Clone, Default)]
struct World {
    nodes: Vec<Node>,
    live: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    /// Operations that are left before the fault.
    left: Option<(u32, Fault)>,
    /// Writes that are left before the one that goes astray.
    straying: Option<(u32, Stray)>,
    strayed: Vec<PathBuf>,
    /// Reads that are left before the one that fails.
    unreadable: Option<u32>,
    is_cut: bool,
}

/// The disk; its clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct FaultyDisk(Arc<Mutex<World>>);

/// A file on it.
#[derive(Debug)]
pub struct FaultyFile(Arc<Mutex<World>>, usize);

impl World {
    /// Counts an operation that changes something; `Some`: it is the one that fails.
    fn operation(&mut self, is_sync: bool) -> io::Result<Option<Fault>> {
        if self.is_cut {
            return Err(io::Error::other("the power is cut"));
        }
        match &mut self.left {
            Some((0, Fault::Sync)) if !is_sync => Ok(None),
            Some((0, fault)) => {
                let fault = *fault;
                self.left = None;
                self.is_cut = fault == Fault::Cut;
                Ok(Some(fault))
            }
            Some((left, _)) => {
                *left -= 1;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Counts a read.
    fn reads(&mut self) -> io::Result<()> {
        match &mut self.unreadable {
            Some(0) => {
                self.unreadable = None;
                Err(Errno::IO.into())
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Counts a write; whether it went astray.
    fn strays(&mut self, node: usize, bytes: &[u8], offset: usize) -> bool {
        let stray = match &mut self.straying {
            Some((0, stray)) => *stray,
            Some((left, _)) => {
                *left -= 1;
                return false;
            }
            None => return false,
        };
        self.straying = None;
        // How long a file is, is written elsewhere.
        let live = &mut self.nodes[node].live;
        live.resize(live.len().max(offset + bytes.len()), 0);
        let mut touched = vec![node];
        if let Stray::Misdirected(seed) = stray {
            let mut dice = Dice(seed);
            let files: Vec<_> = self.live.values().copied().collect();
            let other = files[dice.below(files.len())];
            let Node { live, durable, .. } = &mut self.nodes[other];
            let at = dice.below(live.len() / SECTOR_BYTES + 1) * SECTOR_BYTES;
            for held in [live, durable] {
                let over = held.iter_mut().skip(at);
                over.zip(bytes).for_each(|(held, byte)| *held = *byte);
            }
            touched.push(other);
        }
        let paths = self.live.iter().filter(|(_, node)| touched.contains(node));
        self.strayed = paths.map(|(path, _)| path.clone()).collect();
        true
    }
}

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::Cut => io::Error::other("the power is cut"),
        Fault::Full => Errno::NOSPC.into(),
        Fault::Sync => Errno::IO.into(),
    }
}

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

impl FaultyDisk {
    /// Fails at the operation after so many others.
    pub fn fail_after(&self, operations: u32, fault: Fault) {
        self.0.lock().unwrap().left = Some((operations, fault));
    }

    /// The write after so many others goes astray.
    pub fn stray_after(&self, writes: u32, stray: Stray) {
        self.0.lock().unwrap().straying = Some((writes, stray));
    }

    /// From now on none goes astray; the files that do not hold what they should since one did.
    pub fn strayed(&self) -> Vec<PathBuf> {
        let mut world = self.0.lock().unwrap();
        world.straying = None;
        world.strayed.clone()
    }

    /// The read after so many others fails.
    pub fn fail_read_after(&self, reads: u32) {
        self.0.lock().unwrap().unreadable = Some(reads);
    }

    /// What the files hold.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let world = self.0.lock().unwrap();
        let files = world.live.iter();
        files
            .map(|(path, node)| (path.clone(), world.nodes[*node].live.clone()))
            .collect()
    }

    /// Damages one place of one file, as `seed` says: a byte, the bytes of a sector, or all from there on. Says which file, and
    /// whether all; `None`: there is none.
    pub fn damage(&self, seed: u64) -> Option<(PathBuf, bool)> {
        let mut dice = Dice(seed);
        let mut world = self.0.lock().unwrap();
        let files: Vec<_> = world
            .live
            .iter()
            .map(|(path, node)| (path.clone(), *node))
            .collect();
        let (path, node) = files.get(dice.below(files.len().max(1)))?.clone();
        let Node { live, durable, .. } = &mut world.nodes[node];
        let at = dice.below(live.len().max(1));
        let kind = dice.below(3);
        match kind {
            0 => live
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|byte| *byte ^= 1 << dice.below(8)),
            1 => live
                .iter_mut()
                .skip(at)
                .take(SECTOR_BYTES)
                .for_each(|byte| *byte ^= 0x5a),
            _ => live.truncate(at),
        }
        durable.clone_from(live);
        Some((path, kind == 2))
    }

    /// The power is cut now, if it is not yet; what the disk has when it comes back.
    pub fn after_cut(&self, seed: u64) -> Self {
        let mut dice = Dice(seed);
        let world = self.0.lock().unwrap();
        let nodes = world.nodes.iter().map(|node| node.after_cut(&mut dice)).collect();
        let mut names = BTreeMap::new();
        for path in world.live.keys().chain(world.durable.keys()) {
            let of = [world.live.get(path), world.durable.get(path)];
            if let Some(node) = of[dice.below(2)].filter(|_| !names.contains_key(path)) {
                names.insert(path.clone(), *node);
            }
        }
        Self(Arc::new(Mutex::new(World {
            nodes,
            live: names.clone(),
            durable: names,
            ..World::default()
        })))
    }
}

impl Node {
    fn after_cut(&self, dice: &mut Dice) -> Self {
        let mut bytes = [&self.durable, &self.live][dice.below(2)].clone();
        for (number, sector) in bytes.chunks_mut(SECTOR_BYTES).enumerate() {
            let source = [&self.durable, &self.live][dice.below(2)];
            for (at, byte) in sector.iter_mut().enumerate() {
                // What a file is longer by and was not written reads as zeros.
                *byte = source.get(number * SECTOR_BYTES + at).copied().unwrap_or(0);
            }
        }
        Self {
            live: bytes.clone(),
            durable: bytes,
            forgotten: false,
        }
    }
}

impl Disk for FaultyDisk {
    type File = FaultyFile;

    fn create_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let world = self.0.lock().unwrap();
        Ok(world
            .live
            .keys()
            .filter(|path| path.parent() == Some(folder))
            .cloned()
            .collect())
    }

    fn create(&self, path: &Path) -> io::Result<FaultyFile> {
        let mut world = self.0.lock().unwrap();
        let fault = world.operation(false)?;
        if let Some(fault) = fault.filter(|fault| *fault != Fault::Cut) {
            return Err(error(fault));
        }
        assert!(!world.live.contains_key(path), "{} is made twice", path.display());
        world.nodes.push(Node::default());
        let node = world.nodes.len() - 1;
        world.live.insert(path.to_owned(), node);
        match fault {
            Some(fault) => Err(error(fault)),
            None => Ok(FaultyFile(self.0.clone(), node)),
        }
    }

    fn open(&self, path: &Path) -> io::Result<FaultyFile> {
        let world = self.0.lock().unwrap();
        let node = world.live.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(FaultyFile(self.0.clone(), *node))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.0.lock().unwrap();
        if let Some(fault) = world.operation(false)? {
            return Err(error(fault));
        }
        world
            .live
            .remove(path)
            .map(|_| ())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut world = self.0.lock().unwrap();
        if let Some(fault) = world.operation(true)? {
            return Err(error(fault));
        }
        let World { live, durable, .. } = &mut *world;
        durable.retain(|path, _| path.parent() != Some(folder));
        durable.extend(
            live.iter()
                .filter(|(path, _)| path.parent() == Some(folder))
                .map(|(path, node)| (path.clone(), *node)),
        );
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX / 2)
    }
}

impl DiskFile for FaultyFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().nodes[self.1].live.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.0.lock().unwrap();
        world.reads()?;
        let held = world.nodes[self.1]
            .live
            .get(offset as usize..)
            .unwrap_or_default();
        let count = held.len().min(buffer.len());
        buffer[..count].copy_from_slice(&held[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut world = self.0.lock().unwrap();
        let fault = world.operation(false)?;
        if fault.is_none() && world.strays(self.1, bytes, offset as usize) {
            return Ok(());
        }
        let written = if fault.is_some() {
            bytes.len() / 2
        } else {
            bytes.len()
        };
        let live = &mut world.nodes[self.1].live;
        let end = offset as usize + written;
        if live.len() < end {
            live.resize(end, 0);
        }
        live[offset as usize..end].copy_from_slice(&bytes[..written]);
        fault.map_or(Ok(()), |fault| Err(error(fault)))
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        let mut world = self.0.lock().unwrap();
        if let Some(fault) = world.operation(false)? {
            return Err(error(fault));
        }
        world.nodes[self.1].live.truncate(length as usize);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.0.lock().unwrap();
        let fault = world.operation(true)?;
        let node = &mut world.nodes[self.1];
        if let Some(fault) = fault {
            node.forgotten |= fault == Fault::Sync;
            return Err(error(fault));
        }
        if !node.forgotten {
            node.durable = node.live.clone();
        }
        Ok(())
    }
}
