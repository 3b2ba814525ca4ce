//! What a completion owns, and what it tells.

use super::*;
use crate::fixed::FixedFile;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

fn result_of(yields: Yields, result: i32) -> Result<u32, i32> {
    let facts = Facts { yields, ..Facts::new(0) };
    // SAFETY: no test here has a descriptor in a result.
    let completion = unsafe { Completion::new(&facts, None, result, 0) };
    completion.result().map_err(|error| error.raw_os_error().unwrap())
}

#[test]
fn a_timer_that_ran_its_time_succeeded() {
    assert_eq!(result_of(Yields::Tick, -libc::ETIME), Ok(0));
    assert_eq!(result_of(Yields::Tick, -libc::ECANCELED), Err(libc::ECANCELED));
    assert_eq!(result_of(Yields::Result, -libc::ETIME), Err(libc::ETIME));
}

#[test]
fn codes_of_the_kernels_own_read_as_cancelled() {
    for (code, read) in [(511, 511), (512, 125), (531, 125), (532, 532)] {
        assert_eq!(result_of(Yields::Result, -code), Err(read));
    }
    let was_cancelled = |code: i32| Completion::plain(-code, 0).is_cancelled();
    assert!(was_cancelled(125) && was_cancelled(512) && !was_cancelled(4) && !was_cancelled(0));
    assert_eq!(result_of(Yields::Result, i32::MIN), Err(i32::MIN), "and nothing panics");
}

#[test]
fn what_is_ours_in_the_flags_is_never_the_kernels() {
    let posted = 7 << 16 | u32::from(u16::MAX);
    let from_pools = [Yields::Buffer, Yields::Datagram, Yields::Bundle];
    let others = [Yields::Result, Yields::Descriptor, Yields::Direct, Yields::Events, Yields::Tick];
    for yields in from_pools.into_iter().chain(others) {
        let facts = Facts { yields, ..Facts::new(0) };
        // SAFETY: the result is no descriptor, but an error.
        let completion = unsafe { Completion::new(&facts, None, -libc::EIO, posted) };
        assert!(!completion.more() && !completion.is_message() && !completion.has_payload());
        assert!(!completion.timed_out());
        assert_eq!(completion.raw(), RawCompletion { result: -libc::EIO, flags: posted & !0x7f00 });
        assert_eq!(completion.into_fd().unwrap_err().raw_os_error(), Some(libc::EIO));
    }
    for bit in 0..16 {
        let is_plain = !(8..15).contains(&bit) && bit != 1;
        assert_eq!(Completion::can_be_plain(1 << bit), is_plain, "bit {bit}");
    }
    assert!(Completion::can_be_plain(7 << 16));
    assert_eq!(Completion::plain(1, 7 << 16).raw(), RawCompletion { result: 1, flags: 7 << 16 });
}

#[test]
fn a_file_of_the_ring_is_owned_until_it_is_taken_out() {
    let held = FixedFile::new();
    let of = |file: Option<&FixedFile>, result| Completion::with_file(result, 0, file.cloned());
    let completion = of(Some(&held), 7);
    assert_eq!((completion.result().unwrap(), completion.raw().result), (0, 0), "the index that it has");
    assert!(completion.has_payload() && !completion.is_only_result() && held.place.holders() == 2);
    drop(completion);
    assert_eq!(held.place.holders(), 1);
    let file = of(Some(&held), 7).into_fixed_file().unwrap();
    assert_eq!(held.place.holders(), 2);
    drop(file);
    assert_eq!(of(None, 7).into_fixed_file().unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert!(of(Some(&held), 7).into_fd().is_err() && of(Some(&held), 7).into_buffer().is_err());
    assert_eq!(held.place.holders(), 1, "what was not taken out is dropped");
    assert_eq!(of(None, -libc::ENFILE).into_fixed_file().unwrap_err().raw_os_error(), Some(libc::ENFILE));
}

#[test]
fn a_completion_with_a_buffer_can_be_made_without_a_ring() {
    let pool = BufferPool::new(2, 4).unwrap();
    let completion = Completion::from_buffer(pool.fill(b"abc").unwrap());
    assert_eq!((completion.result().unwrap(), pool.available()), (3, 1));
    assert!(completion.has_payload() && !completion.more() && completion.raw().flags & F_BUFFER != 0);
    let buffer = completion.into_buffer().unwrap();
    assert_eq!(*buffer, *b"abc");
    drop(Completion::from_buffer(pool.fill(b"1234").unwrap()).with_more());
    assert!(pool.fill(b"12345").is_none(), "it does not fit");
    let second = pool.fill(b"").unwrap();
    assert!(pool.fill(b"").is_none(), "there are two");
    drop(second);
    pool.register(1, 0, crate::waker::Waker::new().unwrap(), crate::buffers::Losses::none(), |_, _| Ok(()))
        .unwrap();
    assert!(pool.fill(b"").is_none(), "a ring has it");
    pool.unregister();
    drop(pool);
    assert_eq!(*buffer, *b"abc", "it outlives all that");
    assert_eq!(Completion::from_buffer(Buffer::empty()).into_buffer().unwrap().len(), 0);
}

#[test]
fn a_buffer_comes_out_once_or_goes_back() {
    let pool = BufferPool::registered(3, 8);
    let facts = Facts { yields: Yields::Buffer, ..Facts::new(0) };
    // `IORING_CQE_F_BUFFER`, and the number.
    let flags = 2 << 16 | 1;
    // SAFETY: there are no descriptors here, and the pool is this test's.
    let complete = |result| unsafe { Completion::new(&facts, Some(&pool), result, flags) };
    let completion = complete(5);
    assert_eq!((pool.available(), completion.result().unwrap()), (2, 5));
    assert!(format!("{completion:?}").contains("buffer 2"));
    assert!(!complete(5).has_payload(), "it can't be there twice");
    let buffer = completion.into_buffer().unwrap();
    assert_eq!((buffer.len(), pool.available()), (5, 2));
    drop(buffer);
    assert_eq!(pool.available(), 3);
    drop(complete(100).announcing_more());
    assert_eq!(pool.available(), 3);
    assert_eq!(complete(100).into_buffer().unwrap().len(), 8);
    assert_eq!(complete(-libc::EIO).into_buffer().unwrap_err().raw_os_error(), Some(libc::EIO));
    assert!(complete(5).into_fd().is_err());
    assert_eq!(pool.available(), 3);
}

/// A pool of four buffers that a ring has registered, and what makes completions that name its second one.
fn completing(size: u32, yields: Yields) -> (BufferPool, impl Fn(i32) -> Completion) {
    let pool = BufferPool::registered(4, size);
    let (facts, registered) = (Facts { yields, ..Facts::new(0) }, pool.clone());
    // SAFETY: there are no descriptors here, and the pool is this test's.
    (pool, move |result| unsafe { Completion::new(&facts, Some(&registered), result, 1 << 16 | 1) })
}

#[test]
fn a_bundle_comes_out_once_or_goes_back() {
    let (pool, complete) = completing(8, Yields::Bundle);
    let completion = complete(20);
    assert_eq!((pool.available(), completion.result().unwrap()), (1, 20));
    assert_eq!(completion.raw(), RawCompletion { result: 20, flags: 1 << 16 | 1 });
    assert!(completion.has_payload() && format!("{completion:?}").contains("buffer 1"));
    assert!(!complete(20).has_payload(), "it can't be there twice");
    let lengths: Vec<_> = completion.into_buffers().unwrap().map(|buffer| buffer.len()).collect();
    assert_eq!((lengths, pool.available()), (vec![8, 8, 4], 4));

    // Now 0 is the first of them, and 1 comes after it.
    drop(complete(9).announcing_more());
    assert_eq!(pool.available(), 4);
    let error = complete(9).into_buffer().unwrap_err();
    assert_eq!((error.kind(), pool.available()), (io::ErrorKind::InvalidInput, 4));
    assert!(complete(9).into_fd().is_err() && complete(9).into_datagram().is_err());
    assert_eq!(pool.available(), 4);
}

#[test]
fn a_bundle_that_the_kernel_did_not_fill_takes_no_buffer() {
    let (pool, complete) = completing(8, Yields::Bundle);
    let end = complete(0);
    assert_eq!((pool.available(), end.has_payload()), (4, false));
    assert_eq!(end.into_buffers().unwrap().count(), 0);
    let failed = complete(-libc::ECONNRESET);
    assert_eq!((pool.available(), failed.has_payload()), (4, false));
    assert_eq!(failed.into_buffers().unwrap_err().raw_os_error(), Some(libc::ECONNRESET));
    // If the result is more than there is, these are the buffers that the kernel can have had, and as many
    // bytes as fit into them.
    let most = complete(i32::MAX);
    assert_eq!((most.result().unwrap(), pool.available()), (24, 1));
    assert_eq!(most.into_buffers().unwrap().byte_count(), 24);
    assert_eq!(pool.available(), 4);
}

#[test]
fn the_buffer_of_another_stream_is_a_bundle_of_one() {
    let (pool, complete) = completing(8, Yields::Buffer);
    let buffers = complete(5).into_buffers().unwrap();
    assert_eq!((buffers.byte_count(), pool.available()), (5, 3));
    assert!(buffers.map(|buffer| buffer.len()).eq([5]));
    assert_eq!(complete(-libc::EIO).into_buffers().unwrap_err().raw_os_error(), Some(libc::EIO));
    let error = Completion::from_result(Ok(1)).into_buffers().unwrap_err();
    assert_eq!((error.kind(), pool.available()), (io::ErrorKind::InvalidInput, 4));
}

/// Writes what the kernel says of a datagram into the second buffer: from nobody, or from somebody.
fn say(pool: &BufferPool, name_length: u32) {
    // SAFETY: this test has one thread.
    let held = unsafe { pool.hold(1) }.unwrap();
    // SAFETY: `hold` has just returned this pool for the buffer, and this is done once for that.
    let mut buffer = unsafe { Buffer::of(held, 1, u32::MAX) };
    buffer[..4].copy_from_slice(&name_length.to_ne_bytes());
}

#[test]
fn a_datagram_comes_out_without_what_is_said_of_it() {
    let (pool, complete) = completing(64, Yields::Datagram);
    say(&pool, 16);
    let completion = complete(53);
    assert_eq!((pool.available(), completion.result().unwrap()), (3, 5));
    assert_eq!(completion.raw(), RawCompletion { result: 53, flags: 1 << 16 | 1 }, "as it was posted");
    assert!(completion.has_payload());
    assert!(!complete(53).has_payload(), "it can't be there twice");
    let datagram = completion.into_datagram().unwrap();
    assert_eq!((datagram.len(), pool.available()), (5, 3));
    drop(datagram);
    assert_eq!(pool.available(), 4);
    assert_eq!(complete(500).into_datagram().unwrap().len(), 16, "as many as there is room for");
    for result in [0, 47, 48] {
        assert_eq!(complete(result).into_datagram().unwrap().len(), 0, "{result}");
    }
    drop(complete(53).announcing_more());
    for wrong in [complete(53).into_buffer().err(), complete(53).into_buffers().err()] {
        assert_eq!(wrong.unwrap().kind(), io::ErrorKind::InvalidInput);
    }
    assert_eq!(pool.available(), 4);
}

#[test]
fn an_empty_datagram_is_one_if_it_is_from_somebody() {
    let (pool, complete) = completing(64, Yields::Datagram);
    for (name_length, is_one) in [(0, false), (2, true), (28, true)] {
        say(&pool, name_length);
        let empty = complete(48);
        assert_eq!((empty.has_payload(), empty.result().unwrap()), (is_one, 0));
        assert_eq!(empty.raw().result, 48);
        drop(empty);
        assert!(complete(49).has_payload(), "it has a byte");
    }
    assert_eq!(pool.available(), 4);
}

#[test]
fn errors_of_datagrams_are_told_with_and_without_a_buffer() {
    let (pool, complete) = completing(64, Yields::Datagram);
    let failed = complete(-libc::ECANCELED);
    assert_eq!((pool.available(), failed.has_payload()), (3, false), "errors can carry a buffer, too");
    assert_eq!(failed.raw().result, -libc::ECANCELED);
    assert_eq!(failed.into_datagram().unwrap_err().raw_os_error(), Some(libc::ECANCELED));
    assert_eq!(pool.available(), 4);
    let facts = Facts { yields: Yields::Datagram, ..Facts::new(0) };
    // SAFETY: these completions carry nothing that would be taken over.
    let without = |result| unsafe { Completion::new(&facts, None, result, 0) };
    assert_eq!(without(-libc::ENOBUFS).into_datagram().unwrap_err().raw_os_error(), Some(libc::ENOBUFS));
    assert!(!without(0).has_payload());
    assert_eq!(without(0).into_datagram().unwrap().len(), 0);
    let error = Completion::from_result(Ok(1)).into_datagram().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn an_error_that_is_none_of_the_systems_is_eio() {
    for errno in [0, -5, i32::MIN] {
        let completion = Completion::from_result(Err(io::Error::from_raw_os_error(errno)));
        assert_eq!(completion.result().unwrap_err().raw_os_error(), Some(libc::EIO));
    }
}

#[test]
fn a_result_says_why_nothing_was_done() {
    let failed = |errno| Completion::from_result(Err(io::Error::from_raw_os_error(errno)));
    let why = |it: Completion| (it.is_cancelled(), it.was_interrupted(), it.is_starved());
    assert_eq!(why(failed(libc::ECANCELED)), (true, true, false));
    assert_eq!(why(failed(libc::EINTR)), (false, true, false));
    assert_eq!(why(failed(libc::ENOBUFS)), (false, false, true));
    assert_eq!(why(failed(libc::EIO)), (false, false, false));
    assert_eq!(why(Completion::from_result(Ok(4))), (false, false, false));
}

#[test]
fn a_datagram_comes_out_as_it_went_in() {
    let pool = BufferPool::new(1, Datagram::OVERHEAD + 4).unwrap();
    assert!(Datagram::fill(&pool, ([1, 2, 3, 4], 5).into(), b"three").is_none(), "too long");
    for peer in [SocketAddr::from(([1, 2, 3, 4], 5)), ([1, 2, 3, 4, 5, 6, 7, 8], 9).into()] {
        let datagram = Datagram::fill(&pool, peer, b"two").unwrap();
        let completion = Completion::from_datagram(datagram);
        assert_eq!((completion.result().unwrap(), pool.available()), (3, 0));
        let datagram = completion.into_datagram().unwrap();
        assert_eq!((&*datagram, datagram.peer(), datagram.is_truncated()), (&b"two"[..], Some(peer), false));
        drop(Completion::from_datagram(datagram));
        assert_eq!(pool.available(), 1);
    }
}

#[test]
fn what_was_not_done_in_time_has_timed_out() {
    let cancelled = || Completion::from_result(Err(io::Error::from_raw_os_error(libc::ECANCELED)));
    assert_eq!(cancelled().in_time().unwrap_err().raw_os_error(), Some(libc::ECANCELED));
    assert_eq!(cancelled().with_timed_out().in_time().unwrap_err().kind(), io::ErrorKind::TimedOut);
    for completion in [Completion::from_result(Ok(3)), Completion::from_result(Ok(3)).with_timed_out()] {
        assert_eq!(completion.in_time().unwrap(), 3);
    }
}

#[test]
fn a_descriptor_comes_out_owned_or_is_closed() {
    let (reader, writer) = io::pipe().unwrap();
    let number = writer.as_raw_fd();
    let completion = Completion::from_fd(writer.into());
    assert_eq!(completion.result().unwrap(), 0);
    assert_eq!(completion.raw(), RawCompletion { result: number, flags: 0 });
    assert!(completion.has_payload() && !completion.more() && !completion.is_message());
    let completion = completion.with_more().with_timed_out();
    assert!(completion.more() && completion.timed_out());
    drop(completion);
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut &reader, &mut bytes).unwrap();

    let completion = Completion::from_fd(reader.into());
    assert!(completion.into_fd().is_ok());
    let error = Completion::from_result(Ok(1)).into_fd().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}
