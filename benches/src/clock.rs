//! Clocks, in nanoseconds.

/// `CLOCK_MONOTONIC`.
pub fn wall() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// `CLOCK_PROCESS_CPUTIME_ID`: what all threads of this process have used.
pub fn cpu() -> u64 {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec to write to. Both clocks exist on every Linux, so this can't fail.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
