use super::super::tests::workers;
use super::*;
use crate::buffers::PoolError;
use crate::waker::Waker;
use std::ptr::NonNull;
use std::sync::mpsc::Receiver;

const SIZE: u32 = 8;

fn register(pool: &BufferPool) {
    register_with(pool, Losses::none());
}

fn register_with(pool: &BufferPool, losses: Losses) {
    pool.register(1, 0, Waker::new().unwrap(), losses, |_, _| Ok(())).unwrap();
}

fn pool(count: u16, size: u32) -> BufferPool {
    let pool = BufferPool::incremental(count, size).unwrap();
    register(&pool);
    pool
}

/// The kernel's end.
#[derive(Default)]
struct Kernel {
    head: u16,
}

impl Kernel {
    /// Takes the next bytes, and fills them with `byte`. Returns the number of the buffer and the flags of the
    /// completion, or `None` if nothing is offered.
    fn take(&mut self, pool: &BufferPool, most: u32, byte: u8) -> Option<(u16, i32, u32)> {
        let shared = &pool.shared;
        if shared.published_tail().load(Ordering::Acquire) == self.head {
            return None;
        }
        let entry = shared.entry(self.head);
        let id = shared.offered_id(&shared.state.lock(), self.head);
        // SAFETY: the entry is there, and was offered.
        let length = unsafe { AtomicU32::from_ptr(&raw mut (*entry).length) };
        // SAFETY: the same holds for this field.
        let address = unsafe { AtomicU64::from_ptr(&raw mut (*entry).address) };
        let (start, room) = (address.load(Ordering::Relaxed), length.load(Ordering::Relaxed));
        let bytes = most.min(room);
        let memory = std::ptr::with_exposed_provenance_mut::<u8>(start as usize);
        // SAFETY: there is as much room, and it is nobody else's.
        unsafe { memory.write_bytes(byte, bytes as usize) };
        if bytes == room {
            self.head = self.head.wrapping_add(1);
            length.store(0, Ordering::Release);
            return Some((id, bytes as i32, 0));
        }
        address.store(start + u64::from(bytes), Ordering::Relaxed);
        length.store(room - bytes, Ordering::Release);
        Some((id, bytes as i32, F_BUF_MORE))
    }

    fn receive(&mut self, pool: &BufferPool, most: u32, byte: u8) -> Option<Buffer> {
        let (id, result, flags) = self.take(pool, most, byte)?;
        Some(told(pool, id, result, flags).unwrap())
    }
}

/// What a completion is about, or its error.
fn told(pool: &BufferPool, id: u16, result: i32, flags: u32) -> Result<Buffer, i32> {
    // SAFETY: in each of these tests, one thread does this, in order.
    let Piece { lent, result } = unsafe { pool.hold_piece(id, result, flags) };
    match (lent, u32::try_from(result)) {
        // SAFETY: the piece was just held, and this is done once.
        (Some((lender, number)), Ok(length)) => Ok(unsafe { Buffer::of(lender, number, length) }),
        (None, Ok(_)) => Ok(Buffer::empty()),
        (_, Err(_)) => Err(result),
    }
}

#[test]
fn pieces_lie_one_behind_the_other() {
    let (pool, mut kernel) = (pool(2, SIZE), Kernel::default());
    let mut pieces: Vec<_> = [3, 1, 9, 8]
        .iter()
        .zip(1..)
        .map(|(most, byte)| kernel.receive(&pool, *most, byte).unwrap())
        .collect();
    let bytes: Vec<&[u8]> = pieces.iter().map(|piece| &**piece).collect();
    assert_eq!(bytes, [&[1; 3][..], &[2], &[3; 4], &[4; 8]]);
    assert!(kernel.receive(&pool, 1, 1).is_none(), "both are used up");
    assert_eq!(pool.available(), 0);
    // What is done with one does nothing to the others.
    pieces[1].fill(9);
    assert_eq!((&*pieces[0], &*pieces[2]), (&[1; 3][..], &[3; 4][..]));
    drop(pieces.remove(0));
    drop(pieces.remove(1));
    assert_eq!(pool.available(), 0, "a piece of the first is held");
    drop(pieces.remove(0));
    assert_eq!(pool.available(), 1);
    drop(pieces);
    assert_eq!(pool.available(), 2);
    let again = kernel.receive(&pool, u32::MAX, 7).unwrap();
    assert_eq!(*again, [7; 8], "it was offered anew, and whole");
}

#[test]
fn a_large_buffer_has_more_bytes_than_numbers() {
    const LARGE: u32 = 200_000;
    let (pool, mut kernel) = (pool(3, LARGE), Kernel::default());
    let mut pieces = Vec::new();
    for (byte, most) in (0_u8..).zip([70_000, 1, 65_535, 65_536, 150_000, 90_000, 20_000, 3]) {
        pieces.push((byte, kernel.receive(&pool, most, byte).unwrap()));
    }
    for (byte, piece) in &pieces {
        assert!(piece.iter().all(|it| it == byte), "piece {byte}");
    }
    let lengths: Vec<_> = pieces.iter().map(|(_, piece)| piece.len()).collect();
    assert_eq!(lengths, [70_000, 1, 65_535, 64_464, 150_000, 50_000, 20_000, 3]);
    let buffers: Vec<Buffer> =
        pieces.into_iter().flat_map(|(_, piece)| crate::Buffers::from(piece)).collect();
    assert!(buffers.iter().map(|it| it.len()).eq(lengths), "as buffers of bundles, they are the same");
    drop(buffers);
    assert_eq!(pool.available(), 3);
}

#[test]
fn the_end_of_a_stream_takes_nothing() {
    let (pool, mut kernel) = (pool(2, SIZE), Kernel::default());
    let one = kernel.receive(&pool, 3, 1);
    // Kernels have posted this with a buffer, and with the flag or without it.
    for flags in [F_BUF_MORE, 0] {
        assert!(told(&pool, 0, 0, flags).unwrap().is_empty());
        assert_eq!(told(&pool, 0, -libc::ECANCELED, flags).unwrap_err(), -libc::ECANCELED);
    }
    assert_eq!(*kernel.receive(&pool, 5, 2).unwrap(), [2; 5]);
    assert_eq!(pool.available(), 1);
    drop(one);
    assert_eq!(pool.available(), 2);
}

#[test]
fn who_takes_all_the_rest_may_use_a_part_of_it() {
    for result in [2, 0, -libc::ECONNRESET] {
        let (pool, mut kernel) = (pool(2, SIZE), Kernel::default());
        let first = kernel.receive(&pool, 3, 1).unwrap();
        let (id, _, flags) = kernel.take(&pool, u32::MAX, 2).unwrap();
        assert_eq!((id, flags), (0, 0));
        // The kernel goes on with the next before it reports this.
        assert_eq!(*kernel.receive(&pool, 3, 3).unwrap(), [3; 3]);
        let rest = told(&pool, id, result, flags);
        assert_eq!(rest.as_ref().map_or(0, |piece| piece.len()), result.max(0) as usize);
        assert!(rest.iter().all(|piece| piece.iter().all(|byte| *byte == 2)));
        assert_eq!(pool.available(), 1);
        drop((first, rest));
        assert_eq!(pool.available(), 2);
    }
}

#[test]
fn what_does_not_fit_together_is_given_to_nobody() {
    let pool = pool(3, SIZE);
    let mut kernel = Kernel::default();
    assert_eq!(told(&pool, 3, 1, F_BUF_MORE).unwrap_err(), -libc::EBADR, "there is no such buffer");
    let (first, held) = (kernel.take(&pool, 4, 1), kernel.receive(&pool, 2, 2));
    assert!(first.is_some() && held.unwrap()[..] == [1; 2], "so it is if one is not told of");
    // The kernel is there where a third one ends; more was taken than that.
    assert_eq!(told(&pool, 0, 5, F_BUF_MORE).unwrap_err(), -libc::EBADR);
    assert_eq!(
        told(&pool, 0, 1, F_BUF_MORE).unwrap_err(),
        -libc::EBADR,
        "and nothing is known of it any more"
    );
    while kernel.head == 0 {
        kernel.take(&pool, 1, 1);
    }
    assert_eq!(told(&pool, 0, 1, 0).unwrap_err(), -libc::EBADR);
    assert_eq!(pool.shared.state.lock().tail, 3, "it is not offered again");
    assert_eq!(*kernel.receive(&pool, 2, 3).unwrap(), [3; 2], "the others are as they were");
    pool.unregister();
    register(&pool);
    let mut kernel = Kernel::default();
    assert_eq!(*kernel.receive(&pool, SIZE, 4).unwrap(), [4; 8], "another ring has it whole");
}

#[test]
fn it_is_offered_again_only_if_the_ring_says_so_too() {
    let (pool, mut kernel) = (pool(1, SIZE), Kernel::default());
    let (id, result, _) = kernel.take(&pool, 3, 1).unwrap();
    // As 6.18 posts it of bundles, now and then.
    drop(told(&pool, id, result, 0).unwrap());
    assert_eq!((pool.available(), pool.shared.state.lock().tail), (1, 1));
    assert_eq!(*kernel.receive(&pool, 5, 2).unwrap(), [2; 5]);
    assert_eq!(pool.shared.state.lock().tail, 2);
}

#[test]
fn nothing_is_found_after_a_completion_was_lost() {
    let lost = AtomicU32::new(1);
    let pool = BufferPool::incremental(2, SIZE).unwrap();
    // SAFETY: the number is there until the end.
    register_with(&pool, unsafe { Losses::from_now_on(NonNull::from(&lost)) });
    let mut kernel = Kernel::default();
    let first = kernel.receive(&pool, 3, 1).unwrap();
    assert!(kernel.take(&pool, 1, 2).is_some());
    lost.store(2, Ordering::Relaxed);
    let (id, result, flags) = kernel.take(&pool, 1, 3).unwrap();
    assert_eq!(told(&pool, id, result, flags).unwrap_err(), -libc::EBADR);
    assert_eq!(told(&pool, id, 0, 0).unwrap().len(), 0);
    assert_eq!(*first, [1; 3]);
    pool.unregister();
}

#[test]
fn pieces_outlive_the_ring_and_the_pool() {
    let (pool, mut kernel) = (pool(3, SIZE), Kernel::default());
    let weak = Arc::downgrade(&pool.shared);
    let pieces: Vec<_> = [8, 3, 2].iter().map(|most| kernel.receive(&pool, *most, 1).unwrap()).collect();
    kernel.take(&pool, 1, 9); // Never told of.
    pool.unregister();
    assert_eq!((weak.strong_count(), pool.available()), (2, 1), "they share one");
    register(&pool);
    assert_eq!(pool.shared.state.lock().tail, 1, "of the others, pieces are held");
    let mut kernel = Kernel::default();
    let new = kernel.receive(&pool, 4, 2).unwrap();
    let mut pieces = pieces.into_iter();
    drop(pieces.next());
    assert_eq!(pool.available(), 2);
    let others = kernel.receive(&pool, 4, 3).unwrap();
    assert_eq!(*kernel.receive(&pool, 8, 4).unwrap(), [4; 8]);
    drop(pieces.next());
    assert_eq!(pool.available(), 1, "another piece of the same is held");
    pool.unregister();
    drop(pool);
    assert_eq!((&*new, &*others, &*pieces.next().unwrap()), (&[2; 4][..], &[3; 4][..], &[1; 2][..]));
    drop(new);
    assert_eq!(weak.strong_count(), 1);
    std::thread::spawn(move || drop(others)).join().unwrap();
    assert_eq!(weak.strong_count(), 0, "the last one has given it up");
}

#[test]
fn a_pool_that_no_ring_has_can_be_filled() {
    let pool = BufferPool::incremental(2, SIZE).unwrap();
    assert!(pool.fill(b"123456789").is_none(), "too long");
    assert!(pool.fill(b"").unwrap().is_empty());
    let pieces: Vec<_> =
        [&b"123"[..], b"45678", b"1234", b"5"].into_iter().map(|it| pool.fill(it).unwrap()).collect();
    assert_eq!((&*pieces[1], &*pieces[2]), (&b"45678"[..], &b"1234"[..]));
    assert!(pool.fill(b"6789").is_none(), "there is not enough room in any");
    register(&pool);
    assert!(pool.fill(b"1").is_none(), "a ring has it");
    assert_eq!((pool.available(), pool.shared.state.lock().tail), (0, 0));
    let weak = Arc::downgrade(&pool.shared);
    drop(pieces);
    assert_eq!((pool.available(), weak.strong_count()), (2, 1));
    assert!(matches!(
        pool.register(2, 0, Waker::new().unwrap(), Losses::none(), |_, _| Ok(())),
        Err(PoolError::Taken)
    ));
    assert_eq!((pool.any_group(1), pool.any_group(2), pool.group(1)), (Some(0), None, None));
    pool.unregister();
    assert_eq!(pool.fill(b"12345678").unwrap().len(), 8);
    assert_eq!(weak.strong_count(), 1);
}

#[test]
fn pieces_that_many_threads_hold_are_nobody_elses() {
    const ROUNDS: u32 = if cfg!(miri) { 300 } else { 100_000 };
    let (pool, mut kernel) = (pool(3, 64), Kernel::default());
    let work = |pieces: Receiver<(u8, Buffer)>| {
        let mut kept = Vec::new();
        for (byte, mut piece) in pieces {
            assert!(piece.iter().all(|it| *it == byte));
            piece.fill(!byte);
            kept.push((!byte, piece));
            if kept.len() == 4 {
                for (byte, piece) in kept.drain(..) {
                    assert!(piece.iter().all(|it| *it == byte));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = workers(scope, 3, &work);
        for round in 0..ROUNDS {
            let piece = loop {
                match kernel.receive(&pool, 1 + round % 29, round as u8) {
                    Some(piece) => break piece,
                    // All are used up: threads that keep pieces get more.
                    None => {
                        for thread in &threads {
                            (0..4).for_each(|_| thread.send((0, Buffer::empty())).unwrap());
                        }
                        std::thread::yield_now();
                    }
                }
            };
            threads[round as usize % 3].send((round as u8, piece)).unwrap();
        }
    });
    let state = pool.shared.state.lock();
    assert_eq!(state.pieces, 0);
}

#[test]
fn the_ring_is_woken_when_all_of_a_buffer_is_back() {
    let (pool, mut kernel) = (pool(1, SIZE), Kernel::default());
    let mut pieces: Vec<_> = (0..2).map(|_| kernel.receive(&pool, 4, 1).unwrap()).collect();
    assert_eq!((pool.wait(), pool.untouched()), (0, None));
    pieces.pop();
    assert!(pool.shared.state.lock().awaited, "there is still none");
    pieces.pop();
    assert!(!pool.shared.state.lock().awaited);
    assert_eq!((pool.wait(), pool.untouched()), (1, Some(3)), "two pieces, and the whole");
}

/// Pieces may be forgotten, so there is no limit to how many are held: each takes a byte of the pool, and nothing else.
#[test]
fn more_pieces_than_one_buffer_has_bytes_are_counted() {
    let pool = BufferPool::incremental(2, 32).unwrap();
    let weak = Arc::downgrade(&pool.shared);
    let first = pool.fill(b"first").unwrap();
    // As if so many others had been forgotten.
    pool.shared.state.lock().pieces = u32::MAX.into();
    let (second, third) = (pool.fill(b"second").unwrap(), pool.fill(b"third").unwrap());
    drop((first, pool));
    assert_eq!(weak.strong_count(), 1, "the others have it");
    drop((second, third));
    let whole = BufferPool { shared: weak.upgrade().unwrap() };
    assert_eq!(whole.shared.state.lock().pieces, (u32::MAX - 1).into(), "what is forgotten keeps it");
    // It was not really forgotten.
    whole.shared.state.lock().pieces = 0;
    drop(whole.fill(b"last"));
    drop(whole);
    assert_eq!(weak.strong_count(), 0);
}
