//! Medians, and how sure a ratio is.

use serde::Serialize;

use crate::traffic::bulk::next_random;

/// Resamples of the bootstrap: the interval's second digit doesn't move any more.
const RESAMPLES: usize = 10_000;

/// The middle value; the mean of the two middle ones of an even number; NaN of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

/// One contender's values against another's, measured in the same rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratio {
    /// Ratio of the two medians.
    pub of_medians: f64,
    /// Median of the rounds' own ratios.
    pub paired: f64,
    /// 2.5 % and 97.5 % of the bootstrap of `paired`.
    pub interval: [f64; 2],
}

impl Ratio {
    /// `ours` against `theirs`; the n-th values of both are of the same round.
    ///
    /// # Panics
    /// When they differ in number, or there are none.
    pub fn of(ours: &[f64], theirs: &[f64]) -> Self {
        assert!(!ours.is_empty() && ours.len() == theirs.len(), "values must be paired");
        let ratios: Vec<f64> =
            ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        Self {
            of_medians: median(ours) / median(theirs),
            paired: median(&ratios),
            interval: bootstrap(&ratios),
        }
    }
}

/// The 95 % percentile interval of the median, with the same random numbers in every run.
fn bootstrap(values: &[f64]) -> [f64; 2] {
    let mut state = 0x5eed;
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let pick = |_| values[(next_random(&mut state) % values.len() as u64) as usize];
            median(&(0..values.len()).map(pick).collect::<Vec<f64>>())
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    [medians[RESAMPLES * 25 / 1000], medians[RESAMPLES * 975 / 1000 - 1]]
}

#[cfg(test)]
mod tests {
    use super::{Ratio, median};

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn pairs_see_through_a_machine_that_changes_its_pace() {
        // Always twice as fast, in rounds of very different speed.
        let ratio = Ratio::of(&[2.0, 20.0, 6.0], &[1.0, 10.0, 3.0]);
        assert_eq!(ratio, Ratio { of_medians: 2.0, paired: 2.0, interval: [2.0, 2.0] });
    }

    #[test]
    fn the_interval_holds_the_median_and_stays_within_the_values() {
        let ratio = Ratio::of(&[1.0, 1.1, 1.2, 1.3, 1.4], &[1.0; 5]);
        let [low, high] = ratio.interval;
        assert_eq!(ratio.paired, 1.2);
        assert!((1.0..1.2).contains(&low) && low < 1.2, "{low}");
        assert!(high > 1.2 && high <= 1.4, "{high}");
    }
}
