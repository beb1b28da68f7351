//! No wires of a channel lie upon one another, whatever has to change places.
#![allow(clippy::indexing_slicing)]

use super::*;
use proptest::prelude::*;

fn link(top: f64, bottom: f64) -> Net {
    Net {
        ups: vec![top],
        downs: vec![bottom],
        far: None,
    }
}

fn links(wires: &[(f64, f64)]) -> Vec<Net> {
    wires.iter().map(|(top, bottom)| link(*top, *bottom)).collect()
}

/// Each net's vertical parts as (column, first level, last level); -1 and 1000 are the channel's edges. And its horizontal parts as
/// (level, from, to).
type Parts = (Vec<(f64, i32, i32)>, Vec<(usize, f64, f64)>);

fn parts(nets: &[Net]) -> Vec<Parts> {
    let (routes, count) = routes(nets);
    let number = |level: usize| i32::try_from(level).unwrap_or(i32::MAX);
    nets.iter()
        .zip(&routes)
        .map(|(net, route)| {
            assert!(route.level < count.max(1), "{route:?} of {count}");
            let ups = net.ups.iter().map(|x| (*x, -1, number(route.level)));
            if net.is_straight() {
                return (vec![(net.ups[0], -1, 1000)], Vec::new());
            }
            let Some((column, second)) = route.detour else {
                let downs = net.downs.iter().map(|x| (*x, number(route.level), 1000));
                let (low, high) = net.span();
                return (ups.chain(downs).collect(), vec![(route.level, low, high)]);
            };
            assert!(route.level < second && second < count, "{route:?} of {count}");
            assert!(net.far.is_none(), "a trunk takes no detour");
            let downs = net.downs.iter().map(|x| (*x, number(second), 1000));
            let between = (column, number(route.level), number(second));
            let (top, bottom) = (net.ups[0], net.downs[0]);
            (
                ups.chain(downs).chain([between]).collect(),
                vec![
                    (route.level, top.min(column), top.max(column)),
                    (second, bottom.min(column), bottom.max(column)),
                ],
            )
        })
        .collect()
}

fn assert_apart(nets: &[Net]) {
    let parts = parts(nets);
    for (at, one) in parts.iter().enumerate() {
        for other in &parts[at + 1..] {
            for a in &one.0 {
                for b in &other.0 {
                    let upon = (a.0 - b.0).abs() < 1.0 && a.1 <= b.2 && b.1 <= a.2;
                    assert!(!upon, "{a:?} lies upon {b:?} in {nets:?}");
                }
            }
            for a in &one.1 {
                for b in &other.1 {
                    let upon = a.0 == b.0 && a.1 <= b.2 && b.1 <= a.2;
                    assert!(!upon, "{a:?} lies upon {b:?} in {nets:?}");
                }
            }
        }
    }
}

#[test]
fn wires_that_change_places_do_not_lie_upon_one_another() {
    assert_apart(&links(&[(0.0, 100.0), (100.0, 0.0)]));
    assert_apart(&links(&[
        (0.0, 100.0),
        (100.0, 200.0),
        (200.0, 0.0),
        (300.0, 18.0),
    ]));
    let (routes, _) = routes(&links(&[(0.0, 100.0), (100.0, 0.0)]));
    assert!(routes.iter().any(|route| route.detour.is_some()));
}

#[test]
fn a_wire_takes_a_detour_only_where_there_is_no_other_way() {
    let (routes, _) = routes(&links(&[(0.0, 100.0), (100.0, 200.0), (200.0, 300.0)]));
    assert!(routes.iter().all(|route| route.detour.is_none()), "{routes:?}");
}

proptest! {
    #[test]
    fn no_wires_of_a_channel_lie_upon_one_another(
        (tops, bottoms) in (1..20_usize).prop_flat_map(|n| {
            let columns = || proptest::sample::subsequence((0..24_u32).collect::<Vec<_>>(), n).prop_shuffle();
            (columns(), columns())
        }),
        trunks in 0..6_usize,
    ) {
        let x = |column: &u32| f64::from(*column) * 18.0;
        let wires: Vec<(f64, f64)> = tops.iter().zip(&bottoms).map(|(t, b)| (x(t), x(b))).collect();
        let mut nets = links(&wires);
        // Some of them are trunks: their wires go on beside the rows, or come from there.
        let far = Some(500.0);
        for (at, net) in nets.iter_mut().take(trunks).enumerate() {
            let gone = if at % 2 == 0 { &mut net.downs } else { &mut net.ups };
            gone.clear();
            net.far = far;
        }
        if let [one, other, ..] = nets.as_mut_slice() && one.far.is_some() && other.far.is_none() {
            one.ups.append(&mut other.ups);
            other.far = far;
        }
        assert_apart(&nets);
    }
}
