//! Sets of CPUs, as the kernel takes them.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::ops::RangeInclusive;

use libc::c_ulong;

/// Where the kernel lists the CPUs that are online.
const ONLINE: &str = "/sys/devices/system/cpu/online";

const BITS: u32 = c_ulong::BITS;

/// CPUs that were online when this was made; at least one.
#[derive(Clone)]
pub(crate) struct Cpus {
    mask: Box<[c_ulong]>,
}

impl Cpus {
    /// # Errors
    ///
    /// If there are none, if one of them is not online, or if nobody says which are.
    pub(crate) fn new(cpus: &BTreeSet<u32>) -> io::Result<Cpus> {
        let list = fs::read_to_string(ONLINE).map_err(|error| {
            io::Error::new(error.kind(), format!("which CPUs there are is not known: {ONLINE}: {error}"))
        })?;
        Cpus::among(cpus, list.trim())
    }

    /// The kernel itself would take an empty set, and ignore the number of a CPU that it does not have (seen on
    /// 6.18).
    fn among(cpus: &BTreeSet<u32>, list: &str) -> io::Result<Cpus> {
        let invalid = |text| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        let online: Vec<_> = list.split(',').filter_map(range).collect();
        if let Some(cpu) = cpus.iter().find(|cpu| !online.iter().any(|range| range.contains(cpu))) {
            return invalid(format!("CPU {cpu} is not online ({list} are)"));
        }
        let Some(last) = cpus.last() else { return invalid("it names no CPU".into()) };
        let mut mask = vec![0; (last / BITS) as usize + 1].into_boxed_slice();
        for cpu in cpus {
            mask[(cpu / BITS) as usize] |= 1 << (cpu % BITS);
        }
        Ok(Cpus { mask })
    }

    /// One bit for each CPU.
    pub(crate) fn mask(&self) -> &[c_ulong] {
        &self.mask
    }
}

/// One item of a list such as `0-3,8`.
fn range(item: &str) -> Option<RangeInclusive<u32>> {
    let (first, last) = item.split_once('-').unwrap_or((item, item));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

/// The numbers of the CPUs.
impl fmt::Debug for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_set = |cpu: &u32| self.mask[(cpu / BITS) as usize] >> (cpu % BITS) & 1 == 1;
        f.debug_set().entries((0..self.mask.len() as u32 * BITS).filter(is_set)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn among<const N: usize>(cpus: [u32; N], list: &str) -> Result<Vec<c_ulong>, String> {
        let cpus = Cpus::among(&cpus.into(), list);
        cpus.map(|cpus| cpus.mask().to_vec()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_set_of_cpus_is_a_mask() {
        assert_eq!(among([0], "0"), Ok(vec![1]));
        assert_eq!(among([3, 1, 3], "0-3"), Ok(vec![0b1010]));
        let last = BITS - 1;
        assert_eq!(among([last, BITS, 2 * BITS], "0-200"), Ok(vec![1 << last, 1, 1]));
        assert_eq!(
            format!("{:?}", Cpus::among(&[2, BITS].into(), "0-99").unwrap()),
            format!("{{2, {BITS}}}")
        );
    }

    #[test]
    fn a_cpu_must_be_online_and_there_must_be_one() {
        assert_eq!(among([8, 4], "0-2,4,8-9"), Ok(vec![1 << 8 | 1 << 4]));
        for cpu in [3, 5, 7, 10, u32::MAX] {
            let error = among([0, cpu], "0-2,4,8-9").unwrap_err();
            assert_eq!(error, format!("CPU {cpu} is not online (0-2,4,8-9 are)"));
        }
        assert_eq!(among([], "0-3").unwrap_err(), "it names no CPU");
        assert_eq!(among([0], "nonsense").unwrap_err(), "CPU 0 is not online (nonsense are)");
    }
}
