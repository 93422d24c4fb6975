//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Far more than anything here needs; a test that reaches it has failed.
const LIMIT: Duration = Duration::from_secs(180);
const INTERVAL: Duration = Duration::from_millis(20);

/// Waits until `condition` gives a value.
///
/// # Errors
/// When it gives none for three minutes, naming `what` was waited for.
pub fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> Result<T> {
    within(LIMIT, what, condition)
}

/// Waits as long as this.
///
/// # Errors
/// When it gives none, naming `what` was waited for.
pub fn within<T>(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if start.elapsed() > limit {
            bail!("waited {} s in vain until {what}", limit.as_secs());
        }
        std::thread::sleep(INTERVAL);
    }
}
