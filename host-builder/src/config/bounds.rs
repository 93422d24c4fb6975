//! Bounds of a numeric setting, for the check, the message and the reference page.

use std::ops::RangeInclusive;

use anyhow::{Result, ensure};

#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(super) variable: &'static str,
    range: RangeInclusive<u64>,
}

impl Bounds {
    pub(super) const fn new(variable: &'static str, range: RangeInclusive<u64>) -> Self {
        Self { variable, range }
    }

    pub(super) const fn at_least(variable: &'static str, least: u64) -> Self {
        Self::new(variable, least..=u64::MAX)
    }

    /// The bounds in words, as in "must be 2 to 127".
    pub(crate) fn words(&self) -> String {
        match (self.range.start(), self.range.end()) {
            (least, &u64::MAX) => format!("at least {least}"),
            (least, most) => format!("{least} to {most}"),
        }
    }

    /// # Errors
    /// When the value is out of bounds.
    pub(crate) fn check(&self, value: impl TryInto<u64>) -> Result<()> {
        // A value that does not fit is above every bound.
        let value = value.try_into().unwrap_or(u64::MAX);
        ensure!(
            self.range.contains(&value),
            "{} is {value}: it must be {}",
            self.variable,
            self.words()
        );
        Ok(())
    }
}
