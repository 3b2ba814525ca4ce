//! Chains: what is linked to what, and what becomes of the rest. Where possible, a real ring is asked for the same.

use rummelplatz_tests::{NO_OPCODE, OPCODE, with_byte};

use super::*;

const SOFT: squeue::Flags = squeue::Flags::IO_LINK;
const HARD: squeue::Flags = squeue::Flags::IO_HARDLINK;

fn nop() -> squeue::Entry {
    opcode::Nop::new().build()
}

/// Ends with `EBADF`.
fn bad_read() -> squeue::Entry {
    opcode::Read::new(types::Fd(-1), std::ptr::null_mut(), 0).build()
}

/// An operation that the kernel does not know: it ends with `EINVAL`, and ends its chain.
fn unknown() -> squeue::Entry {
    with_byte(nop(), OPCODE, NO_OPCODE)
}

/// A poll until something can be read there.
fn poll(socket: &UnixStream) -> squeue::Entry {
    opcode::PollAdd::new(types::Fd(socket.as_raw_fd()), Events::READABLE.bits()).build()
}

/// Ends the request that it is linked to after a millisecond.
fn soon() -> squeue::Entry {
    static SOON: types::Timespec = types::Timespec::new().nsec(1_000_000);
    opcode::LinkTimeout::new(&raw const SOON).build()
}

/// Ends the request that it is linked to after a day.
fn late() -> squeue::Entry {
    static LATE: types::Timespec = types::Timespec::new().sec(86_400);
    opcode::LinkTimeout::new(&raw const LATE).build()
}

/// The entries of a chain, and whatever keeps their descriptors open.
struct Chain<const N: usize> {
    entries: [squeue::Entry; N],
    kept: Vec<Arc<dyn Send + Sync>>,
}

impl<const N: usize> Chain<N> {
    fn of(entries: [squeue::Entry; N]) -> Chain<N> {
        Chain { entries, kept: Vec::new() }
    }

    fn keeping(mut self, kept: impl Send + Sync + 'static) -> Chain<N> {
        self.kept.push(Arc::new(kept));
        self
    }
}

/// Which member of the chain it is, and what owns its descriptor.
type Member = (usize, Vec<Arc<dyn Send + Sync>>);

type Keys<const N: usize> = [Key<Script<Member>>; N];

/// Which member has ended, and how.
type End = (usize, Outcome);

fn push<const N: usize>(submitter: &mut BenchSubmitter<'_, Member>, chain: Chain<N>) -> Keys<N> {
    let data = std::array::from_fn(|index| (index, chain.kept.clone()));
    // SAFETY: memory that they point to is static, or as long as the descriptors, kept by the data.
    unsafe { submitter.push_multiple(chain.entries, data) }.map_err(SubmitError::from).unwrap()
}

/// How the members of a chain ended, in the order of their ends.
fn run<const N: usize>(raw: RawRing, chain: Chain<N>) -> Vec<End> {
    let log = Log::new();
    let seen = log.clone();
    let script = Script::new()
        .on_setup_once(move |mut submitter| {
            push(&mut submitter, chain);
            Ok(())
        })
        .on_completion(move |completion, (index, _), _| {
            seen.push((index, outcome(&completion)));
            (GO_ON, None)
        });
    bench(raw, script).run().unwrap();
    log.take()
}

/// Runs a chain on the simulated kernel, and on the real one if there is one; both must say the same.
#[track_caller]
fn both<const N: usize>(chain: impl Fn() -> Chain<N>) -> Vec<End> {
    let simulated = run(calm().raw_ring(size(8)).unwrap(), chain());
    if let Ok(raw) = RawRing::new(size(8)) {
        assert_eq!(simulated, run(raw, chain()), "what the simulated kernel says, and the real one");
    }
    simulated
}

const CANCELLED: Outcome = Err(libc::ECANCELED);

// ---- links ------------------------------------------------------------------------------------------

#[test]
fn a_chain_goes_on_as_long_as_its_members_succeed() {
    let told = both(|| Chain::of([nop().flags(SOFT), nop().flags(SOFT), nop()]));
    assert_eq!(told, [(0, Ok(0)), (1, Ok(0)), (2, Ok(0))]);
    let told = both(|| Chain::of([nop().flags(SOFT), bad_read().flags(SOFT), nop()]));
    assert_eq!(told, [(0, Ok(0)), (1, Err(libc::EBADF)), (2, CANCELLED)]);
    let told = both(|| Chain::of([bad_read().flags(SOFT), nop().flags(SOFT), nop()]));
    assert_eq!(told, [(0, Err(libc::EBADF)), (1, CANCELLED), (2, CANCELLED)]);
    let told = both(|| Chain::of([bad_read().flags(HARD), bad_read().flags(HARD), nop()]));
    assert_eq!(told, [(0, Err(libc::EBADF)), (1, Err(libc::EBADF)), (2, Ok(0))]);
    // Whether a link is soft depends on the member that has it.
    let told = both(|| Chain::of([bad_read().flags(HARD), bad_read().flags(SOFT), nop()]));
    assert_eq!(told, [(0, Err(libc::EBADF)), (1, Err(libc::EBADF)), (2, CANCELLED)]);
    // A member without a link has no effect on what comes after it.
    let told = both(|| Chain::of([bad_read(), nop()]));
    assert_eq!(told, [(0, Err(libc::EBADF)), (1, Ok(0))]);
}

#[test]
fn less_than_all_breaks_a_chain() {
    let read = |length| {
        move || {
            let file = temporary_file(b"0123");
            let buffer = Arc::new(Mutex::new(Box::new([0_u8; 8])));
            let place = buffer.lock().unwrap().as_mut_ptr();
            let read = opcode::Read::new(types::Fd(file.as_raw_fd()), place, length).build();
            Chain::of([read.flags(SOFT), nop()]).keeping(file).keeping(buffer)
        }
    };
    assert_eq!(both(read(4)), [(0, Ok(4)), (1, Ok(0))]);
    assert_eq!(both(read(8)), [(0, Ok(4)), (1, CANCELLED)]);
}

#[test]
fn what_is_refused_fails_its_whole_chain() {
    let told = both(|| Chain::of([nop().flags(SOFT), unknown().flags(SOFT), nop()]));
    assert_eq!(told, [(0, CANCELLED), (1, Err(libc::EINVAL)), (2, CANCELLED)]);
    let told = both(|| Chain::of([unknown().flags(HARD), nop()]));
    assert_eq!(told, [(0, Err(libc::EINVAL)), (1, CANCELLED)]);
    // One piece more than the kernel takes, each of no bytes.
    let pieces = Box::leak(vec![[0_u64; 2]; 1025].into_boxed_slice()).as_ptr().expose_provenance();
    let told = both(|| {
        let file = temporary_file(b"");
        let place = std::ptr::with_exposed_provenance(pieces);
        let read = opcode::Readv::new(types::Fd(file.as_raw_fd()), place, 1025).build();
        Chain::of([nop().flags(SOFT), read]).keeping(file)
    });
    assert_eq!(told, [(0, CANCELLED), (1, Err(libc::EINVAL))]);
}

#[test]
fn a_member_is_issued_when_the_one_before_it_has_ended() {
    let simulation = calm();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let names = simulation.clone();
    let order = Log::new();
    let asked = order.clone();
    simulation.on_request(move |request| {
        asked.push(request.name());
        Answer::Perform
    });
    let mut left = 1;
    simulation.on_idle(move || {
        left -= 1;
        assert_eq!(names.in_kernel(), if left == 0 { 2 } else { 0 }, "both are the kernel's");
        left == 0 && theirs.write_all(b"x").is_ok()
    });
    let told =
        run(simulation.raw_ring(size(8)).unwrap(), Chain::of([poll(&ours).flags(SOFT), nop()]).keeping(ours));
    assert_eq!(told, [(0, Ok(Events::READABLE.bits())), (1, Ok(0))]);
    let order = order.take();
    assert_eq!(order.iter().filter(|name| **name == "NOP").count(), 1);
    assert_eq!(order.last(), Some(&"NOP"));
}

/// A ring that is turned, with a chain of three polls that never end by themselves.
fn waiting_chain(simulation: &Simulation, flags: squeue::Flags) -> (Bench<Member>, Keys<3>, Log<End>) {
    let told = Log::new();
    let seen = told.clone();
    let script = Script::new().on_completion(move |completion, (index, _): Member, _| {
        seen.push((index, outcome(&completion)));
        (GO_ON, None)
    });
    let mut ring = on(simulation, script);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let entries = [poll(&ours).flags(flags), poll(&ours).flags(flags), poll(&ours)];
    let chain = Chain::of(entries).keeping(ours).keeping(theirs);
    let keys = push(&mut ring.submitter(Bench::FIRST), chain);
    ring.turn().unwrap();
    (ring, keys, told)
}

#[test]
fn a_cancel_finds_the_head_of_a_chain_and_not_what_waits_for_it() {
    let simulation = calm();
    let (mut ring, [head, _, tail], told) = waiting_chain(&simulation, SOFT);
    simulation.take_log();
    assert!(ring.submitter(Bench::FIRST).cancel(tail));
    ring.turn().unwrap();
    assert_eq!(without_enters(history(&simulation)), ["take ASYNC_CANCEL", "ASYNC_CANCEL -2"]);
    // And the timer after which the ring asks again.
    assert_eq!((told.len(), simulation.in_kernel()), (0, 3 + 1));
    assert!(ring.submitter(Bench::FIRST).cancel(head));
    ring.turn().unwrap();
    assert_eq!(told.take(), [(0, CANCELLED), (1, CANCELLED), (2, CANCELLED)]);
    assert_eq!(simulation.in_kernel(), 1);
}

#[test]
fn each_cancel_takes_one_member_off_a_hard_chain() {
    let simulation = calm();
    let (mut ring, keys, told) = waiting_chain(&simulation, HARD);
    for (index, key) in keys.into_iter().enumerate() {
        assert_eq!(simulation.in_kernel(), 3 - index);
        assert!(ring.submitter(Bench::FIRST).cancel(key));
        ring.turn().unwrap();
        assert_eq!(told.take(), [(index, CANCELLED)]);
    }
    // The same holds for the cancels of a teardown, one for each member.
    drop(ring);
    let (mut ring, _, _) = waiting_chain(&simulation, HARD);
    let before = simulation.figures().cancels;
    ring.finish().unwrap();
    assert_eq!((simulation.figures().cancels - before, simulation.in_kernel()), (3, 0));
}

// ---- link timeouts ----------------------------------------------------------------------------------

fn with_timeout(timeout: squeue::Entry, is_there: bool) -> Chain<2> {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    if is_there {
        theirs.write_all(b"x").unwrap();
    }
    Chain::of([poll(&ours).flags(SOFT), timeout]).keeping(ours).keeping(theirs)
}

#[test]
fn the_end_of_its_time_ends_a_request_and_its_end_the_timeout() {
    let told = both(|| with_timeout(soon(), false));
    assert_eq!(told, [(1, Err(libc::ETIME)), (0, CANCELLED)]);
    let told = both(|| with_timeout(late(), true));
    assert_eq!(told, [(0, Ok(Events::READABLE.bits())), (1, CANCELLED)]);
    // The same if it ends only after a while.
    let simulation = calm();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut left = 1;
    simulation.on_idle(move || {
        left -= 1;
        left == 0 && theirs.write_all(b"x").is_ok()
    });
    let chain = Chain::of([poll(&ours).flags(SOFT), late()]).keeping(ours);
    let told = run(simulation.raw_ring(size(8)).unwrap(), chain);
    assert_eq!(told, [(0, Ok(Events::READABLE.bits())), (1, CANCELLED)]);
}

#[test]
fn a_cancelled_request_ends_its_timeout_which_no_cancel_finds() {
    let simulation = calm();
    let told = Log::new();
    let seen = told.clone();
    let script = Script::new().on_completion(move |completion, (index, _): Member, _| {
        seen.push((index, outcome(&completion)));
        (GO_ON, None)
    });
    let mut ring = on(&simulation, script);
    let [head, timeout] = push(&mut ring.submitter(Bench::FIRST), with_timeout(late(), false));
    ring.turn().unwrap();
    simulation.take_log();
    assert!(ring.submitter(Bench::FIRST).cancel(timeout));
    ring.turn().unwrap();
    assert_eq!(without_enters(history(&simulation)), ["take ASYNC_CANCEL", "ASYNC_CANCEL -2"]);
    assert!(ring.submitter(Bench::FIRST).cancel(head));
    ring.turn().unwrap();
    assert_eq!(told.take(), [(0, CANCELLED), (1, CANCELLED)]);
}

#[test]
fn the_time_of_a_linked_timeout_begins_with_its_request() {
    let simulation = calm();
    let (ours, theirs) = UnixStream::pair().unwrap();
    static DAY: types::Timespec = types::Timespec::new().sec(86_400);
    let day = opcode::Timeout::new(&raw const DAY).flags(types::TimeoutFlags::ETIME_SUCCESS).build();
    let chain = Chain::of([day.flags(SOFT), poll(&ours).flags(SOFT), soon()]).keeping(ours).keeping(theirs);
    let raw = simulation.raw_ring(size(8)).unwrap();
    simulation.take_log();
    let began = simulation.now();
    let told = Log::new();
    let (seen, kernel) = (told.clone(), simulation.clone());
    let script = Script::new()
        .on_setup_once(move |mut submitter| {
            push(&mut submitter, chain);
            Ok(())
        })
        .on_completion(move |completion, (index, _), _| {
            seen.push((index, outcome(&completion), (kernel.now() - began).as_millis()));
            (GO_ON, None)
        });
    bench(raw, script).run().unwrap();
    let day = 86_400_000;
    let expected = [(0, Err(libc::ETIME), day), (2, Err(libc::ETIME), day + 1), (1, CANCELLED, day + 1)];
    assert_eq!(told.take(), expected);
}

#[test]
fn a_linked_timeout_that_is_linked_to_no_request_is_refused() {
    let told = both(|| Chain::of([late()]));
    assert_eq!(told, [(0, Err(libc::EINVAL))]);
    let told = both(|| Chain::of([nop().flags(SOFT), late().flags(SOFT), late()]));
    assert_eq!(told, [(0, CANCELLED), (1, CANCELLED), (2, Err(libc::EINVAL))]);
}

#[test]
fn a_zero_copy_send_that_its_chain_has_ended_is_notified_of_after_its_end() {
    let chain = || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let byte = opcode::SendZc::new(types::Fd(ours.as_raw_fd()), b"x".as_ptr(), 1).build();
        Chain::of([bad_read().flags(SOFT), byte]).keeping((ours, theirs))
    };
    assert_eq!(both(chain), [(0, Err(libc::EBADF)), (1, CANCELLED)]);
    let simulation = calm();
    simulation.take_log();
    run(simulation.raw_ring(size(8)).unwrap(), chain());
    let posted = simulation.take_log().into_iter().filter_map(|event| match event {
        Event::Posted { result, flags, .. } => Some((result, flags)),
        _ => None,
    });
    const F_NOTIF: u32 = 1 << 3;
    assert!(posted.eq([(-libc::EBADF, 0), (-libc::ECANCELED, 0), (0, F_NOTIF)]));
}

// ---- chains and the end of a submit -------------------------------------------------------------------

#[test]
fn a_submit_that_ends_early_ends_behind_a_chain() {
    let simulation = simulation(1, Faults { partial: 1.0, ..Faults::none() });
    simulation.take_log();
    let chain = Chain::of([bad_read().flags(SOFT), nop()]);
    let told = run(simulation.raw_ring(size(8)).unwrap(), chain);
    assert_eq!(told, [(0, Err(libc::EBADF)), (1, CANCELLED)]);
    let expected = ["enter 2", "take READ", "take NOP", "READ -9", "NOP -125"];
    assert_eq!(history(&simulation), expected);
}
