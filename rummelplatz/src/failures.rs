//! Failures in a row of something that the ring can't do without: when to give up.

/// See the [module documentation](self).
pub(crate) struct Failures(u32);

/// The kernel refuses it again and again, for this reason (an `errno`).
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Refused(pub(crate) i32);

impl Failures {
    /// This many are enough. One may be forged, by a message of another ring.
    const ENOUGH: u32 = 8;

    pub(crate) fn new() -> Failures {
        Failures(0)
    }

    /// Notes that it has not failed, or only after a long time.
    pub(crate) fn forget(&mut self) {
        self.0 = 0;
    }

    /// Notes that it has failed.
    ///
    /// # Errors
    ///
    /// If trying again would be of no use. Whoever does so all the same begins anew.
    pub(crate) fn add(&mut self, errno: i32) -> Result<(), Refused> {
        self.0 += 1;
        if self.0 < Self::ENOUGH {
            return Ok(());
        }
        self.forget();
        Err(Refused(errno))
    }
}
