//! Bounds of a numeric setting, for the check, the message and the reference page.

use anyhow::{Result, ensure};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(super) variable: &'static str,
    least: u64,
    most: Option<u64>,
}

impl Bounds {
    pub(super) const fn new(variable: &'static str, least: u64, most: u64) -> Self {
        Self {
            variable,
            least,
            most: Some(most),
        }
    }

    pub(super) const fn at_least(variable: &'static str, least: u64) -> Self {
        Self {
            variable,
            least,
            most: None,
        }
    }

    /// The bounds in words, as in "must be 2 to 127".
    pub(crate) fn words(&self) -> String {
        let Self { least, most, .. } = self;
        most.map_or_else(
            || format!("at least {least}"),
            |most| format!("{least} to {most}"),
        )
    }

    /// # Errors
    /// When the value is out of bounds.
    pub(crate) fn check(&self, value: impl TryInto<u64>) -> Result<()> {
        // A value that does not fit is above every bound.
        let value = value.try_into().unwrap_or(u64::MAX);
        ensure!(
            value >= self.least && self.most.is_none_or(|most| value <= most),
            "{} is {value}: it must be {}",
            self.variable,
            self.words()
        );
        Ok(())
    }
}
