//! Wires within a channel, between two rows: which level each takes, so that none runs upon another and few cross.
//!
//! Where one net comes down from the very column that another goes down by, the first has to leave it above the other: a hard
//! order. Where such orders run in a circle, one net of it takes a detour by a column of its own. Nets are taken in that order,
//! with a heap, and each goes to the highest level that is free behind those it meets, which a segment tree knows: n log n.

mod heights;

use std::collections::{BTreeMap, BTreeSet};

use heights::Heights;

/// Least distance of two wires that run side by side.
pub(super) const APART: f64 = 7.0;
/// What it costs to run upon another wire, in crossings.
const UPON_COST: usize = 1000;
/// Most nets of a channel whose order is improved one exchange at a time.
const IMPROVE_MAX: usize = 120;
/// How far the way into a circle is followed, and how many gaps are looked at for a detour.
const LOOK_MAX: usize = 64;

/// What is connected within a channel.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Net {
    /// Columns by which it goes up, out of the channel.
    pub(super) ups: Vec<f64>,
    /// Columns by which it goes down.
    pub(super) downs: Vec<f64>,
    /// How far it runs to the right on its level, if it runs on beside the rows.
    pub(super) far: Option<f64>,
}

/// How a net passes its channel.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct ChannelRoute {
    /// The level on which it goes sideways, from the top.
    pub(super) level: usize,
    /// On that level it only goes to this column, and from there on a second level to what is below.
    pub(super) detour: Option<(f64, usize)>,
}

impl Net {
    fn span(&self) -> (f64, f64) {
        let all = || self.ups.iter().chain(&self.downs).chain(&self.far).copied();
        (
            all().fold(f64::INFINITY, f64::min),
            all().fold(f64::NEG_INFINITY, f64::max),
        )
    }

    /// Whether it needs no level: it only goes straight down.
    fn is_straight(&self) -> bool {
        let (low, high) = self.span();
        high - low <= 0.5
    }
}

/// A part of a net on one level.
#[derive(Debug, Clone)]
struct Run {
    /// The net's index.
    ix: usize,
    net: Net,
    /// The second part of a detour.
    second: bool,
}

/// For each net its way, and how many levels there are.
///
/// A straight net needs no level and is given 0. Columns by which nets go up must be [`APART`] from one another, and so must those
/// by which they go down.
pub(super) fn routes(nets: &[Net]) -> (Vec<ChannelRoute>, usize) {
    let mut order: Vec<usize> = (0..nets.len())
        .filter(|ix| nets.get(*ix).is_some_and(|net| !net.is_straight()))
        .collect();
    // Those that go right: the rightmost first. Those that go left: the leftmost first. Then nothing crosses
    // within either kind, and exchanges settle the rest.
    order.sort_by(|a, b| {
        let key = |ix: usize| {
            let Some(net) = nets.get(ix) else { return 0.0 };
            let (low, high) = net.span();
            let goes_right = net.far.is_some() || net.ups.first() < net.downs.first();
            if goes_right { -high } else { low }
        };
        key(*a).total_cmp(&key(*b)).then(a.cmp(b))
    });
    if order.len() <= IMPROVE_MAX {
        improve(nets, &mut order);
    }
    let mut routes = vec![ChannelRoute::default(); nets.len()];
    let runs = Sequence::new(nets, &order).runs();
    let mut heights = Heights::over(runs.iter().map(|run| run.net.span()), APART);
    let mut count = 0;
    for run in runs {
        let level = heights.stack(run.net.span());
        if let Some(route) = routes.get_mut(run.ix) {
            if run.second {
                let column = run.net.ups.first().copied().unwrap_or(0.0);
                route.detour = Some((column, level));
            } else {
                route.level = level;
            }
        }
        count = count.max(level + 1);
    }
    (routes, count)
}

/// A column as a key, in quarters of a pixel.
fn quarters(x: f64) -> i64 {
    (x * 4.0).round() as i64
}

/// The columns nearer than [`APART`] to `x`.
fn near(x: f64) -> std::ops::Range<i64> {
    quarters(x - APART) + 1..quarters(x + APART)
}

/// Runs from the top, as near to an order as it goes, each after all that have to be above it.
struct Sequence {
    /// In the order that is wanted; `None`: it is in the sequence already.
    waiting: Vec<Option<Run>>,
    /// How many columns each waits for.
    blocked: Vec<usize>,
    ready: BTreeSet<usize>,
    /// Who goes up, and who goes down, by a column.
    ups: BTreeMap<i64, Vec<usize>>,
    downs: BTreeMap<i64, Vec<usize>>,
    /// Every column that is taken in the channel.
    columns: BTreeSet<i64>,
}

impl Sequence {
    fn new(nets: &[Net], order: &[usize]) -> Self {
        let runs = order.iter().filter_map(|ix| Some((*ix, nets.get(*ix)?.clone())));
        let waiting: Vec<Option<Run>> = runs
            .map(|(ix, net)| {
                Some(Run {
                    ix,
                    net,
                    second: false,
                })
            })
            .collect();
        let mut sequence = Self {
            blocked: vec![0; waiting.len()],
            waiting: Vec::new(),
            ready: BTreeSet::new(),
            ups: BTreeMap::new(),
            downs: BTreeMap::new(),
            columns: BTreeSet::new(),
        };
        for net in nets {
            let all = net.ups.iter().chain(&net.downs);
            sequence.columns.extend(all.map(|x| quarters(*x)));
        }
        for (at, run) in waiting.iter().enumerate() {
            let Some(run) = run else { continue };
            for x in &run.net.ups {
                sequence.ups.entry(quarters(*x)).or_default().push(at);
            }
            for x in &run.net.downs {
                sequence.downs.entry(quarters(*x)).or_default().push(at);
            }
        }
        sequence.waiting = waiting;
        for at in 0..sequence.waiting.len() {
            let count = sequence.above(at).count();
            if let Some(blocked) = sequence.blocked.get_mut(at) {
                *blocked = count;
            }
            if count == 0 {
                sequence.ready.insert(at);
            }
        }
        sequence
    }

    /// Those that have to be above one that waits: they go up by a column that it goes down by.
    fn above(&self, at: usize) -> impl Iterator<Item = usize> {
        let downs = self
            .waiting
            .get(at)
            .and_then(Option::as_ref)
            .map(|run| &run.net.downs);
        let near = downs
            .into_iter()
            .flatten()
            .flat_map(move |x| self.ups.range(near(*x)));
        let all = near.flat_map(|(_, who)| who.iter().copied());
        all.filter(move |other| *other != at && self.waits(*other))
    }

    fn waits(&self, at: usize) -> bool {
        matches!(self.waiting.get(at), Some(Some(_)))
    }

    fn runs(mut self) -> Vec<Run> {
        let mut sequence = Vec::with_capacity(self.waiting.len());
        let mut first = 0;
        loop {
            if let Some(at) = self.ready.pop_first() {
                if let Some(run) = self.waiting.get_mut(at).and_then(Option::take) {
                    self.let_down(at, &run.net.ups);
                    sequence.push(run);
                }
                continue;
            }
            // Whatever waits now is in a circle or behind one, which a detour opens.
            while first < self.waiting.len() && !self.waits(first) {
                first += 1;
            }
            if first == self.waiting.len() {
                return sequence;
            }
            let at = self.in_circle(first);
            let Some(mut run) = self.waiting.get_mut(at).and_then(Option::take) else {
                return sequence;
            };
            if run.second {
                // No column was free enough for its detour; a second one would not find a better.
                self.let_down(at, &run.net.ups);
                sequence.push(run);
                continue;
            }
            let column = self.free_column(run.net.span());
            let ups = std::mem::replace(&mut run.net.ups, vec![column]);
            self.let_down(at, &ups);
            sequence.push(Run {
                ix: run.ix,
                net: Net {
                    ups,
                    downs: vec![column],
                    far: None,
                },
                second: false,
            });
            run.second = true;
            if let Some(slot) = self.waiting.get_mut(at) {
                *slot = Some(run);
            }
            self.hold(at, column);
        }
    }

    /// Those that waited for these columns of `at` do so no longer.
    fn let_down(&mut self, at: usize, ups: &[f64]) {
        for x in ups {
            if let Some(who) = self.ups.get_mut(&quarters(*x)) {
                who.retain(|one| *one != at);
            }
            for below in self.downs.range(near(*x)).flat_map(|(_, who)| who) {
                if *below == at || !matches!(self.waiting.get(*below), Some(Some(_))) {
                    continue;
                }
                if let Some(blocked) = self.blocked.get_mut(*below) {
                    *blocked = blocked.saturating_sub(1);
                    if *blocked == 0 {
                        self.ready.insert(*below);
                    }
                }
            }
        }
    }

    /// The second part of a detour comes down by a column that others may have to wait for.
    fn hold(&mut self, at: usize, column: f64) {
        self.ups.entry(quarters(column)).or_default().push(at);
        for below in self.downs.range(near(column)).flat_map(|(_, who)| who) {
            if *below == at || !matches!(self.waiting.get(*below), Some(Some(_))) {
                continue;
            }
            if let Some(blocked) = self.blocked.get_mut(*below) {
                *blocked += 1;
                self.ready.remove(below);
            }
        }
        if self.above(at).next().is_none() {
            self.ready.insert(at);
        }
    }

    /// One that is in a circle, or so far behind it that it is not looked for: in any case one that another waits for.
    fn in_circle(&self, first: usize) -> usize {
        let mut seen = BTreeSet::new();
        let mut at = first;
        while seen.len() < LOOK_MAX && seen.insert(at) {
            at = self.above(at).next().unwrap_or(at);
        }
        at
    }

    /// A column that no net of the channel has an end in: in the middle of the nearest gap that is wide enough, or of the widest
    /// that is near.
    fn free_column(&mut self, (low, high): (f64, f64)) -> f64 {
        let from = quarters(low);
        let right: Vec<i64> = self.columns.range(from..).take(LOOK_MAX).copied().collect();
        let mut near: Vec<i64> = self.columns.range(..from).rev().take(LOOK_MAX).copied().collect();
        near.reverse();
        near.extend(right);
        let away = |column: f64| (column - low).abs() + (column - high).abs();
        let gaps = near.iter().zip(near.iter().skip(1)).map(|(left, right)| {
            let (wide, column) = ((right - left) as f64 / 4.0, (left + right) as f64 / 8.0);
            (wide.min(2.0 * APART), column)
        });
        let column = gaps
            .max_by(|a, b| a.0.total_cmp(&b.0).then(away(b.1).total_cmp(&away(a.1))))
            .map_or(low, |(_, column)| column);
        self.columns.insert(quarters(column));
        column
    }
}

/// What it costs that `upper` lies on a level above `lower`.
fn cost(upper: &Net, lower: &Net) -> usize {
    let (upper_span, lower_span) = (upper.span(), lower.span());
    let within = |x: f64, span: (f64, f64)| span.0 < x && x < span.1;
    // The lower one's ways up pass the upper one's level; the upper one's ways down pass the lower one's level.
    let ups = lower.ups.iter().filter(|x| within(**x, upper_span)).count();
    let downs = upper.downs.iter().filter(|x| within(**x, lower_span)).count();
    // Both ways at nearly the same column would lie upon one another.
    let close = |up: &f64| upper.downs.iter().any(|down| (up - down).abs() < APART);
    ups + downs + UPON_COST * lower.ups.iter().filter(|up| close(up)).count()
}

/// Exchanges neighbours while that makes the order cheaper.
fn improve(nets: &[Net], order: &mut [usize]) {
    for _ in 0..order.len() {
        let mut changed = false;
        for at in 1..order.len() {
            if let [upper, lower] = order.get(at - 1..=at).unwrap_or_default()
                && let (Some(upper), Some(lower)) = (nets.get(*upper), nets.get(*lower))
                && cost(lower, upper) < cost(upper, lower)
            {
                order.swap(at - 1, at);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
}

#[cfg(test)]
mod tests;
