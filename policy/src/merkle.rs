//! Merkle trees (RFC 6962 section 2.1, RFC 9162 section 2.1): over all gateway plans of a release, and over all that a coordinator
//! stored of audit trails ([`growing`]).
//!
//! One signature thus covers any number of gateways, and each needs only its own plan and about
//! log₂(gateways) hashes to prove that this plan is the one that was signed.
//!
//! Leaves and nodes are hashed with different first bytes (`0x00`, `0x01`), so that a node can never be
//! passed for a leaf. The tree of no leaves has the root SHA-256 of nothing. A [`Tree`] keeps every level,
//! so that the proofs of 100,000 gateways cost what 100,000 look-ups cost.

pub mod growing;

use sha2::{Digest as _, Sha256};

/// A node of the tree.
pub type Hash = [u8; 32];

/// The longest proof that is read: a tree of 2⁶⁴ leaves has no longer one.
pub const PROOF_LENGTH_MAX: usize = 64;

/// The hash of a leaf's content: SHA-256(0x00 ‖ content).
pub fn leaf_hash(content: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(content);
    hasher.finalize().into()
}

/// The hash of two subtrees: SHA-256(0x01 ‖ left ‖ right).
fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([1]);
    hasher.update(left);
    hasher.update(right);
    hasher.finalize().into()
}

/// A whole tree, level by level from the leaves to the root.
///
/// The RFC splits at the largest power of two below the size. Pairing neighbours level by level, and
/// carrying an odd last node up as it is, gives the same tree.
#[derive(Debug, Clone)]
pub struct Tree {
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// The tree over `leaves`, each already hashed by [`leaf_hash`].
    pub fn new(leaves: Vec<Hash>) -> Self {
        let mut levels = vec![leaves];
        while let Some(below) = levels.last()
            && below.len() > 1
        {
            let above = below
                .chunks(2)
                .filter_map(|pair| match pair {
                    [left, right] => Some(node_hash(left, right)),
                    [single] => Some(*single),
                    _ => None,
                })
                .collect();
            levels.push(above);
        }
        Self { levels }
    }

    /// How many leaves it has.
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| leaves.len() as u64)
    }

    /// The root (RFC 6962 section 2.1, `MTH`).
    pub fn root(&self) -> Hash {
        match self.levels.last().and_then(|top| top.first()) {
            Some(root) => *root,
            None => Sha256::digest([]).into(),
        }
    }

    /// The sibling hashes from leaf `index` to the root (RFC 6962 section 2.1.1, `PATH`), or `None` for an
    /// index outside the tree.
    pub fn proof(&self, index: u64) -> Option<Vec<Hash>> {
        let mut position = usize::try_from(index).ok()?;
        if index >= self.size() {
            return None;
        }
        let mut proof = Vec::new();
        for level in &self.levels {
            // A last node without a neighbour is carried up and adds nothing to the proof.
            if level.len() > 1
                && let Some(sibling) = level.get(position ^ 1)
            {
                proof.push(*sibling);
            }
            position /= 2;
        }
        Some(proof)
    }
}

/// Whether `leaf` stands at `index` of the tree of `size` leaves with this `root` (RFC 9162 section 2.1.3.2).
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let mut position = index;
    let mut last = size - 1;
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return false; // The proof is longer than the way to the root.
        }
        if position & 1 == 1 || position == last {
            hash = node_hash(sibling, &hash);
            // Skip the levels on which the node was carried up alone.
            while position & 1 == 0 && position != 0 {
                position >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        position >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    /// RFC 6962 section 2.1 word for word: split at the largest power of two below the size.
    fn reference_root(leaves: &[Vec<u8>]) -> Hash {
        match leaves {
            [] => Sha256::digest([]).into(),
            [one] => leaf_hash(one),
            many => {
                let k = many.len().next_power_of_two() / 2;
                node_hash(&reference_root(&many[..k]), &reference_root(&many[k..]))
            }
        }
    }

    /// RFC 6962 section 2.1.1 word for word.
    fn reference_path(index: usize, leaves: &[Vec<u8>]) -> Vec<Hash> {
        if leaves.len() <= 1 {
            return Vec::new();
        }
        let k = leaves.len().next_power_of_two() / 2;
        if index < k {
            let mut path = reference_path(index, &leaves[..k]);
            path.push(reference_root(&leaves[k..]));
            path
        } else {
            let mut path = reference_path(index - k, &leaves[k..]);
            path.push(reference_root(&leaves[..k]));
            path
        }
    }

    fn tree(leaves: &[Vec<u8>]) -> Tree {
        Tree::new(leaves.iter().map(|leaf| leaf_hash(leaf)).collect())
    }

    /// The inputs and roots that Certificate Transparency's own implementations test with.
    #[test]
    fn the_known_vectors_of_certificate_transparency_hold() {
        let inputs = [
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        ];
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let leaves: Vec<Vec<u8>> = inputs.iter().map(|text| hex::decode(text).unwrap()).collect();
        for (size, root) in roots.iter().enumerate() {
            assert_eq!(
                hex::encode(tree(&leaves[..size]).root()),
                *root,
                "tree of {size} leaves"
            );
        }
    }

    #[test]
    fn no_proof_exists_outside_the_tree() {
        let tree = tree(&[vec![1], vec![2]]);
        assert_eq!(tree.proof(2), None);
        assert_eq!(Tree::new(Vec::new()).proof(0), None);
        assert!(!verify_inclusion(
            &[0; 32],
            0,
            0,
            &[],
            &Tree::new(Vec::new()).root()
        ));
    }

    proptest! {
        #[test]
        fn root_and_proofs_equal_the_words_of_the_rfc(
            leaves in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 1..70),
        ) {
            let tree = tree(&leaves);
            prop_assert_eq!(tree.root(), reference_root(&leaves));
            for (index, leaf) in leaves.iter().enumerate() {
                let proof = tree.proof(index as u64).unwrap();
                prop_assert_eq!(&proof, &reference_path(index, &leaves));
                prop_assert!(verify_inclusion(
                    &leaf_hash(leaf), index as u64, tree.size(), &proof, &tree.root()
                ));
            }
        }

        #[test]
        fn a_proof_with_anything_changed_is_refused(
            size in 1_u64..70, at in any::<prop::sample::Index>(), change in 0..6_u8,
            place in any::<prop::sample::Index>(), bit in 0..256_usize, by in 1_u64..100,
        ) {
            let leaves: Vec<Vec<u8>> = (0..size).map(|n| n.to_be_bytes().to_vec()).collect();
            let tree = tree(&leaves);
            let mut index = at.index(leaves.len()) as u64;
            let mut leaf = leaf_hash(&leaves[at.index(leaves.len())]);
            let mut proof = tree.proof(index).unwrap();
            let mut root = tree.root();
            match change {
                0 => leaf[bit / 8] ^= 1 << (bit % 8),
                1 => root[bit / 8] ^= 1 << (bit % 8),
                2 => index = (index + by) % size.max(by + 1),
                3 => proof.push(leaf),
                4 if !proof.is_empty() => { proof.remove(place.index(proof.len())); }
                5 if !proof.is_empty() => {
                    let place = place.index(proof.len());
                    proof[place][bit / 8] ^= 1 << (bit % 8);
                }
                _ => leaf[0] ^= 1,
            }
            let same = change == 2 && index == at.index(leaves.len()) as u64;
            prop_assert_eq!(verify_inclusion(&leaf, index, size, &proof, &root), same);
        }
    }
}
