//! Pools and what they lend.

use super::*;
use crate::block::tests::with_little_memory;
use crate::lock::tests::in_fork_while_taken;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

fn take(pool: &BufferPool, id: u16, length: u32) -> Option<Buffer> {
    // SAFETY: in each of these tests, one thread does this.
    let pool = unsafe { pool.hold(id) };
    // SAFETY: `hold` has just returned this pool for it, and this is done once.
    pool.map(|pool| unsafe { Buffer::of(pool, id, length) })
}

/// This many threads that do this work; what it gets can be sent to them.
pub(super) fn workers<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    count: usize,
    work: &'scope (impl Fn(Receiver<T>) + Sync),
) -> Vec<Sender<T>> {
    let worker = |_| {
        let (sender, receiver) = channel();
        scope.spawn(move || work(receiver));
        sender
    };
    (0..count).map(worker).collect()
}

#[test]
fn sizes_that_make_no_pool_are_refused() {
    assert_eq!(BufferPool::new(0, 64).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(BufferPool::new(64, 0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(BufferPool::new(32769, 1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    BufferPool::new(32768, 1).unwrap();
}

#[test]
fn a_number_becomes_a_buffer_once() {
    let pool = BufferPool::registered(2, 16);
    let mut buffer = take(&pool, 1, 100).unwrap();
    assert_eq!(buffer.len(), 16, "no longer than it is");
    buffer.copy_from_slice(&[7; 16]);
    assert!(take(&pool, 1, 1).is_none(), "the kernel can't have had it");
    assert!(take(&pool, 2, 1).is_none(), "there is no such buffer");
    assert_eq!(pool.available(), 1);
    std::thread::spawn(move || assert_eq!(*buffer, [7; 16])).join().unwrap();
    assert_eq!(pool.available(), 2);
    assert!(take(&pool, 1, 1).is_some());
}

#[test]
fn a_buffer_that_many_threads_hand_on_is_held_by_one() {
    const ROUNDS: u64 = if cfg!(miri) { 200 } else { 20_000 };
    let pool = BufferPool::registered(3, 8);
    let work = |buffers: Receiver<Buffer>| {
        for (round, mut buffer) in (0u64..).zip(buffers) {
            let mine = round.to_ne_bytes();
            buffer.copy_from_slice(&mine);
            std::hint::spin_loop();
            assert_eq!(*buffer, mine, "nobody else writes to it");
            assert!(pool.untouched().is_none() && pool.available() < 3);
        }
    };
    std::thread::scope(|scope| {
        let threads = workers(scope, 4, &work);
        let mut rounds = 0;
        while rounds < ROUNDS {
            // As a ring does, which is told when a buffer was given back.
            for id in 0..3 {
                let Some(buffer) = take(&pool, id, 8) else { continue };
                threads[rounds as usize % 4].send(buffer).unwrap();
                rounds += 1;
            }
        }
    });
    assert_eq!(pool.available(), 3);
    let taken = pool.shared.taken.load(Ordering::Relaxed);
    assert_eq!((pool.untouched(), taken), (Some(taken as u16), pool.shared.state.lock().returned));
}

#[test]
fn a_buffer_that_had_to_wait_for_the_lock_wakes_the_ring_all_the_same() {
    let pool = BufferPool::registered(1, 8);
    let held = take(&pool, 0, 8);
    assert_eq!(pool.wait(), 0, "the only one is held");
    let guard = pool.shared.state.lock();
    std::thread::scope(|scope| {
        scope.spawn(|| drop(held));
        while !pool.shared.state.is_awaited() {
            std::thread::yield_now();
        }
        drop(guard);
    });
    assert!(!pool.shared.state.lock().awaited, "which is forgotten when the ring was woken");
    assert_eq!(pool.available(), 1);
}

#[test]
fn what_holds_a_buffer_may_go_anywhere() {
    fn goes_anywhere<T: Send + Sync + UnwindSafe + RefUnwindSafe>() {}
    goes_anywhere::<BufferPool>();
    goes_anywhere::<Buffer>();
    goes_anywhere::<crate::Completion>();
}

/// How many shares there are in the memory of a pool.
fn shares(pool: &BufferPool) -> usize {
    Arc::strong_count(&pool.shared)
}

#[test]
fn what_is_held_keeps_the_memory_of_a_pool_that_no_ring_has_any_more() {
    let pool = BufferPool::registered(3, 8);
    let held = [0, 1].map(|id| take(&pool, id, 8).unwrap());
    assert_eq!(shares(&pool), 1);
    pool.unregister();
    assert_eq!(shares(&pool), 2, "both together have one");
    // Another ring registers the pool, while the buffers are held.
    pool.register(2, 0, Waker::new().unwrap(), Losses::none(), |_, _| Ok(())).unwrap();
    let third = take(&pool, 2, 8).unwrap();
    pool.unregister();
    assert_eq!(shares(&pool), 2);
    let [mut first, second] = held;
    drop(second);
    drop(third);
    assert_eq!((shares(&pool), pool.available()), (2, 2));
    let weak = Arc::downgrade(&pool.shared);
    drop(pool);
    first.copy_from_slice(&[7; 8]);
    let sent = std::thread::spawn(move || assert_eq!(*first, [7; 8]));
    sent.join().unwrap();
    assert_eq!(weak.strong_count(), 0, "the last one has given it up");
}

#[test]
fn a_pool_that_is_given_back_whole_has_no_share_left_over() {
    let pool = BufferPool::registered(2, 8);
    drop(take(&pool, 0, 8));
    pool.unregister();
    assert_eq!(shares(&pool), 1);
    pool.register(2, 0, Waker::new().unwrap(), Losses::none(), |_, _| Ok(())).unwrap();
    let held = take(&pool, 0, 8);
    pool.unregister();
    pool.register(3, 0, Waker::new().unwrap(), Losses::none(), |_, _| Ok(())).unwrap();
    drop(held);
    assert_eq!(shares(&pool), 1, "given up while another ring has it");
    pool.unregister();
    assert_eq!(shares(&pool), 1);
}

#[test]
fn only_one_ring_has_a_pool() {
    let pool = BufferPool::registered(3, 8);
    let held = take(&pool, 1, 8);
    pool.unregister();
    let waker = Waker::new().unwrap();
    pool.register(1, 0, waker.clone(), Losses::none(), |_, entries| {
        assert_eq!(entries, 4, "a power of two");
        Ok(())
    })
    .unwrap();
    assert_eq!(pool.shared.state.lock().tail, 2, "the held one is not offered");
    assert_eq!((pool.group(1), pool.group(2)), (Some(0), None));
    assert!(matches!(
        pool.register(2, 0, waker.clone(), Losses::none(), |_, _| Ok(())),
        Err(PoolError::Taken)
    ));
    drop(held);
    assert_eq!(pool.shared.state.lock().tail, 3);
    pool.unregister();
    pool.register(2, 5, waker, Losses::none(), |_, _| Ok(())).unwrap();
    assert_eq!(pool.group(2), Some(5));
}

#[test]
#[cfg_attr(miri, ignore = "it knows no forks")]
fn a_child_gives_back_what_it_has_though_another_thread_had_the_lock_at_the_fork() {
    for pool in [BufferPool::new(2, 8).unwrap(), BufferPool::incremental(2, 8).unwrap()] {
        let mut buffer = pool.fill(b"all of it");
        assert!(buffer.is_none(), "too long");
        buffer = pool.fill(b"all of i");
        assert_eq!(buffer.as_deref(), Some(&b"all of i"[..]));
        in_fork_while_taken(&pool.shared.state, || {
            drop(buffer.take());
            pool.fill(b"whole").is_some()
        });
        assert!(buffer.is_some(), "the parent's is its own");
    }
}

#[test]
#[cfg_attr(miri, ignore = "it knows no forks")]
fn a_pool_whose_headers_find_no_memory_is_refused() {
    // A header for each 64 KiB: together more than the allocator may have at hand.
    with_little_memory((20 << 30) + (1 << 20), || {
        BufferPool::incremental(20, 1 << 30).is_err_and(|error| error.kind() == io::ErrorKind::OutOfMemory)
    });
}
