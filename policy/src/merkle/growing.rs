//! A tree that only grows, of which its complete subtrees are kept somewhere: the root of each size, the proof that a leaf is in it, and
//! the proof that a later tree begins with all of an earlier one (RFC 6962 section 2.1, RFC 9162 section 2.1.4).
//!
//! ```text
//! level 2:  0                       a complete subtree never changes: it is written once,
//! level 1:  0       1       (2)     with the leaf that completes it
//! level 0:  0   1   2   3   4
//! ```
//!
//! Functions over closures: who keeps the nodes (a database, memory) is not their matter. None of them needs more than about
//! 2·log₂(leaves) nodes.

use sha2::{Digest as _, Sha256};

use super::{Hash, PROOF_LENGTH_MAX, node_hash};

/// A complete subtree: over 2^`level` leaves, those from `position` · 2^`level` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeAt {
    /// 0: a leaf.
    pub level: u8,
    /// How many of its level are before it.
    pub position: u64,
}

/// Puts `leaf` at `index`, the first that is free: writes it, and each subtree that it completes.
///
/// # Errors
/// A node cannot be read or written.
pub fn append<E>(
    index: u64,
    leaf: Hash,
    get: impl Fn(NodeAt) -> Result<Hash, E>,
    mut put: impl FnMut(NodeAt, Hash) -> Result<(), E>,
) -> Result<(), E> {
    let (mut level, mut position, mut hash) = (0, index, leaf);
    put(NodeAt { level, position }, hash)?;
    while position & 1 == 1 {
        let left = get(NodeAt {
            level,
            position: position - 1,
        })?;
        hash = node_hash(&left, &hash);
        (level, position) = (level + 1, position >> 1);
        put(NodeAt { level, position }, hash)?;
    }
    Ok(())
}

/// Where the left part of a tree of `size` leaves ends, at least 2: the largest power of two below.
fn split(size: u64) -> u64 {
    1 << (u64::BITS - 1 - (size - 1).leading_zeros())
}

/// The root of the leaves from `from` on, `size` of them: a part of a tree as [`split`] makes them.
fn part<E>(from: u64, size: u64, get: &impl Fn(NodeAt) -> Result<Hash, E>) -> Result<Hash, E> {
    if size == 0 {
        return Ok(Sha256::digest([]).into());
    }
    if size.is_power_of_two() {
        let level = size.trailing_zeros();
        let position = from >> level;
        // At most 63.
        let level = u8::try_from(level).unwrap_or(u8::MAX);
        return get(NodeAt { level, position });
    }
    let left = split(size);
    Ok(node_hash(
        &part(from, left, get)?,
        &part(from + left, size - left, get)?,
    ))
}

/// The root of the first `size` leaves.
///
/// # Errors
/// A node cannot be read.
pub fn root<E>(size: u64, get: impl Fn(NodeAt) -> Result<Hash, E>) -> Result<Hash, E> {
    part(0, size, &get)
}

/// The sibling hashes from leaf `index` to the root of the first `size` leaves, for [`super::verify_inclusion`]; `None`: it is not among them.
///
/// # Errors
/// A node cannot be read.
pub fn inclusion<E>(
    index: u64,
    size: u64,
    get: impl Fn(NodeAt) -> Result<Hash, E>,
) -> Result<Option<Vec<Hash>>, E> {
    if index >= size {
        return Ok(None);
    }
    let (mut from, mut size, mut path) = (0, size, Vec::new());
    while size > 1 {
        let left = split(size);
        if index - from < left {
            path.push(part(from + left, size - left, &get)?);
            size = left;
        } else {
            path.push(part(from, left, &get)?);
            (from, size) = (from + left, size - left);
        }
    }
    path.reverse();
    Ok(Some(path))
}

/// The proof that the first `size` leaves begin with the first `earlier`; `None`: there are not so many.
///
/// # Errors
/// A node cannot be read.
pub fn consistency<E>(
    earlier: u64,
    size: u64,
    get: impl Fn(NodeAt) -> Result<Hash, E>,
) -> Result<Option<Vec<Hash>>, E> {
    if earlier > size {
        return Ok(None);
    }
    let mut path = Vec::new();
    if earlier == 0 || earlier == size {
        return Ok(Some(path));
    }
    // Whether what is left of the earlier tree is all of it: its root is known.
    let (mut from, mut size, mut earlier, mut is_whole) = (0, size, earlier, true);
    while earlier < size {
        let left = split(size);
        if earlier <= left {
            path.push(part(from + left, size - left, &get)?);
            size = left;
        } else {
            path.push(part(from, left, &get)?);
            (from, size, earlier, is_whole) = (from + left, size - left, earlier - left, false);
        }
    }
    if !is_whole {
        path.push(part(from, size, &get)?);
    }
    path.reverse();
    Ok(Some(path))
}

/// A tree by its size and its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeState {
    /// Its leaves.
    pub size: u64,
    /// Its root.
    pub root: Hash,
}

impl TreeState {
    /// The tree of no leaves.
    pub fn empty() -> Self {
        Self {
            size: 0,
            root: Sha256::digest([]).into(),
        }
    }

    /// Whether it begins with all of `earlier` (RFC 9162 section 2.1.4.2).
    pub fn continues(&self, earlier: &Self, proof: &[Hash]) -> bool {
        if earlier.size == 0 {
            return proof.is_empty() && earlier.root == Self::empty().root;
        }
        if earlier.size == self.size {
            return proof.is_empty() && earlier.root == self.root;
        }
        if earlier.size > self.size || proof.len() > PROOF_LENGTH_MAX {
            return false;
        }
        // A complete earlier tree is a node of the later one, and its hash stands in no proof.
        let known = earlier.size.is_power_of_two().then_some(&earlier.root);
        let mut proof = known.into_iter().chain(proof);
        let Some(first) = proof.next() else { return false };
        let (mut then, mut now) = (earlier.size - 1, self.size - 1);
        while then & 1 == 1 {
            (then, now) = (then >> 1, now >> 1);
        }
        let (mut earlier_root, mut root) = (*first, *first);
        for node in proof {
            if now == 0 {
                return false;
            }
            if then & 1 == 1 || then == now {
                earlier_root = node_hash(node, &earlier_root);
                root = node_hash(node, &root);
                while then & 1 == 0 && then != 0 {
                    (then, now) = (then >> 1, now >> 1);
                }
            } else {
                root = node_hash(&root, node);
            }
            (then, now) = (then >> 1, now >> 1);
        }
        now == 0 && earlier_root == earlier.root && root == self.root
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::super::{Tree, leaf_hash, verify_inclusion};
    use super::*;

    fn leaf(index: u64) -> Hash {
        leaf_hash(&index.to_be_bytes())
    }

    /// The nodes of a tree that grew to `size`.
    fn grown(size: u64) -> BTreeMap<NodeAt, Hash> {
        let nodes = RefCell::new(BTreeMap::new());
        for index in 0..size {
            let get = |at| Ok::<_, Infallible>(nodes.borrow()[&at]);
            let put = |at, hash| {
                let before = nodes.borrow_mut().insert(at, hash);
                assert_eq!(before, None, "each is written once");
                Ok(())
            };
            append(index, leaf(index), get, put).unwrap();
        }
        nodes.into_inner()
    }

    fn state(nodes: &BTreeMap<NodeAt, Hash>, size: u64) -> TreeState {
        let root = root(size, |at| Ok::<_, Infallible>(nodes[&at])).unwrap();
        TreeState { size, root }
    }

    /// RFC 6962 section 2.1.2 word for word: `SUBPROOF(m, D[n], b)`.
    fn reference_subproof(m: usize, leaves: &[Hash], is_whole: bool) -> Vec<Hash> {
        let root = |leaves: &[Hash]| Tree::new(leaves.to_vec()).root();
        if m == leaves.len() {
            return if is_whole { Vec::new() } else { vec![root(leaves)] };
        }
        let k = leaves.len().next_power_of_two() / 2;
        let (mut path, last) = if m <= k {
            (reference_subproof(m, &leaves[..k], is_whole), root(&leaves[k..]))
        } else {
            (reference_subproof(m - k, &leaves[k..], false), root(&leaves[..k]))
        };
        path.push(last);
        path
    }

    #[test]
    fn of_each_size_a_tree_that_grew_has_the_root_and_the_proofs_of_the_rfc() {
        let nodes = grown(70);
        let get = |at| Ok::<_, Infallible>(nodes[&at]);
        let leaves: Vec<Hash> = (0..70).map(leaf).collect();
        for size in 0..=70_u64 {
            let now = state(&nodes, size);
            let whole = Tree::new(leaves[..size as usize].to_vec());
            assert_eq!(now.root, whole.root());
            for index in 0..size {
                let proof = inclusion(index, size, get).unwrap().unwrap();
                assert_eq!(Some(&proof), whole.proof(index).as_ref());
                assert!(verify_inclusion(&leaf(index), index, size, &proof, &now.root));
            }
            assert_eq!(inclusion(size, size, get).unwrap(), None);
            for earlier in 0..=size {
                let proof = consistency(earlier, size, get).unwrap().unwrap();
                if earlier > 0 {
                    let reference = reference_subproof(earlier as usize, &leaves[..size as usize], true);
                    assert_eq!(proof, reference, "{earlier} of {size}");
                }
                assert!(
                    now.continues(&state(&nodes, earlier), &proof),
                    "{earlier} of {size}"
                );
            }
            assert_eq!(consistency(size + 1, size, get).unwrap(), None);
        }
    }

    proptest! {
        #[test]
        fn a_tree_that_does_not_begin_with_the_earlier_one_has_no_proof_that_it_does(
            earlier in 1_u64..80, more in 1_u64..80, change in 0..6_u8,
            place in any::<prop::sample::Index>(), bit in 0..256_usize,
        ) {
            let nodes = grown(earlier + more);
            let (mut then, mut now) = (state(&nodes, earlier), state(&nodes, earlier + more));
            let mut proof = consistency(earlier, now.size, |at| Ok::<_, Infallible>(nodes[&at])).unwrap().unwrap();
            let flip = |hash: &mut Hash| hash[bit / 8] ^= 1 << (bit % 8);
            match change {
                0 => flip(&mut then.root),
                1 => flip(&mut now.root),
                2 => proof.push(then.root),
                3 if !proof.is_empty() => { proof.remove(place.index(proof.len())); }
                4 if !proof.is_empty() => { let place = place.index(proof.len()); flip(&mut proof[place]); }
                _ => std::mem::swap(&mut then, &mut now),
            }
            prop_assert!(!now.continues(&then, &proof));
        }
    }
}
