//! Limits, filters and forks: they can't be undone, and so belong in a child.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{Ledger, open_descriptors};

/// Runs `body`, and fails unless everything that its ledger issued was dropped exactly once, and as many descriptors
/// are open as before. For a test in a child.
pub fn leaves_nothing(body: impl FnOnce(Ledger)) {
    let ledger = Ledger::new();
    let before = open_descriptors();
    body(ledger);
    assert_eq!(open_descriptors(), before, "descriptors after and before");
    ledger.assert_all_dropped_once();
}

/// Sets a limit of this process, for good.
pub fn set_limit(resource: libc::__rlimit_resource_t, limit: u64) {
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: a plain call with a valid argument.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
}

/// Gives up all privileges for good, if there are any.
pub fn become_nobody() {
    const NOBODY: u32 = 65534;
    // SAFETY: a plain call.
    if unsafe { libc::geteuid() } != 0 {
        return;
    }
    // SAFETY: a plain call.
    assert_eq!(unsafe { libc::setgid(NOBODY) }, 0);
    // SAFETY: a plain call.
    assert_eq!(unsafe { libc::setuid(NOBODY) }, 0);
}

/// Makes a system call fail with `errno` in this thread from now on (`SECCOMP_MODE_FILTER`).
pub fn forbid(call: libc::c_long, errno: i32) {
    // SAFETY: plain arithmetic.
    let statement = |code, k| unsafe { libc::BPF_STMT(code as u16, k) };
    // SAFETY: plain arithmetic.
    let jump = |code, k, yes, no| unsafe { libc::BPF_JUMP(code as u16, k, yes, no) };
    let mut filter = [
        // The number of the system call is the first field of `seccomp_data`.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        jump(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call as u32, 0, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: a plain call.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the program and its filter live through the call.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) }, 0);
}

/// Runs `body` in a forked child of this process, which shares all its memory until one of them writes,
/// and waits for it. It fails if `body` panics. For the only thread of a test in a child.
pub fn in_fork(body: impl FnOnce()) {
    // SAFETY: this is the only thread of a test in a child, so the fork finds no lock held.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let failed = catch_unwind(AssertUnwindSafe(body)).is_err();
        // SAFETY: ends the process without running what belongs to the parent.
        unsafe { libc::_exit(if failed { 1 } else { 0 }) };
    }
    let mut status = 0;
    // SAFETY: a plain call with a valid argument.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "killed by signal {}", libc::WTERMSIG(status));
    assert_eq!(libc::WEXITSTATUS(status), 0);
}
