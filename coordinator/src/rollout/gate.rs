//! Whether failures are more than chance: the exact binomial test that stands behind the Clopper–Pearson bound.
//!
//! The one-sided 95 % lower bound of `failed` among `activated` is the rate at which so many failures or more would be seen in 5 of
//! 100 fleets. So it exceeds a limit exactly if, at that limit, they would be seen in fewer than 5 of 100.

/// One minus the confidence.
const ALPHA: f64 = 0.05;

/// Whether the lower bound of the rate exceeds `limit`.
pub fn exceeds(failed: u32, activated: u32, limit: f64) -> bool {
    failed > 0 && at_least(failed.min(activated), activated, limit) < ALPHA
}

/// The lower bound itself, for people.
pub fn lower_bound(failed: u32, activated: u32) -> f64 {
    if failed == 0 || activated == 0 {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if exceeds(failed, activated, middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// How probable `failed` failures or more are among `activated`, each failing with `rate`.
fn at_least(failed: u32, activated: u32, rate: f64) -> f64 {
    if failed == 0 || rate >= 1.0 {
        return 1.0;
    }
    if rate <= 0.0 {
        return 0.0;
    }
    // Fewer than that, added up; in logarithms, since the first terms may be too small for a number.
    let (ln_rate, ln_rest) = (rate.ln(), (-rate).ln_1p());
    let mut ln_term = f64::from(activated) * ln_rest;
    let mut fewer = ln_term.exp();
    for k in 1..failed {
        ln_term += f64::from(activated - k + 1).ln() - f64::from(k).ln() + ln_rate - ln_rest;
        fewer += ln_term.exp();
    }
    1.0 - fewer
}
