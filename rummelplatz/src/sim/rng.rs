//! Chance that is the same for the same seed, for ever: SplitMix64, by Guy Steele and others. (A crate would
//! do as well, but its next version may change its numbers, and with them what a seed means.)

/// A stream of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if that is 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// True with this probability.
    pub(crate) fn roll(&mut self, probability: f64) -> bool {
        // Nothing is drawn for what never happens, or always.
        match probability {
            never if never <= 0.0 => false,
            always if always >= 1.0 => true,
            odds => ((self.next() >> 11) as f64) < odds * (1_u64 << 53) as f64,
        }
    }

    /// One of these, by chance.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_for_ever() {
        let mut rng = Rng::new(1);
        assert_eq!([rng.next(), rng.next()], [0x910a_2dec_8902_5cc1, 0xbeeb_8da1_658e_ec67]);
    }

    #[test]
    fn odds_are_what_they_say() {
        let mut rng = Rng::new(7);
        let rolled = (0..10_000).filter(|_| rng.roll(0.25)).count();
        assert!((2_300..2_700).contains(&rolled), "{rolled}");
        assert!((0..100).all(|_| !rng.roll(0.0) && rng.roll(1.0) && rng.below(3) < 3));
        assert_eq!(rng.below(0), 0);
    }
}
