//! How long a failure is kept, by the builder and at the edge: long enough to shield the builder from
//! clients that retry, short enough that a repaired package is soon available.
//!
//! For a failed build, the edge gets the rest of the builder's time, so the two don't add up. Other
//! refusals, such as of an unknown tag, are computed for each answer, and the edge keeps them for the
//! whole time. The builder's list of refs may be old by then.
//!
//! The time has a jitter by key. Otherwise, images that fail together would be requested again together:
//! when a fleet of machines starts, all images with a broken package, by every edge. The jitter is a hash
//! of the key and not random, so a key always has the same time.

use std::time::Duration;

use crate::fingerprint::Fingerprint;

const MIN: Duration = Duration::from_secs(30);
const JITTER: Duration = Duration::from_secs(15);

/// How long the failure of this key is kept.
pub(crate) fn hold_for(key: &str) -> Duration {
    let fraction = Fingerprint::new("refusal-1").part(key).fraction();
    MIN + JITTER.mul_f64(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_one_time_are_not_retried_at_one_time() {
        let times = (0..1000).map(|number| hold_for(&format!("image-{number}")));
        let mut each_second = [0; 15];
        for time in times {
            assert!(MIN <= time && time < MIN + JITTER, "{time:?}");
            each_second[(time - MIN).as_secs() as usize] += 1;
        }
        // 67 on average; by chance alone, fewer than 40 or more than 100 are unheard of.
        let even = |count: &i32| (40..100).contains(count);
        assert!(each_second.iter().all(even), "{each_second:?}");
        assert_eq!(hold_for("git"), hold_for("git"));
    }
}
