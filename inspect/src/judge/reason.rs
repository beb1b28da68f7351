//! A reason that only one protocol knows, as everybody else carries it: a sentence, what it is about, and a code.
//!
//! The reasons themselves stand in their protocols' folders. A verdict carries one by value: nothing is allocated for a refusal.

use std::fmt;

/// A protocol's own reason.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// `{}` stands for one of the facts, `{x}` for one as the standard writes fields.
    text: &'static str,
    facts: [u32; 2],
    /// By which its protocol knows how it is answered; 0 where that is not asked.
    code: u8,
}

impl Reason {
    /// A reason without facts.
    pub const fn new(text: &'static str, code: u8) -> Self {
        Self::about(text, [0; 2], code)
    }

    /// A reason with facts, in the order of the places in its text.
    pub const fn about(text: &'static str, facts: [u32; 2], code: u8) -> Self {
        Self { text, facts, code }
    }

    /// By which its protocol knows how it is answered.
    pub const fn code(self) -> u8 {
        self.code
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut facts = self.facts.iter();
        let mut rest = self.text;
        while let Some((before, after)) = rest.split_once('{') {
            let (form, after) = after.split_once('}').unwrap_or(("", after));
            let fact = facts.next().copied().unwrap_or_default();
            f.write_str(before)?;
            match form {
                "x" => write!(f, "{fact:#06x}")?,
                _ => write!(f, "{fact}")?,
            }
            rest = after;
        }
        f.write_str(rest)
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_names_its_facts_in_order() {
        let text = "function {} has {x} in a field";
        assert_eq!(
            Reason::about(text, [8, 255], 3).to_string(),
            "function 8 has 0x00ff in a field"
        );
        assert_eq!(
            Reason::new("the unit is not permitted", 1).to_string(),
            "the unit is not permitted"
        );
    }
}
