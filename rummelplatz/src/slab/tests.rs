//! What a slab promises, and what it is made of.

use super::*;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// Miri is a thousand times slower.
const fn steps(natively: usize) -> usize {
    if cfg!(miri) { natively / 200 } else { natively }
}

/// How often each value was dropped, by its number.
#[derive(Clone, Default)]
struct Drops(Rc<RefCell<Vec<u32>>>);

struct Counted {
    drops: Drops,
    number: usize,
}

impl Drops {
    fn issue(&self) -> Counted {
        let mut drops = self.0.borrow_mut();
        drops.push(0);
        Counted { drops: self.clone(), number: drops.len() - 1 }
    }

    fn of(&self, number: usize) -> u32 {
        self.0.borrow()[number]
    }

    fn all_once(&self) -> bool {
        self.0.borrow().iter().all(|drops| *drops == 1)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.drops.0.borrow_mut()[self.number] += 1;
    }
}

fn find_plain<D, M: Meta>(slab: &mut Slab<D, M>, user_data: u64) -> Option<Plain<'_, D, M>> {
    assert_ne!(user_data, 0);
    // SAFETY: the `user_data` is not 0, as was just asserted.
    unsafe { slab.find_plain(user_data) }
}

fn unlimited<D, M: Meta>(tag: u8) -> Slab<D, M> {
    let mut slab = Slab::new(tag);
    slab.set_limit(u32::MAX);
    slab
}

/// Reserves and inserts. Returns the address that the closure sees, too.
fn insert<D, M: Meta<Brief = M>>(slab: &mut Slab<D, M>, value: D, meta: M) -> (Identity, u64, *mut D) {
    // Plain and not plain, in turn.
    thread_local!(static PLAIN: Cell<bool> = const { Cell::new(false) });
    PLAIN.set(!PLAIN.get());
    slab.reserve().unwrap();
    let (identity, address) = slab.insert_with(value, |value| {
        let remember = if PLAIN.get() { Remember::Plain(meta) } else { Remember::All(meta) };
        (remember, &raw mut *value)
    });
    (identity, identity.user_data, address)
}

impl<M: Copy + Tested> Meta for M {
    type Brief = M;
    fn of_plain(brief: M) -> M {
        brief
    }
    fn is_calm(&self) -> bool {
        true
    }
}

trait Tested {}
impl Tested for () {}
impl Tested for u8 {}
impl Tested for u32 {}
impl Tested for usize {}

/// Takes the value of a slot whose request is plain, and fills it again.
fn refill<D, M: Meta<Brief = M>>(slab: &mut Slab<D, M>, user_data: u64, meta: M) -> Option<Identity> {
    // SAFETY: the slot is filled below, and nobody looks at the slab before that.
    let (value, warm) = unsafe { find_plain(slab, user_data)?.take() };
    // SAFETY: the slot was found in this slab.
    let vacancy = unsafe { slab.vacate(warm)? };
    // SAFETY: the vacancy is of this slab, where the slot was found.
    Some(unsafe { slab.fill(vacancy, value, |_: &mut D| (Remember::Plain(meta), ())) }.0)
}

/// Takes the value of a slot whose request is plain, and releases it.
fn take_plain<D, M: Meta>(slab: &mut Slab<D, M>, user_data: u64) -> Option<D> {
    // SAFETY: the slot is released below, and nobody looks at the slab before that.
    let (value, warm) = unsafe { find_plain(slab, user_data)?.take() };
    // SAFETY: the slot was found in this slab.
    unsafe { slab.release(warm) };
    Some(value)
}

fn address_of<D, M: Meta>(slab: &mut Slab<D, M>, user_data: u64) -> Option<*const D> {
    let mut slot = slab.find(user_data)?;
    // SAFETY: there is no kernel here.
    unsafe { slot.with_value(|value| &raw const *value) }
}

fn take<D, M: Meta>(slab: &mut Slab<D, M>, user_data: u64) -> Option<D> {
    slab.find(user_data)?.take()
}

struct XorShift(u64);

impl XorShift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

// ---- places -------------------------------------------------------------------------------

#[test]
fn a_value_stays_where_it_is_while_the_slab_grows() {
    let mut slab = unlimited::<[u64; 8], u32>(1);
    let count = steps(100_000).max(3 * Slab::<[u64; 8], u32>::CHUNK as usize);
    let placed: Vec<_> =
        (0..count).map(|number| insert(&mut slab, [number as u64; 8], number as u32)).collect();
    assert!(slab.chunks.len() > 2, "grown over several chunks");
    let mut addresses: Vec<_> = placed.iter().map(|(_, _, address)| address.addr()).collect();
    addresses.sort_unstable();
    assert!(addresses.windows(2).all(|pair| pair[1] - pair[0] >= 64), "no two values overlap");
    for (number, (identity, user_data, address)) in placed.iter().enumerate() {
        assert_eq!(UserData::slot(identity.user_data), number as u32);
        // SAFETY: the value is live, at the address at which it was given to the closure, and no reference to
        // it exists.
        assert_eq!(unsafe { address.read() }, [number as u64; 8]);
        assert_eq!(address_of(&mut slab, *user_data), Some(address.cast_const()));
        assert_eq!(slab.find(*user_data).unwrap().peek(), number as u32);
    }
    for (number, (_, user_data, _)) in placed.iter().enumerate() {
        assert_eq!(take(&mut slab, *user_data), Some([number as u64; 8]));
    }
    assert_eq!(slab.occupied_slots(), 0);
}

#[test]
fn a_pointer_to_a_live_value_outlives_all_other_work_on_the_slab() {
    let mut slab = unlimited::<[u8; 16], ()>(1);
    let (_, user_data, address) = insert(&mut slab, [0; 16], ());
    let mut others = Vec::new();
    for step in 0..steps(20_000) {
        // SAFETY: the value is live, and nobody else looks at it now. (The kernel writes to it like this.)
        unsafe { address.cast::<u8>().add(step % 16).write(step as u8) };
        others.push(insert(&mut slab, [1; 16], ()).1);
        if step % 3 == 0 {
            take(&mut slab, others.swap_remove(step % others.len())).unwrap();
        }
        slab.for_each(|_, ()| {});
        assert_eq!(slab.find(user_data).unwrap().state(), State::Live);
    }
    let last = steps(20_000) - 1;
    assert_eq!(take(&mut slab, user_data).unwrap()[last % 16], last as u8);
    assert!(others.into_iter().all(|user_data| take(&mut slab, user_data).is_some()));
}

#[test]
fn the_alignment_of_a_value_is_honoured() {
    #[repr(align(128))]
    #[derive(Debug, PartialEq)]
    struct Aligned(u8);

    #[repr(align(4096))]
    struct Page([u8; 4096]);

    let mut slab = unlimited::<Aligned, u8>(1);
    let placed: Vec<_> = (0..200_u8).map(|number| insert(&mut slab, Aligned(number), number)).collect();
    for (number, (_, user_data, address)) in placed.into_iter().enumerate() {
        assert!(address.addr().is_multiple_of(128));
        assert_eq!(slab.find(user_data).unwrap().peek(), number as u8);
        assert_eq!(take(&mut slab, user_data), Some(Aligned(number as u8)));
    }

    let mut slab = unlimited::<Page, ()>(1);
    let placed: Vec<_> = (0..20).map(|_| insert(&mut slab, Page([7; 4096]), ())).collect();
    for (_, user_data, address) in placed {
        assert!(address.addr().is_multiple_of(4096));
        assert!(take(&mut slab, user_data).unwrap().0 == [7; 4096]);
    }
}

#[test]
fn values_without_a_size_have_slots_too() {
    thread_local!(static DROPS: Cell<usize> = const { Cell::new(0) });
    struct Nothing;
    impl Drop for Nothing {
        fn drop(&mut self) {
            DROPS.set(DROPS.get() + 1);
        }
    }

    let mut slab = unlimited::<Nothing, ()>(1);
    let count = 2 * Slab::<Nothing, ()>::CHUNK as usize + 1;
    let mut user_data: Vec<_> = (0..count).map(|_| insert(&mut slab, Nothing, ()).1).collect();
    user_data.sort_unstable();
    user_data.dedup();
    assert_eq!((user_data.len(), slab.occupied_slots(), DROPS.get()), (count, count, 0));
    for (taken, user_data) in user_data.into_iter().enumerate() {
        assert!(take(&mut slab, user_data).is_some());
        assert_eq!(DROPS.get(), taken + 1);
    }
}

#[test]
fn a_value_larger_than_a_chunk_is_no_trouble() {
    let mut slab = unlimited::<[u8; 100_000], ()>(1);
    assert_eq!(Slab::<[u8; 100_000], ()>::CHUNK, 8);
    let placed: Vec<_> = (0..20).map(|number| insert(&mut slab, [number; 100_000], ()).1).collect();
    for (number, user_data) in placed.into_iter().enumerate() {
        assert!(take(&mut slab, user_data).unwrap().iter().all(|byte| *byte == number as u8));
    }
}

#[test]
fn a_busy_slot_needs_no_more_than_the_first_chunk() {
    let mut slab = unlimited::<u64, ()>(1);
    for _ in 0..steps(10_000) {
        let (_, user_data, _) = insert(&mut slab, 1, ());
        assert_eq!(take(&mut slab, user_data), Some(1));
    }
    assert_eq!(slab.chunks.len(), 1);
    let (identity, user_data, _) = insert(&mut slab, 1, ());
    assert_eq!(UserData::slot(identity.user_data), 0, "the slot that was freed is used again");
    take(&mut slab, user_data);
}

// ---- states -------------------------------------------------------------------------------

#[test]
fn a_value_is_dropped_by_whoever_takes_it_and_only_then() {
    let (drops, mut slab) = (Drops::default(), unlimited(1));
    let (_, user_data, _) = insert(&mut slab, drops.issue(), ());
    assert_eq!((drops.of(0), slab.occupied_slots()), (0, 1));
    let value = take(&mut slab, user_data).unwrap();
    assert_eq!((drops.of(0), slab.occupied_slots()), (0, 0));
    assert!(slab.find(user_data).is_none(), "taken twice");
    drop(value);
    assert_eq!(drops.of(0), 1);
    drop(slab);
    assert!(drops.all_once());
}

#[test]
fn a_lent_value_comes_back_to_the_same_address() {
    let (drops, mut slab) = (Drops::default(), unlimited(1));
    let (_, user_data, address) = insert(&mut slab, drops.issue(), ());
    for _ in 0..3 {
        let mut slot = slab.find(user_data).unwrap();
        let (value, lent) = slot.lend().unwrap();
        assert_eq!(slot.state(), State::Lent);
        assert!(slot.lend().is_none(), "lent twice");
        // SAFETY: there is no kernel here.
        assert!(unsafe { slot.with_value(|_| ()) }.is_none(), "seen while it is lent");
        assert_eq!(slab.occupied_slots(), 1);
        // SAFETY: the value was lent by this slab above, and still is.
        assert!(unsafe { slab.take_back(&lent, value) });
        assert_eq!(address_of(&mut slab, user_data), Some(address.cast_const()));
    }
    assert_eq!(drops.of(0), 0);
    drop(take(&mut slab, user_data));
    assert!(drops.all_once());
}

#[test]
fn another_value_may_be_taken_back() {
    let (drops, mut slab) = (Drops::default(), unlimited(1));
    let (_, user_data, _) = insert(&mut slab, drops.issue(), ());
    let (value, lent) = slab.find(user_data).unwrap().lend().unwrap();
    drop(value);
    assert_eq!(drops.of(0), 1);
    // SAFETY: the value was lent by this slab above, and still is.
    assert!(unsafe { slab.take_back(&lent, drops.issue()) });
    assert_eq!(take(&mut slab, user_data).unwrap().number, 1);
    assert!(drops.all_once());
}

#[test]
fn what_is_not_calm_is_taken_back_to_be_looked_at() {
    #[derive(Clone, Copy)]
    struct Restless;
    impl Meta for Restless {
        type Brief = ();
        fn of_plain((): ()) -> Restless {
            Restless
        }
        fn is_calm(&self) -> bool {
            false
        }
    }
    let (drops, mut slab) = (Drops::default(), unlimited(1));
    slab.reserve().unwrap();
    let (identity, ()) = slab.insert_with(drops.issue(), |_| (Remember::All(Restless), ()));
    let (value, lent) = slab.find(identity.user_data).unwrap().lend().unwrap();
    // SAFETY: the value was lent by this slab above, and still is.
    assert!(!unsafe { slab.take_back(&lent, value) });
    assert!(slab.find_calm(identity.user_data).is_none());
    // SAFETY: the value was lent by this slab and taken back above, so the slot was not freed.
    let mut slot = unsafe { slab.find_lent(lent) };
    assert_eq!((slot.user_data(), slot.state()), (identity.user_data, State::Live));
    drop(slot.take());
    assert!(drops.all_once());
}

#[test]
fn a_lent_slot_that_is_taken_has_no_value() {
    let (drops, mut slab) = (Drops::default(), unlimited(1));
    let (_, user_data, _) = insert(&mut slab, drops.issue(), ());
    let (value, _) = slab.find(user_data).unwrap().lend().unwrap();
    assert!(take(&mut slab, user_data).is_none());
    assert_eq!((slab.occupied_slots(), drops.of(0)), (0, 0));
    drop(value);
    assert!(drops.all_once());
}

#[test]
fn an_abandoned_slot_stays_until_it_is_taken_without_a_value() {
    let (drops, mut slab) = (Drops::default(), unlimited(1));
    let (identity, user_data, _) = insert(&mut slab, drops.issue(), ());
    let mut slot = slab.find(user_data).unwrap();
    slot.abandon();
    assert_eq!(slot.state(), State::Live, "a value that is here is not abandoned");
    drop(slot.lend());
    slot.abandon();
    assert_eq!(slot.state(), State::Abandoned);
    assert!(slot.lend().is_none());
    // SAFETY: there is no kernel here.
    assert!(unsafe { slot.with_value(|_| ()) }.is_none());
    assert!(slab.find_identity(identity).is_some(), "it is still a request in flight");
    assert_eq!((slab.occupied_slots(), drops.of(0)), (1, 1));
    assert!(take(&mut slab, user_data).is_none());
    assert_eq!(slab.occupied_slots(), 0);
    assert!(drops.all_once());
}

#[test]
fn a_panic_while_the_request_is_built_drops_the_value_once_and_frees_the_slot() {
    let (drops, mut slab) = (Drops::default(), unlimited::<_, u8>(1));
    let (_, other, _) = insert(&mut slab, drops.issue(), 1);
    let before = insert(&mut slab, drops.issue(), 2);
    drop(take(&mut slab, before.1));
    let value = drops.issue();
    slab.reserve().unwrap();
    let built = catch_unwind(AssertUnwindSafe(|| {
        slab.insert_with::<()>(value, |_| panic!("while building"));
    }));
    assert!(built.is_err());
    assert_eq!((drops.of(2), slab.occupied_slots()), (1, 1));
    let mut seen = Vec::new();
    slab.for_each(|user_data, meta| seen.push((user_data, *meta)));
    assert_eq!(seen, [(other, 1)]);

    let (identity, user_data, _) = insert(&mut slab, drops.issue(), 3);
    let slot = |identity: Identity| UserData::slot(identity.user_data);
    assert_eq!(slot(identity), slot(before.0), "the slot is used again");
    assert_ne!(identity, before.0, "but not its generation");
    assert!(slab.find(before.1).is_none());
    drop(take(&mut slab, user_data));
    drop(take(&mut slab, other));
    assert!(drops.all_once());
}

#[test]
fn a_slab_that_holds_a_slot_drops_and_frees_nothing() {
    let drops = Drops::default();
    let mut slab = unlimited(1);
    let (_, user_data, _) = insert(&mut slab, drops.issue(), ());
    insert(&mut slab, drops.issue(), ());
    drop(take(&mut slab, user_data));
    let chunks = slab.chunks.clone();
    drop(slab);
    assert_eq!((drops.of(0), drops.of(1)), (1, 0));
    // SAFETY: the chunks were leaked, so the second value is still there, in the second slot.
    let second = unsafe { (*chunks[0].as_ptr().add(1)).value.get().cast::<Counted>().read() };
    assert_eq!(second.number, 1);
    drop(second);
    assert!(drops.all_once());
    // What was leaked on purpose is freed, for the sake of those who look for leaks.
    for chunk in chunks {
        // SAFETY: allocated by `grow` with this layout, leaked by the slab, and not used any more.
        unsafe { alloc::dealloc(chunk.as_ptr().cast(), Slab::<Counted, ()>::CHUNK_LAYOUT) };
    }
}

#[test]
fn even_an_abandoned_slot_keeps_the_memory_of_its_slab() {
    let mut slab = unlimited::<u64, ()>(1);
    let (_, user_data, address) = insert(&mut slab, 1, ());
    let mut slot = slab.find(user_data).unwrap();
    slot.lend();
    slot.abandon();
    let chunks = slab.chunks.clone();
    drop(slab);
    // SAFETY: the chunk was leaked, so the slot is still there. (The kernel might write to it like this.)
    unsafe { address.write(2) };
    for chunk in chunks {
        // SAFETY: allocated by `grow` with this layout, leaked by the slab, and not used any more.
        unsafe { alloc::dealloc(chunk.as_ptr().cast(), Slab::<u64, ()>::CHUNK_LAYOUT) };
    }
}

// ---- names --------------------------------------------------------------------------------

#[test]
fn an_old_name_never_matches_a_reused_slot() {
    let mut slab = unlimited::<u32, ()>(3);
    let mut old = Vec::new();
    for number in 0..100 {
        let (identity, user_data, _) = insert(&mut slab, number, ());
        assert_eq!(user_data, UserData::pack(3, number + 1, 0));
        for (identity, user_data) in &old {
            assert!(slab.find(*user_data).is_none());
            assert!(slab.find_identity(*identity).is_none());
        }
        assert_eq!(slab.find_identity(identity).unwrap().user_data(), user_data);
        assert_eq!(take(&mut slab, user_data), Some(number));
        assert!(slab.find_identity(identity).is_none(), "free, and not used again yet");
        old.push((identity, user_data));
    }
}

const WRAP: u32 = 1 << 24;

#[test]
fn a_slot_that_is_filled_again_at_once_counts_its_rounds_too() {
    let mut slab = unlimited::<u8, ()>(9);
    let first = insert(&mut slab, 0, ()).1;
    take(&mut slab, first).unwrap();
    slab.find_free(0).name = !UserData::pack(9, WRAP - 2, 0);
    let (last, ()) = slab.insert_with(1, |_| (Remember::Plain(()), ()));
    assert_eq!(last.user_data, UserData::pack(9, WRAP - 1, 0));
    let again = refill(&mut slab, last.user_data, ()).unwrap();
    assert_eq!(again.user_data, UserData::pack(9, 0, 0), "the 24 bits have come round");
    assert_eq!(format!("{again}"), format!("tag 9, slot 0, generation {WRAP}"));
    assert_eq!(take_plain(&mut slab, again.user_data), Some(1));
}

#[test]
fn an_identity_stays_the_only_one_when_user_data_wraps() {
    let mut slab = unlimited::<u8, ()>(9);
    let (first_identity, first, _) = insert(&mut slab, 0, ());
    take(&mut slab, first).unwrap();
    let far = WRAP - 1_000;
    for number in (2..1_000).chain(far..WRAP + 3) {
        if number == far {
            slab.find_free(0).name = !UserData::pack(9, far - 1, 0);
        }
        let (identity, user_data, _) = insert(&mut slab, 1, ());
        assert_eq!(user_data, UserData::pack(9, number % WRAP, 0));
        if number == WRAP + 1 {
            assert_eq!(user_data, first, "the 24 bits have come round");
            assert_ne!(identity, first_identity);
            assert!(slab.find_identity(first_identity).is_none());
            assert!(slab.find_identity(identity).is_some());
        } else {
            assert!(slab.find(first).is_none());
        }
        assert_eq!(take(&mut slab, user_data), Some(1));
    }
    assert_eq!(format!("{first_identity}"), "tag 9, slot 0, generation 1");
    let (last, _, _) = insert(&mut slab, 0, ());
    assert_eq!(format!("{last}"), format!("tag 9, slot 0, generation {}", WRAP + 3));
    take(&mut slab, last.user_data);
}

#[test]
fn strange_user_data_finds_nothing() {
    let mut slab = unlimited::<u8, ()>(5);
    assert!(slab.find(0).is_none() && slab.find(u64::MAX).is_none(), "not even in an empty slab");
    let used = insert(&mut slab, 0, ()).1;
    let freed = insert(&mut slab, 1, ()).1;
    take(&mut slab, freed).unwrap();
    let strange = [
        0,
        1,
        2,
        u64::MAX,
        freed,
        UserData::pack(4, 0, 0),
        UserData::pack(6, 0, 0),
        UserData::pack(0, 0, 0),
        UserData::pack(5, 0, 0),
        UserData::pack(5, 2, 0),
        UserData::pack(5, u32::MAX, 0),
        UserData::pack(5, 0, 1),
        UserData::pack(5, 0, 2),
        // The last slot that was made, and one in the same chunk that was not.
        UserData::pack(5, 0, 63),
        UserData::pack(5, 0, 64),
        UserData::pack(5, 0, u32::MAX),
        !used,
        !freed,
        !UserData::pack(5, 2, 1),
    ];
    for user_data in strange {
        assert!(slab.find(user_data).is_none(), "{user_data:#x}");
        assert!(slab.find_calm(user_data).is_none(), "{user_data:#x}");
        assert!(user_data == 0 || find_plain(&mut slab, user_data).is_none(), "{user_data:#x}");
    }
    for bit in 0..64 {
        assert!(slab.find(used ^ 1 << bit).is_none(), "bit {bit} makes a difference");
    }
    assert!(slab.find_identity(Identity { user_data: used, rounds: 1 }).is_none());
    assert!(find_plain(&mut slab, !used).is_none() && find_plain(&mut slab, freed).is_none());
    assert_eq!(take(&mut slab, used), Some(0));
}

#[test]
fn a_request_becomes_plain_if_its_value_is_here() {
    let (drops, mut slab) = (Drops::default(), unlimited::<_, u8>(1));
    slab.reserve().unwrap();
    let (identity, ()) = slab.insert_with(drops.issue(), |_| (Remember::All(7), ()));
    let user_data = identity.user_data;
    let Some((value, lent)) = slab.find(user_data).unwrap().lend() else { panic!("its value is here") };
    slab.find(user_data).unwrap().promote(8);
    assert!(find_plain(&mut slab, user_data).is_none(), "the value is not here");
    // SAFETY: the value was lent by this slab, and still is.
    assert!(unsafe { slab.take_back(&lent, value) });
    slab.find(user_data).unwrap().promote(8);
    assert!(find_plain(&mut slab, user_data).is_some() && slab.find_calm(user_data).is_none());
    assert_eq!(slab.look_at(UserData::slot(user_data)), Some((user_data, 8)));
    slab.find(user_data).unwrap().promote(9);
    assert_eq!(*slab.find(user_data).unwrap().demote(), 9);
    slab.find(user_data).unwrap().promote(10);
    let again = refill(&mut slab, user_data, 11).unwrap().user_data;
    drop(take_plain(&mut slab, again).unwrap());
    assert_eq!((slab.occupied_slots(), drops.all_once()), (0, true));
}

#[test]
fn a_request_is_calm_again_after_a_look_if_its_value_is_here() {
    let mut slab = unlimited::<_, u8>(1);
    slab.reserve().unwrap();
    let (identity, ()) = slab.insert_with("value", |_| (Remember::All(7), ()));
    let user_data = identity.user_data;
    *slab.find(user_data).unwrap().demote() = 8;
    assert!(slab.find_calm(user_data).is_none(), "somebody has looked");
    slab.find(user_data).unwrap().calm();
    assert!(slab.find_calm(user_data).is_some());
    let Some((value, lent)) = slab.find(user_data).unwrap().lend() else { panic!("its value is here") };
    slab.find(user_data).unwrap().calm();
    assert!(slab.find_calm(user_data).is_none(), "the value is not here");
    // SAFETY: the value was lent by this slab, and still is.
    assert!(unsafe { slab.take_back(&lent, value) });
    assert_eq!(slab.find(user_data).unwrap().take(), Some("value"));
}

#[test]
fn a_vacancy_is_filled_or_released() {
    let (drops, mut slab) = (Drops::default(), unlimited::<_, ()>(1));
    let mut plain = || loop {
        let (_, user_data, address) = insert(&mut slab, drops.issue(), ());
        if find_plain(&mut slab, user_data).is_some() {
            return (user_data, address);
        }
        drop(take(&mut slab, user_data));
    };
    let (first, address) = plain();
    let again = refill(&mut slab, first, ()).unwrap().user_data;
    assert_eq!(UserData::slot(again), UserData::slot(first));
    assert!(slab.find(first).is_none() && slab.find(again).is_some());
    assert_eq!(address_of(&mut slab, again), Some(address.cast_const()));
    slab.find(again).unwrap().demote();
    assert!(refill(&mut slab, again, ()).is_none(), "not plain any more, since it was looked at");
    assert_eq!(slab.occupied_slots(), 1);
    drop(take(&mut slab, again));

    slab.tidy();
    slab.reserve().unwrap();
    let (identity, ()) = slab.insert_with(drops.issue(), |_| (Remember::Plain(()), ()));
    assert_eq!(UserData::slot(identity.user_data), 0, "the first slot is free again");
    drop(take_plain(&mut slab, identity.user_data).unwrap());
    assert!(slab.find(identity.user_data).is_none());
    assert_eq!(slab.occupied_slots(), 0);
    slab.reserve().unwrap();
    assert_eq!(UserData::slot(slab.vacancy().unwrap().user_data), 0);
    assert!(drops.all_once());
}

#[test]
fn to_demote_all_changes_nothing_else() {
    let mut slab = unlimited::<u8, u32>(1);
    let placed: Vec<_> = (0..10).map(|number| insert(&mut slab, number, u32::from(number)).1).collect();
    slab.demote_all();
    for (number, user_data) in placed.into_iter().enumerate() {
        assert!(find_plain(&mut slab, user_data).is_none() && slab.find_calm(user_data).is_none());
        assert_eq!(slab.find(user_data).unwrap().peek(), number as u32);
        assert_eq!(take(&mut slab, user_data), Some(number as u8));
    }
}

// ---- limits -------------------------------------------------------------------------------

#[test]
fn a_limit_holds_and_a_slot_that_is_freed_makes_room() {
    let mut slab = unlimited::<u8, ()>(1);
    slab.set_limit(3);
    let placed: Vec<_> = (0..3).map(|number| insert(&mut slab, number, ()).1).collect();
    assert!(slab.reserve().is_err());
    assert!(slab.has_room(0) && !slab.has_room(1));
    take(&mut slab, placed[1]).unwrap();
    assert!(slab.has_room(1) && !slab.has_room(2));
    let (_, again, _) = insert(&mut slab, 9, ());
    assert!(slab.reserve().is_err());
    for user_data in [placed[0], placed[2], again] {
        take(&mut slab, user_data).unwrap();
    }

    assert!(unlimited::<u8, ()>(1).has_room(1_000_000));
}

#[test]
fn a_limit_may_lie_in_any_chunk() {
    let chunk = Slab::<u64, ()>::CHUNK;
    let batch = Slab::<u64, ()>::BATCH;
    assert!(1 < batch && batch < chunk);
    for limit in [1, batch - 1, batch, batch + 1, chunk - 1, chunk, chunk + 1, 2 * chunk + 3] {
        let mut slab = Slab::<u64, ()>::new(1);
        slab.set_limit(limit);
        assert!(slab.has_room(limit as usize) && !slab.has_room(limit as usize + 1));
        for number in 0..limit {
            insert(&mut slab, u64::from(number), ());
        }
        assert!(slab.reserve().is_err() && !slab.has_room(1), "{limit}");
        assert_eq!(slab.occupied_slots(), limit as usize);
    }
}

#[test]
fn a_slab_that_was_not_told_how_much_it_may_hold_holds_nothing() {
    let mut slab = Slab::<u8, ()>::new(1);
    assert!(!slab.has_room(1) && slab.reserve().is_err());
}

#[test]
fn an_insertion_without_a_reservation_is_refused_and_loses_nothing() {
    let (drops, mut slab) = (Drops::default(), Slab::<Counted, ()>::new(1));
    let value = drops.issue();
    let inserted =
        catch_unwind(AssertUnwindSafe(|| slab.insert_with(value, |_| (Remember::All(()), ())).1)).is_ok();
    assert!(!inserted && drops.all_once());
    assert_eq!(slab.occupied_slots(), 0);
}

// ---- all of it ----------------------------------------------------------------------------

#[derive(Clone, Copy)]
struct Model {
    identity: Identity,
    address: usize,
    number: usize,
    state: State,
}

/// Does the same at random to a slab and to a map, and compares them after each step.
fn compare_with_a_map(seed: u64, steps: usize, limit: u32) {
    let (drops, mut random) = (Drops::default(), XorShift(seed));
    let mut slab = unlimited::<Counted, usize>(77);
    slab.set_limit(limit);
    let mut model = BTreeMap::<u64, Model>::new();
    let mut lent = BTreeMap::<u64, (Counted, Lent)>::new();
    let mut old = Vec::<(u64, Identity)>::new();
    for _ in 0..steps {
        let key = (!model.is_empty()).then(|| *model.keys().nth(random.below(model.len())).unwrap());
        match (random.below(10), key) {
            (0..4, _) => {
                assert_eq!(slab.reserve().is_ok(), (model.len() as u32) < limit);
                if (model.len() as u32) < limit {
                    let value = drops.issue();
                    let number = value.number;
                    let (identity, user_data, address) = insert(&mut slab, value, number);
                    let address = address.addr();
                    let entry = Model { identity, address, number, state: State::Live };
                    assert!(model.insert(user_data, entry).is_none(), "a name was given twice");
                }
            }
            (4..6, Some(key)) => {
                let entry = model.remove(&key).unwrap();
                let taken = take_plain(&mut slab, key).or_else(|| take(&mut slab, key));
                assert_eq!(taken.is_some(), entry.state == State::Live);
                assert!(taken.is_none_or(|value| value.number == entry.number));
                if entry.state != State::Abandoned {
                    lent.remove(&key);
                }
                assert_eq!(drops.of(entry.number), 1);
                old.push((key, entry.identity));
            }
            (6..8, Some(key)) => {
                let entry = model.get_mut(&key).unwrap();
                let loan = match slab.find_calm(key) {
                    Some(calm) => {
                        let (value, meta, loan) = calm.lend();
                        assert_eq!(meta, entry.number);
                        Some((value, loan))
                    }
                    None => slab.find(key).unwrap().lend(),
                };
                assert_eq!(loan.is_some(), entry.state == State::Live);
                if let Some((value, loan)) = loan {
                    assert_eq!(value.number, entry.number);
                    entry.state = State::Lent;
                    lent.insert(key, (value, loan));
                }
            }
            (8, Some(key)) if lent.contains_key(&key) => {
                let (value, loan) = lent.remove(&key).unwrap();
                // SAFETY: the value was lent by this slab, and still is: the model says so.
                assert_eq!(unsafe { slab.find_lent(Lent { ..loan }) }.user_data(), key);
                // SAFETY: the value was lent by this slab, and still is: the model says so.
                assert!(unsafe { slab.take_back(&loan, value) });
                model.get_mut(&key).unwrap().state = State::Live;
            }
            (9, Some(key)) => {
                let entry = model.get_mut(&key).unwrap();
                slab.find(key).unwrap().abandon();
                if entry.state == State::Lent {
                    entry.state = State::Abandoned;
                    lent.remove(&key);
                }
            }
            _ => {}
        }

        assert_eq!(slab.occupied_slots(), model.len());
        if let Some(key) = key
            && let Some(entry) = model.get(&key)
        {
            let mut slot = slab.find(key).unwrap();
            assert_eq!(slot.state(), entry.state);
            if random.below(2) == 0 {
                assert_eq!(*slab.find(key).unwrap().demote(), entry.number);
            }
            assert_eq!(slab.find_identity(entry.identity).unwrap().user_data(), key);
            let address = address_of(&mut slab, key).map(|address| address.addr());
            assert_eq!(address, (entry.state == State::Live).then_some(entry.address));
        }
        if let Some((user_data, identity)) = old.get(random.below(old.len() + 1)) {
            assert!(slab.find(*user_data).is_none());
            assert!(slab.find_identity(*identity).is_none());
        }
    }
    let mut seen = BTreeMap::new();
    slab.for_each(|user_data, meta| assert!(seen.insert(user_data, *meta).is_none()));
    assert!(seen.into_iter().eq(model.iter().map(|(key, entry)| (*key, entry.number))));
    for key in model.into_keys() {
        drop(take(&mut slab, key));
    }
    drop(lent);
    assert!(drops.all_once());
}

#[test]
fn it_behaves_as_a_map_would() {
    compare_with_a_map(0x9e37_79b9_7f4a_7c15, steps(40_000), u32::MAX);
}

#[test]
fn it_behaves_as_a_map_would_that_is_small_and_busy() {
    for seed in 1..=steps(2000).clamp(2, 20) as u64 {
        compare_with_a_map(seed << 32 | 0xb5, steps(4_000), 6);
    }
}

impl<D, M: Meta> Slab<D, M> {
    /// The header of a slot that is free.
    fn find_free(&mut self, index: u32) -> &mut Header<D, M> {
        let slot = self.slot(index).unwrap();
        // SAFETY: all headers of a chunk are initialised, and the slab is borrowed exclusively.
        let header = unsafe { &mut (*slot.as_ptr()).header };
        assert!(header.is_free(index));
        header
    }
}
