//! For how long a refusal holds, in the builder's memory and at the edge: long enough to shield the
//! builder from a client that insists, short enough that a mended package is soon there.
//!
//! Of a build that failed, the edge is told what is left of the time that the builder remembers it: the
//! two don't add up. Other refusals, such as of an unknown tag, are found out for each answer and hold at
//! the edge for the whole time, which begins when the builder's list of refs may be old already.
//!
//! It differs from one thing to another that is refused. What is refused at once, as all images are
//! that have a broken package in them when a fleet of machines starts, would else be asked for again
//! at once, by every edge and in the same second. No chance is needed for that: the same thing holds
//! for the same time.

use std::time::Duration;

use crate::fingerprint::Fingerprint;

/// The shortest time.
const LEAST: Duration = Duration::from_secs(30);
/// Times are up to so much longer.
const SPREAD: Duration = Duration::from_secs(15);

/// For how long it holds that this is refused.
pub(crate) fn hold_for(refused: &str) -> Duration {
    let fraction = Fingerprint::new("refusal-1").part(refused).fraction();
    LEAST + SPREAD.mul_f64(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_together_does_not_come_back_together() {
        let times = (0..1000).map(|number| hold_for(&format!("image-{number}")));
        let mut each_second = [0; 15];
        for time in times {
            assert!(LEAST <= time && time < LEAST + SPREAD, "{time:?}");
            each_second[(time - LEAST).as_secs() as usize] += 1;
        }
        // 67 on average; by chance alone, fewer than 40 or more than 100 are unheard of.
        let even = |count: &i32| (40..100).contains(count);
        assert!(each_second.iter().all(even), "{each_second:?}");
        assert_eq!(hold_for("git"), hold_for("git"));
    }
}
