//! Places for those whom nobody knows yet, or who may come in any number: bounded in all, and shared.
//!
//! While there is room, anybody gets a place. When all are taken, whoever holds the most has to make room: the oldest of
//! its places is lost to a newcomer that holds at least two fewer. Among equals only a place that has been held for
//! [`Crowd::new`]'s `grace` is lost; else the newcomer is refused. So one source cannot keep another out, whatever it
//! holds open, and a herd from one address does not push itself out. Who holds as many places as one source may loses its own
//! oldest: after a broken line, that is the one that nobody is at any more. Where one source may hold them all, it has no share to
//! be held to, and waits as a herd does.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Whom an address belongs to: whoever has one of an IPv6 /64 has all of it.
///
/// ```
/// use penstock_proto::tls::crowd::source_of;
///
/// let source = |address: &str| source_of(address.parse().unwrap());
/// assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
/// assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
/// ```
pub fn source_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        },
    }
}

/// All places of one kind.
///
/// ```
/// use std::time::{Duration, Instant};
/// use penstock_proto::tls::crowd::Crowd;
///
/// let crowd = Crowd::new(1, 1, Duration::from_secs(60));
/// let place = crowd.enter("gw-1", Instant::now());
/// assert!(place.is_some() && crowd.enter("gw-2", Instant::now()).is_none());
/// drop(place);
/// assert!(crowd.enter("gw-2", Instant::now()).is_some());
/// ```
#[derive(Debug)]
pub struct Crowd<K> {
    places_max: usize,
    each_max: usize,
    grace: Duration,
    inside: Mutex<Occupancy<K>>,
}

#[derive(Debug)]
struct Occupancy<K> {
    all: usize,
    next: u64,
    /// Of each source, oldest first.
    by_source: HashMap<K, VecDeque<Occupant>>,
}

#[derive(Debug)]
struct Occupant {
    number: u64,
    since: Instant,
    /// Dropped when the place is lost to another, used when its source is dismissed.
    keep: oneshot::Sender<()>,
}

/// How a place ended that its holder still wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceEnd {
    /// Another got it.
    Lost,
    /// Its source lost all that it held ([`Crowd::dismiss`]).
    Dismissed,
}

/// A place; free again when dropped.
#[derive(Debug)]
pub struct CrowdPlace<K: Eq + Hash> {
    crowd: Arc<Crowd<K>>,
    source: K,
    number: u64,
    kept: oneshot::Receiver<()>,
}

impl<K: Eq + Hash + Clone> Crowd<K> {
    /// At most `places_max` places, `each_max` of them for one source; as many as there are, for no such share.
    pub fn new(places_max: usize, each_max: usize, grace: Duration) -> Arc<Self> {
        Arc::new(Self {
            places_max,
            each_max: each_max.max(1),
            grace,
            inside: Mutex::new(Occupancy {
                all: 0,
                next: 0,
                by_source: HashMap::new(),
            }),
        })
    }

    /// A place for `source`, if it can have one.
    pub fn enter(self: &Arc<Self>, source: K, now: Instant) -> Option<CrowdPlace<K>> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let held = inside.by_source.get(&source).map_or(0, VecDeque::len);
        if held >= self.each_max && self.each_max < self.places_max {
            inside.lose_oldest(&source);
        } else if inside.all >= self.places_max && !inside.make_room(&source, now, self.grace) {
            return None;
        }
        let number = inside.next;
        inside.next = inside.next.wrapping_add(1);
        inside.all += 1;
        let (keep, kept) = oneshot::channel();
        inside
            .by_source
            .entry(source.clone())
            .or_default()
            .push_back(Occupant {
                number,
                since: now,
                keep,
            });
        drop(inside);
        Some(CrowdPlace {
            crowd: Arc::clone(self),
            source,
            number,
            kept,
        })
    }

    /// The number of the next place: those that are taken by now have lower ones.
    pub fn mark(&self) -> u64 {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner).next
    }

    /// Takes from a source all places that it took before a [mark](Crowd::mark). Answers how many.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use penstock_proto::tls::crowd::Crowd;
    ///
    /// let crowd = Crowd::new(4, 4, Duration::from_secs(60));
    /// let _old = crowd.enter("gw-1", Instant::now());
    /// let mark = crowd.mark();
    /// let _new = crowd.enter("gw-1", Instant::now());
    /// assert_eq!(crowd.dismiss(&"gw-1", mark), 1);
    /// assert_eq!(crowd.held(&"gw-1"), 1);
    /// ```
    pub fn dismiss(&self, source: &K, mark: u64) -> usize {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(held) = inside.by_source.get_mut(source) else {
            return 0;
        };
        let (gone, kept): (VecDeque<_>, VecDeque<_>) = std::mem::take(held)
            .into_iter()
            .partition(|held| held.number < mark);
        if kept.is_empty() {
            inside.by_source.remove(source);
        } else {
            *held = kept;
        }
        inside.all = inside.all.saturating_sub(gone.len());
        drop(inside);
        let count = gone.len();
        for place in gone {
            // Whoever held it may have gone by itself.
            let _ = place.keep.send(());
        }
        count
    }

    /// How many places a source holds.
    pub fn held(&self, source: &K) -> usize {
        let inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.by_source.get(source).map_or(0, VecDeque::len)
    }

    /// How many places are taken.
    pub fn taken(&self) -> usize {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner).all
    }
}

impl<K: Eq + Hash + Clone> Occupancy<K> {
    /// Takes a place from whoever holds the most, if `source` may have it.
    fn make_room(&mut self, source: &K, now: Instant, grace: Duration) -> bool {
        let own = self.by_source.get(source).map_or(0, VecDeque::len);
        let holders = self.by_source.iter();
        // Among equals it is the one whose place is the oldest.
        let most = holders.max_by_key(|(_, held)| {
            let age = held.front().map(|held| now.saturating_duration_since(held.since));
            (held.len(), age)
        });
        let Some((holder, held)) = most else { return false };
        let is_old = held
            .front()
            .is_some_and(|held| now.saturating_duration_since(held.since) >= grace);
        if held.len() < own + 2 && !is_old {
            return false;
        }
        let holder = holder.clone();
        self.lose_oldest(&holder);
        true
    }

    fn lose_oldest(&mut self, holder: &K) {
        if let Some(held) = self.by_source.get_mut(holder) {
            held.pop_front();
            self.all = self.all.saturating_sub(1);
            if held.is_empty() {
                self.by_source.remove(holder);
            }
        }
    }
}

impl<K: Eq + Hash> CrowdPlace<K> {
    /// Ready once the place is lost.
    pub fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_end(cx).map(drop)
    }

    /// The same, with how.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<PlaceEnd> {
        Pin::new(&mut self.kept).poll(cx).map(|said| match said {
            Ok(()) => PlaceEnd::Dismissed,
            Err(_) => PlaceEnd::Lost,
        })
    }
}

impl<K: Eq + Hash> Drop for CrowdPlace<K> {
    fn drop(&mut self) {
        let mut inside = self.crowd.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(held) = inside.by_source.get_mut(&self.source) else {
            return;
        };
        let Some(at) = held.iter().position(|held| held.number == self.number) else {
            return;
        };
        held.remove(at);
        if held.is_empty() {
            inside.by_source.remove(&self.source);
        }
        inside.all = inside.all.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const GRACE: Duration = Duration::from_secs(1);

    fn is_lost(place: &mut CrowdPlace<u8>) -> bool {
        place
            .poll_lost(&mut Context::from_waker(std::task::Waker::noop()))
            .is_ready()
    }

    #[test]
    fn one_source_that_holds_everything_keeps_no_other_out_and_does_not_push_itself_out() {
        let (crowd, now) = (Crowd::new(4, 4, GRACE), Instant::now());
        let mut greedy: Vec<_> = (0..4).map(|_| crowd.enter(1, now).unwrap()).collect();
        assert!(crowd.enter(1, now).is_none(), "a herd waits for its own");
        let _other = crowd.enter(2, now).unwrap();
        assert_eq!(
            greedy.iter_mut().map(is_lost).collect::<Vec<_>>(),
            [true, false, false, false]
        );
        // What only holds a place open makes room for its own in the end.
        assert!(crowd.enter(1, now + GRACE).is_some());
        assert!(is_lost(greedy.get_mut(1).unwrap()));
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source() {
        let source = |text: &str| source_of(text.parse().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:10.0.0.1"), source("10.0.0.1"));
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
    }

    #[test]
    fn who_is_dismissed_loses_what_it_held_before_and_nobody_else_does() {
        let (crowd, now) = (Crowd::new(8, 4, GRACE), Instant::now());
        let mut old: Vec<_> = (0..3).map(|_| crowd.enter(1, now).unwrap()).collect();
        let mut other = crowd.enter(2, now).unwrap();
        let mark = crowd.mark();
        let mut new = crowd.enter(1, now).unwrap();
        assert_eq!(crowd.dismiss(&1, mark), 3);
        assert_eq!(crowd.dismiss(&3, mark), 0);
        let end =
            |place: &mut CrowdPlace<u8>| place.poll_end(&mut Context::from_waker(std::task::Waker::noop()));
        for place in &mut old {
            assert_eq!(end(place), Poll::Ready(PlaceEnd::Dismissed));
        }
        assert!(end(&mut other).is_pending() && end(&mut new).is_pending());
        drop(old);
        assert_eq!((crowd.taken(), crowd.held(&1)), (2, 1));
    }

    proptest! {
        #[test]
        fn there_are_never_more_places_than_there_may_be_and_a_newcomer_beside_one_that_holds_two_gets_in(
            steps in prop::collection::vec((0_u8..6, any::<bool>()), 1..200),
        ) {
            let (crowd, now) = (Crowd::new(8, 5, GRACE), Instant::now());
            let mut places: Vec<CrowdPlace<u8>> = Vec::new();
            for (source, leaves) in steps {
                places.retain_mut(|place| !is_lost(place));
                let held = |who: u8, places: &[CrowdPlace<u8>]| {
                    places.iter().filter(|place| place.source == who).count()
                };
                prop_assert_eq!(crowd.taken(), places.len());
                if leaves {
                    if let Some(at) = places.iter().position(|place| place.source == source) {
                        places.remove(at);
                    }
                    continue;
                }
                let must = held(source, &places) >= 5
                    || held(source, &places) == 0
                        && (places.len() < 8 || (0..6).any(|who| held(who, &places) >= 2));
                let entered = crowd.enter(source, now);
                prop_assert!(entered.is_some() || !must);
                places.extend(entered);
                prop_assert!(crowd.taken() <= 8);
                places.retain_mut(|place| !is_lost(place));
                prop_assert!(held(source, &places) <= 5);
            }
        }
    }
}
