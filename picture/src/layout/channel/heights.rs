//! How high things are stacked over each column: a segment tree with "at least" over a range and "the most" of a range.

/// Stacked spans.
pub(super) struct Heights {
    /// The ends of all spans, sorted.
    points: Vec<f64>,
    /// Half the distance that spans on one level keep.
    half: f64,
    size: usize,
    /// The most that lies wholly over a node's range.
    over: Vec<usize>,
    /// The most within it.
    within: Vec<usize>,
}

impl Heights {
    /// Empty, for these spans; on one level they keep `apart`.
    pub(super) fn over(spans: impl Iterator<Item = (f64, f64)>, apart: f64) -> Self {
        let half = apart / 2.0;
        let mut points: Vec<f64> = spans.flat_map(|(low, high)| [low - half, high + half]).collect();
        points.sort_by(f64::total_cmp);
        points.dedup();
        let size = points.len().next_power_of_two();
        Self {
            points,
            half,
            size,
            over: vec![0; 2 * size],
            within: vec![0; 2 * size],
        }
    }

    /// Puts a span upon all that it meets; on which level, from 0.
    pub(super) fn stack(&mut self, (low, high): (f64, f64)) -> usize {
        let at = |x: f64| self.points.partition_point(|point| *point < x);
        let range = (at(low - self.half), at(high + self.half));
        let level = self.most(1, (0, self.size - 1), range);
        self.raise(1, (0, self.size - 1), range, level + 1);
        level
    }

    fn most(&self, node: usize, (first, last): (usize, usize), range: (usize, usize)) -> usize {
        if last < range.0 || range.1 < first {
            return 0;
        }
        let get = |values: &[usize]| values.get(node).copied().unwrap_or(0);
        if range.0 <= first && last <= range.1 {
            return get(&self.within);
        }
        let middle = (first + last) / 2;
        get(&self.over)
            .max(self.most(2 * node, (first, middle), range))
            .max(self.most(2 * node + 1, (middle + 1, last), range))
    }

    fn raise(&mut self, node: usize, (first, last): (usize, usize), range: (usize, usize), height: usize) {
        if last < range.0 || range.1 < first {
            return;
        }
        if let Some(within) = self.within.get_mut(node) {
            *within = height.max(*within);
        }
        if range.0 <= first && last <= range.1 {
            if let Some(over) = self.over.get_mut(node) {
                *over = height.max(*over);
            }
            return;
        }
        let middle = (first + last) / 2;
        self.raise(2 * node, (first, middle), range, height);
        self.raise(2 * node + 1, (middle + 1, last), range, height);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_span_lies_just_upon_the_highest_that_it_meets(
            spans in proptest::collection::vec((0..60_u32, 0..20_u32), 1..30),
        ) {
            let spans: Vec<(f64, f64)> =
                spans.into_iter().map(|(low, more)| (f64::from(low), f64::from(low + more))).collect();
            let mut heights = Heights::over(spans.iter().copied(), 7.0);
            let mut placed: Vec<((f64, f64), usize)> = Vec::new();
            for span in spans {
                let meets = |other: &(f64, f64)| span.0 <= other.1 + 7.0 && other.0 <= span.1 + 7.0;
                let expected = placed.iter().filter(|(other, _)| meets(other)).map(|(_, level)| level + 1).max();
                let level = heights.stack(span);
                prop_assert_eq!(level, expected.unwrap_or(0));
                placed.push((span, level));
            }
        }
    }
}
