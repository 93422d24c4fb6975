//! The bounds of a number: one place for the check, the message and the reference page.

use anyhow::{Result, ensure};

/// Between what a setting must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The setting's variable.
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
            || format!("{least} at least"),
            |most| format!("{least} to {most}"),
        )
    }

    /// # Errors
    /// A sentence that names the setting and its bounds.
    pub(crate) fn check(&self, value: impl TryInto<u64>) -> Result<()> {
        // What has no place in 64 bits is beyond all of them.
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
