//! Medians and quartiles of a few figures.

/// The figure below which this part of all figures lies, interpolated between the two nearest. Without figures, it is
/// NaN.
pub(crate) fn quantile(figures: &[f64], part: f64) -> f64 {
    let mut sorted: Vec<f64> = figures.iter().copied().filter(|figure| !figure.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = part.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// A ratio of figures that were taken in pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) quartiles: (f64, f64),
}

impl Ratio {
    /// The ratio of each figure to that of the same round.
    pub(crate) fn paired(figures: &[f64], to: &[f64]) -> Ratio {
        let ratios: Vec<f64> = figures.iter().zip(to).map(|(figure, to)| figure / to).collect();
        Ratio {
            median: quantile(&ratios, 0.5),
            quartiles: (quantile(&ratios, 0.25), quantile(&ratios, 0.75)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_the_nearest() {
        let figures = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(quantile(&figures, 0.0), 1.0);
        assert_eq!(quantile(&figures, 0.5), 2.5);
        assert_eq!(quantile(&figures, 0.25), 1.75);
        assert_eq!(quantile(&figures, 1.0), 4.0);
        assert_eq!(quantile(&[f64::NAN, 1.0, 3.0, f64::NAN], 1.0), 3.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn a_slow_round_is_slow_for_both() {
        let ratio = Ratio::paired(&[2.0, 20.0, 2.2], &[1.0, 10.0, 1.0]);
        assert_eq!((ratio.median, ratio.quartiles.0), (2.0, 2.0));
    }
}
