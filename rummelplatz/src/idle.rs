//! Streams that may not be idle for too long, and how long each has been.
//!
//! Nobody notes when a completion has come: that would cost something for each. Instead, such a stream is looked after
//! several times in the time that it has. A look marks it as [quiet](crate::facts::Flags::QUIET), which its next
//! completion undoes; so only the first completion after a look takes a longer path. When enough looks in a row have
//! found the mark of the one before, the time is up.

use std::time::Duration;

/// See the [module documentation](self).
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdleLimit {
    step: Duration,
    /// How many more looks must find the stream quiet.
    left: u32,
}

impl IdleLimit {
    /// The first look after a completion finds no mark. So a stream ends after its time, or up to one of these shares
    /// of it later.
    const LOOKS: u32 = 4;
    const SHORTEST: Duration = Duration::from_micros(250);

    /// Of a stream that was marked when it was accepted, and has this much time.
    pub(crate) fn new(limit: Duration) -> IdleLimit {
        IdleLimit { step: (limit / Self::LOOKS).max(Self::SHORTEST), left: Self::LOOKS }
    }

    /// The time until the next look.
    pub(crate) fn step(&self) -> Duration {
        self.step
    }

    /// How to go on after a look; `None` if the time is up.
    pub(crate) fn after_look(self, was_quiet: bool) -> Option<IdleLimit> {
        let left = if was_quiet { self.left - 1 } else { Self::LOOKS };
        (left > 0).then_some(IdleLimit { left, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a stream lives that tells of something before these looks.
    fn life(limit: Duration, told_before: &[u32]) -> Duration {
        let mut it = IdleLimit::new(limit);
        for look in 1.. {
            match it.after_look(!told_before.contains(&look)) {
                Some(next) => it = next,
                None => return it.step() * look,
            }
        }
        unreachable!("it ends")
    }

    #[test]
    fn a_stream_lives_its_time_after_the_last_completion_and_at_most_a_quarter_longer() {
        let limit = Duration::from_secs(8);
        assert_eq!(life(limit, &[]), limit);
        for last in 1..20_u32 {
            let told: Vec<u32> = (1..=last).step_by(2).chain([last]).collect();
            // It was at some time in the step before the look.
            let (earliest, latest) = (limit / 4 * (last - 1), limit / 4 * last);
            let end = life(limit, &told);
            assert!(end >= latest + limit && end <= earliest + limit * 5 / 4, "{last}: {end:?}");
        }
    }

    #[test]
    fn a_limit_that_is_too_short_to_look_is_longer() {
        assert_eq!(life(Duration::ZERO, &[]), Duration::from_millis(1));
    }
}
