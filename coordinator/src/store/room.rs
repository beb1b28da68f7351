//! Who may still write when the disk gets short.
//!
//! What must go on — approvals, the end of a proposal, tokens, certificates, what operators do as it is written in the
//! coordinator's own trail — has [`DiskReserve::reserve_bytes`] to itself, shared only in its first half by documents and plans of
//! proposals and by refusals. What is left beside the reserve is for the gateways' trails: one half for whoever needs it, the
//! other for all in equal parts. So no gateway ends the trail of another, whatever it delivers, nor do many of them together.
//! What is not taken is an error that says so; nothing that is stored makes room for it.
//!
//! Not here: how much room there is, which the engine sees (`sqlite/disk`).

use std::path::Path;

use super::StoreError;

/// What is asked of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskReserve {
    /// Free space that only what must go on may use, bytes, ...
    pub reserve_bytes: u64,
    /// ... and at most this part of the disk: 8 for an eighth; 0 for no such bound.
    pub disk_part: u64,
}

impl Default for DiskReserve {
    fn default() -> Self {
        Self {
            reserve_bytes: 1 << 30,
            disk_part: 8,
        }
    }
}

/// What a write is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose<'a> {
    /// It must go on.
    Essential,
    /// It can be asked for again: documents and plans of a proposal, and refusals in the coordinator's own trail.
    Deferrable,
    /// The trail of a gateway that holds so many bytes of the store.
    Trail { source: &'a str, held_bytes: u64 },
}

/// What there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DiskUsage {
    /// What the store may still take.
    pub(super) free_bytes: u64,
    /// What all trails together hold.
    pub(super) held_bytes: u64,
    /// How many trails there are.
    pub(super) sources: u64,
}

impl DiskReserve {
    /// Whether there is room for a write of this purpose.
    pub(super) fn admits(self, path: &Path, purpose: Purpose<'_>, disk: DiskUsage) -> Result<(), StoreError> {
        let kept_bytes = match purpose {
            Purpose::Essential => return Ok(()),
            Purpose::Deferrable => self.reserve_bytes / 2,
            Purpose::Trail { .. } => self.reserve_bytes,
        };
        let beyond = disk.free_bytes.saturating_sub(kept_bytes);
        if beyond == 0 {
            return Err(StoreError::Reserved {
                path: path.to_owned(),
                free_bytes: disk.free_bytes,
                kept_bytes,
            });
        }
        let half = beyond.saturating_add(disk.held_bytes) / 2;
        let part = half / disk.sources.max(1);
        match purpose {
            Purpose::Trail { source, held_bytes } if beyond <= half && held_bytes > part => {
                Err(StoreError::HoldsItsPart {
                    source_name: source.to_owned(),
                    held_bytes,
                    part_bytes: part,
                })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn admits(room: DiskReserve, purpose: Purpose<'_>, disk: DiskUsage) -> bool {
        room.admits(Path::new("/s.db"), purpose, disk).is_ok()
    }

    proptest! {
        #[test]
        fn however_many_gateways_flood_each_other_one_keeps_its_part_and_the_reserve_stays(
            floods in 1_u64..12, modest in 1_u64..12, size in 100_000_u64..1_000_000,
        ) {
            let room = DiskReserve { reserve_bytes: size / 10, ..DiskReserve::default() };
            let sources = floods + modest;
            let mut held = vec![0_u64; usize::try_from(sources).unwrap_or(0)];
            let mut free = size;
            let step = size / 1000;
            let disk = |free: u64| DiskUsage { free_bytes: free, held_bytes: size - free, sources };
            // The floods write until none of them is taken; then the others do.
            for range in [0..floods, floods..sources] {
                let range = usize::try_from(range.start).unwrap_or(0)..usize::try_from(range.end).unwrap_or(0);
                while let Some(taken) = held.get_mut(range.clone()).into_iter().flatten().find(|held_bytes| {
                    admits(room, Purpose::Trail { source: "gw", held_bytes: **held_bytes }, disk(free))
                }) {
                    *taken += step;
                    free = free.saturating_sub(step);
                }
            }
            prop_assert!(free + step >= room.reserve_bytes, "{free} of {size}");
            let part = (size - room.reserve_bytes) / 2 / sources;
            for held in held.iter().skip(usize::try_from(floods).unwrap_or(0)) {
                prop_assert!(held + 2 * step >= part, "{held} of {part}");
            }
            prop_assert!(admits(room, Purpose::Deferrable, disk(free)));
        }
    }

    #[test]
    fn what_must_go_on_goes_on_to_the_last_byte_and_the_others_end_one_after_the_other() {
        let room = DiskReserve {
            reserve_bytes: 1000,
            ..DiskReserve::default()
        };
        let trail = Purpose::Trail {
            source: "gw",
            held_bytes: 0,
        };
        for (free_bytes, takes) in [
            (1001, [true, true, true]),
            (1000, [true, true, false]),
            (500, [true, false, false]),
            (0, [true, false, false]),
        ] {
            let disk = DiskUsage {
                free_bytes,
                held_bytes: 5,
                sources: 1,
            };
            let taken = [Purpose::Essential, Purpose::Deferrable, trail];
            assert_eq!(
                taken.map(|purpose| admits(room, purpose, disk)),
                takes,
                "{free_bytes}"
            );
        }
    }
}
