//! The requirements of IEC 62443-3-3 (system) and 62443-4-2 (component), from the catalogue in `policy/data`.

/// The catalogue's rows: `id,kind,fr,title,sl_min`.
const CATALOGUES: [&str; 2] = [include_str!("../data/3-3.csv"), include_str!("../data/4-2.csv")];

/// One requirement or requirement enhancement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requirement {
    /// Its id: `SR 1.1`, `SR 1.1 RE 1`, `CR 1.2` …
    pub id: &'static str,
    /// The foundational requirement it belongs to, as in the catalogue (`FR1 IAC`).
    pub fr: &'static str,
    /// Its title.
    pub title: &'static str,
    /// The least security level that wants it, 1–4.
    pub sl_min: u8,
}

/// Every requirement, in the standards' order.
pub fn all() -> impl Iterator<Item = Requirement> {
    CATALOGUES
        .iter()
        .flat_map(|catalogue| catalogue.lines().skip(1))
        .filter_map(row)
}

fn row(line: &'static str) -> Option<Requirement> {
    // Only the title may hold commas: three columns stand before it, one after.
    let (id, rest) = line.split_once(',')?;
    let (_kind, rest) = rest.split_once(',')?;
    let (fr, rest) = rest.split_once(',')?;
    let (title, sl_min) = rest.rsplit_once(',')?;
    Some(Requirement {
        id,
        fr,
        title: title.trim_matches('"'),
        sl_min: sl_min.trim().parse().ok()?,
    })
}
