//! Buffers of connections that have ended. New connections of the same thread reuse them.

use std::cell::RefCell;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of `size` bytes: a spare one, if there is one. All buffers of a process are of the same size.
pub fn take(size: usize) -> Vec<u8> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; size])
}

/// Keeps the buffer of a connection that has ended.
pub fn keep(buffer: Vec<u8>) {
    SPARE.with_borrow_mut(|spare| spare.push(buffer));
}
