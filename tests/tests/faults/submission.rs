//! Entries that the kernel, or the ring, refuses.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::Duration;

use rummelplatz::io_uring::{IoUring, opcode, register, squeue, types};
use rummelplatz::{ControlFlow, InvalidEntry, RawRing, SubmitError, request};
use rummelplatz_tests::{
    Bench, BenchSubmitter, Log, NO_OPCODE, OPCODE, Script, Tracked, in_child, leaves_nothing, outcome,
    with_byte,
};

const CANCELLED: Result<u32, i32> = Err(libc::ECANCELED);
const UNKNOWN: Result<u32, i32> = Err(libc::EINVAL);

/// The offsets of further fields of an entry.
const FLAGS: usize = 1;
const IOPRIO: usize = 2;
const LEN: usize = 24;
const OP_FLAGS: usize = 28;
const PERSONALITY: usize = 42;

fn nop() -> squeue::Entry {
    opcode::Nop::new().build()
}

fn unknown() -> squeue::Entry {
    with_byte(nop(), OPCODE, NO_OPCODE)
}

/// Two rings: one that goes on submitting after an entry that the kernel refuses (`IORING_SETUP_SUBMIT_ALL`), and one
/// that stops there.
fn rings() -> [(&'static str, RawRing); 2] {
    let all = IoUring::builder().setup_submit_all().build(16).unwrap();
    let some = IoUring::builder().build(16).unwrap();
    // SAFETY: nothing is queued or in flight in either.
    [("all", all), ("some", some)]
        .map(|(name, ring)| (name, unsafe { RawRing::from_io_uring(ring) }.unwrap()))
}

/// Returns what becomes of what `submit` submits, in the order of its numbers.
fn outcomes(
    raw: RawRing,
    submit: impl FnOnce(BenchSubmitter<'_, Tracked<u32>>),
) -> Vec<(u32, Result<u32, i32>)> {
    let seen = Log::new();
    let log = seen.clone();
    let script = Script::new().on_completion(move |completion, data: Tracked<u32>, _| {
        log.push((*data, outcome(&completion)));
        (ControlFlow::Continue, None)
    });
    let mut ring = Bench::builder(script, Script::new()).raw_ring(raw).build().unwrap();
    submit(ring.submitter(Bench::FIRST));
    ring.run().unwrap();
    assert_eq!((ring.stats().in_flight, ring.stats().foreign), (0, 0));
    let mut seen = seen.take();
    seen.sort();
    seen
}

#[test]
fn s01_an_entry_that_the_kernel_does_not_know_stops_no_other_wherever_it_stands() {
    in_child(|| {
        leaves_nothing(|ledger| {
            for bad in [&[0][..], &[3], &[5], &[0, 2, 4], &[0, 1, 2, 3, 4, 5]] {
                for (name, raw) in rings() {
                    let seen = outcomes(raw, |mut submitter| {
                        for number in 0..6 {
                            let entry = if bad.contains(&number) { unknown() } else { nop() };
                            // SAFETY: neither points to anything.
                            unsafe { submitter.push(entry, ledger.issue(number)) }.unwrap();
                        }
                        // An enter that stops at the bad one does not wait for this.
                        let timer = ledger.issue(6);
                        submitter.submit(timer, |_| request::timeout(Duration::from_millis(2))).unwrap();
                    });
                    let expected = |number| if bad.contains(&number) { UNKNOWN } else { Ok(0) };
                    let expected: Vec<_> = (0..7).map(|number| (number, expected(number))).collect();
                    assert_eq!(seen, expected, "bad: {bad:?}, submits {name}");
                }
            }
        });
    });
}

#[test]
fn s02_an_entry_that_the_kernel_does_not_know_ends_its_chain_and_no_other() {
    in_child(|| {
        leaves_nothing(|ledger| {
            for link in [squeue::Flags::IO_LINK, squeue::Flags::IO_HARDLINK] {
                for bad in 0..3 {
                    for (name, raw) in rings() {
                        let seen = outcomes(raw, |mut submitter| {
                            submitter.submit(ledger.issue(9), |_| request::nop()).unwrap();
                            for chain in 0..2 {
                                let entry = |place| {
                                    let is_bad = chain == 0 && place == bad;
                                    let entry = if is_bad { unknown() } else { nop() };
                                    if place < 2 { entry.flags(link) } else { entry }
                                };
                                let data = [0, 1, 2].map(|place| ledger.issue(10 * chain + place));
                                // SAFETY: none of them points to anything.
                                unsafe { submitter.push_multiple([0, 1, 2].map(entry), data) }.unwrap();
                            }
                            submitter.submit(ledger.issue(20), |_| request::nop()).unwrap();
                        });
                        let expected = |place| if place == bad { UNKNOWN } else { CANCELLED };
                        let mut expected: Vec<_> = (0..3).map(|place| (place, expected(place))).collect();
                        expected.extend([9, 10, 11, 12, 20].map(|number| (number, Ok(0))));
                        assert_eq!(seen, expected, "bad: {bad} of {link:?}, submits {name}");
                    }
                }
            }
        });
    });
}

#[test]
fn s03_an_entry_with_flags_that_the_kernel_does_not_know_ends_with_its_error() {
    in_child(|| {
        leaves_nothing(|ledger| {
            let zero = File::open("/dev/zero").unwrap();
            let fd = types::Fd(zero.as_raw_fd());
            static TIME: types::Timespec = types::Timespec::new().sec(1000);
            let read = opcode::Read::new(fd, std::ptr::null_mut(), 0).build();
            let bad = [
                with_byte(nop(), FLAGS, 1 << 7),
                with_byte(nop(), IOPRIO, 1),
                with_byte(nop(), PERSONALITY, 77),
                with_byte(opcode::Timeout::new(&raw const TIME).build(), OP_FLAGS + 3, 1 << 7),
                with_byte(opcode::PollAdd::new(fd, 1).build(), LEN + 3, 1 << 7),
                with_byte(opcode::Fsync::new(fd).build(), OP_FLAGS + 3, 1 << 7),
                with_byte(opcode::AsyncCancel::new(0).build(), OP_FLAGS + 3, 1 << 7),
                with_byte(read, OP_FLAGS + 3, 1 << 6),
            ];
            let count = bad.len() as u32;
            for (name, raw) in rings() {
                let seen = outcomes(raw, |mut submitter| {
                    for (number, entry) in (0..).zip(bad.clone()) {
                        // SAFETY: they point to nothing, or to what lives for ever.
                        unsafe { submitter.push(entry, ledger.issue(number)) }.unwrap();
                        submitter.submit(ledger.issue(100 + number), |_| request::nop()).unwrap();
                    }
                });
                let (refused, others) = seen.split_at(bad.len());
                for (number, outcome) in refused {
                    let known = [UNKNOWN, Err(libc::EOPNOTSUPP)].contains(outcome);
                    assert!(known, "{number} ended with {outcome:?}, submits {name}");
                }
                let expected: Vec<_> = (100..100 + count).map(|number| (number, Ok(0))).collect();
                assert_eq!(others, expected, "submits {name}");
            }
        });
    });
}

#[test]
fn s04_bad_descriptors_memory_and_groups_are_ordinary_errors() {
    in_child(|| {
        leaves_nothing(|ledger| {
            let zero = File::open("/dev/zero").unwrap();
            let fd = types::Fd(zero.as_raw_fd());
            let nowhere = std::ptr::null_mut();
            let group = opcode::Read::new(fd, nowhere, 64).buf_group(77).build();
            let bad = [
                (opcode::Fsync::new(types::Fd(-1)).build(), libc::EBADF),
                (opcode::Fsync::new(types::Fd(9999)).build(), libc::EBADF),
                // There is no table of files, nor one of buffers.
                (opcode::Fsync::new(types::Fixed(0)).build(), libc::EBADF),
                (opcode::ReadFixed::new(fd, nowhere, 64, 0).build(), libc::EFAULT),
                (opcode::Read::new(fd, nowhere, 64).build(), libc::EFAULT),
                (opcode::Timeout::new(std::ptr::null()).build(), libc::EFAULT),
                (group.flags(squeue::Flags::BUFFER_SELECT), libc::ENOBUFS),
            ];
            for (name, raw) in rings() {
                let seen = outcomes(raw, |mut submitter| {
                    for (number, (entry, _)) in (0..).zip(bad.clone()) {
                        // SAFETY: what they point to is nothing that the kernel could write to.
                        unsafe { submitter.push(entry, ledger.issue(number)) }.unwrap();
                    }
                    submitter.submit(ledger.issue(99), |_| request::nop()).unwrap();
                });
                let mut expected: Vec<_> =
                    (0..).zip(&bad).map(|(number, bad)| (number, Err(bad.1))).collect();
                expected.push((99, Ok(0)));
                assert_eq!(seen, expected, "submits {name}");
            }
        });
    });
}

/// `IORING_OP_POLL_REMOVE` with `IORING_POLL_UPDATE_USER_DATA`, for which the `io-uring` crate has no constructor.
fn poll_update_user_data() -> squeue::Entry {
    const IORING_POLL_UPDATE_USER_DATA: u8 = 1 << 2;
    with_byte(opcode::PollRemove::new(1).build(), LEN, IORING_POLL_UPDATE_USER_DATA)
}

#[test]
fn s05_entries_that_would_break_the_accounts_are_refused_with_their_data() {
    in_child(|| {
        leaves_nothing(|ledger| {
            let seen = Log::new();
            let log = seen.clone();
            let script = Script::new().on_completion(move |_, data: Tracked<u32>, _| {
                log.push(*data);
                (ControlFlow::Continue, None)
            });
            let mut ring = Bench::with(8, script);
            let mut submitter = ring.submitter(Bench::FIRST);
            let link = squeue::Flags::IO_LINK;
            let skips = nop().flags(squeue::Flags::SKIP_SUCCESS);
            let bad = [
                (skips, InvalidEntry::SkipsSuccess),
                (nop().flags(squeue::Flags::IO_DRAIN), InvalidEntry::Drains),
                (nop().flags(link), InvalidEntry::LinksOn),
                (nop().flags(squeue::Flags::IO_HARDLINK), InvalidEntry::LinksOn),
                (poll_update_user_data(), InvalidEntry::ChangesUserData),
            ];
            for (entry, why) in bad {
                // SAFETY: it points to nothing.
                let refused = unsafe { submitter.push(entry.clone(), ledger.issue(7)) }.unwrap_err();
                assert_eq!((*refused.data, refused.error), (7, SubmitError::Invalid(why)));
                if why != InvalidEntry::SkipsSuccess {
                    // SAFETY: as above.
                    let refused = unsafe { submitter.push_raw(entry.clone()) };
                    assert_eq!(refused, Err(SubmitError::Invalid(why)));
                }
                if why != InvalidEntry::LinksOn {
                    // Among valid entries.
                    let entries = [nop().flags(link), entry.flags(link), nop()];
                    let data = [1, 2, 3].map(|number| ledger.issue(number));
                    // SAFETY: they point to nothing.
                    let refused = unsafe { submitter.push_multiple(entries, data) }.unwrap_err();
                    assert_eq!(refused.error, SubmitError::Invalid(why));
                    assert_eq!(refused.data.map(|it| *it), [1, 2, 3]);
                }
            }
            assert_eq!((ring.stats().in_flight, ledger.alive()), (0, 0));
            ring.run().unwrap();
            assert!(seen.is_empty());
        });
    });
}

#[test]
fn s06_what_a_restricted_ring_does_not_allow_ends_with_eacces_and_stops_no_other() {
    in_child(|| {
        leaves_nothing(|ledger| {
            for all in [true, false] {
                for bad in [0, 2, 4] {
                    let mut builder = IoUring::builder();
                    if all {
                        builder.setup_submit_all();
                    }
                    let uring = builder.setup_r_disabled().build(16).unwrap();
                    let mut allowed = [
                        register::Restriction::sqe_op(opcode::Nop::CODE),
                        register::Restriction::sqe_op(opcode::AsyncCancel::CODE),
                    ];
                    uring.submitter().register_restrictions(&mut allowed).unwrap();
                    uring.submitter().register_enable_rings().unwrap();
                    // SAFETY: nothing is queued or in flight in it.
                    let raw = unsafe { RawRing::from_io_uring(uring) }.unwrap();
                    let seen = outcomes(raw, |mut submitter| {
                        for number in 0..5 {
                            let data = ledger.issue(number);
                            if number == bad {
                                submitter.submit(data, |_| request::timeout(Duration::ZERO)).unwrap();
                            } else {
                                submitter.submit(data, |_| request::nop()).unwrap();
                            }
                        }
                    });
                    let expected = |number| if number == bad { Err(libc::EACCES) } else { Ok(0) };
                    let expected: Vec<_> = (0..5).map(|number| (number, expected(number))).collect();
                    assert_eq!(seen, expected, "bad: {bad}, submits all: {all}");
                }
            }
        });
    });
}
